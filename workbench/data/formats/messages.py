"""OpenAI's conversations."""

from workbench.data.formats._answers import prompt_or_conversation, rated
from workbench.data.formats._parts import Asked, Parsed, listed, messages
from workbench.data.formats._values import Raw, value
from workbench.data.rows import Kind

SCHEMA = '{"messages": [{"role", "content"[, "weight"][, "reasoning_content"][, "tool_calls"][, "attributes"]}][, "tools"]}: OpenAI messages, learnt from every assistant turn; `attributes` are an answer\'s ratings'
GIVES: tuple[Kind, ...] = ("conversation", "rated", "prompt")
KEYS = (frozenset({"messages"}),)
READS = frozenset({"messages"})


def fits(row: Raw, asked: Asked) -> int:
    return 2 if isinstance(listed(row["messages"]), list) else 0


def parse(row: Raw, asked: Asked) -> Parsed:
    turns = messages(value(row, "messages"), "messages", asked)
    return rated(turns, asked) if asked.kind == "rated" else prompt_or_conversation(turns, asked)
