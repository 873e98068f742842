"""Promises of the README and docs/: links resolve, what a code block says parses, everything there is has a name there, and the reference is whole."""

from __future__ import annotations

import ast
import importlib.util
import json
import re
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import typer
import yaml

import workbench
from workbench import metrics
from workbench.backends import base as backends
from workbench.data.formats import SCHEMAS
from workbench.rundir import lines
from workbench.settings import modules, online, spec
from workbench.settings import pipeline as pipelines
from workbench.settings.spec import Experiment
from workbench.terminal.cli import app

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "SECURITY.md", *sorted((ROOT / "docs").rglob("*.md"))]
TEXTS = {path.relative_to(ROOT).as_posix(): path.read_text() for path in PAGES}
WRITTEN = "\n".join(TEXTS.values())
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
BLOCK = re.compile(r"^```(\S*)[^\n]*\n(.*?)^```", re.DOTALL | re.MULTILINE)
BLOCKS = [(name, language, code) for name, text in TEXTS.items() for language, code in BLOCK.findall(text)]
SHELL = [line for _, language, code in BLOCKS if language == "bash" for line in code.splitlines() if line.strip()]
CODE = "\n".join([*(code for _, _, code in BLOCKS), *re.findall(r"`([^`\n]+)`", BLOCK.sub("", WRITTEN))])
"""Whatever stands in code blocks or between backticks."""
CLI: Any = typer.main.get_command(app)


@pytest.fixture(scope="module")
def reference() -> dict[str, str]:
    """The generated part of each page of docs/reference/."""
    found = importlib.util.spec_from_file_location("reference", ROOT / "docs" / "reference.py")
    assert found and found.loader
    module: ModuleType = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return {name: "\n".join(make()) for name, make in module.PAGES.items()}


def test_the_readme_is_short() -> None:
    assert len(TEXTS["README.md"].split()) < 1200


# --- links


def slugs(text: str) -> set[str]:
    """The anchors of a page's headings, as GitHub and the site make them."""
    headings = re.findall(r"^#+ (.+)$", BLOCK.sub("", text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.replace("`", "").lower()).replace(" ", "-") for heading in headings}


def test_links_and_their_anchors_are_there(reference: dict[str, str]) -> None:
    broken = []
    for name, text in TEXTS.items():
        for target in re.findall(r"\]\(([^)\s]+)\)", BLOCK.sub("", text)):
            file, _, anchor = target.partition("#")
            path = (ROOT / name).parent / file if file else ROOT / name
            if "://" in target:
                continue
            page = "\n".join([path.read_text() if path.suffix == ".md" and path.is_file() else "", reference.get(path.stem, "")])
            if not path.exists() or (anchor and anchor not in slugs(page)):
                broken.append(f"{name}: {target}")
    assert not broken


def test_every_page_is_in_the_sites_contents() -> None:
    listed = {
        (ROOT / name).parent / f"{entry}.md"
        for name, text in TEXTS.items()
        for tree in re.findall(r"```\{toctree\}\n(.*?)```", text, re.DOTALL)
        for entry in tree.splitlines()
        if entry and not entry.startswith(":")
    }
    notebooks = {ROOT / "docs" / "notebooks" / f"{path.stem}.md" for path in NOTEBOOKS}
    assert listed == notebooks | {path for path in PAGES if path.is_relative_to(ROOT / "docs") and path != ROOT / "docs" / "index.md"}


def test_tests_that_pages_name_are_there() -> None:
    named = re.findall(r"pytest (tests/[\w/]+(?:\.py)?)", WRITTEN)
    assert len(named) >= 3
    assert [path for path in named if not (ROOT / path).exists()] == []


# --- code blocks


@pytest.mark.parametrize("name", TEXTS)
def test_code_parses(name: str) -> None:
    for _, language, code in (each for each in BLOCKS if each[0] == name):
        match language:
            case "python":
                ast.parse(code)
            case "json":
                assert [json.loads(line) for line in code.splitlines()]
            case "yaml":
                yaml.safe_load(code)
            case "bash" | "{toctree}" | "{include}":
                pass
            case _:
                pytest.fail(f"{name} has a block of {language or 'no language'}: say which, and check it here")


def words(line: str) -> list[str]:
    """A command's words, without variables before it and a redirection after it."""
    found = shlex.split(line.split(" && ", maxsplit=1)[0])
    while re.fullmatch(r"[A-Z_]+=\S*", found[0]):
        found = found[1:]
    return found[: found.index(">")] if ">" in found else found


def phony() -> list[str]:
    makefile = (ROOT / "Makefile").read_text()
    return re.findall(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)[0].split()


