"""Alpaca's rows."""

from workbench.data.formats._answers import answered
from workbench.data.formats._parts import Asked, Parsed, question
from workbench.data.formats._values import Raw
from workbench.data.rows import Conversation, Kind, Message

SCHEMA = '{"instruction", "output"[, "input"][, "system"][, "history": [[question, answer]]]}: the input stands below the instruction (Alpaca)'
GIVES: tuple[Kind, ...] = ("conversation", "prompt")
KEYS = (frozenset({"instruction", "output"}), frozenset({"instruction", "input", "output"}))
READS = frozenset({"output"})


def parse(row: Raw, asked: Asked) -> Parsed:
    asked_for = {key: each for key, each in row.items() if key not in ("prompt", "question")}
    turns, (said,) = answered(row, ("output",), question(asked_for, asked), asked)
    return Conversation((*turns, Message("assistant", said)), asked.where)
