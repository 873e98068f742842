"""Architectures, one file each, by the `model_type` of their Hugging Face configuration.

A file says what it does not support (`check`), how megatron is to be configured (`architecture`), which tensors there are (`parts`) and how
positions turn (`rope_frequencies`). How its layers compute is megatron's in training and `workbench.engine.layer` in decoding.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol, cast

from torch import Tensor
from transformers import PretrainedConfig

from workbench.engine.families._parts import Part


class Family(Protocol):
    """A file of this folder."""

    def check(self, hf: PretrainedConfig) -> None:
        """Raises ValueError for a feature that the engine does not have; the message names it."""
        ...

    def architecture(self, hf: PretrainedConfig) -> dict[str, Any]:
        """The fields of megatron's TransformerConfig that the architecture decides."""
        ...

    def parts(self, hf: PretrainedConfig) -> Iterator[Part]:
        """Every parameter of the whole model, and the Hugging Face tensors that it is made of."""
        ...

    def rope_frequencies(self, hf: PretrainedConfig) -> Tensor:
        """The inverse frequencies [head_dim / 2] of RoPE. Raises ValueError for a scaling that the engine does not have."""
        ...


def names() -> list[str]:
    """The families there are: the files of this folder."""
    return sorted(path.stem for path in Path(__file__).parent.glob("*.py") if not path.stem.startswith("_"))


def find(hf: PretrainedConfig) -> Family:
    """The family of a model. Raises ValueError for one that there is none for."""
    if hf.model_type not in names():
        raise ValueError(f"model_type {hf.model_type!r} has no family in workbench/engine/families; there are: {', '.join(names())}")
    return cast(Family, import_module(f"{__name__}.{hf.model_type}"))
