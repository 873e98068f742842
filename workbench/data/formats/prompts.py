"""Prompts alone, with columns for reward programs."""

from workbench.data.formats._parts import Asked, Parsed, prompt, question
from workbench.data.formats._values import Raw, first_of, value
from workbench.data.rows import Kind, PromptOnly

SCHEMA = '{"prompt", "question", "text" or "instruction"}: a string or messages; any further columns are kept, as text, for reward programs (GSM8K, NeMo-Aligner)'
GIVES: tuple[Kind, ...] = ("prompt",)
NAMES = ("prompt", "question", "text", "instruction")
KEYS = (*(frozenset({key}) for key in NAMES), frozenset({"prompt", "answer"}), frozenset({"question", "answer"}))
READS = frozenset[str]()
WITHOUT = frozenset({"chosen", "rejected", "completion"})


def parse(row: Raw, asked: Asked) -> Parsed:
    """Of several columns that may hold a prompt the first; the others are kept."""
    key = first_of(NAMES, row, NAMES[0])
    if key != "text":
        return PromptOnly(question(row, asked), {}, asked.where)
    asked.read.add(key)
    return PromptOnly(prompt(value(row, key), key, asked), {}, asked.where)
