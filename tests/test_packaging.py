"""Promises about what is distributed: ranges, the version, the licence, and that contributors' checks are CI's."""

from __future__ import annotations

import ast
import importlib.metadata
import re
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import workbench

ROOT = Path(__file__).parents[1]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PROJECT = PYPROJECT["project"]
PINS = {
    canonicalize_name(name): version for name, _, version in (line.partition("==") for line in (ROOT / "constraints.txt").read_text().splitlines())
}
REQUIREMENTS = [
    Requirement(text) for text in (*PROJECT["dependencies"], *(one for each in PROJECT["optional-dependencies"].values() for one in each))
]
NOT_TESTED = {"tensorrt-llm"}
"""Cannot be installed beside the rest: a range, but no pin."""


def bounds(requirement: Requirement) -> dict[str, str]:
    return {one.operator: one.version for one in requirement.specifier}


@pytest.mark.parametrize("requirement", REQUIREMENTS, ids=lambda requirement: requirement.name)
def test_every_dependency_has_a_range_that_begins_with_its_pin(requirement: Requirement) -> None:
    assert bounds(requirement).keys() == {">=", "<"}
    name = canonicalize_name(requirement.name)
    if name not in NOT_TESTED:
        assert PINS[name] in requirement.specifier
        assert bounds(requirement)[">="] == PINS[name]


def test_the_ranges_are_checked() -> None:
    assert "2.14.0" not in Requirement("torch>=2.13.0,<2.14").specifier
    assert bounds(Requirement("torch")).keys() != {">=", "<"}


def third_party_imports() -> dict[str, str]:
    """The packages that the project's modules import anywhere in them: a file that does, by import name."""
    found = {}
    for top in ("workbench", "backends", "app"):
        for path in (ROOT / top).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
                names += [node.module] if isinstance(node, ast.ImportFrom) and node.module else []
                found.update({name.partition(".")[0]: str(path.relative_to(ROOT)) for name in names})
    return {name: path for name, path in found.items() if name not in {*sys.stdlib_module_names, "workbench", "ui"}}


def test_what_is_imported_is_declared() -> None:
    """A wheel's user has no constraints.txt: what the code imports must not come by another package's courtesy."""
    declared = {canonicalize_name(requirement.name) for requirement in REQUIREMENTS}
    providers = importlib.metadata.packages_distributions()
    elsewhere = {"trl", "tensorrt_llm", "transformer_engine", "torch_c_dlpack_ext"}  # of another environment, or for a GPU alone
    wrong = {
        name: path
        for name, path in third_party_imports().items()
        if name not in elsewhere and not {canonicalize_name(provider) for provider in providers.get(name, ())} & declared
    }
    assert wrong == {}


def test_the_version_is_written_once() -> None:
    assert "version" not in PROJECT
    assert PROJECT["dynamic"] == ["version"]
    assert PYPROJECT["tool"]["setuptools"]["dynamic"]["version"] == {"attr": "workbench.__version__"}
    assert f"## [{workbench.__version__}]" in (ROOT / "CHANGELOG.md").read_text()


def test_the_links_to_what_lies_beside_the_package() -> None:
    links = {path.name: path.readlink().as_posix() for path in (ROOT / "workbench").iterdir() if path.is_symlink()}
    assert links == {name: f"../{name}" for name in ("app", "backends", "conf", "constraints.txt")}


def test_the_licence_is_the_one_that_is_declared() -> None:
    text = (ROOT / "LICENSE").read_text()
    assert "Apache License\n                           Version 2.0, January 2004" in text
    assert "END OF TERMS AND CONDITIONS" in text
    assert PROJECT["license"] == "Apache-2.0 AND OFL-1.1"
    fonts = ROOT / "app" / "static" / "fonts"
    assert all("SIL OPEN FONT LICENSE Version 1.1" in path.read_text() for path in fonts.glob("OFL-*.txt"))
    assert len(list(fonts.glob("OFL-*.txt"))) == len({path.name.partition("-latin")[0] for path in fonts.glob("*.woff2")})


def test_pre_commit_runs_what_make_lint_runs() -> None:
    """By running it: a check that is added to `make lint` is one of both."""
    (repository,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    (hook,) = repository["hooks"]
    assert repository["repo"] == "local"
    assert (hook["entry"], hook["language"], hook["pass_filenames"], hook["always_run"]) == ("make lint", "system", False, True)
    assert re.search(r"^test: .*\blint\b", (ROOT / "Makefile").read_text(), re.MULTILINE)


CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text()


def test_contributing_tells_how_to_add_each_thing() -> None:
    lines = CONTRIBUTING.partition("| thing |")[2].partition("\n\n")[0].splitlines()[2:]
    things = {row[0]: row for row in ([cell.strip() for cell in line.strip("|").split("|")] for line in lines)}
    tests = "".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    assert things.keys() == {
        *("algorithm", "reward kind", "rollout engine", "backend", "architecture family"),
        *("data format", "page", "served role", "job kind", "metric"),
    }
    for thing, (_, _, file, test) in things.items():
        assert f"\ndef {test.strip('`')}(" in tests, f"{thing}: no test is called {test}"
        for path in re.findall(r"`([\w./<>]+)`", file):
            assert (ROOT / path.partition("<")[0]).exists(), f"{thing}: {path}"


def test_contributings_links_and_targets_are_there() -> None:
    targets = [target.partition("#")[0] for target in re.findall(r"\]\(([^)]+)\)", CONTRIBUTING) if "://" not in target]
    assert targets
    assert [target for target in targets if not (ROOT / target).exists()] == []
    makefile = (ROOT / "Makefile").read_text()
    assert [name for name in re.findall(r"`?make ([\w-]+)", CONTRIBUTING) if not re.search(rf"^{name}:", makefile, re.MULTILINE)] == []
