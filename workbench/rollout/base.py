"""What a rollout engine is, and what it gives. An engine is one file of `workbench/rollout/engines/`, found by its name: its `build` makes one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol, cast

if TYPE_CHECKING:
    import numpy as np
    from torch.distributed import ProcessGroup
    from transformers import PreTrainedTokenizerBase

    from workbench.engine.step import Policy

from workbench import metrics as M


@dataclass(frozen=True)
class Sampling:
    """How an answer is drawn. `temperature` 0 takes the likeliest token each time; `top_k` 0 and `top_p` 1 leave all tokens in.

    With `kept` the log-probabilities are those among the tokens that top-k and top-p left in, and a `Rollout` says which these were.
    """

    max_tokens: int
    temperature: float = 1.0
    stop_tokens: frozenset[int] = frozenset()
    top_k: int = 0
    top_p: float = 1.0
    stop_strings: tuple[str, ...] = ()
    kept: bool = False


class Drawn(Protocol):
    """Settings of how answers are drawn."""

    @property
    def max_tokens(self) -> int: ...

    @property
    def temperature(self) -> float: ...

    @property
    def top_k(self) -> int: ...

    @property
    def top_p(self) -> float: ...

    @property
    def stop_strings(self) -> tuple[str, ...]: ...


@dataclass(frozen=True)
class Prompt:
    """A prompt to answer `samples` times. `key` names it and, with the seed, decides its draws, wherever and beside whichever it is answered.

    `max_tokens` is its own limit, where it is lower than the sampling's.
    """

    tokens: Sequence[int]
    key: int = 0
    samples: int = 1
    max_tokens: int | None = None


@dataclass(frozen=True)
class Rollout:
    """One answer: its tokens (a stop token or stop string included), the log-probability of each under the distribution that it was drawn from, and why it ended.

    That distribution is softmax(logits / temperature), at temperature 0 softmax(logits); with `Sampling.kept` among the `kept` tokens of each place alone.
    """

    tokens: list[int]
    logprobs: list[float]
    finish_reason: Literal["stop", "length"]
    key: int = 0
    sample: int = 0
    kept: list[np.ndarray] | None = None


@dataclass
class Profile:
    """What an engine did since it was asked last. Seconds are wall-clock; `slot_steps` counts the places of all decode steps, `busy` those in use."""

    prefill_tokens: int = 0
    prefill_s: float = 0.0
    decode_tokens: int = 0
    decode_s: float = 0.0
    busy: int = 0
    slot_steps: int = 0
    refits: int = 0
    refit_s: float = 0.0

    def metrics(self) -> dict[str, float]:
        """As a step's metrics: rates where there was work."""
        return {
            **({M.PREFILL_TOKENS_PER_S: self.prefill_tokens / self.prefill_s} if self.prefill_s else {}),
            **({M.DECODE_TOKENS_PER_S: self.decode_tokens / self.decode_s} if self.decode_s else {}),
            **({M.BATCH_OCCUPANCY: self.busy / self.slot_steps} if self.slot_steps else {}),
            M.TIME_OF("refit"): self.refit_s,
        }


class RolloutEngine(Protocol):
    """One way to generate. With tensor parallelism the ranks of a group make the same calls."""

    profile: Profile

    def generate(self, prompts: Iterable[Prompt], sampling: Sampling, seed: int) -> Iterator[Rollout]:
        """The answers as they finish, in any order. Prompts are taken as there is room, so that several engines may share one queue.

        The same seed gives the same answers, whatever the batch.
        """
        ...

    def update_weights(self, version: int) -> None:
        """Take over the policy's weights of this version (how many updates they have seen). Nothing to do for an engine that shares them."""
        ...

    def release(self) -> None:
        """Give back the memory of caches (and of copied weights) while the policy trains."""
        ...

    def resume(self) -> None:
        """Make ready to generate again."""
        ...

    def close(self) -> None: ...


@dataclass(frozen=True)
class Ingredients:
    """What an engine is built from. `slots` answers are decoded at a time on each tensor-parallel `group`.

    `beside_training`: it generates while the policy's weights change, so it needs a copy of them. `sampling` is what it will be asked for, where that is
    known: an engine that cannot report its log-probabilities refuses it when it is built.
    """

    policy: Policy
    directory: Path
    tokenizer: PreTrainedTokenizerBase
    group: ProcessGroup
    slots: int = 32
    beside_training: bool = False
    sampling: Sampling | None = None


class EngineModule(Protocol):
    """A file of `workbench/rollout/engines/`."""

    def build(self, of: Ingredients) -> RolloutEngine:
        """An engine of the policy. Raises ValueError where it cannot be had here, or not in this layout. All ranks call it."""
        ...


def find_engine(name: str) -> EngineModule:
    """The module `workbench.rollout.engines.<name>`; the settings have checked the name."""
    return cast(EngineModule, import_module(f"workbench.rollout.engines.{name}"))
