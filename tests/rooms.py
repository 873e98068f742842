"""The rooms of the house: their order, what one of them wraps for all, and the modules in them."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
LEVELS = (
    ("app", "workbench.terminal"),
    ("workbench.notebook", "workbench.bench", "workbench.chaos"),
    ("workbench.api",),
    ("workbench.jobs",),
    ("workbench.processes",),
    ("workbench.planner", "workbench.evaluation", "workbench.steering"),
    ("workbench.algorithms",),
    ("workbench.serve",),
    ("workbench.models",),
    ("workbench.rollout", "workbench.rewards", "workbench.labels"),
    ("workbench.engine",),
    ("workbench.data", "workbench.views", "workbench.monitoring", "workbench.machines"),
    ("workbench.settings",),
    ("workbench.rundir", "workbench.metrics", "workbench.functional"),
    ("workbench.backends",),
)
"""From the top: what stands lower is imported by what stands higher. Rooms of one level may import each other one way."""
LEVEL = {room: level for level, rooms in enumerate(LEVELS) for room in rooms}
ONLY_IN = {  # packages that one room wraps for all others
    "megatron": "workbench.engine",
    "peft": "workbench.engine",
    "tensorrt_llm": "workbench.rollout",
    "pytriton": "workbench.serve",
    "tritonclient": "workbench.serve",
    "dask_jobqueue": "workbench.backends",
}
NOT_IN = {"workbench.backends": ("torch", "streamlit"), "app": ("torch", "megatron", "dask", "distributed", "transformers", "datasets")}
OTHER_ENVIRONMENTS = {"workbench.bench.trl_side"}
"""Programs that run beside the project, in an environment of their own."""


def sources() -> dict[str, Path]:
    """Every module of the project by its dotted name: `workbench/backends` is a link to the folder `backends`; the app's folder stands in for a package `app`."""
    found = {}
    for top in ("workbench", "backends", "app"):
        for path in sorted((ROOT / top).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            parts = ("workbench", *parts) if top == "backends" else parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


SOURCES = sources()


def imported(name: str, path: Path) -> Iterator[tuple[str, int]]:
    """What a module imports anywhere in it, as dotted names with their lines."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0 and node.module, f"{path}:{node.lineno}: relative imports hide where a name comes from"
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield (inner if inner in SOURCES else node.module), node.lineno


def room(module: str) -> str:
    """The room that a module of ours lies in; empty for another's."""
    parts = module.split(".")
    if parts[0] in ("app", "ui"):
        return "app"
    return ".".join(parts[:2]) if parts[0] == "workbench" else ""
