"""Promises of docs/: what a page names is there, its tables are complete, and its examples run."""

from __future__ import annotations

import ast
import json
import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.extend import extended, python, warm, workbench
from tests.rooms import LEVELS, ONLY_IN, SOURCES
from workbench.rundir import store
from workbench.rundir.store import RunDir

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "architecture.md"
TEXT = PAGE.read_text()
CODE = re.compile(r"```python\n(.*?)```", re.DOTALL)
PROSE = CODE.sub("", TEXT)
ATTACKS = (ROOT / "docs" / "attacks.md").read_text()
OTHERS = "".join(
    CODE.sub("", path.read_text())
    for folder in ("guides", "decisions", ".")
    for path in sorted((ROOT / "docs" / folder).glob("*.md"))
    if path != PAGE
)
REFERENCES = sorted(set(re.findall(r"`([\w./-]+\.py:[\w.]+)`", PROSE + OTHERS)) - {"path/to/file.py:function", "path/to/file.py:Class.method"})
EXAMPLES = {code.partition("\n")[0].removeprefix("# "): code for code in CODE.findall(TEXT)}


def cells(heading: str) -> list[list[str]]:
    """The rows of the first table below a heading, without its head."""
    lines = TEXT.partition(f"## {heading}\n")[2].partition("\n## ")[0].splitlines()
    table = [line for line in lines if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table[2:]]


def defined(body: list[ast.stmt], names: list[str]) -> bool:
    """Whether a function is there, or a class, or a member of one; names are from the outside in."""
    found = [node for node in body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and node.name == names[0]]
    return bool(found) and (len(names) == 1 or (isinstance(found[-1], ast.ClassDef) and defined(found[-1].body, names[1:])))


def resolves(reference: str) -> bool:
    path, _, name = reference.partition(":")
    return (ROOT / path).is_file() and defined(ast.parse((ROOT / path).read_text()).body, name.split("."))


def test_every_file_of_trust_is_among_the_attacks() -> None:
    tests = {path.name for path in (ROOT / "tests" / "trust").glob("test_*.py")}
    assert {name for name in tests if name not in ATTACKS} == {"test_intruder.py", "test_audit.py", "test_no_code_in_data.py"}


@pytest.mark.parametrize("reference", REFERENCES)
def test_what_the_page_names_is_there(reference: str) -> None:
    assert resolves(reference)


@pytest.mark.parametrize(
    "reference",
    [
        "workbench/nowhere.py:main",
        "workbench/processes/driver.py:nobody",
        "workbench/processes/driver.py:Progress.nobody",
        "workbench/processes/driver.py:poll",  # a method, without its class
        "workbench/processes/driver.py:main.run",  # no class
        "workbench/processes/driver.py:State",  # only imported there
    ],
)
def test_a_wrong_name_does_not_resolve(reference: str) -> None:
    assert not resolves(reference)


def test_every_reference_is_checked() -> None:
    """Whatever has a file and a name is written so that the test above finds it."""
    assert len(re.findall(r"\.py:\w", PROSE)) == len(re.findall(r"`[\w./-]+\.py:[\w.]+`", PROSE))


def test_twenty_questions_are_answered_with_places() -> None:
    questions = cells("Where is …")
    assert len(questions) >= 20
    assert [question for question, answer in questions if not any(f"`{reference}`" in answer for reference in REFERENCES)] == []


def test_the_table_of_rooms_is_the_order_of_imports() -> None:
    rows = [(int(level), room.strip("*`").replace("/", "."), alone) for level, room, _, alone in cells("The rooms")]
    assert [(level, room) for level, room, _ in rows] == [(level, room) for level, rooms in enumerate(LEVELS, 1) for room in rooms]
    assert {package: room for _, room, alone in rows for package in alone.split(", ") if package} == ONLY_IN
    to_come = {room.strip("*`").replace("/", ".") for _, room, _, _ in cells("The rooms") if room.startswith("*")}
    assert to_come == {room for rooms in LEVELS for room in rooms if room != "app" and room not in SOURCES}


def test_every_folder_of_the_package_is_named() -> None:
    folders = {
        f"workbench/{path.name}" for path in (ROOT / "workbench").iterdir() if path.is_dir() and not path.is_symlink() and path.name != "__pycache__"
    }
    assert [folder for folder in sorted(folders) if f"`{folder}`" not in PROSE] == []


