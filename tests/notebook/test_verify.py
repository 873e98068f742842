"""`workbench notebook verify`: what is compared, what is refused, what is named."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import nbformat
import pytest
from typer.testing import CliRunner

from tests.app import synthetic
from workbench.notebook import execution, parameters, verify
from workbench.notebook.verify import Quoted
from workbench.rundir.listing import list_runs
from workbench.rundir.store import RunDir, State
from workbench.terminal.cli import app

CELLS = (
    "import workbench as wb\nONCE = 'the one'",
    "run = wb.get('{id}')\nprint(f'loss {{run.metrics.loss.iloc[-1]:.4f}} after {{len(run.metrics):,}} steps')\nrun.held_out[['step', 'accuracy']]",
    "import time\ntime.time()",
    "'no number here'",
)
Edit = Callable[[nbformat.NotebookNode], None]


def code(source: str, *tags: str) -> nbformat.NotebookNode:
    return nbformat.v4.new_code_cell(source, metadata={"tags": [*tags]})


def save(path: Path, *cells: nbformat.NotebookNode) -> Path:
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell("# 42 is not compared here"), *cells]), path)
    return path


@pytest.fixture(scope="module")
def quoting(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, RunDir]:
    """A notebook that was executed, with outputs, and the finished run that it quotes, in a folder `runs` beside it."""
    folder = tmp_path_factory.mktemp("quoting")
    run = synthetic.make(folder / "runs", "dpo-demo", 12, 12, State.COMPLETED)
    first, second, third, fourth = (cell.format(id=run.id) for cell in CELLS)
    source = save(folder / "source.ipynb", code(first, "parameters"), code(second), code(third, "varies"), code(fourth))
    execution.execute(source, {}, folder / "saved.ipynb", environment={"WORKBENCH_RUNS": str(folder / "runs")})
    return folder / "saved.ipynb", run


@pytest.fixture
def saved(quoting: tuple[Path, RunDir], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """A copy of the notebook and its runs, which is this process's folder of runs; edited."""
    shutil.copytree(quoting[0].parent, tmp_path / "copy")
    monkeypatch.setenv("WORKBENCH_RUNS", str(tmp_path / "copy" / "runs"))

    def make(edit: Edit = lambda notebook: None) -> Path:
        path = tmp_path / "copy" / "saved.ipynb"
        notebook = nbformat.read(path, as_version=4)
        edit(notebook)
        nbformat.write(notebook, path)
        return path

    return make


def test_an_untouched_notebook_passes(saved: Callable[..., Path], quoting: tuple[Path, RunDir]) -> None:
    path = saved()
    before = path.read_bytes()
    report = verify.verify(path)
    assert report.problems == report.notes == ()
    assert report.runs == (quoting[1].id,)
    assert report.cells == 1 and report.numbers >= 2 + 3 * 2  # the line's two; each row of the table has its index, step and accuracy
    assert path.read_bytes() == before


def test_a_changed_number_and_a_changed_run_are_named(saved: Callable[..., Path], quoting: tuple[Path, RunDir]) -> None:
    """Of the saved output 12 steps become 13, and of the run's events one accuracy becomes another."""

    def edit(notebook: nbformat.NotebookNode) -> None:
        output = notebook.cells[2].outputs[0]
        output.text = output.text.replace("after 12 steps", "after 13 steps")

    path = saved(edit)
    events = path.parent / "runs" / quoting[1].id / "events" / "actor.jsonl"
    lines = [json.loads(line) for line in events.read_text().splitlines()]
    validation = next(line for line in lines if line["kind"] == "validation")
    validation["metrics"]["accuracy"] = 0.125
    events.write_text("".join(json.dumps(line) + "\n" for line in lines))
    os.utime(events, (path.stat().st_mtime + 1,) * 2)
    done = CliRunner().invoke(app, ["notebook", "verify", str(path)])
    assert done.exit_code == 1
    assert "cell 3: saved 13 in “loss " in done.output and "now 12 in" in done.output
    assert "now 0.125" in done.output.replace("0.125000", "0.125")
    assert f"note: run {quoting[1].id}: changed after the notebook was saved: events/actor.jsonl" in done.output
    assert done.output.splitlines()[-1].endswith(": 2 problems")


