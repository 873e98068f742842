"""What a server answers: named functions of arrays. Knows no models and no transport."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

Arrays = dict[str, np.ndarray]


SECONDS = "server_seconds"
"""An output that every endpoint has besides: how long the request waited, and how long it was computed."""


class BadRequest(ValueError):
    """The request is wrong, and the server is well. The message is for whoever asked."""


@dataclass(frozen=True)
class Field:
    """An array of a request or an answer. `dtype` is numpy's, or `bytes` for texts."""

    name: str
    dtype: Any
    ndim: int

    def holds(self, array: np.ndarray) -> bool:
        kind_fits = array.dtype.kind in "SO" if self.dtype is bytes else array.dtype == np.dtype(self.dtype)
        return kind_fits and array.ndim == self.ndim

    def __str__(self) -> str:
        return f"{'texts' if self.dtype is bytes else np.dtype(self.dtype)} with {self.ndim} axes"


TOKENS = (
    Field("tokens", np.int32, 2),
    Field("sequence_lengths", np.int32, 1),
    Field("prompt_lengths", np.int32, 1),
    Field("temperatures", np.float32, 1),
)
"""What every endpoint about answers takes; see `workbench.models.messages`."""
STEP = Field("step", np.int64, 1)


@dataclass(frozen=True)
class Endpoint:
    """One function. Calls come one at a time, all in the server's main thread. It raises BadRequest for what it refuses.

    `group` names the model that computes it: requests of one group are answered together.
    """

    name: str
    inputs: tuple[Field, ...]
    outputs: tuple[Field, ...]
    call: Callable[[Arrays], Arrays]
    group: str = ""

    def check(self, arrays: Arrays) -> None:
        """Raises BadRequest for arrays that are not the endpoint's inputs."""
        wanted = {field.name: field for field in self.inputs}
        if missing := [name for name in wanted if name not in arrays]:
            raise BadRequest(f"{self.name} wants {', '.join(wanted)}; missing: {', '.join(missing)}")
        if unknown := [name for name in arrays if name not in wanted]:
            raise BadRequest(f"{self.name} wants {', '.join(wanted)}; it does not read {', '.join(unknown)}")
        for name, array in arrays.items():
            if not wanted[name].holds(array):
                raise BadRequest(f"{name}: {wanted[name]} wanted, got {array.dtype} of shape {array.shape}")

    def answer(self, arrays: Arrays) -> Arrays:
        """Raises BadRequest as the function does, TypeError when the function's own answer is not what it promised."""
        answer = self.call(arrays)
        if set(answer) != {field.name for field in self.outputs} or not all(field.holds(answer[field.name]) for field in self.outputs):
            got = {name: (str(array.dtype), array.ndim) for name, array in answer.items()}
            raise TypeError(f"{self.name} answered {got}, its outputs are {self.outputs}")
        return answer


def check_tokens(tokens_BT: np.ndarray, lengths_B: np.ndarray, vocab_size: int, max_length: int) -> None:
    """Raises BadRequest for tokens that no model could read."""
    rows, width = tokens_BT.shape
    if rows == 0 or len(lengths_B) != rows:
        raise BadRequest(f"sequence_lengths has {len(lengths_B)} entries for {rows} rows of tokens")
    if lengths_B.min() < 1 or lengths_B.max() > width:
        raise BadRequest(f"sequence_lengths lie between 1 and the {width} columns of tokens, got {lengths_B.min()} to {lengths_B.max()}")
    if lengths_B.max() > max_length:
        raise BadRequest(f"a sequence has {lengths_B.max()} tokens, the longest allowed has {max_length}")
    if tokens_BT.min() < 0 or tokens_BT.max() >= vocab_size:
        raise BadRequest(f"tokens lie between 0 and {vocab_size - 1}, got {tokens_BT.min()} to {tokens_BT.max()}")