def test_links_and_pictures_are_there() -> None:
    targets = [target for target in re.findall(r"\]\(([^)#]+)[^)]*\)", TEXT) if "://" not in target]
    assert "architecture.svg" in targets
    assert [target for target in targets if not (PAGE.parent / target).is_file()] == []
    assert "(docs/architecture.md)" in (ROOT / "README.md").read_text()


def test_paths_are_there() -> None:
    """A path with a <name> in it names a folder."""
    paths = re.findall(r"`((?:app|backends|conf|tests|workbench)/[^`:]*\.(?:py|yaml))`", PROSE)
    assert [path for path in paths if not (ROOT / path.partition("<")[0]).exists()] == []


def test_the_picture_names_every_room() -> None:
    picture = ET.parse(PAGE.with_suffix(".svg"))
    words = {"".join(node.itertext()).split(" ")[0] for node in picture.iter("{http://www.w3.org/2000/svg}tspan")}
    assert {room.rpartition(".")[2] for rooms in LEVELS for room in rooms} <= words


def test_the_page_is_short() -> None:
    assert len(TEXT.split()) < 2000


# --- the files of a run


def documented() -> list[str]:
    """The paths in the run directory's own description, as the page's table spells them."""
    assert store.__doc__
    block = store.__doc__.split("\n\n")[1]
    lines = [line.strip().removeprefix("runs/<id>/").strip() for line in block.splitlines()]
    return [path for line in lines for path in re.split(r"\s{2,}", line)[0].split(", ")]


def listed() -> list[str]:
    return [path for row in cells("The run directory is the contract") for path in re.findall(r"`([^`]+)`", row[0])]


def unlisted(run: Path) -> list[str]:
    """The files of a run's folder that the table does not have."""
    patterns = [re.sub(r"<\\?\w+\\?>", r"[^/]+", re.escape(path)) + (".*" if path.endswith("/") else "") for path in listed()]
    files = [path.relative_to(run).as_posix() for path in sorted(run.rglob("*")) if path.is_file()]
    return [file for file in files if not any(re.fullmatch(pattern, file) for pattern in patterns)]


def test_the_table_of_files_is_the_run_directorys_own() -> None:
    assert listed() == documented()


@pytest.mark.parametrize("name", ["finished", "stopped"])
def test_an_older_run_has_no_other_files(name: str) -> None:
    assert unlisted(ROOT / "tests" / "rundir" / "fixtures" / "a4e7fa1" / name) == []