def test_a_run_that_is_gone_or_was_never_launched_is_named(saved: Callable[..., Path], quoting: tuple[Path, RunDir]) -> None:
    path = saved()
    shutil.rmtree(path.parent / "runs" / quoting[1].id)
    report = verify.verify(path)
    assert report.numbers == 0
    assert len(report.problems) == 1 and report.problems[0].startswith(f"cell 3: ValueError: no run '{quoting[1].id}'")


def test_nothing_is_launched_and_no_run_is_the_latest(saved: Callable[..., Path]) -> None:
    tries = (
        "try:\n    wb.get('latest')\nexcept ValueError as error:\n    print(error)",
        "try:\n    wb.generate('smollm2-135m-instruct', 'prompts.jsonl')\nexcept ValueError as error:\n    print(error)",
        "wb.launch('dpo_demo', once='not there')",
    )

    def edit(notebook: nbformat.NotebookNode) -> None:
        for cell, source in zip(notebook.cells[2:], tries, strict=True):
            cell.source = source

    path = saved(edit)
    report = verify.verify(path)
    assert report.problems[0].startswith("cell 5: NotVerifiable: a run with once='not there' would be launched")
    assert report.problems[1].startswith("cell 3: saved ") and "which no longer comes out" in report.problems[1]
    assert report.runs == ()
    assert len(list_runs(path.parent / "runs")) == 1


def test_a_notebook_without_outputs_is_refused(tmp_path: Path) -> None:
    path = save(tmp_path / "bare.ipynb", code("1 + 1"))
    done = CliRunner().invoke(app, ["notebook", "verify", str(path)])
    assert isinstance(done.exception, ValueError) and str(done.exception) == f"{path} has no outputs to verify: run all its cells and save it"
    (tmp_path / "text.ipynb").write_text("no notebook")
    with pytest.raises(ValueError, match=r"text\.ipynb is not a valid notebook"):
        verify.verify(tmp_path / "text.ipynb")


def test_what_was_wrong_when_it_was_saved_is_a_problem() -> None:
    error = nbformat.v4.new_output("error", ename="KeyError", evalue="'los'", traceback=[])
    failed, expected, not_run = code("a"), code("b", "raises-exception"), code("c")
    for cell in (failed, expected):
        cell.outputs, cell.execution_count = [error], 1
    problems = [*verify._problems_as_saved([(1, failed), (2, expected), (3, not_run)])]
    assert problems == ["cell 1: was saved with an error, KeyError: 'los'", "cell 3: was not run before the notebook was saved"]


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("loss 0.6931 at step 12", ["0.6931", "12"]),
        ("-1.5e-05, +3, 1,234.5 and 12%", ["-1.5e-05", "+3", "1,234.5", "12"]),
        ("lora16 v2 run-4f3a 0.5s 1.2.3", ["4", "0.5", "1.2"]),
        ("nan  -inf  banana  information", ["nan", "-inf"]),
        ("[1, 234] 20261127-0203", ["1", "234", "20261127", "0203"]),
        ("−2.5", ["−2.5"]),
    ],
)
def test_what_is_a_number(text: str, numbers: list[str]) -> None:
    assert [match[0] for match in verify.NUMBER.finditer(text)] == numbers


