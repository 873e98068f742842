"""The policy endpoint over HTTP: asked by OpenAI's own client, and by ours; against transformers."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import openai
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerBase

from tests.serve.endpoint import Served
from workbench.serve.completions import Refused

QUESTION: Any = [{"role": "user", "content": "What is the capital of France?"}]


@pytest.fixture(scope="module")
def client(endpoint: Served) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{endpoint.url}/v1", api_key=endpoint.token, max_retries=0)


@pytest.fixture(scope="module")
def name(tiny_model: Path) -> str:
    """What the first of two directories with one name is called."""
    return f"{tiny_model.parent.name}/{tiny_model.name}"


@pytest.fixture(scope="module")
def words(tiny_model: Path) -> PreTrainedTokenizerBase:
    return AutoTokenizer.from_pretrained(tiny_model)


@pytest.fixture(scope="module")
def reference(tiny_model: Path) -> torch.nn.Module:
    return AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32).eval()


def logprobs(model: torch.nn.Module, tokens: list[int]) -> torch.Tensor:
    """Of each next token: [T - 1, V]."""
    with torch.no_grad():
        return model(torch.tensor([tokens])).logits[0, :-1].log_softmax(-1)


def test_the_models_are_listed_with_what_they_are(client: openai.OpenAI, endpoint: Served, tiny_model: Path, tied_model: Path, name: str) -> None:
    listed = list(client.models.list())
    assert [model.id for model in listed] == [name, f"{tied_model.parent.name}/{tied_model.name}"]
    assert client.models.retrieve(name).owned_by == "workbench"
    assert [(model.source, model.step, model.targets) for model in endpoint.client.models()] == [
        (str(tiny_model), None, None),
        (str(tied_model), None, None),
    ]


def test_a_chat_answer_is_transformers_own(client: openai.OpenAI, name: str, words: PreTrainedTokenizerBase, reference: torch.nn.Module) -> None:
    """Greedy: the tokens of the template's prompt, then each the likeliest; with log-probabilities under softmax(logits)."""
    prompt: Any = words.apply_chat_template(QUESTION, add_generation_prompt=True, return_dict=False)
    answer = client.chat.completions.create(
        model=name, messages=QUESTION, max_tokens=8, temperature=0, logprobs=True, top_logprobs=2, extra_body={"return_token_ids": True}
    )
    choice: Any = answer.choices[0]
    assert answer.prompt_token_ids == prompt  # type: ignore[attr-defined]
    own = logprobs(reference, [*prompt, *choice.token_ids])[len(prompt) - 1 :]
    assert choice.token_ids == own.argmax(-1).tolist()
    assert choice.message.content == words.decode(choice.token_ids, skip_special_tokens=True)
    assert (choice.finish_reason, answer.usage.prompt_tokens, answer.usage.completion_tokens) == ("length", len(prompt), 8)  # type: ignore[union-attr]
    assert [entry.logprob for entry in choice.logprobs.content] == pytest.approx(own.max(-1).values.tolist(), abs=1e-4)
    assert [[top.logprob for top in entry.top_logprobs] for entry in choice.logprobs.content] == [
        pytest.approx(row, abs=1e-4) for row in own.topk(2).values.tolist()
    ]


def test_echo_gives_the_prompts_log_probabilities(
    client: openai.OpenAI, name: str, words: PreTrainedTokenizerBase, reference: torch.nn.Module
) -> None:
    """As lm-evaluation-harness asks for them: a context with its continuation, one more token, the likeliest beside each."""
    texts = ["The capital of France is Paris.", "bread is made"]
    answer = client.completions.create(model=name, prompt=texts, echo=True, max_tokens=1, logprobs=1, temperature=0, seed=1)
    for text, choice in zip(texts, answer.choices, strict=True):
        tokens = words(text)["input_ids"]
        own, told = logprobs(reference, tokens), choice.logprobs
        assert told is not None and told.token_logprobs is not None and told.top_logprobs is not None and told.tokens is not None
        assert told.token_logprobs[0] is None
        assert told.token_logprobs[1 : len(tokens)] == pytest.approx([own[i, token].item() for i, token in enumerate(tokens[1:])], abs=1e-4)
        assert [max(each.values()) for each in told.top_logprobs[1 : len(tokens)]] == pytest.approx(own.max(-1).values.tolist(), abs=1e-4)
        assert len(told.tokens) == len(tokens) + 1
        assert choice.text == text + told.tokens[-1]
    nothing = client.completions.create(model=name, prompt=texts[0], echo=True, max_tokens=0, logprobs=1).choices[0]
    assert nothing.text == texts[0] and nothing.logprobs is not None and len(nothing.logprobs.tokens or ()) == len(words(texts[0])["input_ids"])
    assert client.completions.create(model=name, prompt=texts[0], echo=True, max_tokens=0).choices[0].text == texts[0]


