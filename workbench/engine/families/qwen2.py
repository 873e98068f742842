"""Qwen2 (Yang et al., arXiv 2407.10671): a Llama with biases on queries, keys and values."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from workbench.engine.families import _features, llama
from workbench.engine.families._parts import Part
from workbench.engine.families.llama import rope_frequencies

if TYPE_CHECKING:
    from transformers import PretrainedConfig

__all__ = ["architecture", "check", "parts", "rope_frequencies"]


def check(config: Mapping[str, Any]) -> None:
    _features.refuse(config, unread=() if config.get("use_sliding_window") else ("sliding_window",))


def architecture(hf: PretrainedConfig) -> dict[str, Any]:
    return {**llama.architecture(hf), "add_qkv_bias": True}


def parts(hf: PretrainedConfig) -> Iterator[Part]:
    layers = range(hf.num_hidden_layers)
    yield from llama.around(hf, (part for i in layers for part in (*llama.attention(hf, i, bias=True), *llama.mlp(i))))
