"""From tokens to sequences."""

from __future__ import annotations

import torch
from torch import Tensor


def sum_by_sequence(values_N: Tensor, sequence_N: Tensor, num_sequences: int) -> Tensor:
    """Sum per-token values into their sequences.

    Args:
        values_N: one value a token.
        sequence_N: the index of each token's sequence, 0 <= index < num_sequences.

    Returns:
        sums_S; 0 for a sequence without tokens.
    """
    return torch.zeros(num_sequences, dtype=values_N.dtype, device=values_N.device).index_add(0, sequence_N, values_N)


def count_by_sequence(sequence_N: Tensor, num_sequences: int) -> Tensor:
    """How many tokens each sequence has: counts_S, integer."""
    return torch.bincount(sequence_N, minlength=num_sequences)
