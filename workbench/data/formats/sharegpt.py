"""ShareGPT's conversations, and NeMo-Aligner's and SteerLM's, which are of that form."""

from collections.abc import Mapping, Sequence
from typing import cast

from workbench.data.formats._answers import prompt_or_conversation
from workbench.data.formats._parts import Asked, Parsed, Raw, listed, messages, value
from workbench.data.formats._ratings import attributes
from workbench.data.rows import Kind, Malformed, Rated

SCHEMA = '{"conversations": [{"from", "value"[, "label"]}][, "system"][, "mask"]}: ShareGPT; `mask` names the speaker not learnt from'
GIVES: tuple[Kind, ...] = ("conversation", "rated", "prompt")
KEYS = (frozenset({"conversations"}),)
READS = frozenset({"conversations", "mask"})


def fits(row: Raw, asked: Asked) -> int:
    return 2 if isinstance(listed(row["conversations"]), list) else 0


def parse(row: Raw, asked: Asked) -> Parsed:
    """SteerLM's training rows have the ratings of the last answer in its `label`."""
    silent = "" if asked.kind == "rated" else str(row.get("mask", "")).lower()
    turns = messages(given := listed(value(row, "conversations")), "conversations", asked, silent)
    if asked.kind != "rated":
        return prompt_or_conversation(turns, asked)
    asked.unread.discard("label")
    last = cast(Sequence[Mapping[str, object]], given)[-1]
    if not turns[:-1] or turns[-1].role != "assistant":
        raise Malformed("a prompt and an assistant's answer, which is rated", f"{len(turns)} turns, the last of them {turns[-1].role}'s")
    if turns[-1].extra:
        raise Malformed("an answer that is text alone", f"one with {', '.join(turns[-1].extra)}")
    return Rated(turns[:-1], turns[-1].content, attributes(last.get("label"), "the last turn's label"), asked.where)
