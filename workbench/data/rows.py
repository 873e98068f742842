"""What a reader gives: rows of text, each with the place it came from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

Kind = Literal["preference", "conversation", "conditioned", "rated", "unpaired", "group", "answered", "taught", "prompt"]
"""What an algorithm or a job reads rows as."""
Role = Literal["system", "user", "assistant", "tool"]
EXTRA = ("reasoning_content", "tool_calls", "tool_call_id", "name")
"""What a turn may have beside its role and content, by the names that chat templates know."""
Tools = tuple[Mapping[str, object], ...]
"""The tools a conversation may call, as JSON objects for the template."""


class Malformed(Exception):
    """A row is not what its schema says, or not what the model's chat template takes: (what was expected, what was found)."""


@dataclass(frozen=True)
class NotJson:
    """A value that JSON has not, such as a date: text where any value may stand, and not what a schema asks for elsewhere."""

    type: str
    text: str

    def __str__(self) -> str:
        return self.text

    def __repr__(self) -> str:
        return f"{self.type} {self.text}"


@dataclass(frozen=True)
class Unreadable:
    """A value of a column that could not be decoded, such as a date beyond Python's: its type, and why."""

    type: str
    reason: str

    def __repr__(self) -> str:
        return f"{self.type} that cannot be decoded ({self.reason})"


@dataclass(frozen=True)
class Message:
    """One turn. `learn` is False for an assistant's turn that is not to be learnt from; `extra` has values for some of `EXTRA`.

    A turn that only calls tools has an empty content. `ratings` are those that an assistant's turn was given, by attribute, as a prompt's last turn has
    those that its answer is asked for. An assistant's text begins with `given`, which is not learnt; so does the answer to a prompt whose last turn has it.
    """

    role: Role
    content: str
    learn: bool = True
    extra: Mapping[str, object] = field(default_factory=dict, hash=False)
    ratings: Mapping[str, float] = field(default_factory=dict, hash=False)
    given: str = ""


@dataclass(frozen=True)
class Conversation:
    """Turns to learn the assistant's part of. `where` is `file:line`; `columns` are the row's further values, where a job keeps them."""

    messages: tuple[Message, ...]
    where: str = ""
    tools: Tools = ()
    columns: Mapping[str, object] = field(default_factory=dict, hash=False)

    @property
    def prompt(self) -> tuple[Message, ...]:
        return self.messages[:-1]

    @property
    def answers(self) -> tuple[str, ...]:
        return (self.messages[-1].content,)


@dataclass(frozen=True)
class RawText:
    """Text without turns, learnt whole as it is: no chat template is put around it. `where` is `file:line`."""

    text: str
    where: str = ""
    tools: Tools = ()

    @property
    def prompt(self) -> tuple[Message, ...]:
        return ()

    @property
    def answers(self) -> tuple[str, ...]:
        return (self.text,)


@dataclass(frozen=True)
class Preference:
    """A prompt and two answers, one preferred. The rewards are the source's own, where it has them.

    `turns`: of two conversations that part before their last answer what each has after the prompt, from the assistant's turn in which they part up to the
    answers `chosen` and `rejected`; the assistant's turns are learnt.
    """

    prompt: tuple[Message, ...]
    chosen: str
    rejected: str
    chosen_reward: float | None = None
    rejected_reward: float | None = None
    where: str = ""
    tools: Tools = ()
    turns: tuple[tuple[Message, ...], ...] = ()

    @property
    def answers(self) -> tuple[str, ...]:
        return self.chosen, self.rejected

    @property
    def conversations(self) -> tuple[tuple[Message, ...], ...]:
        """Both from their beginning; the prompt's turns are not learnt."""
        prompt = tuple(replace(turn, learn=False) for turn in self.prompt)
        return tuple((*prompt, *turns) for turns in self.turns)


@dataclass(frozen=True)
class Rated:
    """A prompt and one answer with the ratings people gave it, by attribute; an attribute that is not there was not rated."""

    prompt: tuple[Message, ...]
    response: str
    attributes: Mapping[str, float]
    where: str = ""
    tools: Tools = ()

    @property
    def answers(self) -> tuple[str, ...]:
        return (self.response,)


@dataclass(frozen=True)
class Unpaired:
    """A prompt and one answer, wanted or not."""

    prompt: tuple[Message, ...]
    response: str
    desirable: bool
    where: str = ""
    tools: Tools = ()

    @property
    def answers(self) -> tuple[str, ...]:
        return (self.response,)


@dataclass(frozen=True)
class Group:
    """A prompt, the ratings that were asked for, and several answers sampled for them (SteerLM 2), each with log P(attributes | prompt, answer) and
    log P(answer | prompt)."""

    prompt: tuple[Message, ...]
    answers: tuple[str, ...]
    attribute_logprobs: tuple[float, ...]
    base_logprobs: tuple[float, ...]
    where: str = ""
    tools: Tools = ()


@dataclass(frozen=True)
class Taught:
    """Tokens, which of them are learnt, and of these N what a teacher tells: K tokens with their log-probabilities, and the log of all others' mass."""

    tokens: tuple[int, ...]
    learn: tuple[bool, ...]
    teacher_tokens_NK: np.ndarray = field(compare=False)
    teacher_logprobs_NK: np.ndarray = field(compare=False)
    teacher_rest_N: np.ndarray = field(compare=False)
    where: str = ""
    tools: Tools = ()

    @property
    def prompt_tokens(self) -> int:
        """How many tokens stand before the first that is learnt."""
        return self.learn.index(True)

    @property
    def prompt(self) -> tuple[Message, ...]:
        """The tokens before the first that is learnt, as text: their numbers."""
        return (Message("user", " ".join(map(str, self.tokens[: self.prompt_tokens]))),)

    @property
    def answers(self) -> tuple[str, ...]:
        return (" ".join(map(str, self.tokens[self.prompt_tokens :])),)


@dataclass(frozen=True)
class PromptOnly:
    """A prompt to be answered by the policy; `columns` are the row's further values as text, for reward programs."""

    prompt: tuple[Message, ...]
    columns: Mapping[str, str]
    where: str = ""
    tools: Tools = ()

    @property
    def answers(self) -> tuple[str, ...]:
        return ()


TextRow = Conversation | RawText | Preference | Rated | Unpaired | Group | Taught | PromptOnly
