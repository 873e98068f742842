"""How strictly the code is typed and how long its pieces may be. pyright itself runs in `make check`."""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
ANY_PER_1000_LINES = 8
FILE_LINES, FUNCTION_LINES = 400, 60
IGNORES = 2
"""`type: ignore` and `pyright: ignore` comments in all."""
OTHER_ENVIRONMENTS = {"workbench/bench/trl_side.py"}
"""Programs that run beside the project, in an environment of their own."""

LINKS = {"workbench/app", "workbench/backends"}
"""To folders that are checked under their own names."""


def sources() -> Iterator[tuple[str, str]]:
    """Every file of the project: its path and its text."""
    for top in ("workbench", "backends", "app"):
        for path in sorted((ROOT / top).rglob("*.py")):
            yield str(path.relative_to(ROOT)), path.read_text()


def test_any_is_rare() -> None:
    lines = sum(len(text.splitlines()) for _, text in sources())
    anys = [path for path, text in sources() for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Name) and node.id == "Any"]
    assert len(anys) * 1000 < ANY_PER_1000_LINES * lines, f"{len(anys)} times Any in {lines} lines: {sorted(set(anys), key=anys.count)[-5:]}"


def test_pyright_checks_in_standard_mode_with_no_rule_turned_off() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["pyright"]
    assert settings["typeCheckingMode"] == "standard"
    rules = {key: value for part in (settings, *settings.get("executionEnvironments", ())) for key, value in part.items() if key.startswith("report")}
    assert not rules, f"these rules are not what the mode says: {rules}"
    assert set(settings["exclude"]) == OTHER_ENVIRONMENTS | LINKS and {"workbench", "backends", "app"} <= set(settings["include"])


def test_what_is_ignored_names_its_rule() -> None:
    found = [f"{path}: {line.strip()}" for path, text in sources() for line in text.splitlines() if re.search(r"#\s*(type|pyright):", line)]
    assert len(found) <= IGNORES, "\n".join(found)
    assert all(re.search(r"# pyright: ignore\[report\w+\]", line) for line in found), "\n".join(found)


def test_no_file_is_long() -> None:
    long = {path: lines for path, text in sources() if (lines := len(text.splitlines())) > FILE_LINES}
    assert not long, f"more than {FILE_LINES} lines: {long}"


def test_no_function_is_long() -> None:
    long = [
        f"{path}:{node.lineno} {node.name}"
        for path, text in sources()
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and (node.end_lineno or 0) - node.lineno >= FUNCTION_LINES
    ]
    assert not long, f"more than {FUNCTION_LINES} lines: {long}"
