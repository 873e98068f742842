"""The rooms of the house, and who may call whom."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

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


EDGES = [(name, target, f"{path.relative_to(ROOT)}:{line}") for name, path in SOURCES.items() for target, line in imported(name, path)]


def test_every_room_has_its_place() -> None:
    rooms = {room(name) for name in SOURCES} - {"workbench"}
    assert not rooms - LEVEL.keys(), f"say in LEVELS where these stand: {sorted(rooms - LEVEL.keys())}"


def test_imports_run_from_the_top_down() -> None:
    wrong = [
        f"{place} imports {target}"
        for name, target, place in EDGES
        if (here := room(name)) in LEVEL and (there := room(target)) in LEVEL and here != there and LEVEL[there] < LEVEL[here]
    ]
    assert not wrong, "\n".join(wrong)


def test_rooms_of_one_level_import_each_other_one_way() -> None:
    between = {(room(name), room(target)) for name, target, _ in EDGES}
    both = sorted((a, b) for a, b in between if a < b and (b, a) in between)
    assert not both, both


def test_no_circles_between_modules() -> None:
    edges: dict[str, set[str]] = defaultdict(set)
    for name, target, _ in EDGES:
        if target in SOURCES and target != name:
            edges[name].add(target)
    done: set[str] = set()

    def walk(name: str, way: tuple[str, ...]) -> None:
        assert name not in way, " -> ".join((*way[way.index(name) :], name))
        if name not in done:
            for target in sorted(edges[name]):
                walk(target, (*way, name))
            done.add(name)

    for name in list(edges):
        walk(name, ())


@pytest.mark.parametrize("package", ONLY_IN)
def test_a_package_is_imported_in_its_room_alone(package: str) -> None:
    wrong = [
        place
        for name, target, place in EDGES
        if target.split(".")[0] == package and room(name) != ONLY_IN[package] and name not in OTHER_ENVIRONMENTS
    ]
    assert not wrong, wrong


def test_few_modules_stand_loose() -> None:
    loose = {name for name in SOURCES if name.count(".") == 1 and name.startswith("workbench.") and SOURCES[name].name != "__init__.py"}
    assert loose <= {"workbench.api", "workbench.metrics"}, loose


@pytest.mark.parametrize("where", NOT_IN)
def test_what_a_room_does_without(where: str) -> None:
    wrong = [place for name, target, place in EDGES if room(name) == where and target.split(".")[0] in NOT_IN[where]]
    assert not wrong, wrong
