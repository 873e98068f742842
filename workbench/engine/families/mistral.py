"""Mistral (Jiang et al., arXiv 2310.06825): a Llama, without its sliding window."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from workbench.engine.families import llama
from workbench.engine.families.llama import architecture, parts, rope_frequencies

__all__ = ["architecture", "check", "parts", "rope_frequencies"]

DEFAULT_WINDOW = 4096
"""Of a configuration that does not name `sliding_window`."""


def check(config: Mapping[str, Any]) -> None:
    window = config.get("sliding_window", DEFAULT_WINDOW)
    if window:
        raise ValueError(
            f"sliding_window={window!r}: the engine's attention has no window; take a model without one, or, where no row and no answer will be longer than"
            f" {window} tokens, set sliding_window to null in a copy of its config.json"
        )
    llama.check(config)
