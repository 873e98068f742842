"""OpenAI's conversations."""

from workbench.data.formats._answers import prompt_or_conversation
from workbench.data.formats._parts import Asked, Parsed, Raw, listed, messages, value
from workbench.data.rows import Kind

SCHEMA = '{"messages": [{"role", "content"[, "weight"][, "reasoning_content"][, "tool_calls"]}][, "tools"]}: OpenAI messages, learnt from every assistant turn'
GIVES: tuple[Kind, ...] = ("conversation", "prompt")
KEYS = (frozenset({"messages"}),)
READS = frozenset({"messages"})


def fits(row: Raw, asked: Asked) -> int:
    return 2 if isinstance(listed(row["messages"]), list) else 0


def parse(row: Raw, asked: Asked) -> Parsed:
    return prompt_or_conversation(messages(value(row, "messages"), "messages", asked), asked)