def test_another_file_is_noticed(tmp_path: Path) -> None:
    for name in ("spec.yaml", "spec.2.yaml", "notes.txt", "rollouts/1.csv"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert unlisted(tmp_path) == ["notes.txt", "rollouts/1.csv"]


# --- the examples

BASED = '''"""GRPO that asks the example's role, which is another way to the reference's log-probabilities."""

from typing import Literal

from workbench.algorithms import _online, grpo
from workbench.algorithms.grpo import OUTPUTS, advantages, loss
from workbench.settings.online import Processes

ROWS = "prompt"
ROLES = {**grpo.ROLES, "base": "frozen"}


class Config(grpo.Config):
    name: Literal["based"] = "based"


def train(cfg, rt):
    for rows in rt.batches():
        experiences = _online.sampled(rt, rows)
        rt.online.ask("base", experiences)
        advantages(experiences, rt.settings)
        rt.online.keep(experiences)
        apart = max(abs(e.known("base_logprobs") - e.known("reference_logprobs")).max() for e in experiences)
        yield {**rt.online.learn(experiences, loss), **_online.metrics(experiences), "apart": float(apart)}
'''


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A copy of the project with every example of the page."""
    yaml = {f"conf/{group}/{name}.yaml": f"name: {name}\n" for group, name in (("algorithm", "likelihood"), ("job", "count"), ("backend", "moab"))}
    based = {"workbench/algorithms/based.py": BASED, "conf/algorithm/based.yaml": "name: based\n"}
    made = extended(tmp_path_factory.mktemp("docs"), {**EXAMPLES, **yaml, **based})
    change(made / "workbench/algorithms/based.py", '] = "based"\n', f'] = "based"\n    {inline("base_server: ")}\n')
    change(made / "workbench/metrics.py", "\nSAMPLER_S = ", f"\n{inline('SURPRISE = ')}\nSAMPLER_S = ")
    (made / "rows.jsonl").write_text("".join(json.dumps({"prompt": f"What is {i}?", "answer": "" if i % 2 else str(i)}) + "\n" for i in range(8)))
    (made / "chats.jsonl").write_text("".join(json.dumps({"input": f"What is {i}?", "output": f"It is {i}."}) + "\n" for i in range(8)))
    with warm(made):
        yield made


def inline(beginning: str) -> str:
    """The line of code in the page's text that begins so."""
    (found,) = {code for code in re.findall(r"`([^`\n]+)`", PROSE) if code.startswith(beginning)}
    return found


def change(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert text.count(old) == 1, old
    path.write_text(text.replace(old, new))


def launched(folder: Path, model: Path, *words: str) -> Iterator[dict[str, float]]:
    """The metrics of each step of a completed run, whose files are all in the page's table."""
    shared = (f"model.source={model}", "data.validation_fraction=0", "validation.samples=0", "backend.threads_per_rank=1")
    done = workbench(folder, "run", "--json", *words, *shared)
    assert done.returncode == 0, done.stdout + done.stderr
    run = RunDir(Path(json.loads(done.stdout.splitlines()[0])["path"]))
    assert unlisted(run.path) == []
    return (event["metrics"] for event in run.events() if event["kind"] == "step")


def test_the_algorithm(folder: Path, tiny_model: Path) -> None:
    (step,) = launched(
        folder, tiny_model, "algorithm=likelihood", f"data.train={folder / 'chats.jsonl'}", "algorithm.global_batch_size=4", "algorithm.max_steps=1"
    )
    assert step["loss"] > 0


@pytest.mark.parametrize("served", ["[]", "[base]"])
def test_reward_kind_rollout_engine_and_role(served: str, folder: Path, tiny_model: Path) -> None:
    """Silent answers equal an empty column, which every second row has; the role gives what the reference gives."""
    words = (
        "algorithm=based",
        "rollout.name=silent",
        "algorithm.rewards={same: {exact: answer}}",
        f"algorithm.served={served}",
        f"data.train={folder / 'rows.jsonl'}",
        "algorithm.samples_per_prompt=2",
        "algorithm.rollout_batch_size=16",
        "algorithm.global_batch_size=16",
        "algorithm.max_tokens=4",
        "algorithm.max_steps=2",
    )
    first, second = launched(folder, tiny_model, *words)
    assert first["reward/same"] == second["reward/same"] == 0.5
    assert first["logprob_mismatch_max"] < 1e-4
    assert first["generation_length"] == first["fraction_of_samples_properly_ended"] == 1
    assert max(first["apart"], second["apart"]) < 1e-4


def test_the_job_kind(folder: Path, tiny_model: Path) -> None:
    (step,) = launched(folder, tiny_model, "job=count", f"data.train={folder / 'rows.jsonl'}")
    assert step["rows"] == 8
    assert "algorithm: none" not in workbench(folder, "list").stdout
    assert "count" in workbench(folder, "show", "latest").stdout


def test_the_backend(folder: Path, tiny_model: Path) -> None:
    done = workbench(
        folder, "run", "--dry-run", "backend=moab", f"model.source={tiny_model}", f"data.train={folder / 'chats.jsonl'}", "algorithm=sft"
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "#PBS" in done.stdout


def test_page_and_metric(folder: Path) -> None:
    code = (
        "from streamlit.testing.v1 import AppTest\n"
        "from workbench import metrics as M\n"
        "from workbench.views import catalogue\n"
        "page = AppTest.from_file('app/main.py', default_timeout=120).run().switch_page('pages/count.py').run()\n"
        "assert not page.exception, page.exception\n"
        "print(page.metric[0].label, catalogue.label(M.SURPRISE), catalogue.unit('surprise'))\n"
    )
    (folder / "look.py").write_text(code)
    done = python(folder, "look.py")
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["Runs", "Surprise", "nats"]
