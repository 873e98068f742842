"""Marks of chat templates inside texts: rows that were rendered for another model, and would be learnt with its marks as text."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator

from workbench.data.rows import Conversation, Preference, RawText, TextRow

_MARKS = re.compile(
    r"<\|(?:im_start|im_end|eot_id|eom_id|start_header_id|end_header_id|begin_of_text|endoftext|user|assistant|system|end|channel|START_OF_TURN_TOKEN)\|>"
    r"|<extra_id_\d+>|\[/?INST\]|<</?SYS>>|<(?:start|end)_of_turn>|<｜[^｜<>]{1,30}｜>|</s>|^### (?:Instruction|Response|Human|Assistant):",
    re.MULTILINE,
)
_SHOWN = 5


class Markup:
    """Counts the texts that have a mark, by the mark, with the first place of each."""

    def __init__(self) -> None:
        self._texts: Counter[tuple[str, bool]] = Counter()
        self._first: dict[tuple[str, bool], str] = {}

    def look(self, row: TextRow) -> None:
        raw = isinstance(row, RawText)
        for text in _texts(row):
            for mark in set(_MARKS.findall(text)):
                self._texts[mark, raw] += 1
                self._first.setdefault((mark, raw), row.where)

    def notes(self) -> Iterator[str]:
        """A sentence for each of the most frequent marks."""
        for (mark, raw), count in self._texts.most_common(_SHOWN):
            kind = "raw text" if raw else "text"
            learnt = "a token where the tokenizer has it as one, else as text" if raw else "text"
            texts = f"1 {kind}" if count == 1 else f"{count:,} {kind}s"
            yield f"{texts} with {mark}, markup of a chat template, which is learnt as {learnt}; the first: {self._first[mark, raw]}"


def _texts(row: TextRow) -> Iterator[str]:
    if isinstance(row, RawText):
        yield row.text
        return
    yield from (turn.content for turn in (row.messages if isinstance(row, Conversation) else row.prompt))
    if not isinstance(row, Conversation):
        yield from row.answers
    if isinstance(row, Preference):
        yield from (turn.content for turns in row.turns for turn in turns[:-1])
