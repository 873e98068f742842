"""How a layer computes, written out over its modules with the attention passed in. The decoder runs on it, with its caches as the attention.

    x = x + proj(attend(rope(q), rope(k), v)),  q, k, v = qkv(norm(x)), grouped by key
    x = x + down(silu(gate) * up),              gate, up = fc1(norm(x))

Training runs megatron's TransformerLayer over the same modules, weights and adapters, since its gradients, sequence parallelism and
recomputation are megatron's. Shared with it are the modules themselves (norms, embedding, a mixture's experts, all products under tensor
parallelism) and the head. Written here besides are the order, the residuals, RoPE, the split of queries, keys and values, the gate, and on one
rank the products with biases and adapters. `tests/engine/test_layer.py` guards these: for each family the logits of both ways are equal, and
are not once any one part is left out.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from megatron.core.tensor_parallel import ColumnParallelLinear, RowParallelLinear
from megatron.core.transformer.transformer_config import TransformerConfig
from torch import Tensor

from workbench.engine.megatron_types import AdaptedProduct, Attention, Layer, Mlp, Product
from workbench.engine.model import PackedGPT

Attend = Callable[[int, Tensor, Tensor, Tensor], Tensor]
"""From a layer's number, queries [B, H, T, d], keys and values [B, G, T, d] to [B, H, T, d]."""

Rotary = tuple[Tensor, Tensor]
"""Cosines and sines by position, [L, d] or of chosen positions; the sines' first half has its sign turned."""


@dataclass(frozen=True)
class Heads:
    """This rank's groups, the query heads of each, and a head's dimension; `alone` where no ranks share the layers' matrices."""

    groups: int
    queries: int
    dim: int
    alone: bool

    @classmethod
    def of(cls, config: TransformerConfig) -> Heads:
        assert config.num_query_groups and config.kv_channels
        ranks = config.tensor_model_parallel_size
        return cls(config.num_query_groups // ranks, config.num_attention_heads // config.num_query_groups, config.kv_channels, ranks == 1)


def rotary_tables(model: PackedGPT, length: int, dtype: torch.dtype, device: torch.device) -> Rotary:
    """Of positions 0 to `length`, each [length, d]."""
    angle = torch.arange(length, device=device)[:, None].float() * model.inv_freq.to(device)
    return torch.cat([angle, angle], dim=-1).cos().to(dtype), torch.cat([-angle, angle], dim=-1).sin().to(dtype)


def hidden_states(model: PackedGPT, heads: Heads, tokens_BT: Tensor, positions_BT: Tensor, tables: Rotary, attend: Attend) -> Tensor:
    """The last hidden states [B, T, D] of a model of all layers; its `logits` are the head's."""
    cos, sin = (table[positions_BT][:, :, None, None] for table in tables)
    hidden = model.embedding.word_embeddings(tokens_BT)
    for i, layer in enumerate(cast(list[Layer], model.decoder.layers)):
        hidden = hidden + attention(i, layer.self_attention, heads, layer.input_layernorm(hidden), (cos, sin), attend)
        hidden = hidden + mlp(layer.mlp, heads, layer.pre_mlp_layernorm(hidden))
    assert model.decoder.final_layernorm is not None, "a model of all layers has the norm after the last"
    return model.decoder.final_layernorm(hidden)


def attention(i: int, module: Attention, heads: Heads, hidden_BTD: Tensor, rotary: Rotary, attend: Attend) -> Tensor:
    batch, length = hidden_BTD.shape[:2]
    mixed = product(module.linear_qkv, hidden_BTD, heads.alone).view(batch, length, heads.groups, heads.queries + 2, heads.dim)
    turned = rotate(mixed[..., : heads.queries + 1, :], rotary)
    query = turned[..., : heads.queries, :].reshape(batch, length, -1, heads.dim).transpose(1, 2)
    key, value = turned[..., heads.queries, :].transpose(1, 2), mixed[..., heads.queries + 1, :].transpose(1, 2)
    out = attend(i, query, key, value)
    return product(module.linear_proj, out.transpose(1, 2).reshape(batch, length, -1), heads.alone)


def mlp(module: Mlp, heads: Heads, hidden_BTD: Tensor) -> Tensor:
    """Gated; a mixture of experts, or one shared by ranks, is megatron's own."""
    if not heads.alone or not hasattr(module, "linear_fc1"):
        return module(hidden_BTD)[0]
    gate, up = product(module.linear_fc1, hidden_BTD, True).chunk(2, dim=-1)
    return product(module.linear_fc2, F.silu(gate) * up, True)


def product(layer: Product, x: Tensor, alone: bool) -> Tensor:
    """A linear layer with its adapters. On one rank without megatron's wrapping, which costs as much as the product where it is small."""
    inner: object = getattr(layer, "base_layer", layer)
    if not alone or not isinstance(inner, _PLAIN):
        return layer(x)[0]
    base = cast(Product, inner)
    out = F.linear(x, base.weight, base.bias)
    if base is not layer:
        adapted = cast(AdaptedProduct, layer)
        for name in () if adapted.disable_adapters else adapted.active_adapters:
            down, up = cast(Tensor, adapted.lora_A[name].weight), cast(Tensor, adapted.lora_B[name].weight)
            out = out + F.linear(F.linear(x, down), up) * adapted.scaling[name]
    return out


_PLAIN = (ColumnParallelLinear, RowParallelLinear)
"""Layers that are nothing but a product; Transformer Engine's have a norm in them."""


def rotate(x: Tensor, rotary: Rotary) -> Tensor:
    """RoPE (Su et al., arXiv 2104.09864) in the half-split layout that Hugging Face and megatron use."""
    cos, sin = rotary
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat([second, first], dim=-1) * sin
