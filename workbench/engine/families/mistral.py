"""Mistral (Jiang et al., arXiv 2310.06825): a Llama, without its sliding window."""

from __future__ import annotations

from transformers import PretrainedConfig

from workbench.engine.families import llama
from workbench.engine.families.llama import architecture, parts, rope_frequencies

__all__ = ["architecture", "check", "parts", "rope_frequencies"]


def check(hf: PretrainedConfig) -> None:
    llama.check(hf)
    if getattr(hf, "sliding_window", None):
        raise ValueError("sliding-window attention is not supported; use a model whose config has sliding_window null")
