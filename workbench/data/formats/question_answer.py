"""Questions with their answers, as GSM8K has them."""

from workbench.data.formats._answers import answered, check_one_answer
from workbench.data.formats._parts import Asked, Parsed, question
from workbench.data.formats._values import Raw
from workbench.data.rows import Conversation, Kind, Message

SCHEMA = '{"question" or "prompt", "answer"}: strings, learnt as a user\'s and an assistant\'s turn (GSM8K)'
GIVES: tuple[Kind, ...] = ("conversation",)
KEYS = (frozenset({"question", "answer"}), frozenset({"prompt", "answer"}))
READS = frozenset({"answer"})


def parse(row: Raw, asked: Asked) -> Parsed:
    check_one_answer(row, asked)
    turns, (said,) = answered(row, ("answer",), question(row, asked), asked)
    return Conversation((*turns, Message("assistant", said)), asked.where)
