"""Rollout files that look like a real run's, made in no time."""

from __future__ import annotations

import math
import random
from typing import Any

from tests.app import synthetic
from workbench.rundir import rollouts
from workbench.rundir.store import RunDir

ANSWERS = (
    "A hash table is a wall of small drawers.\n\nEvery word has its own drawer, so you never look through them all.",
    "Basil likes six hours of light a day. Turn the pot, water it when the soil is dry, and pinch the tops off.",
    "No. Foil in a microwave can spark, because the metal gathers the charge.\nUse a paper towel or a lid made for it.",
    "Rain taps on the roof,\na slow drum for sleepy cats –\nthe tea has gone cold.",
)


def step_metrics(step: int, seed: int = 0) -> dict[str, float]:
    """What a step of PPO writes, with curves of a plausible shape."""
    noise = random.Random(step * 1009 + seed).gauss
    learnt = 1 - math.exp(-step / 30)
    phases = {
        "generate": 7.6 - 1.5 * learnt + noise(0, 0.3),
        "reward": 0.2 + abs(noise(0, 0.02)),
        "logprobs": 1.5 + noise(0, 0.1),
        "init_logprobs": 1.3 + noise(0, 0.1),
        "critic_infer": 0.05,
        "critic_train": 0.02,
        "critic_wait": abs(noise(0.2, 0.1)),
        "store": 0.03,
        "data": 0.02,
        "forward_backward": 5.1 + noise(0, 0.3),
        "optimizer": 0.12,
        "refit": 2e-5,
    }
    phases["train"] = phases["data"] + phases["forward_backward"] + phases["optimizer"] + 0.02
    outer = sum(seconds for name, seconds in phases.items() if name not in ("data", "forward_backward", "optimizer", "refit"))
    return {
        "loss": -0.01 + noise(0, 0.01),
        "rewards": 0.31 + 0.45 * learnt + noise(0, 0.03),
        "reward/helpful": 0.4 + 0.5 * learnt + noise(0, 0.03),
        "reward/ended": -0.2 * (1 - learnt),
        "init_policy_kl": 0.2 * learnt + abs(noise(0, 0.02)),
        "entropy": 2.7 - 0.9 * learnt + noise(0, 0.05),
        "generation_length": 30 - 9 * learnt + noise(0, 1),
        "fraction_of_samples_properly_ended": min(1.0, 0.2 + 0.7 * learnt + noise(0, 0.02)),
        "ppo_ratio": 1 + noise(0, 0.001),
        "clip_fraction": 0.01 * learnt,
        "critic_loss": 0.05 - 0.03 * learnt,
        "explained_variance": 0.5 * learnt + noise(0, 0.05),
        "logprob_mismatch_mean": 1e-6,
        "grad_norm": 0.5 + abs(noise(0, 0.1)),
        "lr": 3e-4,
        "tokens_per_s": 310 + noise(0, 12),
        "peak_memory_gib": 2.7,
        "step_time_s": outer + 0.3,
        **{f"time_{name}_s": seconds for name, seconds in phases.items()},
        "prefill_tokens_per_s": 1480 + noise(0, 60),
        "decode_tokens_per_s": 262 + noise(0, 9),
        "batch_occupancy": min(1.0, 0.82 + noise(0, 0.04)),
        "server_critic_train_s": 5.2 + noise(0, 0.2),
        "wire_critic_train_s": 0.012,
        "server_critic_infer_s": 1.6 + noise(0, 0.1),
        "wire_critic_infer_s": 0.05,
        "server_reward_model_s": 0.01,
        "wire_reward_model_s": 0.03,
    }


def records(step: int, prompts: int = 4, samples: int = 4, critic: bool = True) -> list[dict[str, Any]]:
    """A step's: rewards that rise with the steps, and arrays of a plausible shape."""
    return [_record(step, prompt, sample, critic) for prompt in range(prompts) for sample in range(samples)]


def write(run: RunDir, step: int, **shape: Any) -> list[dict[str, Any]]:
    made = records(step, **shape)
    rollouts.write(run, step, made)
    return made


def make(root: Any, steps: int = 12, name: str = "ppo-demo", **how: Any) -> RunDir:
    """A run of PPO with a rollout file for each of its steps."""
    run = synthetic.make(root, name, steps, 200, experiment="ppo_demo", metrics_of=step_metrics, **how)
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
