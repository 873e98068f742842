"""NeMo-Aligner's and Argilla's pairs."""

from workbench.data.formats._answers import preferred
from workbench.data.formats._parts import PROMPT, Asked, Parsed, question
from workbench.data.formats._values import Raw
from workbench.data.rows import Kind

SCHEMA = '{"prompt" or "instruction", "chosen_response", "rejected_response"[, "chosen_reward", "rejected_reward"]}: strings or messages (NeMo-Aligner, Argilla)'
GIVES: tuple[Kind, ...] = ("preference", "conversation", "unpaired", "prompt")
KEYS = tuple(frozenset({key, "chosen_response", "rejected_response"}) for key in PROMPT)
READS = frozenset({"chosen_response", "rejected_response"})


def fits(row: Raw, asked: Asked) -> int:
    return 2


def parse(row: Raw, asked: Asked) -> Parsed:
    return preferred(row, ("chosen_response", "rejected_response"), question(row, asked), asked)
