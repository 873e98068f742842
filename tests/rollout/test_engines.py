"""What every rollout engine that runs here promises, on a tiny random Llama: transformers' generate, the embedded decoder, and that one recorded."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from tests import models
from workbench.algorithms import sft
from workbench.engine import device, graphs
from workbench.engine.step import Policy
from workbench.rollout.base import Prompt, Rollout, RolloutEngine, Sampling
from workbench.rollout.engines import hf, megatron
from workbench.settings import Lora, Model

pytestmark = pytest.mark.usefixtures("alone")
Make = Callable[..., RolloutEngine]

PROMPTS = [[5, 9, 40, 77, 13], [301, 17], [60, 61, 62, 63, 64, 65, 66, 67], [200]]


def sorted_answers(engine: RolloutEngine, prompts: list[Prompt], sampling: Sampling, seed: int = 0) -> list[Rollout]:
    return sorted(engine.generate(iter(prompts), sampling, seed), key=lambda rollout: (rollout.key, rollout.sample))


class Replayed:
    """What stands in for a CUDA graph on a CPU: it computes anew, from the recording's own places into its own output."""

    def __init__(self, function: Callable[..., torch.Tensor], key: Any, places: Sequence[torch.Tensor]):
        self._again = lambda: function(key, *places)
        self.output = torch.full_like(self._again(), torch.nan)

    def replay(self) -> None:
        self.output.copy_(self._again())


def recorded(self: graphs.Recorder, key: Any, inputs: Sequence[torch.Tensor]) -> tuple[Any, Sequence[torch.Tensor], torch.Tensor]:
    places = [each.clone() for each in inputs]
    graph = Replayed(self._function, key, places)
    return graph, places, graph.output


@pytest.fixture(scope="module", params=["hf", "megatron", "recorded"])
def make(request: pytest.FixtureRequest, tiny_model: Path, alone: None) -> Iterator[Make]:
    with pytest.MonkeyPatch.context() as patch:
        if not device.CUDA:
            patch.setattr(graphs.Recorder, "_record", recorded)
        tokenizer = AutoTokenizer.from_pretrained(tiny_model)
        policy = Policy(Model(lora=Lora(rank=0)), sft.Config(), tiny_model, 1, sft.OUTPUTS)

        def made(slots: int = 3, tokenizer: Any = tokenizer) -> RolloutEngine:
            if request.param == "hf":
                return hf.Engine(tiny_model, lambda: [], tokenizer, slots=slots)
            return megatron.Engine(policy.chunks[0], tokenizer, slots, record=request.param == "recorded")

        yield made


@pytest.fixture(scope="module")
def engine(make: Make) -> RolloutEngine:
    return make()


@pytest.fixture(scope="module")
def reference(tiny_model: Path) -> torch.nn.Module:
    return AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32).eval()


def logprobs_of(model: torch.nn.Module, prompt: list[int], answer: list[int], sampling: Sampling, kept: Sequence[Any] | None = None) -> list[float]:
    """By one plain forward pass over prompt and answer, at the sampling's temperature, among the kept tokens alone."""
    with torch.no_grad():
        logits_TV = model(torch.tensor([[*prompt, *answer]])).logits[0][len(prompt) - 1 :] / (sampling.temperature or 1)
    for i in range(len(answer) if kept else 0):
        left_out = torch.ones(logits_TV.shape[1], dtype=torch.bool).index_fill(0, torch.from_numpy(kept[i]).long(), False)
        logits_TV[i].masked_fill_(left_out, -torch.inf)
    return [logits_TV[i].log_softmax(-1)[token].item() for i, token in enumerate(answer)]


def test_greedy_answers_are_transformers_own(engine: RolloutEngine, reference: torch.nn.Module) -> None:
    """In batches of three with padding, as each prompt alone without."""
    found = sorted_answers(engine, [Prompt(tokens, key) for key, tokens in enumerate(PROMPTS)], Sampling(12, temperature=0))
    for rollout, tokens in zip(found, PROMPTS, strict=True):
        own = reference.generate(torch.tensor([tokens]), generation_config=GenerationConfig(max_new_tokens=12, do_sample=False, eos_token_id=None))  # type: ignore[operator]
        assert rollout.tokens == own[0, len(tokens) :].tolist()
        assert rollout.finish_reason == "length"


