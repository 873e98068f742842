"""What megatron-core and torch type more loosely than they behave, named once for the whole engine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol, cast

import torch.distributed as dist
from torch import Tensor, nn

if TYPE_CHECKING:
    from megatron.core.distributed import DistributedDataParallel

LooseGroup = dist.ProcessGroup | int | list[dist.ProcessGroup] | None
"""What megatron says that its getters give."""


def group(loose: LooseGroup) -> dist.ProcessGroup:
    """The group that one of megatron's getters gives, once the groups are formed."""
    return cast(dist.ProcessGroup, loose)


def put(owner: object, **members: object) -> None:
    """Set what the owner's type does not declare: a mark that megatron looks for on a parameter, or ours in the place of one of its functions."""
    for name, member in members.items():
        setattr(owner, name, member)


def weight(layers: nn.ModuleDict, name: str) -> Tensor:
    """The weight of a layer that a dictionary of them has under the name."""
    return cast(Tensor, layers[name].weight)


class _Buffer(Protocol):
    grad_data: Tensor


def gradients(ddp: DistributedDataParallel) -> list[Tensor]:
    """The buffers that the gradients of a model chunk lie in. (megatron's attribute has the name of a method of torch's.)"""
    buffers = (*cast(Sequence[_Buffer], ddp.buffers), *cast(Sequence[_Buffer], ddp.expert_parallel_buffers))
    return [buffer.grad_data for buffer in buffers]


class Submodules(Protocol):
    submodules: object


class LayerSubmodules(Protocol):
    """What a layer is specified to be made of."""

    self_attention: Submodules


class Context(Protocol):
    """What an autograd function has of its call. A subclass names what the function keeps there besides."""

    needs_input_grad: tuple[bool, ...]
    saved_tensors: tuple[Tensor, ...]

    def save_for_backward(self, *tensors: Tensor | None) -> None: ...

    def mark_non_differentiable(self, *tensors: Tensor) -> None: ...


class Product(Protocol):
    """A linear layer of megatron's: to its product and a bias that is left to add, if any."""

    weight: Tensor
    bias: Tensor | None

    def __call__(self, x: Tensor) -> tuple[Tensor, Tensor | None]: ...


class AdaptedProduct(Product, Protocol):
    """One with peft's adapters, by their names."""

    base_layer: Product
    lora_A: nn.ModuleDict
    lora_B: nn.ModuleDict
    scaling: dict[str, float]
    active_adapters: list[str]
    disable_adapters: bool
    in_features: int
    is_parallel_a: bool
    sequence_parallel: bool


class Attention(Protocol):
    linear_qkv: Product
    linear_proj: Product


class Mlp(Protocol):
    """Gated; a mixture of experts has no products of its own."""

    linear_fc1: Product
    linear_fc2: Product

    def __call__(self, x: Tensor) -> tuple[Tensor, Tensor | None]: ...


class Layer(Protocol):
    """A transformer layer."""

    self_attention: Attention
    mlp: Mlp

    def input_layernorm(self, hidden: Tensor) -> Tensor: ...

    def pre_mlp_layernorm(self, hidden: Tensor) -> Tensor: ...
