"""Attention over packed rows: torch's fused SDPA, one row at a time, so that rows never see each other and nothing is padded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from megatron.core.packed_seq_params import PackedSeqParams
from megatron.core.transformer.module import MegatronModule
from torch import Tensor

from workbench.data.packing import Tree


@dataclass
class PackedRows(PackedSeqParams):
    """Travels with a pack through every layer and pipeline stage. `qkv_format` is sbhd: megatron leaves the [T, 1, H, D] tensors alone."""

    trees: tuple[Tree, ...] = ()
    positions_T: Tensor | None = None
    source_N: Tensor | None = None
    target_N: Tensor | None = None
    last_S: Tensor | None = None


class PackedAttention(MegatronModule):
    """The `core_attention` of a layer. Queries [T, 1, H, D], keys and values [T, 1, G, D] (G query groups), to [T, 1, H * D]."""

    def __init__(self, config: Any, layer_number: int, attn_mask_type: Any, attention_type: str, softmax_scale: float | None = None, **_: Any):
        super().__init__(config=config)
        self.scale = softmax_scale
        self.dropout = config.attention_dropout

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attention_mask: Tensor | None = None,
        attn_mask_type: Any = None,
        attention_bias: Tensor | None = None,
        packed_seq_params: PackedRows | None = None,
    ) -> Tensor:
        assert packed_seq_params is not None, "the engine's models take packed rows only"
        length, batch = query.shape[:2]
        query, key, value = (t.permute(1, 2, 0, 3) for t in (query, key, value))
        parts = [part for tree in packed_seq_params.trees for part in self._tree(query, key, value, tree)]
        used = sum(tree.prefix + sum(tree.branches) for tree in packed_seq_params.trees)
        if used < length:  # places that only fill the pack up to a size the layout wants
            parts.append(query.new_zeros(batch, query.shape[1], length - used, query.shape[3]))
        return torch.cat(parts, dim=2).permute(2, 0, 1, 3).reshape(length, batch, -1)

    def _tree(self, query: Tensor, key: Tensor, value: Tensor, tree: Tree) -> list[Tensor]:
        """The prefix together with the first branch; then each other branch, whose queries see the prefix and themselves."""
        start, prefix = tree.start, tree.prefix
        end = start + prefix + (tree.branches[0] if tree.branches else 0)
        parts = [self._attend(query[:, :, start:end], key[:, :, start:end], value[:, :, start:end])]
        for length in tree.branches[1:]:
            seen = [torch.cat([t[:, :, start : start + prefix], t[:, :, end : end + length]], dim=2) for t in (key, value)]
            parts.append(self._attend(query[:, :, end : end + length], *seen))
            end += length
        return parts

    def _attend(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
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
