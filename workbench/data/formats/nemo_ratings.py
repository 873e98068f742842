"""NeMo-Aligner's rows of a regression reward model: a conversation as one text in its template, and the ratings as a list."""

from __future__ import annotations

import re

from workbench.data.formats._parts import Asked, Parsed
from workbench.data.formats._values import Raw, brief, filled, number, text, value
from workbench.data.rows import Kind, Malformed, Message, Rated
from workbench.metrics import STEERLM

SCHEMA = (
    '{"text": "<extra_id_0>System\\n…\\n<extra_id_1>User\\n…\\n<extra_id_1>Assistant\\n…\\n<extra_id_2>", "label": [9 numbers, -100: not rated]}: ratings in the order '
    f"{', '.join(STEERLM)} (NeMo-Aligner)"
)
GIVES: tuple[Kind, ...] = ("rated", "conversation", "prompt")
KEYS = (frozenset({"text", "label"}),)
READS = frozenset({"text", "label"})
MISSING = -100
_HEAD = re.compile(r"<extra_id_[01]>(System|User|Assistant)\n")


def fits(row: Raw, asked: Asked) -> int:
    return 3 if isinstance(row["label"], list) and isinstance(row["text"], str) and _HEAD.match(row["text"]) else -1


def parse(row: Raw, asked: Asked) -> Parsed:
    label = value(row, "label")
    if not isinstance(label, list) or len(label) != len(STEERLM):
        raise Malformed(f"label: a list of {len(STEERLM)} numbers ({', '.join(STEERLM)}); data.map can name others", brief(label))
    ratings = {name: number(each, f"label[{i}]") for i, (name, each) in enumerate(zip(STEERLM, label, strict=True))}
    if not (ratings := {name: rating for name, rating in ratings.items() if rating != MISSING}):
        raise Malformed("at least one rating that is not -100", brief(label))
    parts = _HEAD.split(text(row, "text").removesuffix("<extra_id_2>"))
    turns = []
    for who, said in zip(parts[1::2], parts[2::2], strict=True):
        body = said.removesuffix("\n")
        if who != "System" or body:
            turns.append(Message("user" if who == "User" else "assistant" if who == "Assistant" else "system", filled(body, f"text: a {who}'s turn")))
    if parts[0] or len(turns) < 2 or turns[-1].role != "assistant":
        raise Malformed("text: turns that end with the assistant's", brief(row["text"]))
    return Rated(tuple(turns[:-1]), turns[-1].content, ratings, asked.where)
