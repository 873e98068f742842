"""`workbench.rundir.lines.KINDS` is what the source writes: no kind more or less, and no other field."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import get_type_hints

from workbench.rundir import lines

ROOT = Path(__file__).parents[2]
WRITERS = {"emit", "write", "_write"}


def written() -> Iterator[tuple[str, set[str]]]:
    """The kind of each event that the source writes, with its fields as far as they stand in the call. (The streaming bench has events of its own.)"""
    for path in sorted((ROOT / "workbench").rglob("*.py")):
        if "bench" in path.parts:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in WRITERS and node.args):
                continue
            first = node.args[0]
            if isinstance(first, ast.Constant) and isinstance(first.value, str) and (node.keywords or len(node.args) > 1):
                yield first.value, {keyword.arg for keyword in node.keywords if keyword.arg}


def test_the_kinds_are_those_that_are_written() -> None:
    assert {kind for kind, _ in written()} == set(lines.KINDS)


def test_an_event_has_the_fields_of_its_kind() -> None:
    known = {kind: {*each.fields, *each.optional} for kind, each in lines.KINDS.items()}
    assert [(kind, fields - known[kind]) for kind, fields in written() if fields - known[kind]] == []
    assert {field for fields in known.values() for field in fields} <= get_type_hints(lines.Event).keys()
