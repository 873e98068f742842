"""The whole model from its parts: tensors in Hugging Face's names and shapes, one after the other, on every rank."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
import torch.distributed as dist
from torch import Tensor
from transformers import PretrainedConfig

from workbench.engine import device, parallel
from workbench.engine.hf import PADDED, mapping


def gathered(weights: Mapping[str, Tensor], hf: PretrainedConfig) -> Iterator[tuple[str, Tensor]]:
    """(name, full tensor) of every weight, whatever the layout. All ranks call it with their own part and take every item; each tensor
    lives only until the next, so the whole model is never held."""
    owner: dict[str, int] = {}
    for rank, names in enumerate(parallel.gather_over_all(sorted(weights))):
        for name in names:
            owner.setdefault(name, rank)
    for part in mapping(hf):
        if part.name not in owner or (part.name == "output_layer.weight" and hf.tie_word_embeddings):
            continue
        pieces = part.split(weights[part.name]) if part.name in weights else []
        tensors = [_joined(piece, part.dim) for piece in pieces]
        for name, tensor in zip(part.hf_names, _from_owner(tensors, owner[part.name]), strict=True):
            yield name, tensor[: hf.vocab_size] if part.name in PADDED else tensor


def _joined(piece: Tensor, dim: int | None) -> Tensor:
    """The tensor of which the tensor-parallel ranks have equal pieces along `dim`."""
    if dim is None or parallel.tensor_size() == 1:
        return piece.contiguous()
    pieces = [torch.empty_like(piece, memory_format=torch.contiguous_format) for _ in range(parallel.tensor_size())]
    dist.all_gather(pieces, piece.contiguous(), group=parallel.tensor_group())
    return torch.cat(pieces, dim=dim)


def _from_owner(tensors: list[Tensor], owner: int) -> list[Tensor]:
    if parallel.world_size() == 1:
        return tensors
    shapes = parallel.from_rank([(tensor.shape, tensor.dtype) for tensor in tensors], owner)
    if parallel.rank() != owner:
        tensors = [torch.empty(shape, dtype=dtype, device=device.current()) for shape, dtype in shapes]
    for tensor in tensors:
        dist.broadcast(tensor, src=owner)
    return tensors
