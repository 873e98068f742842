"""How one megatron parameter is made of Hugging Face tensors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PretrainedConfig


@dataclass(frozen=True)
class Part:
    """One megatron parameter and the Hugging Face tensors that it is made of.

    The tensor-parallel ranks divide each of those tensors along `dim` (None: each rank has all of it), then `join` theirs; `split` undoes it.
    """

    name: str
    hf_names: tuple[str, ...]
    dim: int | None = None
    join: Callable[[list[Tensor]], Tensor] = lambda tensors: tensors[0]
    split: Callable[[Tensor], list[Tensor]] = lambda tensor: [tensor]


def head_dim(hf: PretrainedConfig) -> int:
    return getattr(hf, "head_dim", None) or hf.hidden_size // hf.num_attention_heads


def qkv(name: str, hf_names: tuple[str, str, str], hf: PretrainedConfig) -> Part:
    """Queries, keys and values in one: megatron keeps the query heads of each group beside the group's key and value."""
    dim, queries = head_dim(hf), hf.num_attention_heads // hf.num_key_value_heads

    def join(tensors: list[Tensor]) -> Tensor:
        import torch

        groups = len(tensors[1]) // dim
        q, k, v = (t.reshape(groups, -1, *t.shape[1:]) for t in tensors)
        return torch.cat([q, k, v], dim=1).flatten(0, 1)

    def split(tensor: Tensor) -> list[Tensor]:
        grouped = tensor.view(-1, (queries + 2) * dim, *tensor.shape[1:])
        return [part.flatten(0, 1) for part in grouped.split([queries * dim, dim, dim], dim=1)]

    return Part(name, hf_names, 0, join, split)


def gate_and_up(name: str, gate: str, up: str) -> Part:
    """The gated MLP's first two products in one, the gate first."""

    def join(tensors: list[Tensor]) -> Tensor:
        import torch

        return torch.cat(tensors)

    return Part(name, (gate, up), 0, join, lambda tensor: list(tensor.chunk(2)))
