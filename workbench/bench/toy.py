"""A task that a tiny model learns in seconds: to answer a word with vowels. One rule gives the reward and makes every kind of data.

The rule is the share of an answer's letters that are vowels. To each prompt, a random word, `CANDIDATES` answers are drawn; the rule orders them. What
algorithms learn from is made of these: the best as demonstration, the best against the worst as pair, both as labelled answers.
"""

from __future__ import annotations

import json
import os
import random
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypedDict

VOWELS = "aeiou"
LETTERS = "abcdefghijklmnopqrstuvwxyz"
CONSONANTS = "".join(sorted({*LETTERS} - {*VOWELS}))
TRAINED_ON, HELD_OUT, CANDIDATES = 256, 64, 4
PROMPT_LETTERS, SHORTEST, LONGEST = 5, 4, 10
MAX_TOKENS = LONGEST + 2
"""Of an answer that is sampled: with the token that ends it, and one more."""
PRETRAINING_STEPS, PRETRAINING_ROWS, PRETRAINING_LR = 150, 64, 3e-3
PAD, USER, ASSISTANT, END, UNKNOWN = "<|pad|>", "<|user|>", "<|assistant|>", "<|end|>", "<|unknown|>"
SPECIAL = (PAD, USER, ASSISTANT, END, UNKNOWN)
TEMPLATE = (
    "{% for message in messages %}{{ '<|' + message['role'] + '|>' + message['content'] + '<|end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
DataKind = Literal["demonstrations", "pairs", "labels", "prompts", "groups"]
"""What an algorithm learns from. `groups` are answers of the model itself: see `groups`."""
TILT = 8.0
"""log P(a|x,y) of SteerLM 2's rows is so many times how far the answer's reward lies below 1."""

Row = Mapping[str, object]


class Answer(TypedDict):
    """What is read of a line of answers.jsonl (`workbench.rundir.answers`)."""

    prompt: list[dict[str, str]]
    response: str
    finish_reason: str
    logprobs: list[float]


class Ranked(NamedTuple):
    """A prompt with the best and the worst of its candidate answers."""

    prompt: str
    best: str
    worst: str


def vowels(prompt: str, response: str, row: Mapping[str, str]) -> float:
    """The share of the answer's letters that are vowels; 0 for an answer without letters."""
    letters = [letter for letter in response if letter in LETTERS]
    return sum(letter in VOWELS for letter in letters) / len(letters) if letters else 0.0


def reward(response: str) -> float:
    """The rule, of an answer."""
    return vowels("", response, {})


def candidate(rng: random.Random) -> str:
    """An answer: each letter is a vowel with a probability that is the answer's own, the square of a uniform number."""
    share = rng.random() ** 2
    return "".join(rng.choice(VOWELS if rng.random() < share else CONSONANTS) for _ in range(rng.randint(SHORTEST, LONGEST)))


def ranked(rng: random.Random, prompt: str) -> Ranked:
    """A prompt with candidates of which one is better than another."""
    while True:
        answers = sorted((candidate(rng) for _ in range(CANDIDATES)), key=reward)
        if reward(answers[-1]) > reward(answers[0]):
            return Ranked(prompt, answers[-1], answers[0])


def prompts(rng: random.Random, count: int) -> list[str]:
    """So many words, each once."""
    made: dict[str, None] = {}
    while len(made) < count:
        made["".join(rng.choices(LETTERS, k=PROMPT_LETTERS))] = None
    return list(made)


def rows(kind: DataKind, given: Sequence[Ranked]) -> list[Row]:
    """The rows of a kind of data, but of `groups`."""
    match kind:
        case "demonstrations":
            return [{"messages": [_said("user", each.prompt), _said("assistant", each.best)]} for each in given]
        case "pairs":
            return [
                {
                    "prompt": each.prompt,
                    "chosen": each.best,
                    "rejected": each.worst,
                    "chosen_reward": reward(each.best),
                    "rejected_reward": reward(each.worst),
                }
                for each in given
            ]
        case "labels":
            sides = [(each.prompt, answer, good) for each in given for answer, good in ((each.best, True), (each.worst, False))]
            return [{"prompt": prompt, "completion": answer, "label": good} for prompt, answer, good in sides]
        case "prompts":
            return [{"prompt": each.prompt} for each in given]
        case "groups":
            raise ValueError("groups are made of the model's own answers")


def groups(answers: Iterable[Answer]) -> list[Row]:
    """SteerLM 2's rows from the lines of a run's answers.jsonl: the different answers to a prompt that ended, and are not empty.

    P(a|x,y) is exp(`TILT` (reward - 1)), so that the model that is learnt is the one that sampled, tilted towards the rule. Prompts with fewer than two
    such answers are left out.
    """
    by_prompt: dict[str, dict[str, Answer]] = {}
    for line in answers:
        letters = len(line["response"])
        if letters and line["finish_reason"] == "stop" and letters == len(line["logprobs"]) - 1:  # every token but the last is a letter
            by_prompt.setdefault(line["prompt"][-1]["content"], {}).setdefault(line["response"], line)
    return [
        {
            "prompt_turns": [{"from": "User", "value": prompt}],
            "label": "vowels:1",
            "responses": [
                {"from": "Assistant", "value": text, "log(P(a|x,y))": TILT * (reward(text) - 1), "log(P(y|x))": sum(line["logprobs"])}
                for text, line in of_prompt.items()
            ],
        }
        for prompt, of_prompt in by_prompt.items()
        if len(of_prompt) > 1
    ]


def write(folder: Path, seed: int) -> None:
    """`<kind>.jsonl` and `<kind>_held_out.jsonl` of each kind but `groups`, all of the same prompts. The same seed gives the same files."""
    rng = random.Random(seed)
    given = [ranked(rng, prompt) for prompt in prompts(rng, TRAINED_ON + HELD_OUT)]
    folder.mkdir(parents=True, exist_ok=True)
    for kind in ("demonstrations", "pairs", "labels", "prompts"):
        lines(folder / f"{kind}.jsonl", rows(kind, given[:TRAINED_ON]))
        lines(folder / f"{kind}_held_out.jsonl", rows(kind, given[TRAINED_ON:]))


def lines(path: Path, given: Iterable[Row]) -> None:
    """The rows as JSON lines; the file appears whole."""
    made = path.with_suffix(".part")
    made.write_text("".join(json.dumps(row) + "\n" for row in given))
    made.rename(path)


def save(folder: Path) -> Path:
    """Write a Llama of 0.1M parameters that has learnt to answer with candidates, good and bad, as a Hugging Face directory. It appears whole."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = _tokenizer()
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=176,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
        eos_token_id=SPECIAL.index(END),
        bos_token_id=None,
        pad_token_id=SPECIAL.index(PAD),
    )
    model = LlamaForCausalLM(config)
    rng = random.Random(0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=PRETRAINING_LR)
    for _ in range(PRETRAINING_STEPS):
        texts = [f"{USER}{prompt}{END}{ASSISTANT}{candidate(rng)}{END}" for prompt in prompts(rng, PRETRAINING_ROWS)]
        tokens_BT = torch.tensor(tokenizer(texts, padding=True)["input_ids"])
        labels_BT = tokens_BT.clone()
        labels_BT[:, : PROMPT_LETTERS + 3] = -100  # the prompt, and what the template puts around it
        labels_BT[tokens_BT == 0] = -100
        model(input_ids=tokens_BT, attention_mask=(tokens_BT != 0).long(), labels=labels_BT).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    made = folder.with_name(f"{folder.name}.{os.getpid()}.part")
    model.save_pretrained(made)
    tokenizer.save_pretrained(made)
    made.rename(folder)
    return folder


def _said(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


def _tokenizer() -> Any:
    """A token a letter."""
    from tokenizers import Tokenizer, decoders, models
    from transformers import PreTrainedTokenizerFast

    vocabulary = {token: number for number, token in enumerate((*SPECIAL, *LETTERS))}
    letters = Tokenizer(models.BPE(vocab=vocabulary, merges=[], unk_token=UNKNOWN))
    letters.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=letters,
        eos_token=END,
        pad_token=PAD,
        unk_token=UNKNOWN,
        additional_special_tokens=[USER, ASSISTANT],
        chat_template=TEMPLATE,
        padding_side="right",
    )
