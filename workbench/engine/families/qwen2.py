"""Qwen2 (Yang et al., arXiv 2407.10671): a Llama with biases on queries, keys and values."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from transformers import PretrainedConfig

from workbench.engine.families import llama
from workbench.engine.families._parts import Part
from workbench.engine.families.llama import rope_frequencies

__all__ = ["architecture", "check", "parts", "rope_frequencies"]


def check(hf: PretrainedConfig) -> None:
    llama.check(hf)
    if getattr(hf, "use_sliding_window", False):
        raise ValueError("sliding-window attention is not supported; use a model whose config has use_sliding_window false")


def architecture(hf: PretrainedConfig) -> dict[str, Any]:
    return {**llama.architecture(hf), "add_qkv_bias": True}


def parts(hf: PretrainedConfig) -> Iterator[Part]:
    layers = range(hf.num_hidden_layers)
    yield from llama.around(hf, (part for i in layers for part in (*llama.attention(hf, i, bias=True), *llama.mlp(i))))
