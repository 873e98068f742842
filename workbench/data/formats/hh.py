"""Anthropic's HH-RLHF: two whole transcripts."""

from workbench.data.formats._answers import conversations
from workbench.data.formats._parts import Asked, Parsed, is_transcript, transcript
from workbench.data.formats._values import Raw, text
from workbench.data.rows import Kind, Malformed, Preference

SCHEMA = (
    '{"chosen", "rejected"}: whole transcripts, "\\n\\nHuman: … \\n\\nAssistant: …", equal up to the last answer or an earlier one (Anthropic HH)'
)
GIVES: tuple[Kind, ...] = ("preference", "conversation", "unpaired", "prompt")
KEYS = (frozenset({"chosen", "rejected"}),)
READS = frozenset({"chosen", "rejected"})


def fits(row: Raw, asked: Asked) -> int:
    return 10 if all(is_transcript(row[key]) for key in READS) else -1


def parse(row: Raw, asked: Asked) -> Parsed:
    chosen, rejected = (transcript(text(row, key), key) for key in ("chosen", "rejected"))
    if parted := conversations(chosen, rejected):
        prompt, turns = parted
        return Preference(prompt, turns[0][-1].content, turns[1][-1].content, where=asked.where, turns=turns)
    if chosen[:-1] != rejected[:-1]:
        raise Malformed("transcripts that are equal up to an answer", "transcripts that part in the human's turn")
    return Preference(chosen[:-1], chosen[-1].content, rejected[-1].content, where=asked.where)
