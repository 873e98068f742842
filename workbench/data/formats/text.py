"""Raw text."""

from workbench.data.formats._parts import Asked, Parsed
from workbench.data.formats._values import Raw, filled, text
from workbench.data.rows import Kind, RawText

SCHEMA = '{"text"}: learnt whole, without a chat template'
GIVES: tuple[Kind, ...] = ("conversation",)
KEYS = (frozenset({"text"}),)
READS = frozenset({"text"})
WITHOUT = frozenset({"prompt", "question", "instruction"})


def parse(row: Raw, asked: Asked) -> Parsed:
    return RawText(filled(text(row, "text"), "text"), asked.where)
