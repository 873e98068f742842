"""Promises about the tests themselves: where they lie, what they share, and that none depends on how fast a machine is."""

from __future__ import annotations

import ast
from pathlib import Path

from tests.rooms import LEVEL, ROOT

TESTS = ROOT / "tests"
FILES = sorted(TESTS.rglob("*.py"))
TREES = {path: ast.parse(path.read_text()) for path in FILES}
SPECIAL = {"browser": "a real Chromium", "gpu": "a GPU", "slurm": "a real SLURM", "trust": "attacks on every room"}
"""Folders that are named for what their tests need or do, over all rooms."""
SLOW_WORK = {
    "app/synthetic.py": "a run that writes an event now and then",
    "backends/stand_in_rank.py": "a rank whose steps take time",
    "held.py": "a rank that stands still",
    "serve/echo.py": "a server whose answers take long",
}
"""Where sleeping is what is simulated."""
CLOCKS = {"monotonic", "perf_counter", "time"}


def name(path: Path) -> str:
    return path.relative_to(TESTS).as_posix()


def calls_of_time(node: ast.AST, functions: set[str]) -> list[int]:
    """The lines below the node where one of these functions of `time` is called."""
    made = [call for call in ast.walk(node) if isinstance(call, ast.Call)]
    dotted = [c for c in made if isinstance(c.func, ast.Attribute) and c.func.attr in functions and ast.unparse(c.func.value) == "time"]
    plain = [c for c in made if isinstance(c.func, ast.Name) and c.func.id in functions - {"time"}]
    return [call.lineno for call in (*dotted, *plain)]


def test_no_test_module_is_imported() -> None:
    """What tests share is a fixture of a conftest.py or lies in a module beside them: importing a test module collects its tests and fixtures twice."""
    wrong = []
    for path in FILES:
        for node in ast.walk(TREES[path]):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import | ast.ImportFrom) else []
            froms = [f"{node.module}.{each}" for each in names] if isinstance(node, ast.ImportFrom) else names
            parts = {part for each in froms if each.startswith("tests.") for part in each.split(".")}
            wrong += [f"{name(path)}:{node.lineno}" for part in parts if part.startswith("test_")]
    assert not wrong


def test_waiting_is_done_by_one_function() -> None:
    """`tests.waiting.until` says what it waited for. A fixed pause is too long or too short; a loop with a deadline of its own says nothing."""
    wrong = []
    for path in FILES:
        if name(path) not in {"waiting.py", *SLOW_WORK}:
            wrong += [f"{name(path)}:{line} sleeps" for line in calls_of_time(TREES[path], {"sleep"})]
            loops = [loop for loop in ast.walk(TREES[path]) if isinstance(loop, ast.While)]
            wrong += [f"{name(path)}:{loop.lineno} waits by a clock of its own" for loop in loops if calls_of_time(loop, CLOCKS)]
    assert not wrong


def test_every_folder_is_a_rooms_or_named_here() -> None:
    rooms = {room.rpartition(".")[2] for room in LEVEL}
    folders = {path.parent.name for path in TESTS.glob("*/test_*.py")}
    assert folders - rooms == SPECIAL.keys()
    assert not [*TESTS.glob("*/*/**/test_*.py")], "a room's tests lie in one folder"
    assert {name(path) for path in FILES} >= SLOW_WORK.keys()
