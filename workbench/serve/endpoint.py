"""What a server answers: named functions of arrays. Knows no models and no transport."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

Arrays = dict[str, np.ndarray]


class BadRequest(ValueError):
    """The request is wrong, and the server is well. The message is for whoever asked."""


@dataclass(frozen=True)
class Field:
    """An array of a request or an answer. `dtype` is numpy's, or `bytes` for texts."""

    name: str
    dtype: Any
    ndim: int


@dataclass(frozen=True)
class Endpoint:
    """One function. Calls come one at a time, all in the server's main thread. It raises BadRequest for what it refuses."""

    name: str
    inputs: tuple[Field, ...]
    outputs: tuple[Field, ...]
    call: Callable[[Arrays], Arrays]


def check_tokens(tokens_BT: np.ndarray, lengths_B: np.ndarray, vocabulary: int, longest: int) -> None:
    """Raises BadRequest for tokens that no model could read."""
    rows, width = tokens_BT.shape
    if rows == 0 or len(lengths_B) != rows:
        raise BadRequest(f"sequence_lengths has {len(lengths_B)} entries for {rows} rows of tokens")
    if lengths_B.min() < 1 or lengths_B.max() > width:
        raise BadRequest(f"sequence_lengths lie between 1 and the {width} columns of tokens, got {lengths_B.min()} to {lengths_B.max()}")
    if lengths_B.max() > longest:
        raise BadRequest(f"a sequence has {lengths_B.max()} tokens, the longest allowed has {longest}")
    if tokens_BT.min() < 0 or tokens_BT.max() >= vocabulary:
        raise BadRequest(f"tokens lie between 0 and {vocabulary - 1}, got {tokens_BT.min()} to {tokens_BT.max()}")