@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(10),
        Sampling(10, temperature=0.7, top_k=20),
        Sampling(10, temperature=0),
        Sampling(10, top_p=0.5),
        Sampling(10, temperature=0.7, top_k=20, kept=True),
        Sampling(10, top_p=0.5, kept=True),
    ],
)
def test_logprobs_are_a_plain_forward_passes_of_what_was_drawn_from(engine: RolloutEngine, reference: torch.nn.Module, sampling: Sampling) -> None:
    for rollout in sorted_answers(engine, [Prompt(tokens, key, samples=2) for key, tokens in enumerate(PROMPTS)], sampling):
        expected = logprobs_of(reference, PROMPTS[rollout.key], rollout.tokens, sampling, rollout.kept)
        assert rollout.logprobs == pytest.approx(expected, abs=1e-4)
        assert (rollout.kept is not None) == sampling.kept
        if rollout.kept:
            assert all(token in kept for token, kept in zip(rollout.tokens, rollout.kept, strict=True))
            assert not sampling.top_k or {len(kept) for kept in rollout.kept} == {20}


def test_a_seed_and_a_key_give_an_answer_whatever_the_batch(engine: RolloutEngine) -> None:
    prompts = [Prompt(tokens, key, samples=3) for key, tokens in enumerate(PROMPTS)]
    together = sorted_answers(engine, prompts, Sampling(8), seed=4)
    apart = [rollout for prompt in reversed(prompts) for rollout in sorted_answers(engine, [prompt], Sampling(8), seed=4)]
    assert [(r.key, r.sample) for r in together] == [(key, sample) for key in range(4) for sample in range(3)]
    assert {(r.key, r.sample, *r.tokens) for r in together} == {(r.key, r.sample, *r.tokens) for r in apart}
    assert len({tuple(r.tokens) for r in together}) == 12
    assert {tuple(r.tokens) for r in sorted_answers(engine, prompts, Sampling(8), seed=5)}.isdisjoint(tuple(r.tokens) for r in together)


def test_top_k_leaves_only_the_likeliest(engine: RolloutEngine) -> None:
    greedy = sorted_answers(engine, [Prompt(PROMPTS[0])], Sampling(8, temperature=0))
    assert sorted_answers(engine, [Prompt(PROMPTS[0])], Sampling(8, temperature=2.0, top_k=1))[0].tokens == greedy[0].tokens


def test_each_prompt_has_its_limit(engine: RolloutEngine) -> None:
    prompts = [Prompt(tokens, key, max_tokens=limit) for key, (tokens, limit) in enumerate(zip(PROMPTS, (3, 7, None, 40), strict=True))]
    found = sorted_answers(engine, prompts, Sampling(9))
    assert [(len(r.tokens), len(r.logprobs), r.finish_reason) for r in found] == [(n, n, "length") for n in (3, 7, 9, 9)]


def test_a_stop_token_ends_an_answer_and_stays(engine: RolloutEngine) -> None:
    whole = sorted_answers(engine, [Prompt(tokens, key) for key, tokens in enumerate(PROMPTS)], Sampling(12), seed=1)
    stop = whole[1].tokens[4]
    found = sorted_answers(engine, [Prompt(tokens, key) for key, tokens in enumerate(PROMPTS)], Sampling(12, stop_tokens=frozenset({stop})), seed=1)
    for before, after in zip(whole, found, strict=True):
        cut = before.tokens.index(stop) + 1 if stop in before.tokens else 12
        assert after.tokens == before.tokens[:cut]
        assert after.logprobs == pytest.approx(before.logprobs[:cut], abs=1e-5)
        assert after.finish_reason == ("stop" if stop in before.tokens else "length")


def test_a_stop_string_ends_an_answer(make: Make) -> None:
    """The string lies across two tokens, and the prompt's own text, which ends in it, does not count."""
    engine: Any = make()
    whole = sorted_answers(engine, [Prompt(PROMPTS[2])], Sampling(16), seed=2)[0]
    letters = [engine.tokenizer.decode([token]) for token in whole.tokens]
    place = next(i for i in range(2, 15) if (letters[i] + letters[i + 1]).isascii() and letters[i] and letters[i + 1])
    string = letters[place][-1] + letters[place + 1][0]
    assert string not in engine.tokenizer.decode(whole.tokens[: place + 1])
    asked = Sampling(16, stop_strings=(string,))
    found = sorted_answers(engine, [Prompt(PROMPTS[2])], asked, seed=2)[0]
    assert (found.tokens, found.finish_reason) == (whole.tokens[: place + 2], "stop")
    ending = engine.tokenizer.encode(string, add_special_tokens=False)
    assert len(sorted_answers(engine, [Prompt([*PROMPTS[0], *ending])], asked)[0].tokens) > 1
    with pytest.raises(ValueError, match="need a tokenizer"):
        list(make(tokenizer=None).generate([Prompt([1])], asked, 0))


