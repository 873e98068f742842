"""The project's notebooks run from top to bottom, and what they say of their outputs is so. (05, on a SLURM: tests/slurm/test_notebook.py.)"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import nbformat
import pytest

import workbench as wb
from tests.extend import extended
from tests.notebook.executed import NOTEBOOKS, Executed, executed
from tests.rooms import ROOT
from workbench.backends import forking
from workbench.notebook.parameters import PARAMETERS, parameters, tags
from workbench.notebook.verify import verify
from workbench.rundir.listing import list_runs
from workbench.rundir.store import State

STEPS = 2
Run = Callable[..., Executed]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Of the executed notebooks, what they write and their runs."""
    folder = tmp_path_factory.mktemp("notebooks")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WORKBENCH_RUNS", str(folder / "runs"))
        patch.setenv("WORKBENCH_CACHE", str(folder / "cache"))
        yield folder


@pytest.fixture
def run_notebook(folder: Path, tiny_model: Path) -> Run:
    """Executes the notebook of a number with the tiny model."""
    values = {"MODEL": str(tiny_model), "STEPS": STEPS, "ROLLOUTS": 8, "OUT": str(folder / "out")}
    return lambda number, **environment: executed(number, folder, values, environment)


def run_of(once: str) -> wb.Run:
    (run,) = [run for run in wb.runs() if run.once == once]
    assert run.status.state == State.COMPLETED
    return run


# --- as they are committed


def test_every_notebook_has_a_test_and_a_number_of_its_own() -> None:
    source = Path(__file__).read_text() + (ROOT / "tests" / "slurm" / "test_notebook.py").read_text()
    numbers = [path.name[:2] for path in NOTEBOOKS]
    assert numbers == [f"{number:02}" for number in range(1, len(NOTEBOOKS) + 1)]
    assert [number for number in numbers if f'("{number}"' not in source] == []


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_committed_notebook_is_valid_teaches_and_has_no_outputs(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.source for cell in code if cell.outputs or cell.execution_count is not None] == []
    assert notebook.cells[0].source.startswith(f"# {int(path.name[:2])}. ")
    assert sum(PARAMETERS in tags(cell) for cell in code) == 1
    assert {"MODEL", "STEPS"} <= parameters(notebook).keys()
    launches = [cell.source for cell in code if "wb.launch(" in cell.source]
    assert launches and all(source.count("wb.launch(") == source.count("once=") for source in launches)
    links = [link for cell in notebook.cells if cell.cell_type == "markdown" for link in re.findall(r"\]\(([^)#]+)[^)]*\)", cell.source)]
    assert [link for link in links if "://" not in link and not (path.parent / link).exists()] == []


def test_lint_refuses_a_notebook_with_outputs(tmp_path: Path) -> None:
    """By the command that `make lint` has."""
    (line,) = [line for line in (ROOT / "Makefile").read_text().splitlines() if "nbstripout" in line]
    program, *options = line.split()
    assert (program, options) == (".venv/bin/nbstripout", ["--verify", "$(NUMBERED)"])
    notebook = nbformat.read(NOTEBOOKS[0], as_version=4)
    path = tmp_path / "notebook.ipynb"
    for outputs, code in (([], 0), ([nbformat.v4.new_output("stream", text="1")], 1)):
        next(cell for cell in notebook.cells if cell.cell_type == "code").outputs = outputs
        nbformat.write(notebook, path)
        done = subprocess.run([ROOT / program, "--verify", path], capture_output=True, text=True, check=False)
        assert done.returncode == code, done.stderr


# --- executed


def test_01_first_run(run_notebook: Run, folder: Path) -> None:
    done = run_notebook("01")
    run = run_of("first run")
    assert "455 rows" in done.text("check_data") and "0 malformed" in done.text("check_data")
    assert "<svg" in done.picture("run.live()") and "completed" in done.picture("run.live()").lower()
    losses = run.held_out.loss
    assert f"held-out loss: {losses.iloc[0]:.4f} before, {losses.iloc[-1]:.4f} after {STEPS} steps" in done.text("held-out loss")
    assert losses.iloc[-1] < losses.iloc[0]
    assert "Why is a map useful?" in done.html("answers.assign")
    assert {"model.safetensors", "config.json", "tokenizer.json"} <= {path.name for path in (folder / "out" / "first-run").iterdir()}
    assert done.text("model.generate").strip()
    assert "first run" in done.picture("wb.RunForm")


def test_02_reward_model(run_notebook: Run, folder: Path) -> None:
    done = run_notebook("02")
    run = run_of("reward model")
    assert f"held-out accuracy: {run.held_out.accuracy.iloc[0]:.3f} before" in done.text("held-out accuracy")
    assert "length_spearman" in done.text("length_spearman") and "ece" in done.text("length_spearman")
    scores = re.findall(r"^([+-]\d\.\d{3})  A map", done.text("def score"), re.MULTILINE)
    assert len(scores) == 2 and scores[0] != scores[1]
    assert "<svg" in done.picture("run.live()")


