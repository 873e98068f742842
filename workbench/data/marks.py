"""Marks around the texts of messages, by which it is seen where a chat template puts them: characters of a private plane that no text has."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from workbench.data.rows import Message
from workbench.data.template_process import GENERATION

FIRST_MARK = 0x100000
"""Marks are U+100000 and those after it: two a message, then one for each call and each thought; two around each `generation` block at the plane's end."""

Span = tuple[int, int]
"""Characters: from, up to and without."""


@dataclass(frozen=True)
class Turn:
    """A message and where its text stands: with the white space around it that the template kept, up to `end`; up to `core_end` without."""

    message: Message
    start: int | None
    end: int | None
    core_end: int | None

    @property
    def span(self) -> Span | None:
        return None if self.start is None or self.end is None else (self.start, self.end)

    @classmethod
    def at(cls, message: Message, first: int | None, last: int | None, depth: int, whole: str) -> Turn:
        core = message.content.strip()
        inside = min(depth, len(core) // 2)
        lead = message.content[: len(message.content) - len(message.content.lstrip())]
        trail = message.content[len(lead) + len(core) :]
        start = None if first is None or not whole[:first].endswith(core[:inside]) else first - inside
        core_end = None if last is None or not whole.startswith(core[len(core) - inside :], last) else last + inside
        if start is not None and lead and whole[:start].endswith(lead):
            start -= len(lead)
        end = core_end + len(trail) if core_end is not None and trail and whole.startswith(trail, core_end) else core_end
        return cls(message, start, end, core_end)


def _marked(message: Message, k: int, depth: int) -> str:
    """The message's text with its marks around it, white space at its ends left outside."""
    core = message.content.strip()
    if not core:
        return message.content
    inside = min(depth, len(core) // 2)
    begin = message.content.index(core)
    first, last = begin + inside, begin + len(core) - inside
    text = message.content
    marks = (chr(FIRST_MARK + 2 * k), chr(FIRST_MARK + 2 * k + 1))
    return f"{text[:first]}{marks[0]}{text[first:last]}{marks[1]}{text[last:]}"


def extras(messages: Sequence[Message]) -> Iterator[tuple[int, str, int]]:
    """What must not be left out beside the messages' texts: (message, what, the number of its mark)."""
    mark = 2 * len(messages)
    for k, message in enumerate(messages):
        if message.extra.get("reasoning_content"):
            yield k, "reasoning_content", mark
            mark += 1
        for _ in _calls(message):
            yield k, "tool_calls", mark
            mark += 1


def _calls(message: Message) -> list[object]:
    calls = message.extra.get("tool_calls")
    return calls if isinstance(calls, list) else []


def marked(messages: Sequence[Message], depth: int) -> list[Message]:
    """The messages with marks around their texts, one in what each thought, and one in the name of each call."""
    numbers: dict[tuple[int, str], list[str]] = {}
    for k, what, mark in extras(messages):
        numbers.setdefault((k, what), []).append(chr(FIRST_MARK + mark))
    result = []
    for k, message in enumerate(messages):
        extra = dict(message.extra)
        if thought := numbers.get((k, "reasoning_content")):
            text = str(extra["reasoning_content"])
            at = len(text) - len(text.lstrip()) + min(depth, len(text.strip()) // 2)
            extra["reasoning_content"] = f"{text[:at]}{thought[0]}{text[at:]}"
        if names := numbers.get((k, "tool_calls")):
            extra["tool_calls"] = [_named(call, mark) for call, mark in zip(_calls(message), names, strict=True)]
        result.append(Message(message.role, _marked(message, k, depth), message.learn, extra))
    return result


def _named(call: object, mark: str) -> object:
    """A call whose function's name ends with a mark."""
    if not isinstance(call, Mapping):
        return call
    if isinstance(function := call.get("function"), Mapping):
        return {**call, "function": {**function, "name": f"{function.get('name', '')}{mark}"}}
    return {**call, "name": f"{call.get('name', '')}{mark}"}


def unmarked(text: str) -> tuple[str, dict[int, int], list[Span]]:
    """The text without marks; where each mark of a message stood, by its number; the `generation` blocks. A mark that comes twice counts once, the last."""
    pieces: list[str] = []
    marks: dict[int, int] = {}
    blocks: list[Span] = []
    position = opened = 0
    for piece in re.split(f"([{chr(FIRST_MARK)}-{chr(0x10FFFF)}])", text):
        if len(piece) == 1 and ord(piece) >= FIRST_MARK:
            if piece == GENERATION[0]:
                opened = position
            elif piece == GENERATION[1]:
                blocks.append((opened, position))
            else:
                marks[ord(piece) - FIRST_MARK] = position
        else:
            pieces.append(piece)
            position += len(piece)
    return "".join(pieces), marks, blocks