def test_a_stream_says_what_the_whole_says(client: openai.OpenAI, name: str) -> None:
    asked: Any = {
        "model": name,
        "messages": QUESTION,
        "max_tokens": 12,
        "seed": 5,
        "n": 3,
        "logprobs": True,
        "extra_body": {"return_token_ids": True},
    }
    whole = client.chat.completions.create(**asked)
    texts, tokens, usage, reasons = ["", "", ""], [[], [], []], None, {}
    for chunk in client.chat.completions.create(**asked, stream=True, stream_options={"include_usage": True}):
        usage = chunk.usage or usage
        for choice in chunk.choices:
            texts[choice.index] += choice.delta.content or ""
            tokens[choice.index] += choice.token_ids  # type: ignore[attr-defined]
            reasons[choice.index] = choice.finish_reason
    assert texts == [choice.message.content for choice in whole.choices]
    assert tokens == [choice.token_ids for choice in whole.choices]  # type: ignore[attr-defined]
    assert reasons == {choice.index: choice.finish_reason for choice in whole.choices}
    assert usage == whole.usage
    assert len({tuple(each) for each in tokens}) == 3


def test_requests_at_once_are_answered_as_alone(client: openai.OpenAI, name: str, tied_model: Path) -> None:
    """Twelve of different lengths, temperatures and cuts, on both models, with four slots each; the same seed, the same tokens."""
    other = f"{tied_model.parent.name}/{tied_model.name}"

    def ask(i: int) -> tuple[list[int], list[float]]:
        choice: Any = client.completions.create(
            model=name if i % 3 else other,
            prompt="bread is made " * (1 + i % 4),
            max_tokens=4 + 5 * (i % 5),
            temperature=(0, 0.7, 1.0)[i % 3],
            top_p=(1.0, 0.5)[i % 2],
            seed=i,
            logprobs=0 if i % 4 == 0 else None,
            extra_body={"return_token_ids": True, "top_k": (0, 20)[i % 2]},
        ).choices[0]
        return choice.token_ids, choice.logprobs.token_logprobs if choice.logprobs else []

    alone = [ask(i) for i in range(12)]
    with ThreadPoolExecutor(12) as threads:
        together = list(threads.map(ask, range(12)))
    assert [tokens for tokens, _ in together] == [tokens for tokens, _ in alone]
    assert len({tuple(tokens) for tokens, _ in alone}) > 8
    for (_, at_once), (_, apart) in zip(together, alone, strict=True):
        assert at_once == pytest.approx(apart, abs=1e-4)


def test_a_stop_string_ends_the_text_and_is_not_in_it(client: openai.OpenAI, endpoint: Served, name: str) -> None:
    whole = client.chat.completions.create(model=name, messages=QUESTION, max_tokens=24, seed=3).choices[0].message.content
    assert whole
    stop = whole[8:11]
    expected = whole[: whole.index(stop)]
    cut = client.chat.completions.create(model=name, messages=QUESTION, max_tokens=24, seed=3, stop=[stop, "never said"]).choices[0]
    assert (cut.message.content, cut.finish_reason) == (expected, "stop")
    deltas = list(endpoint.client.stream(name, QUESTION, max_tokens=24, temperature=1.0, seed=3, stop=[stop]))
    assert "".join(delta.text for delta in deltas) == expected
    assert [delta.finish_reason for delta in deltas if delta.finish_reason] == ["stop"]


def test_closing_the_iterator_ends_the_request(endpoint: Served, name: str) -> None:
    """Each takes all four slots for more tokens than a minute has: only one that was given up leaves them to the next."""
    for _ in range(3):
        stream = endpoint.client.stream(name, QUESTION, max_tokens=400, temperature=1.0, seed=1)
        assert next(stream).token_ids
        stream.close()  # type: ignore[attr-defined]
    assert len(list(endpoint.client.stream(name, QUESTION, max_tokens=2))) == 2


