"""Build the demo's rated answers and held-out prompts from its pairs: `python -m workbench.bench.steering_data`. The rule is stated in workbench/data/demo/README.md."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from workbench.settings.shipped import PACKAGE
from workbench.steering import rules

HELD_OUT = 50
ATTRIBUTES = ("verbosity", "first_person", "article")
FOLDER = PACKAGE / "data" / "demo"
Pairs = Sequence[Mapping[str, str]]


def held_out(pairs: Pairs) -> list[str]:
    """The first prompts by their texts' hashes."""
    return sorted({pair["prompt"] for pair in pairs}, key=_hash)[:HELD_OUT]


def rated(pairs: Pairs, left_out: Iterable[str]) -> list[dict[str, object]]:
    """Each answer of the other prompts' pairs once, with what the rules say of it, in the order of their hashes."""
    unseen = set(left_out)
    answers = {(pair["prompt"], pair[side].strip()) for pair in pairs for side in ("chosen", "rejected") if pair["prompt"] not in unseen}
    rows: list[dict[str, object]] = []
    for prompt, response in sorted(answers, key=lambda each: _hash("\0".join(each))):
        given = {name: rules.rate(name, rules.RULES[name], [], response) for name in ATTRIBUTES}
        ratings = {name: int(rating) for name, rating in given.items() if rating is not None}
        rows.append({"prompt": prompt, "response": response, "attributes": ratings})
    return rows


def write(folder: Path) -> tuple[Path, Path]:
    """answers.jsonl and held_out.jsonl in the folder, from its preferences.jsonl."""
    pairs = [json.loads(line) for line in (folder / "preferences.jsonl").read_text().splitlines()]
    unseen = held_out(pairs)
    return _lines(folder / "answers.jsonl", rated(pairs, unseen)), _lines(folder / "held_out.jsonl", [{"prompt": prompt} for prompt in unseen])


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _lines(path: Path, rows: Iterable[Mapping[str, object]]) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    return path


if __name__ == "__main__":
    for made in write(FOLDER):
        print(made)
