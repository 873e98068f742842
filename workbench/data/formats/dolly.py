"""Dolly's rows."""

from workbench.data.formats._answers import answered
from workbench.data.formats._parts import Asked, Parsed, question
from workbench.data.formats._values import Raw
from workbench.data.rows import Conversation, Kind, Message

SCHEMA = '{"instruction", "response"[, "context" or "input"]}: the context stands below the instruction (Dolly)'
GIVES: tuple[Kind, ...] = ("conversation", "prompt")
KEYS = (frozenset({"instruction", "response"}),)
READS = frozenset({"response"})


def parse(row: Raw, asked: Asked) -> Parsed:
    asked_for = {key: each for key, each in row.items() if key not in ("prompt", "question")}
    turns, (said,) = answered(row, ("response",), question(asked_for, asked), asked)
    return Conversation((*turns, Message("assistant", said)), asked.where)