@pytest.mark.parametrize("kind", ["llama", "mixtral"])
def test_transformers_weights_are_refitted(tmp_path: Path, kind: str) -> None:
    """And give the answers of a model with them; a mixture's experts, which transformers keeps in another shape, included."""
    folder = models.save(tmp_path / "model", kind)
    other = AutoModelForCausalLM.from_pretrained(folder)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.mul_(1 + 0.5 * torch.rand_like(parameter))
    other.save_pretrained(tmp_path / "other")
    weights = load_file(tmp_path / "other" / "model.safetensors")
    engine = hf.Engine(folder, weights.items, None)
    prompts = [Prompt(tokens, key) for key, tokens in enumerate(PROMPTS)]
    first = sorted_answers(engine, prompts, Sampling(10))
    engine.release()
    engine.update_weights(1)
    engine.resume()
    second = sorted_answers(engine, prompts, Sampling(10))
    assert [r.tokens for r in second] != [r.tokens for r in first]
    for rollout in second:
        assert rollout.logprobs == pytest.approx(logprobs_of(other, PROMPTS[rollout.key], rollout.tokens, Sampling(10)), abs=1e-4)
    assert engine.profile.refits == 1
    engine.weights = lambda: list(weights.items())[1:]
    with pytest.raises(ValueError, match="have nothing for"):
        engine.update_weights(2)
    engine.close()


def test_the_profile_counts_the_work(make: Make) -> None:
    """Answers of 2, 5 and 3 tokens in three of four slots: three first tokens by prefill, then 7 in 4 steps of 4 places."""
    engine = make(slots=4)
    list(engine.generate([Prompt(PROMPTS[i], i, max_tokens=n) for i, n in enumerate((2, 5, 3))], Sampling(9), 0))
    profile = engine.profile
    assert (profile.prefill_tokens, profile.decode_tokens, profile.busy, profile.slot_steps) == (15, 7, 7, 16)
    assert profile.prefill_s > 0
    assert profile.decode_s > 0


@pytest.mark.parametrize("sampling", [Sampling(10), Sampling(10, temperature=0.7, top_k=20), Sampling(10, top_p=0.5)])
def test_all_engines_draw_alike(make: Make, tiny_model: Path, sampling: Sampling) -> None:
    prompts = [Prompt(tokens, key, samples=2) for key, tokens in enumerate(PROMPTS)]
    other = hf.Engine(tiny_model, lambda: [], None, slots=8)
    assert [r.tokens for r in sorted_answers(make(), prompts, sampling)] == [r.tokens for r in sorted_answers(other, prompts, sampling)]


def test_more_samples_than_slots_are_all_answered(make: Make) -> None:
    found = sorted_answers(make(slots=3), [Prompt(PROMPTS[0], 0, samples=7), Prompt(PROMPTS[1], 1, samples=2)], Sampling(6), seed=3)
    assert [(r.key, r.sample) for r in found] == [*((0, n) for n in range(7)), (1, 0), (1, 1)]
    alone = sorted_answers(make(slots=9), [Prompt(PROMPTS[0], 0, samples=7)], Sampling(6), seed=3)
    assert [r.tokens for r in found[:7]] == [r.tokens for r in alone]


def test_a_recorded_step_follows_the_weights(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights that change in place are the recording's own; where they have moved, it is made anew."""
    made: list[graphs.Recorder] = []
    record = graphs.Recorder._record if device.CUDA else recorded

    def counted(self: graphs.Recorder, key: Any, inputs: Sequence[torch.Tensor]) -> Any:
        made.append(self)
        return record(self, key, inputs)

    monkeypatch.setattr(graphs.Recorder, "_record", counted)
    policy = Policy(Model(lora=Lora(rank=0)), sft.Config(), tiny_model, 1, sft.OUTPUTS)
    engine, prompts = megatron.Engine(policy.chunks[0], slots=4, record=True), [Prompt(PROMPTS[i], i) for i in range(4)]

    def answers() -> list[list[int]]:
        return [rollout.tokens for rollout in sorted_answers(engine, prompts, Sampling(12, temperature=0))]

    first = answers()
    assert (answers(), len(made)) == (first, 1)
    with torch.no_grad():
        for parameter in policy.chunks[0].parameters():
            parameter.mul_(1 + 0.5 * torch.rand_like(parameter))
    changed = answers()
    assert changed != first
    assert len(made) == 1
    for parameter in policy.chunks[0].parameters():
        parameter.data = parameter.data.clone()
    assert (answers(), len(made)) == (changed, 2)
    engine.release()
    assert (answers(), len(made)) == (changed, 2 if device.CUDA else 3)
    engine.close()


@pytest.mark.parametrize("length, looked_at", [(1, 128), (128, 128), (129, 256), (1024, 1024), (1025, 1280), (2049, 2560), (5000, 5120)])
def test_lengths_are_rounded_up_to_few(length: int, looked_at: int) -> None:
    assert megatron._stepped(length) == looked_at
