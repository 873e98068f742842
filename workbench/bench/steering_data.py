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
ATTRIBUTES = ("verbosity", "bullets", "question")
LISTS, ASKING = 0.6, 0.35
"""The share of answers of several sentences that become a list, and the share of all that end with a question."""
QUESTIONS = (
    "Does that help?",
    "What do you think?",
    "Shall I go on?",
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
    """Each answer of the other prompts' pairs once, rewritten, with what the rules say of it, in the order of their hashes. Answers without a whole sentence are left out."""
    unseen = set(left_out)
    answers = {(pair["prompt"], pair[side].strip()) for pair in pairs for side in ("chosen", "rejected") if pair["prompt"] not in unseen}
    rows: list[dict[str, object]] = []
    for prompt, answer in sorted(answers, key=lambda each: _hash("\0".join(each))):
        if not (sentences := whole_sentences(answer)):
            continue
        response = rewritten(sentences, _hash("\0".join(("rewritten", prompt, answer))))
        given = {name: rules.rate(name, rules.RULES[name], [], response) for name in ATTRIBUTES}
        ratings = {name: int(rating) for name, rating in given.items() if rating is not None}
        rows.append({"prompt": prompt, "response": response, "attributes": ratings})
    return rows


def whole_sentences(answer: str) -> list[str]:
    """The sentences of an answer up to the last one that ends."""
    ends = [match.end() for match in _SENTENCE_END.finditer(answer)]
    return [answer[start:end].strip() for start, end in itertools.pairwise([0, *ends])]


def rewritten(sentences: Sequence[str], digest: str) -> str:
    """The sentences, as a list or not, with a question at the end or not, as the digits of a hash say."""
    listed, asks, which = (int(digest[at : at + 8], 16) / 16**8 for at in (0, 8, 16))
    question = [QUESTIONS[int(which * len(QUESTIONS))]] if asks < ASKING else []
    if listed < LISTS and len(sentences) > 1:
        return "\n".join([*(f"- {' '.join(sentence.split())}" for sentence in sentences), *question])
    return " ".join([*sentences, *question])


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
