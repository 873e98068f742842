"""Attention over packed rows: torch's fused SDPA, one row at a time, so that rows never see each other and nothing is padded.

With context parallelism a rank has the queries of two spans of the pack, one from each end, which balances the causal work; keys and
values are gathered from the other ranks.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from megatron.core.packed_seq_params import PackedSeqParams
from megatron.core.tensor_parallel import gather_from_sequence_parallel_region
from megatron.core.transformer.module import MegatronModule
from megatron.core.transformer.transformer_config import TransformerConfig
from torch import Tensor

from workbench.data.packing import Tree
from workbench.engine import parallel
from workbench.engine.drawn import Drawn
from workbench.settings.outputs import Outputs

Span = tuple[int, int]


@dataclass
class PackedRows(PackedSeqParams):
    """Travels with a pack through every layer and pipeline stage. `qkv_format` is sbhd: megatron leaves the [T, 1, H, D] tensors alone.

    T counts this context rank's tokens, which lie in `spans` of the pack. `places_N` are those of the hidden states that the head reads,
    `target_N` the tokens that they predict, `at_NK` further tokens of each and `drawn` how they were drawn (None for a score head), and `slots_N` where the results go
    among the pack's `total`. Where nothing is `wanted` the head gives all logits.
    """

    prefix_trees: tuple[Tree, ...] = ()
    spans: tuple[Span, ...] = ()
    positions_T: Tensor | None = None
    wanted: Outputs | None = None
    places_N: Tensor | None = None
    target_N: Tensor | None = None
    at_NK: Tensor | None = None
    drawn: Drawn | None = None
    slots_N: Tensor | None = None
    total: int = 0


def spans_of(length: int, rank: int, ranks: int) -> tuple[Span, ...]:
    """The spans of a pack whose tokens a context rank has: of 2 x ranks equal pieces, one counted from each end."""
    if ranks == 1:
        return ((0, length),)
    size = length // (2 * ranks)
    return tuple((piece * size, (piece + 1) * size) for piece in (rank, 2 * ranks - 1 - rank))


def within(spans: Sequence[Span], places_N: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which of a pack's places lie in the spans, and where in the spans' tokens laid end to end."""
    here, local = [], []
    offset = 0
    for start, end in spans:
        inside = np.flatnonzero((places_N >= start) & (places_N < end))
        here.append(inside)
        local.append(places_N[inside] - start + offset)
        offset += end - start
    return np.concatenate(here), np.concatenate(local)


class PackedAttention(MegatronModule):
    """The `core_attention` of a layer. Queries [T, 1, H, D], keys and values [T, 1, G, D] (G query groups), to [T, 1, H * D]."""

    def __init__(
        self,
        config: TransformerConfig,
        layer_number: int,
        attn_mask_type: object,
        attention_type: str,
        softmax_scale: float | None = None,
        **_: object,
    ):
        super().__init__(config=config)
        self.scale = softmax_scale
        self.dropout = config.attention_dropout

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attention_mask: Tensor | None = None,
        attn_mask_type: object = None,
        attention_bias: Tensor | None = None,
        packed_seq_params: PackedRows | None = None,
    ) -> Tensor:
        assert packed_seq_params is not None, "the engine's models take packed rows only"
        length, batch = query.shape[:2]
        if len(packed_seq_params.spans) > 1:
            key, value = _whole(key), _whole(value)
        query, key, value = (t.permute(1, 2, 0, 3) for t in (query, key, value))
        parts = []
        offset = 0
        for start, end in packed_seq_params.spans:
            at = start
            for first, last, prefix, own in _segments(packed_seq_params.prefix_trees):
                s, e = max(start, first), min(end, last)
                if s < e:
                    here = slice(offset + s - start, offset + e - start)
                    parts.append(self._attend(query[:, :, here], *(_seen(t, prefix, own, e) for t in (key, value))))
                    at = e
            parts.append(query.new_zeros(batch, query.shape[1], end - at, query.shape[3]))  # places that only fill the pack
            offset += end - start
        return torch.cat(parts, dim=2).permute(2, 0, 1, 3).reshape(length, batch, -1)

    def _attend(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """The last query sees all keys, the one before all but the last, and so on."""
        queries, keys = query.shape[2], key.shape[2]
        mask = None
        if queries < keys:
            mask = torch.ones(queries, keys, dtype=torch.bool, device=query.device).tril(keys - queries)
        return F.scaled_dot_product_attention(
            query,
            key,
            value,
            attn_mask=mask,
            is_causal=mask is None,
            dropout_p=self.dropout if self.training else 0.0,
            scale=self.scale,
            enable_gqa=query.shape[1] != key.shape[1],
        )


def _segments(prefix_trees: tuple[Tree, ...]) -> Iterator[tuple[int, int, Span, int]]:
    """Runs of queries in order: (first, last, the prefix that they see, the place from which on they see every token up to themselves)."""
    for tree in prefix_trees:
        end = tree.start + tree.prefix + (tree.branches[0] if tree.branches else 0)
        yield tree.start, end, (0, 0), tree.start
        for length in tree.branches[1:]:
            yield end, end + length, (tree.start, tree.start + tree.prefix), end
            end += length


def _seen(keys: Tensor, prefix: Span, own: int, end: int) -> Tensor:
    branch = keys[:, :, own:end]
    return torch.cat([keys[:, :, slice(*prefix)], branch], dim=2) if prefix[1] > prefix[0] else branch


def _whole(part: Tensor) -> Tensor:
    """All context ranks' keys or values [T, 1, G, D], in the pack's order; the gradients are summed over the ranks that used them."""
    ranks = parallel.context_size()
    gathered = gather_from_sequence_parallel_region(part.contiguous(), tensor_parallel_output_grad=True, group=parallel.context_group())
    pieces = gathered.chunk(2 * ranks)
    order = [2 * r for r in range(ranks)] + [2 * r + 1 for r in reversed(range(ranks))]
    return torch.cat([pieces[i] for i in order])
