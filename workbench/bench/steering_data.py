"""Build the demo's rated answers and held-out prompts from its pairs: `python -m workbench.bench.steering_data`. The rule is stated in workbench/data/demo/README.md."""

from __future__ import annotations

import hashlib
import itertools
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from workbench.settings.shipped import PACKAGE
from workbench.steering import rules

HELD_OUT = 50
ATTRIBUTES = ("bullets", "question", "verbosity")
LEAST_WORDS = 2
LISTED_IN, ASKED_IN = 3, 2
"""Of all answers one in so many is also a list, and one in so many also ends with a question."""
QUESTIONS = (
    "Does that help?",
    "What do you think?",
    "Shall I continue?",
    "Would you like to know more?",
    "Is that what you had in mind?",
    "Which part matters most to you?",
)
FOLDER = PACKAGE / "data" / "demo"
Pairs = Sequence[Mapping[str, str]]
_SENTENCE_END = re.compile(r"[.!?][\"'”’)*]*(?=\s|$)")


def held_out(pairs: Pairs) -> list[str]:
    """The first prompts by their texts' hashes."""
    return sorted({pair["prompt"] for pair in pairs}, key=_hash)[:HELD_OUT]


def rated(pairs: Pairs, left_out: Iterable[str]) -> list[dict[str, object]]:
    """Both answers of each pair with another prompt, in every way of writing it, with what the rules say, in the order of their hashes."""
    unseen = set(left_out)
    answers = [(pair["prompt"], pair[side]) for pair in pairs for side in ("chosen", "rejected") if pair["prompt"] not in unseen]
    written = {(prompt, text) for prompt, answer in answers for text in ways(answer) if rules.word_count(text) >= LEAST_WORDS}
    rows: list[dict[str, object]] = []
    for prompt, response in sorted(written, key=lambda each: _hash("\0".join(each))):
        given = {name: rules.rate(name, rules.RULES[name], [], response) for name in ATTRIBUTES}
        ratings = {name: int(rating) for name, rating in given.items() if rating is not None}
        rows.append({"prompt": prompt, "response": response, "attributes": ratings})
    return rows


def whole_sentences(answer: str) -> list[str]:
    """The sentences of an answer up to the last one that ends, each in one line."""
    ends = [match.end() for match in _SENTENCE_END.finditer(answer)]
    return [" ".join(answer[start:end].split()) for start, end in itertools.pairwise([0, *ends])]


def ways(answer: str) -> list[str]:
    """The answer as it is, also where it broke off at its limit of tokens. Up to its last whole sentence, where that is of a lower verbosity than the highest;
    of one in `LISTED_IN`, by its hash, also as a list, an item a sentence; and of one in `ASKED_IN` each of these two also with a question at the end."""
    sentences = whole_sentences(answer)
    plain, draw = " ".join(sentences), int(_hash(answer), 16)
    listed = ["\n".join(f"- {sentence}" for sentence in sentences)] if len(sentences) > 1 and draw % LISTED_IN == 0 else []
    asked = [(plain, " "), *((text, "\n") for text in listed)] if sentences and draw // LISTED_IN % ASKED_IN == 0 else []
    whole = [plain] if rules.verbosity([], plain) < rules.HIGHEST else []
    return [" ".join(answer.split()), *whole, *listed, *(f"{text}{space}{QUESTIONS[len(text) % len(QUESTIONS)]}" for text, space in asked)]


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
