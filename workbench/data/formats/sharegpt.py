"""ShareGPT's conversations, and NeMo-Aligner's and SteerLM's, which are of that form."""

from workbench.data.formats._answers import prompt_or_conversation, rated
from workbench.data.formats._parts import Asked, Parsed, listed, messages
from workbench.data.formats._values import Raw, brief, value
from workbench.data.rows import Kind, Malformed

SCHEMA = (
    '{"conversations": [{"from", "value"[, "label"]}][, "system"][, "mask"][, "type": "VALUE_TO_TEXT"]}: ShareGPT; `mask` names the speaker not learnt from;'
    " `label` has an answer's ratings (SteerLM)"
)
GIVES: tuple[Kind, ...] = ("conversation", "rated", "prompt")
KEYS = (frozenset({"conversations"}),)
READS = frozenset({"conversations", "mask", "type"})
_TYPE = "VALUE_TO_TEXT"


def fits(row: Raw, asked: Asked) -> int:
    return 2 if isinstance(listed(row["conversations"]), list) else 0


def parse(row: Raw, asked: Asked) -> Parsed:
    """SteerLM's training rows have an answer's ratings in its `label`."""
    if row.get("type", _TYPE) not in (_TYPE, ""):
        raise Malformed(f'type: "{_TYPE}", or null: labels that an answer is conditioned on', brief(row["type"]))
    silent = "" if asked.kind == "rated" else str(row.get("mask", "")).lower()
    turns = messages(listed(value(row, "conversations")), "conversations", asked, silent)
    if asked.kind == "rated":
        return rated(turns, asked)
    return prompt_or_conversation(turns, asked)
