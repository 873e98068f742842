"""Architectures, one file each, by the `model_type` of their Hugging Face configuration.

A file says what it does not support (`check`), how megatron is to be configured (`architecture`), which tensors there are (`parts`) and how
positions turn (`rope_frequencies`). How its layers compute is megatron's in training and `workbench.engine.layer` in decoding. Importing one loads
no torch: a launch asks `check` before any process starts that would load the model.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any, Protocol, cast

from workbench.engine.families._parts import Part
from workbench.settings.naming import module_names

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PretrainedConfig


class Family(Protocol):
    """A file of this folder."""

    def check(self, config: Mapping[str, Any]) -> None:
        """Raises ValueError for a feature that the engine does not have; the message names its key and value.

        `config` is a config.json, or what transformers made of one. A key that is missing has transformers' default.
        """
        ...

    def architecture(self, hf: PretrainedConfig) -> dict[str, Any]:
        """The fields of megatron's TransformerConfig that the architecture decides."""
        ...

    def parts(self, hf: PretrainedConfig) -> Iterator[Part]:
        """Every parameter of the whole model, and the Hugging Face tensors that it is made of."""
        ...

    def rope_frequencies(self, hf: PretrainedConfig) -> Tensor:
        """The inverse frequencies [head_dim / 2] of RoPE."""
        ...


def names() -> list[str]:
    """The families there are: the files of this folder."""
    return module_names("engine/families")


def find(model_type: object) -> Family:
    """The family of a model. Raises ValueError for one that there is none for."""
    if model_type not in names():
        raise ValueError(f"model_type {model_type!r} has no family in workbench/engine/families; there are: {', '.join(names())}")
    return cast(Family, import_module(f"{__name__}.{model_type}"))
