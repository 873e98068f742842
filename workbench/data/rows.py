"""What a reader gives: rows of text, each with the place it came from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Role = Literal["system", "user", "assistant"]


@dataclass(frozen=True)
class Message:
    """One turn. `learn` is False for an assistant's turn that is not to be learnt from."""

    role: Role
    content: str
    learn: bool = True


@dataclass(frozen=True)
class Conversation:
    """Turns to learn the assistant's part of. `where` is `file:line`."""

    messages: tuple[Message, ...]
    where: str = ""


@dataclass(frozen=True)
class Preference:
    """A prompt and two answers, one preferred. The rewards are the source's own, where it has them."""

    prompt: tuple[Message, ...]
    chosen: str
    rejected: str
    chosen_reward: float | None = None
    rejected_reward: float | None = None
    where: str = ""


TextRow = Conversation | Preference
