"""Build the demo's answers for steering, and its held-out prompts: `python -m workbench.bench.steering_data`. The rule is stated in workbench/data/demo/README.md."""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from workbench.data.demo.prompts import prompts
from workbench.settings.shipped import PACKAGE
from workbench.steering import rules

STYLES = {
    "list": " Answer with a list of three short points.",
    "excited": " Answer with great excitement!",
    "tiny": " Answer in three words.",
}
"""What is added to the question before it is asked; the rows hold the question alone."""
MAX_TOKENS = 72
TEMPERATURE = 0.7
HELD_OUT_EVERY, HELD_OUT_FROM, HELD_OUT = 9, 4, 50
ATTRIBUTES = ("verbosity", "bullets", "first_person")
MOST_PLAIN, MOST_IN_FIRST_PERSON, MOST_LONG = 110, 70, 90
"""Rows of each verbosity that are neither lists nor in the first person, those in the first person, and either of verbosity 4; lists are all kept."""
FOLDER = PACKAGE / "data" / "demo"
Answer = tuple[str, str]


def questions() -> Iterator[dict[str, str]]:
    """The demo's questions in one or two styles: the prompt that is asked, the question, the style."""
    for number, question in enumerate(prompts()):
        for style in ("list" if number % 2 == 0 else "excited", *(["tiny"] if number % 4 == 1 else [])):
            yield {"prompt": question + STYLES[style], "question": question, "style": style}


def held_out(pairs: Sequence[Mapping[str, str]]) -> list[str]:
    """Every ninth question of the demo's pairs, from the fifth on."""
    return [pair["prompt"] for number, pair in enumerate(pairs) if number % HELD_OUT_EVERY == HELD_OUT_FROM][:HELD_OUT]


def pooled(pairs: Sequence[Mapping[str, str]], styled: Iterable[Mapping[str, str]]) -> list[Answer]:
    """(question, answer), each once: the pairs' answers, and those in a style."""
    given = [(pair["prompt"], pair[side].strip()) for pair in pairs for side in ("chosen", "rejected")]
    given += [(row["question"], row["response"].strip()) for row in styled]
    return [each for each in dict.fromkeys(given) if each[1]]


def balanced(pool: Iterable[Answer], left_out: Iterable[str]) -> list[Answer]:
    """The rows to learn from, without those of held-out questions, so that no verbosity has far more rows than another.

    Which are kept is decided by their texts' hashes, and so is their order.
    """
    kept, count = [], Counter[tuple[float, ...]]()
    unseen = set(left_out)
    for question, answer in sorted(pool, key=lambda each: hashlib.sha256("\0".join(each).encode()).digest()):
        ratings = tuple(rules.rate(name, rules.RULES[name], [], answer) or 0.0 for name in ATTRIBUTES)
        verbosity, bullets, first_person = ratings
        most = MOST_LONG if verbosity == rules.HIGHEST else MOST_IN_FIRST_PERSON if first_person else MOST_PLAIN
        if question not in unseen and (bullets or count[ratings] < most):
            count[ratings] += 1
            kept.append((question, answer))
    return kept


def write(folder: Path, styled: Iterable[Mapping[str, str]]) -> tuple[Path, Path]:
    """answers.jsonl and held_out.jsonl in the folder, from its preferences.jsonl and answers in a style."""
    pairs = [json.loads(line) for line in (folder / "preferences.jsonl").read_text().splitlines()]
    unseen = held_out(pairs)
    rows = [{"prompt": question, "response": answer} for question, answer in balanced(pooled(pairs, styled), unseen)]
    return _lines(folder / "answers.jsonl", rows), _lines(folder / "held_out.jsonl", [{"prompt": question} for question in unseen])


def _lines(path: Path, rows: Iterable[Mapping[str, str]]) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    return path


def sampled(folder: Path) -> list[dict[str, str]]:
    """Answers to `questions` by SmolLM2-135M-Instruct, by a run that is followed to its end. Raises ValueError where it did not complete."""
    from workbench import api
    from workbench.rundir.store import State

    asked = _lines(folder / "steering_prompts.jsonl", questions())
    overrides = [f"job.max_tokens={MAX_TOKENS}", f"job.temperature={TEMPERATURE}", "model.precision=auto"]
    run = api.generate("smollm2-135m-instruct", str(asked), overrides)
    status = run.wait()
    if status.state != State.COMPLETED:
        raise ValueError(f"run {run.id} is {status.state}: {status.message}")
    return [json.loads(line) for line in (run.dir.path / "answers.jsonl").read_text().splitlines()]


if __name__ == "__main__":
    from workbench.settings.sources import cache_root

    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    cache_root().mkdir(parents=True, exist_ok=True)
    for made in write(FOLDER, sampled(cache_root())):
        print(made)
