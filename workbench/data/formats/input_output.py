"""Input and output, without an instruction."""

from workbench.data.formats._answers import answered
from workbench.data.formats._parts import Asked, Parsed, history, prompt
from workbench.data.formats._values import Raw, value
from workbench.data.rows import Conversation, Kind, Message

SCHEMA = '{"input", "output"[, "history"]}: strings'
GIVES: tuple[Kind, ...] = ("conversation", "prompt")
KEYS = (frozenset({"input", "output"}),)
READS = frozenset({"input", "output", "history"})


def parse(row: Raw, asked: Asked) -> Parsed:
    turns, (said,) = answered(row, ("output",), (*history(row), *prompt(value(row, "input"), "input", asked)), asked)
    return Conversation((*turns, Message("assistant", said)), asked.where)
