"""Rows that are longer than the model is made for: computed as they are, and warned of once."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from workbench.engine import preconditions

if TYPE_CHECKING:
    from workbench.data.packing import Row


def beyond_context(directory: Path, rows: Sequence[Row], max_tokens: int) -> str:
    """What is to be said of rows beyond the context of a model; empty where there are none, or the model does not tell its context."""
    longest = preconditions.context_length(preconditions.read_config(directory))
    lengths = [len(row.prefix) + max(map(len, row.branches), default=max_tokens) for row in rows]
    beyond = [length for length in lengths if longest is not None and length > longest]
    if not beyond or longest is None:
        return ""
    what, way = "rows have", f"set data.max_length={longest}"
    if max_tokens:
        what, way = (
            f"prompts with answers of up to {max_tokens} tokens (max_tokens) have",
            f"set data.max_length={max(longest - max_tokens, 8)} or fewer max_tokens",
        )
    return (
        f"{len(beyond)} of {len(rows)} {what} more tokens than the model's context of {longest} (the longest {max(beyond)}): what a model computes beyond its"
        f" context is not meaningful; {way}, or take a model with a longer context"
    )