@pytest.mark.parametrize("line", sorted(set(SHELL)))
def test_a_command_is_as_the_program_takes_it(line: str) -> None:
    """Options are there, and overrides compose. Nothing is launched."""
    match words(line):
        case ["workbench", *rest]:
            check(rest)
        case ["make", *targets]:
            targets = [target for target in targets if "=" not in target]
            assert targets and all(target in phony() or f"\n{target}:" in (ROOT / "Makefile").read_text() for target in targets)
        case ["streamlit", "run", folder]:
            assert (ROOT / folder / "streamlit_app.py").is_file()
        case ["pip", "install", wheel]:
            extras = set(wheel.partition(".whl[")[2].removesuffix("]").split(","))
            project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
            assert wheel.startswith(f"alignment_workbench-{workbench.__version__}-py3-none-any.whl") and extras <= {*project["optional-dependencies"]}
        case ["git", "clone", *_] | ["source", ".venv/bin/activate"]:
            pass
        case other:
            pytest.fail(f"{other[0]}: no command that is checked here")


def check(rest: list[str]) -> None:
    """Parse the words of `workbench …` as the terminal does, and compose what they override."""
    command, name = CLI, "workbench"
    while hasattr(command, "commands"):
        name, *rest = rest
        assert name in command.commands, f"there is no command {name}"
        command = command.commands[name]
    given = command.make_context(name, list(rest)).params
    match name:
        case "run" if any(word.startswith("pipeline=") for word in given.get("overrides") or []):
            words = [word for word in given["overrides"] if not word.startswith("pipeline=")]
            of = next(word.removeprefix("pipeline=") for word in given["overrides"] if word.startswith("pipeline="))
            pipelines.with_overrides(pipelines.read(of if "/" not in of else "export_demo"), words)
        case "run" | "preflight" | "ppo" if "overrides" in given:
            spec.compose(given["overrides"] or [])
        case "evaluate":
            spec.compose(["experiment=dpo_demo", *(given["overrides"] or [])])
        case "generate":
            spec.compose(["job=generate", "data.train=prompts.jsonl", *(given["overrides"] or [])])
        case "resume" if "overrides" in given:
            spec.changed(spec.compose(["experiment=dpo_demo"]), given["overrides"] or [])
        case "set":
            live = {key for algorithm in modules.algorithm_names() for key in modules.find_algorithm(algorithm).Config.live}
            assert {value.partition("=")[0].removeprefix("algorithm.") for value in given["values"]} <= live


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("workbench rum", "there is no command rum"),
        ("workbench list --jsn", "No such option"),
        ("workbench run algorithm=dpo algorithm.bta=0.2", "did you mean 'beta'"),
        ("workbench run algorithm=dpoo", "there is no 'dpoo'"),
        ("workbench resume latest algorithm.beta=0.2", "a resume cannot change it"),
    ],
)
def test_a_wrong_command_is_noticed(line: str, why: str) -> None:
    with pytest.raises(Exception, match=re.escape(why)):
        check(words(line)[1:])


# --- completeness