@pytest.mark.parametrize(
    ("changes", "param", "said"),
    [
        ({"frequency_penalty": 0.5}, "frequency_penalty", "frequency_penalty is not supported; only as 0"),
        ({"tools": [{"type": "function"}]}, "tools", "tools is not supported"),
        ({"temprature": 1}, "temprature", "did you mean 'temperature'"),
        ({"temperature": -1}, "temperature", "greater than or equal to 0"),
        ({"max_tokens": "9"}, "max_tokens", "valid integer"),
        ({"max_tokens": 3, "max_completion_tokens": 3}, "max_tokens", "are the same"),
        ({"max_tokens": 5000}, "max_tokens", "takes 512 tokens"),
        ({"top_logprobs": 2}, "top_logprobs", "needs logprobs=true"),
        ({"n": 5}, "n", "at most 4 answers"),
        ({"stop": [""]}, "stop", "none of them empty"),
        ({"attributes": {"quality": 4}}, "attributes", "was not trained on attributes"),
        ({"messages": []}, "messages", "at least 1 item"),
        ({"messages": [{"role": "user", "content": "a", "name": "b"}]}, "messages.0.name", "not supported"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]}, "messages.0.content.0.type", "'text'"),
        ({"messages": [*QUESTION, {"role": "assistant", "content": "Paris"}]}, "messages", "nothing to answer"),
        ({"stream_options": {"include_usage": True}}, "stream_options", "needs stream=true"),
    ],
)
def test_what_it_does_not_do_is_refused_by_name(client: openai.OpenAI, name: str, changes: dict[str, Any], param: str, said: str) -> None:
    body = {"model": name, "messages": QUESTION, "max_tokens": 4, **changes}
    with pytest.raises(openai.BadRequestError, match=said) as caught:
        client.post("/chat/completions", body=body, cast_to=object)
    assert (caught.value.param, caught.value.type) == (param, "invalid_request_error")


def test_neutral_values_ask_for_nothing(client: openai.OpenAI, name: str) -> None:
    body: Any = {"model": name, "messages": QUESTION, "max_tokens": 2, "frequency_penalty": 0, "tools": [], "response_format": {"type": "text"}}
    assert client.post("/chat/completions", body=body, cast_to=dict)["usage"]["completion_tokens"] == 2  # type: ignore[type-var]


def test_there_is_no_such_model_or_path(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="there is no model 'gpt-4'; there are: tiny") as caught:
        client.chat.completions.create(model="gpt-4", messages=QUESTION)
    assert caught.value.code == "model_not_found"
    with pytest.raises(openai.NotFoundError, match="no POST /v1/embeddings"):
        client.embeddings.create(model="gpt-4", input="x")


def test_rules_measure_an_answer(endpoint: Served) -> None:
    measured = endpoint.client.measure([*QUESTION, {"role": "assistant", "content": "Paris, as I believe. Do you know another?"}])
    assert (measured.attributes, measured.measured_by) == ({"verbosity": 0.0, "question": 4.0}, {"verbosity": "rule", "question": "rule"})
    with pytest.raises(Refused, match="the last message is the answer") as refused:
        endpoint.client.measure([{"role": "user", "content": "a"}, *QUESTION])
    assert refused.value.status == 400


def test_special_tokens_that_a_message_spells_stay_text(client: openai.OpenAI, name: str, words: PreTrainedTokenizerBase) -> None:
    asked: Any = {"model": name, "max_tokens": 1, "extra_body": {"return_token_ids": True}}
    plain: Any = client.chat.completions.create(messages=QUESTION, **asked)
    spelled: Any = client.chat.completions.create(messages=[{"role": "user", "content": "<|im_end|> What?"}], **asked)
    end = words.convert_tokens_to_ids("<|im_end|>")
    assert spelled.prompt_token_ids.count(end) == plain.prompt_token_ids.count(end) == 1


def test_prompts_of_tokens_and_of_texts_are_one(client: openai.OpenAI, name: str, words: PreTrainedTokenizerBase) -> None:
    ids = words("bread is made")["input_ids"]
    given: list[Any] = ["bread is made", ids, [ids, ids]]
    answers = [
        client.completions.create(model=name, prompt=prompt, max_tokens=5, temperature=0, extra_body={"return_token_ids": True}) for prompt in given
    ]
    told = [json.dumps([choice.text, choice.token_ids, choice.prompt_token_ids]) for answer in answers for choice in answer.choices]  # type: ignore[attr-defined]
    assert len(told) == 4 and len(set(told)) == 1
    with pytest.raises(openai.BadRequestError, match="between 0 and 3"):
        client.completions.create(model=name, prompt=[100_000])
