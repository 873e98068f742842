"""What an endpoint offers: its models as the HTTP side sees them, with the way from messages to tokens."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from workbench.data.rows import Malformed, Message
from workbench.data.steering import attribute_string
from workbench.data.targets import Targets
from workbench.serve.questions import HttpError
from workbench.serve.questions import Message as Asked

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from workbench.data.chat import Chat

Rule = Callable[[Sequence[Mapping[str, str]], str], float]
"""From the prompt's messages and an answer to its rating."""


@dataclass(frozen=True)
class Offered:
    """A model. `longest` is of prompt and answer together, in tokens; `slots` how many answers one request may have; `chat` None without a chat template."""

    id: str
    source: str
    step: int | None
    created: int
    targets: Targets | None
    tokenizer: PreTrainedTokenizerBase
    chat: Chat | None
    vocabulary: int
    longest: int
    slots: int
    _lock: threading.Lock = field(default_factory=threading.Lock, compare=False, repr=False)

    @property
    def entry(self) -> dict[str, Any]:
        """As `GET /v1/models` lists it."""
        targets = self.targets
        steering = targets and {**targets.steering.model_dump(mode="json"), "vectors": targets.vectors, "counts": targets.counts}
        about = {"source": self.source, "step": self.step, "max_model_len": self.longest, "steering": steering}
        return {"id": self.id, "object": "model", "created": self.created, "owned_by": "workbench", **about}

    def prompt(self, messages: Sequence[Asked], attributes: Mapping[str, float] | None) -> list[int]:
        """The tokens of a conversation up to where the assistant answers. Raises HttpError."""
        if self.chat is None:
            raise HttpError(400, f"{self.id} has no chat template: ask it by POST /v1/completions", "model")
        if messages[-1].role == "assistant":
            raise HttpError(400, "the last message is the assistant's: there is nothing to answer", "messages")
        turns = tuple(Message(each.role, each.text) for each in messages)
        try:
            with self._lock:
                return self.chat.prompt(self._rated(turns, attributes))
        except Malformed as error:
            field = "attributes" if attributes is not None else "messages"
            raise HttpError(400, f"{field}: expected {error.args[0]}, got {error.args[1] if len(error.args) > 1 else 'another'}", field) from None

    def _rated(self, turns: tuple[Message, ...], attributes: Mapping[str, float] | None) -> tuple[Message, ...]:
        if attributes is None:
            return turns
        if self.targets is None:
            raise HttpError(400, f"{self.id} was not trained on attributes (data.steering)", "attributes")
        attribute_string(attributes, self.targets.steering)  # an attribute that is not declared is refused here
        return (*turns[:-1], dataclasses.replace(turns[-1], ratings=attributes))

    def tokens(self, prompt: str | Sequence[int]) -> list[int]:
        """Of a prompt of completions: as the tokenizer encodes a text, special tokens that it spells included. Raises HttpError."""
        if isinstance(prompt, str):
            with self._lock:
                tokens = [int(token) for token in self.tokenizer(prompt)["input_ids"]]
        else:
            tokens = list(prompt)
        if not tokens:
            raise HttpError(400, "prompt has no token: the model continues one at least", "prompt")
        if (largest := max(tokens)) >= self.vocabulary:
            raise HttpError(400, f"prompt: tokens lie between 0 and {self.vocabulary - 1}, got {largest}", "prompt")
        return tokens

    def room(self, tokens: Sequence[int], wanted: int | None) -> int:
        """How many tokens an answer may have. Raises HttpError where prompt and answer are too long."""
        left = self.longest - len(tokens)
        if left < max(1, wanted or 0):
            raise HttpError(
                400,
                f"{self.id} takes {self.longest} tokens, prompt and answer together; the prompt has {len(tokens)}, and {wanted or 1} more are asked for",
                "max_tokens" if left > 0 else "messages",
                "context_length_exceeded",
            )
        return left if wanted is None else wanted

    def decode(self, tokens: Sequence[int]) -> str:
        """Without special tokens."""
        with self._lock:
            return str(self.tokenizer.decode(list(tokens), skip_special_tokens=True))

    def name(self, token: int) -> str:
        """A token as text, a special one by its name."""
        with self._lock:
            return str(self.tokenizer.decode([token]))
