"""Alignment Workbench: align language models from a browser, a notebook or a terminal, on one engine.

>>> import workbench as wb
>>> wb.Experiment("dpo_demo").algorithm.name
'dpo'

`wb.Experiment`, `wb.launch`, `wb.runs`, `wb.compare`, … are of `workbench.notebook`, and are loaded when they are asked for.
"""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from workbench.notebook import *  # noqa: F403

__version__ = "0.1.0"


def __getattr__(name: str) -> object:
    if name.startswith("_") or find_spec(f"workbench.{name}"):  # a room of the workbench, which `from workbench import …` imports itself
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    notebook = import_module("workbench.notebook")
    if name not in notebook.__all__:
        nearest = import_module("workbench.settings.naming").nearest
        raise AttributeError(f"workbench has no {name!r}{nearest(name, notebook.__all__)}; there are: {', '.join(notebook.__all__)}")
    return getattr(notebook, name)


def __dir__() -> list[str]:
    return sorted([*(name for name in globals() if name.startswith("__")), *import_module("workbench.notebook").__all__])
