"""Two texts that begin alike: what they share is the prompt."""

import re

from workbench.data.formats._nearest import PROMPTS
from workbench.data.formats._parts import Asked, Parsed, is_transcript
from workbench.data.formats._values import Raw, filled, keys, text
from workbench.data.rows import Kind, Malformed, Message, Preference

SCHEMA = '{"chosen", "rejected"}: texts that begin alike; the words that they share are the prompt (TRL)'
GIVES: tuple[Kind, ...] = ("preference", "conversation", "unpaired", "prompt")
KEYS = (frozenset({"chosen", "rejected"}),)
READS = frozenset({"chosen", "rejected"})
_TURNS = frozenset({"trajectory", "messages", "conversation", "conversations", "dialog", "dialogue", "chat", "turns"})
_SOURCES = frozenset({"source", "task"})
"""Names that a prompt may have, and the name of a data set just as well: that is one word."""
_HALF_WORD = re.compile(r"\S*\Z")
"""Where the texts part within a word, it belongs to the answers."""


def fits(row: Raw, asked: Asked) -> int:
    return 0 if all(isinstance(row[key], str) and not is_transcript(row[key]) for key in READS) else -1


def parse(row: Raw, asked: Asked) -> Parsed:
    if other := next((key for key, value in row.items() if key not in READS and _may_ask(key, value)), None):
        way = f"data.columns={{prompt: {other}}} reads it as the prompt, {{{other}: null}} leaves it out"
        raise Malformed(f"no {other!r} beside chosen and rejected texts, which are read as beginning with the prompt ({way})", keys(row))
    chosen, rejected = (filled(text(row, key), key) for key in ("chosen", "rejected"))
    parts = next((i for i, (a, b) in enumerate(zip(chosen, rejected, strict=False)) if a != b), min(len(chosen), len(rejected)))
    shared = chosen[:parts]
    prompt = shared[: len(shared) - len(_HALF_WORD.findall(shared)[0])]
    if not prompt.strip():
        raise Malformed("chosen and rejected that begin with the same words, which are the prompt", "texts that do not; or name a column with it")
    said = [filled(answer[len(prompt) :].strip(), f"{key} after the shared prompt") for answer, key in ((chosen, "chosen"), (rejected, "rejected"))]
    return Preference((Message("user", prompt.strip()),), said[0], said[1], where=asked.where)


def _may_ask(key: str, value: object) -> bool:
    """Whether a column may hold the prompt, by its name and its value."""
    name = key.lower()
    if name in _SOURCES:
        return isinstance(value, str) and len(value.split()) > 1
    return name in {*PROMPTS, *_TURNS} and isinstance(value, str | list) and bool(value)
