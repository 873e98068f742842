"""Promises about the project itself: pins, imports, documentation."""

from __future__ import annotations

import importlib.metadata
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
PINS = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line)


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_every_dependency_is_pinned_and_installed_so() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    pins = {canonical(name): version for name, version in PINS.items()}
    wanted = [Requirement(text).name for text in (*project["dependencies"], *(r for name, rs in extras.items() if name != "tensorrt" for r in rs))]
    assert [name for name in wanted if canonical(name) not in pins] == []
    for name in wanted:
        assert importlib.metadata.version(name).partition("+")[0] == pins[canonical(name)], name


def test_conda_and_make_install_from_the_same_pins() -> None:
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    pip = next(entry["pip"] for entry in environment["dependencies"] if isinstance(entry, dict))
    assert pip[0] == "-c constraints.txt"
    assert not any("==" in line for line in pip)
    assert "-c constraints.txt" in (ROOT / "Makefile").read_text()
    assert "make test" in (ROOT / ".ci" / "run").read_text()


def test_algorithms_know_nothing_of_layouts() -> None:
    """No algorithm names ranks, groups or devices, nor imports the engine."""
    for path in (ROOT / "workbench/algorithms").glob("[a-z_]*[a-z].py"):
        words = set(re.findall(r"[a-z_]+", path.read_text().lower()))
        assert not words & {"rank", "ranks", "device", "devices", "cuda", "gloo", "nccl", "engine", "distributed"}, path.name


def test_the_facade_and_every_algorithms_settings_load_no_torch() -> None:
    code = "import sys, workbench.settings.spec, workbench.api, workbench.views; from workbench.settings.modules import *; [find_algorithm(n).Config for n in algorithm_names()]; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT).stdout.strip() == "False"


@pytest.mark.parametrize("picture", re.findall(r"!\[.*?\]\((.*?)\)", (ROOT / "README.md").read_text()))
def test_the_readmes_pictures_are_there(picture: str) -> None:
    assert (ROOT / picture).is_file()


def test_every_fragment_has_a_place_of_its_own() -> None:
    """Elsewhere its container may be lost on the way to the browser: `ui.frame.refreshed` tells."""
    used = [path.relative_to(ROOT).as_posix() for path in sorted((ROOT / "app").rglob("*.py")) if "st.fragment(" in path.read_text()]
    assert used == ["app/ui/frame.py"]
