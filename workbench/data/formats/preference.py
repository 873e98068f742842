"""A prompt with a preferred and a rejected answer, as TRL, UltraFeedback and most others have them."""

from workbench.data.formats._answers import preferred
from workbench.data.formats._parts import PROMPT, Asked, Parsed, history, question
from workbench.data.formats._values import Raw
from workbench.data.rows import Kind, Malformed

SCHEMA = '{"prompt", "question" or "instruction"[, "input"], "chosen", "rejected"}: strings, or OpenAI messages (which may repeat the prompt, or hold it alone, and may part in an earlier answer)'
GIVES: tuple[Kind, ...] = ("preference", "conversation", "unpaired", "prompt")
KEYS = (*(frozenset({key, "chosen", "rejected"}) for key in PROMPT), frozenset({"chosen", "rejected"}))
READS = frozenset({"chosen", "rejected"})


def fits(row: Raw, asked: Asked) -> int:
    return 2 if any(key in row for key in PROMPT) or isinstance(row["chosen"], list) else -1


def parse(row: Raw, asked: Asked) -> Parsed:
    named = any(key in row for key in PROMPT)
    if not named and (isinstance(row.get("chosen"), str) or "history" in row):
        raise Malformed("the key 'prompt'", f"keys {sorted(map(str, row))[:10]}")
    return preferred(row, ("chosen", "rejected"), question(row, asked) if named else history(row), asked)
