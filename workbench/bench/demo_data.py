"""Build preferences.jsonl: `python -m workbench.bench.demo_data`. The rule is stated in README.md."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.progress import track

from workbench.data.chat import Chat
from workbench.data.demo.prompts import prompts
from workbench.data.rows import Message
from workbench.settings.shipped import PACKAGE

HINTS = ("", "", " Answer in one short sentence.", " Answer in one short sentence.")
"""What is added to the question before it is asked, one a sample; the pairs hold the question alone."""
MAX_TOKENS = 56
TEMPERATURE = 0.7
PROMPTS_AT_ONCE = 32
MIN_CHOSEN_TOKENS = 6
MIN_RATIO = 1.5
OUT = PACKAGE / "data" / "demo" / "preferences.jsonl"


def build(out: Path) -> int:
    """Sample, rank, write. Returns the number of pairs."""
    from workbench.engine import hf, parallel
    from workbench.engine.step import Policy
    from workbench.rollout.base import Prompt, Rollout, Sampling
    from workbench.rollout.engines.megatron import Engine
    from workbench.settings import AlgorithmConfig, Lora, Model
    from workbench.settings.outputs import Outputs

    parallel.start()
    directory = hf.local_directory(hf.EMBEDDED)
    tokenizer: Any = hf.tokenizer(directory)
    chat = Chat(tokenizer)
    policy = Policy(Model(precision="auto", lora=Lora(rank=1)), AlgorithmConfig(name="none"), directory, 1, Outputs(logprobs=True))
    engine = Engine(policy.chunks[0])
    sampling = Sampling(MAX_TOKENS, TEMPERATURE, hf.end_tokens(directory))
    questions = sorted(prompts(), key=len)

    def sampled() -> Iterator[tuple[str, list[Rollout]]]:
        for seed, start in enumerate(track(range(0, len(questions), PROMPTS_AT_ONCE), "sampling")):
            group = questions[start : start + PROMPTS_AT_ONCE]
            tokens = [chat.prompt((Message("user", question + hint),)) for question in group for hint in HINTS]
            asked_for = [Prompt(tokens_of_prompt, key) for key, tokens_of_prompt in enumerate(tokens)]
            rollouts = sorted(engine.generate(asked_for, sampling, seed), key=lambda rollout: rollout.key)
            yield from ((q, rollouts[i * len(HINTS) : (i + 1) * len(HINTS)]) for i, q in enumerate(group))

    pairs = []
    for question, rollouts in sampled():
        pair = rank(rollouts)
        if pair:
            chosen, rejected = (str(tokenizer.decode(rollout.tokens, skip_special_tokens=True)).strip() for rollout in pair)
            pairs.append({"prompt": question, "chosen": chosen, "rejected": rejected})
    with out.open("w") as file:
        file.writelines(json.dumps(pair, ensure_ascii=False) + "\n" for pair in pairs)
    parallel.stop()
    return len(pairs)


def rank(rollouts: list) -> tuple | None:
    """(chosen, rejected): the shortest answer that ended by itself, and the longest answer; None where they are too alike."""
    ended = [r for r in rollouts if r.finish_reason == "stop" and len(r.tokens) >= MIN_CHOSEN_TOKENS]
    if not ended:
        return None
    chosen = min(ended, key=lambda r: len(r.tokens))
    rejected = max(rollouts, key=lambda r: len(r.tokens))
    return (chosen, rejected) if len(rejected.tokens) >= MIN_RATIO * len(chosen.tokens) else None


if __name__ == "__main__":
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    print(f"{build(OUT)} pairs in {OUT}")