@pytest.mark.parametrize(
    ("saved", "new", "same"),
    [
        ("0.693", "0.6934", True),  # to the digits shown
        ("0.693", "0.6936", False),
        ("0.6931", "0.693", False),  # what comes out now has too few digits to say
        ("12", "12.0", True),
        ("12", "13", False),
        ("1.20e-05", "0.000012", True),
        ("1.20e-05", "1.21e-05", False),
        ("1,234", "1234", True),
        ("nan", "nan", True),
        ("0.5", "nan", False),
        ("inf", "-inf", False),
        ("-0.5", "0.5", False),
    ],
)
def test_to_the_digits_that_are_shown(saved: str, new: str, same: bool) -> None:
    assert Quoted(saved, "").comes_out_as(Quoted(new, "")) is same


def test_widgets_and_errors_are_no_quotations() -> None:
    cell = code("x")
    cell.outputs = [
        nbformat.v4.new_output("display_data", {"text/plain": "step 3 of 7", verify.WIDGET: {"model_id": "5"}}),
        nbformat.v4.new_output("display_data", {"text/plain": "step 3", "text/html": '<div class="wb-picture">3</div>'}),
        nbformat.v4.new_output("execute_result", {"text/plain": "0.5", "text/html": "0.25"}),
        nbformat.v4.new_output("stream", name="stderr", text="100 %"),
        nbformat.v4.new_output("stream", name="stdout", text="loss 2"),
    ]
    assert [number.text for number in verify.quoted(cell)] == ["2", "0.5"]


def test_more_or_fewer_numbers_are_reported_once() -> None:
    one, two, three = (Quoted(text, f"loss {text}") for text in "123")
    assert [*verify.differences([one, two], [one])] == ["saved 2 in “loss 2”, which no longer comes out: the cell now has 1 numbers of 2"]
    assert [*verify.differences([one], [one, two, three])] == ["was saved with 1 numbers and now has 3; the first new one is 2 in “loss 2”"]
    assert [*verify.differences([one, two], [two, three])] == [
        "saved 1 in “loss 1”, now 2 in “loss 2”",
        "saved 2 in “loss 2”, now 3 in “loss 3”",
    ]


# --- execution


def test_parameters_are_set_after_their_cell() -> None:
    notebook = nbformat.v4.new_notebook(cells=[code("import workbench as wb"), code("MODEL = 'smollm2'\nSTEPS = 30", "parameters"), code("STEPS")])
    changed = parameters.with_parameters(notebook, {"STEPS": 3, "MODEL": "/a b"}, Path("x.ipynb"))
    assert [cell.source for cell in changed.cells][2:] == ["STEPS = 3\nMODEL = '/a b'", "STEPS"]
    again = parameters.with_parameters(changed, {"STEPS": 4}, Path("x.ipynb"))
    assert [cell.source for cell in again.cells][2:] == ["STEPS = 4", "STEPS"]
    assert len(notebook.cells) == 3
    with pytest.raises(ValueError, match=r"x\.ipynb has no parameter 'STEP'; did you mean 'STEPS'\?; it has: MODEL, STEPS"):
        parameters.with_parameters(notebook, {"STEP": 3}, Path("x.ipynb"))
    with pytest.raises(ValueError, match="parameter STEPS: .* is not a number"):
        parameters.with_parameters(notebook, {"STEPS": object()}, Path("x.ipynb"))


def test_run_from_the_terminal_keeps_what_came_before_an_error(tmp_path: Path) -> None:
    path = save(tmp_path / "fails.ipynb", code("N = 1", "parameters"), code("print(N)"), code("1 / 0"), code("print('never')"))
    done = CliRunner().invoke(app, ["notebook", "run", str(path), "N=5", "--out", str(tmp_path / "out" / "done.ipynb")])
    assert str(done.exception) == f"{path}: cell 5: ZeroDivisionError: division by zero"
    cells = nbformat.read(tmp_path / "out" / "done.ipynb", as_version=4).cells
    assert cells[3].outputs[0].text == "5\n" and cells[5].outputs == []
    with pytest.raises(ValueError, match="is the notebook itself"):
        execution.execute(path, {}, path)
    done = CliRunner().invoke(app, ["notebook", "run", str(path), "N"])
    assert str(done.exception) == "expected NAME=value, got 'N'"
