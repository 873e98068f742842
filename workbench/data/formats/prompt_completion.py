"""A prompt and its completion, each text or messages."""

from workbench.data.formats._answers import answered, check_one_answer
from workbench.data.formats._parts import Asked, Parsed, question
from workbench.data.formats._values import Raw, first_of
from workbench.data.rows import Conversation, Kind, Message

SCHEMA = '{"prompt", "completion"}, or "response"; {"question", "response"}: strings or messages, learnt as a user\'s and an assistant\'s turn'
ANSWERS = ("completion", "response")
GIVES: tuple[Kind, ...] = ("conversation", "prompt")
KEYS = tuple(frozenset(keys) for keys in (("prompt", "completion"), ("prompt", "response"), ("question", "response"), ("question", "completion")))
READS = frozenset(ANSWERS)


def parse(row: Raw, asked: Asked) -> Parsed:
    check_one_answer(row, asked)
    turns, (said,) = answered(row, (first_of(ANSWERS, row, ANSWERS[0]),), question(row, asked), asked)
    return Conversation((*turns, Message("assistant", said)), asked.where)
