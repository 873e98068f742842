"""Rollout files that look like a real run's, made in no time."""

from __future__ import annotations

import math
import random
from typing import Any

from tests.app import synthetic
from workbench import rollouts
from workbench.store import RunDir

ANSWERS = (
    "A hash table is a wall of small drawers.\n\nEvery word has its own drawer, so you never look through them all.",
    "Basil likes six hours of light a day. Turn the pot, water it when the soil is dry, and pinch the tops off.",
    "No. Foil in a microwave can spark, because the metal gathers the charge.\nUse a paper towel or a lid made for it.",
    "Rain taps on the roof,\na slow drum for sleepy cats –\nthe tea has gone cold.",
)


def records(step: int, prompts: int = 4, samples: int = 4, critic: bool = True) -> list[dict[str, Any]]:
    """A step's: rewards that rise with the steps, and arrays of a plausible shape."""
    return [_record(step, prompt, sample, critic) for prompt in range(prompts) for sample in range(samples)]


def write(run: RunDir, step: int, **shape: Any) -> list[dict[str, Any]]:
    made = records(step, **shape)
    rollouts.write(run, step, made)
    return made


def make(root: Any, steps: int = 12, name: str = "grpo-demo", **how: Any) -> RunDir:
    """A run with a rollout file for each of its steps."""
    run = synthetic.make(root, name, steps, 200, **how)
    for step in range(1, steps + 1):
        write(run, step)
    return run


def _record(step: int, prompt: int, sample: int, critic: bool) -> dict[str, Any]:
    draw = random.Random(step * 7919 + prompt * 101 + sample)
    question = synthetic.PROMPTS[(1, 0, 2, 3)[prompt % 4]]
    cut = draw.random() < 0.5 * math.exp(-step / 8)
    text = ANSWERS[prompt % 4] if sample % 2 == 0 else f"Sure, here is one more try at it. {ANSWERS[prompt % 4]}"
    words = text.replace("\n", " \n").split(" ")
    pieces = [word if n == 0 or word.startswith("\n") else f" {word}" for n, word in enumerate(words)]
    pieces = pieces[: max(3, len(pieces) // 2)] if cut else pieces
    count = len(pieces)
    helpful = 0.4 + 0.5 * (1 - math.exp(-step / 10)) + draw.gauss(0, 0.25)
    reward = helpful - 0.5 * cut
    logprobs = [-abs(draw.gauss(0, 1.1)) for _ in range(count)]
    decay = [0.97 ** (count - n) for n in range(count)]
    return {
        "prompt_id": f"{prompt:04x}c0ffee",
        "sample": sample,
        "prompt": f"<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n",
        "response": "".join(pieces),
        "prompt_tokens": 31,
        "response_tokens": count,
        "pieces": pieces,
        "tokens": [draw.randrange(49152) for _ in range(count)],
        "logprobs": logprobs,
        "rollout_logprobs": [value + draw.gauss(0, 0.004) for value in logprobs],
        "reference_logprobs": [value - draw.gauss(0.002 * step, 0.05) for value in logprobs],
        "kl": [draw.gauss(0.002 * step, 0.03) for _ in range(count)],
        "entropy": [abs(draw.gauss(0.9, 0.6)) for _ in range(count)],
        "values": [reward * d + draw.gauss(0, 0.1) for d in decay] if critic else None,
        "advantages": [(reward - 0.6) * d + draw.gauss(0, 0.15) for d in decay],
        "returns": [reward * d for d in decay] if critic else None,
        "reward": reward,
        "reward/helpful": helpful,
        "reward/ended": -0.5 * cut,
        "finish_reason": "length" if cut else "stop",
        "weights_version": step - 1,
    }