def commands(command: Any = CLI, path: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    """Every command as it is written after `workbench`, with its parameters."""
    for name, inner in command.commands.items():
        if hasattr(inner, "commands"):
            yield from commands(inner, (*path, name))
        else:
            yield " ".join((*path, name)), inner


def named() -> dict[str, list[str]]:
    """What there is, by its kind."""
    return {
        "algorithm": modules.algorithm_names(),
        "kind of job": modules.job_names(),
        "backend": backends.names(),
        "reward kind": online.reward_kinds(),
        "data format": sorted(SCHEMAS),
        "rollout engine": sorted(path.stem for path in (ROOT / "workbench" / "rollout" / "engines").glob("[a-z]*.py")),
        "experiment": sorted(path.stem for path in (ROOT / "conf" / "experiment").glob("*.yaml")),
    }


@pytest.mark.parametrize("kind", named())
def test_whatever_there_is_is_named(kind: str) -> None:
    assert [name for name in named()[kind] if not re.search(rf"(?<![\w.]){re.escape(name)}(?!\w)", CODE)] == []


def test_every_command_page_and_make_target_is_named() -> None:
    assert [name for name, _ in commands() if f"workbench {name}" not in CODE] == []
    assert [target for target in phony() if target != "clean" and f"make {target}" not in CODE] == []
    assert [path.name for path in NOTEBOOKS if f"(../../notebooks/{path.name})" not in TEXTS["docs/guides/notebooks.md"]] == []
    guide = TEXTS["docs/guides/app.md"]
    assert [path.stem for path in (ROOT / "app" / "pages").glob("*.py") if f"| {path.stem.capitalize()} |" not in guide] == []


# --- the reference, from the types


def settings() -> Iterator[tuple[str, str]]:
    """Each setting's key and description, straight from the types."""
    for name, info in Experiment.model_fields.items():
        match name:
            case "job":
                yield from (each for job in modules.job_names() for each in below(name, modules.find_job(job).Config))
            case "algorithm":
                yield from (each for algorithm in modules.algorithm_names() for each in below(name, modules.find_algorithm(algorithm).Config))
            case "backend":
                yield from (each for backend in backends.names() for each in below(name, backends.find(backend).Config))
            case _ if hasattr(info.annotation, "model_fields"):
                yield from below(name, info.annotation)
            case _:
                yield name, info.description or ""


def below(path: str, config: Any) -> Iterator[tuple[str, str]]:
    return ((f"{path}.{name}", info.description or "") for name, info in config.model_fields.items() if name != "name")


def test_every_setting_is_in_the_reference_and_described(reference: dict[str, str]) -> None:
    page = reference["settings"]
    assert len({key for key, _ in settings()}) > 100
    assert [key for key, _ in settings() if f"`{key}`" not in page and f"`{key}." not in page] == []
    assert [key for key, description in settings() if not description] == []
    kinds = [online.find_reward_kind(kind).Config for kind in online.reward_kinds()]
    assert [key for config in kinds for key in getattr(config, "model_fields", ()) if f".{key}`" not in page] == []


@pytest.mark.parametrize(
    ("key", "row"),
    [
        ("algorithm.beta", "| number | `0.1` | > 0, ≤ 100 | How strongly the policy is held to the reference. |"),
        ("model.recompute", "| `none`, `selective`, `full` | `none` |  |"),
        ("data.train", "| text | required | at least 1 long |"),
        ("model.lora.targets", "| list of `qkv`, `proj`, `fc1`, `fc2` | `[qkv,proj,fc1,fc2]` | at least 1 long |"),
        ("backend.critic.gpus_per_node", "| whole number, or empty | empty | ≥ 0, ≤ 64 |"),
        ("algorithm.critic.model", "| as `model` | empty |"),
        ("algorithm.judge_server", "| as `algorithm.reward_server` |"),
        ("rollout.name", "| `hf`, `megatron`, `tensorrt_llm` | `megatron` |"),
    ],
)
def test_a_settings_row(key: str, row: str, reference: dict[str, str]) -> None:
    assert f"| `{key}` {row}" in reference["settings"]


def test_an_algorithms_own_default_is_told_where_it_differs(reference: dict[str, str]) -> None:
    sections = re.split(r"^### ", reference["settings"], flags=re.MULTILINE)
    parts = {head: part for part in sections for head in [part.partition("\n")[0]]}
    assert "`algorithm.lr` | number | `3e-05`" in parts["algorithm=sft"]
    assert "`algorithm.lr`" not in parts["algorithm=grpo"]  # as every algorithm's


def test_every_metric_event_command_and_option_is_in_the_reference(reference: dict[str, str]) -> None:
    names = [*metrics.METRICS, *(str(family("…")) for family in metrics.FAMILIES)]
    assert [name for name in names if f"| `{name}` |" not in reference["metrics"]] == []
    assert set(re.findall(r"^## (\w+)$", reference["events"], re.MULTILINE)) == set(lines.KINDS)
    parts = re.split(r"^##+ ", reference["commands"], flags=re.MULTILINE)
    for (name, command), part in ((each, part) for each in commands() for part in parts if part.startswith(f"workbench {each[0]}\n")):
        shown = " ".join(option for parameter in command.params if parameter.name != "help" for option in parameter.opts if option[0] == "-").split()
        assert [option for option in shown if option not in part] == [], name
    assert {f"workbench {name}" for name, _ in commands()} <= {part.partition("\n")[0] for part in parts}


def test_nothing_generated_is_kept() -> None:
    """The pages of docs/reference/ have an introduction; their tables are made by `make docs`."""
    for name in ("settings", "metrics", "events", "commands"):
        text = TEXTS[f"docs/reference/{name}.md"]
        assert f"```{{include}} ../../build/reference/{name}.md\n" in text
        assert "\n| " not in text
    makefile = (ROOT / "Makefile").read_text()
    assert "$(PY) docs/reference.py build/reference" in makefile and "--fail-on-warning" in makefile


def test_each_of_the_sites_tools_is_pinned() -> None:
    entries = [line for line in (ROOT / "docs" / "requirements.txt").read_text().splitlines() if line and line[0] != "#"]
    assert entries and all(re.fullmatch(r"[\w.-]+==[\w.]+", entry) for entry in entries)