def test_03_ppo_live_rollouts(run_notebook: Run) -> None:
    done = run_notebook("03")
    run = run_of("ppo rollouts")
    assert f"{len(run.rollouts)} rollouts; rewards of step {STEPS} from" in done.text("best = ")
    assert len(run.rollouts) == STEPS * 8
    assert [event["values"] for event in run.events() if event["kind"] == "control"] == [{"kl_coefficient": 0.03}]
    assert f"held-out reward: {run.held_out.rewards.iloc[0]:.3f} before" in done.text("held-out reward")
    assert "<svg" in done.picture("run.live()") and "reward" in done.picture("run.rollouts.widget()").lower()


def test_04_dpo_family(run_notebook: Run) -> None:
    done = run_notebook("04")
    methods = ["DPO", "cDPO", "IPO", "KTO", "ORPO"]
    assert re.findall(r"^(\w+): completed$", done.text("wb.launch"), re.MULTILINE) == methods
    assert {run_of(f"family: {method}").spec.algorithm.name for method in methods} == {"dpo", "kto", "orpo"}
    assert done.html("wb.compare").count("<svg") >= 2 and "algorithm.preference_loss" in done.html("wb.compare")
    assert [line.split()[0] for line in done.text("pd.DataFrame(last)").splitlines()[1:]] == methods
    assert "<svg" in done.picture("comparison.widget()")


def test_06_your_own_algorithm_and_reward(run_notebook: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a copy of the project, to which the notebook adds its algorithm; the copy's processes are no forks of the project's."""
    monkeypatch.delenv(forking.WARM, raising=False)
    copy = extended(tmp_path)
    done = run_notebook("06", PYTHONPATH=str(copy))
    assert f"{STEPS * 8} answers, " in done.text("list_max") and ", 0 wrongly" in done.text("list_max")
    imitated = int(re.findall(r"(\d+) imitated", done.text("list_max"))[0])
    assert STEPS * 2 <= imitated <= STEPS * 8  # the best of each step's two prompts, and what ties with them
    assert "completed" in done.text("rewards_std") and "algorithm=raft" in done.text("experiment.command")
    assert not (copy / "workbench" / "algorithms" / "raft.py").exists()
    assert "<svg" in done.picture("run.live()")


def test_07_analyse_rollouts_with_duckdb(run_notebook: Run) -> None:
    """It finds notebook 3's run where that was executed; what it then quotes still comes out."""
    done = run_notebook("07")
    run = run_of("ppo rollouts")
    assert [line.split()[:3] for line in done.text("avg(kl_sum) AS kl").splitlines()[1:]] == [
        [str(step - 1), str(step), "8"] for step in range(1, STEPS + 1)
    ]
    tokens = sum(int(line.split()[-1]) for line in done.text("AS quarter").splitlines()[1:])
    assert tokens == int(run.rollouts.df().response_tokens.sum())
    report = verify(done.path)
    assert report.problems == () and report.runs == (run.id,) and report.numbers > 50
    assert len([each for each in list_runs(run.dir.path.parent) if "ppo" in each.id]) == 1


def test_08_steerlm_sliders(run_notebook: Run) -> None:
    done = run_notebook("08")
    run = run_of("steering: trained")
    assert run.spec.data.steering is not None and run.spec.data.steering.attributes == ("bullets", "question", "verbosity")
    assert "5 levels; words by level: [" in done.text("len(sweep)")
    assert "over 15 answers" in done.text("Spearman of requested")
    assert "2 messages" in done.text("chat.say") and "'stopped'" in done.text("sliders.stop()")
    assert "20 answers; the last: {'bullets': 0.0, 'question': 0.0, 'verbosity': 4.0}" in done.text("sliders.rows[-1]")
    assert "AttributeSliders(" in done.picture("wb.steer")
    assert len(wb.runs(job="serve")) == 1  # the chat found the endpoint of the sliders


def test_09_spin(run_notebook: Run) -> None:
    done = run_notebook("09")
    run = run_of("self-play")
    assert "<svg" in done.picture("run.live()")
    beside = done.html("beside = ")
    assert "the data" in beside and "opponent 1" in beside and "opponent 2" in beside
    files = run.rollouts.df()
    assert sorted(set(files.weights_version)) == [0, STEPS]
    assert f"{len(files)} answers of 2 opponents to {files.prompt_id.nunique()} prompts" in done.text("opponents = ")
    won = run.metrics.opponent_win_rate
    assert f"wins of opponent 1: {won.iloc[0]:.2f} at first, {won.iloc[STEPS - 1]:.2f} at last" in done.text("wins of opponent")
    assert len(done.text("run.held_out[").splitlines()) == 4  # before, and after each iteration
