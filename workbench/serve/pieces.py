"""From tokens, as they are drawn, to text: what cannot be said yet is held back, and a stop string ends an answer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

Finish = Literal["stop", "length"]
Decode = Callable[[Sequence[int]], str]
INCOMPLETE = "\ufffd"
_WINDOW = 16
"""Of more tokens than these only the newest are decoded again."""
_KEPT = 6


@dataclass(frozen=True)
class Score:
    """A token's log-probability, and (token, log-probability) of the likeliest."""

    token: int
    logprob: float
    top: Sequence[tuple[int, float]]


@dataclass(frozen=True)
class Piece:
    """The next of an answer: `offset` characters come before it. The last one has a `finish`."""

    text: str
    offset: int
    token: int
    score: Score | None
    finish: Finish | None


class Writer:
    """One answer's text. After a stop string nothing more is said."""

    def __init__(self, decode: Decode, stops: Sequence[str] = ()):
        self._decode, self._stops = decode, stops
        self._window: list[int] = []
        self._said = ""
        self._held = ""
        self._offset = 0
        self.finished = False

    def shift(self, characters: int) -> None:
        """So many characters, of an echoed prompt, come before the answer."""
        self._offset += characters

    def add(self, token: int, finish: Finish | None, score: Score | None = None) -> Piece:
        """The text that this token makes sure, often none or more than its own."""
        self._window.append(token)
        offset = self._offset + len(self._held)
        text = self._decode(self._window)
        if not text.endswith(INCOMPLETE) or finish:
            self._held += text[len(self._said) :]
            self._said = text
            if len(self._window) > _WINDOW:
                self._window = self._window[-_KEPT:]
                self._said = self._decode(self._window)
        cut = min((at for stop in self._stops if (at := self._held.find(stop)) >= 0), default=None)
        if cut is not None:
            self._held, finish = self._held[:cut], "stop"
        keep = 0 if finish else max((_overlap(self._held, stop) for stop in self._stops), default=0)
        said, self._held = self._held[: len(self._held) - keep], self._held[len(self._held) - keep :]
        self._offset += len(said)
        self.finished = finish is not None
        return Piece(said, offset, token, score, finish)


def _overlap(text: str, stop: str) -> int:
    """How many of the text's last characters may begin the stop string."""
    return next((n for n in range(min(len(text), len(stop) - 1), 0, -1) if text.endswith(stop[:n])), 0)


def chat_logprobs(scores: Sequence[Score], name: Callable[[int], str]) -> dict[str, Any]:
    """As chat completions have them. A token that is no text by itself has no `bytes`."""

    def entry(token: int, logprob: float) -> dict[str, Any]:
        text = name(token)
        return {"token": text, "logprob": logprob, "bytes": None if INCOMPLETE in text else list(text.encode())}

    return {
        "content": [{**entry(s.token, s.logprob), "top_logprobs": [entry(token, logprob) for token, logprob in s.top]} for s in scores],
        "refusal": None,
    }


def completion_logprobs(scores: Sequence[Score | None], tokens: Sequence[int], offsets: Sequence[int], name: Callable[[int], str]) -> dict[str, Any]:
    """As completions have them: None for the first token of an echoed prompt. Of two tokens with the same text the likelier one counts."""
    likeliest: list[dict[str, float] | None] = []
    for score in scores:
        texts: dict[str, float] = {}
        for token, logprob in [*score.top, (score.token, score.logprob)] if score else ():
            texts[name(token)] = max(logprob, texts.get(name(token), logprob))
        likeliest.append(texts if score else None)
    return {
        "tokens": [name(token) for token in tokens],
        "token_logprobs": [score.logprob if score else None for score in scores],
        "top_logprobs": likeliest,
        "text_offset": list(offsets),
    }
