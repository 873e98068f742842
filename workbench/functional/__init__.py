"""Pure tensor functions: losses. No model, no configuration, no collectives.

The submodules load (and torch with them) on first use, so that an algorithm's file can be read for its settings without torch.
"""

from importlib import import_module
from typing import Any

_SUBMODULES = ("advantages", "distillation", "kl", "ordinal", "policy_gradient", "preference", "reward", "sequences", "steerlm2")


def __getattr__(name: str) -> Any:
    if name in _SUBMODULES:
        return import_module(f"workbench.functional.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
