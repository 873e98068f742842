"""What `import workbench as wb` offers, on made-up runs; one real run shows that a launch is made once."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from IPython.core.interactiveshell import InteractiveShell

import workbench as wb
from tests.app import synthetic, synthetic_rollouts
from workbench import api
from workbench.jobs import launch as launching
from workbench.machines import logins
from workbench.notebook.experiments import as_spec
from workbench.rundir import store
from workbench.rundir.store import State
from workbench.settings.composing import SpecError


@pytest.fixture
def runs(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("WORKBENCH_RUNS", str(tmp_path))
    return tmp_path


@pytest.fixture
def unlaunched(runs, monkeypatch) -> Path:
    """Launches make a run's folder and start nothing."""
    monkeypatch.setattr(launching, "launch", lambda run, task: run.begin_attempt("waiting"))
    return runs


def test_the_package_and_an_experiment_load_no_torch() -> None:
    code = """
import sys, workbench as wb
light = {'pandas', 'pydantic', 'plotly', 'ipywidgets'} & sys.modules.keys()
wb.Experiment('dpo_demo')
print(sorted(light), 'torch' in sys.modules, 'ipywidgets' in sys.modules)
"""
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[] False False"


def test_every_name_is_there_and_a_wrong_one_names_the_nearest() -> None:
    assert {"Experiment", "launch", "LiveRun", "runs"} <= set(dir(wb))
    with pytest.raises(AttributeError, match=r"workbench has no 'lanch'; did you mean 'launch'\?"):
        _ = wb.lanch


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"algorithm": {"betta": 1}}, r"algorithm\.betta: there is no such key; did you mean 'beta'\?"),
        ({"algoritm": "dpo"}, r"algoritm: there is no such key; did you mean 'algorithm'\?"),
        ({"algorithm": "dpoo"}, r"algorithm: there is no 'dpoo'; did you mean 'dpo'\?"),
        ({"algorithm": {"beta": -1}}, r"algorithm\.beta: .*greater than.* \(got -1\)"),
        ({"model": {"lora": {"rank": "many"}}}, r"model\.lora\.rank: .*integer.* \(got 'many'\)"),
        ({"seed": "x", "name": ""}, r"(?s)name: .*seed: |seed: .*name: "),
    ],
)
def test_a_wrong_setting_is_refused_with_its_place(settings, message) -> None:
    with pytest.raises(SpecError, match=message):
        wb.Experiment("dpo_demo", **settings)


def test_a_notebook_shows_a_wrong_setting_without_a_traceback(capsys) -> None:
    shell = InteractiveShell()
    shell.run_cell("import workbench as wb\nwb.Experiment('dpo_demo', algorithm={'betta': 1})")
    assert capsys.readouterr().out.startswith("SpecError: algorithm.betta: there is no such key")


def test_an_experiment_equals_the_terminals() -> None:
    made = wb.Experiment("ppo_demo", algorithm={"lr": 1e-5, "rewards": {"concise": {"weight": 2.0}}}, backend={"ranks_per_node": 2}, seed=7)
    words = ["experiment=ppo_demo", "algorithm.lr=1e-5", "algorithm.rewards.concise.weight=2.0", "backend.ranks_per_node=2", "seed=7"]
    assert made.spec == api.compose(words)
    assert api.compose(_words(made.command)) == made.spec


def test_choices_by_name_and_with_settings_are_the_same() -> None:
    by_name = wb.Experiment(algorithm="sft", data="demo").but(algorithm={"lr": 1e-5})
    assert by_name == wb.Experiment(algorithm={"name": "sft", "lr": 1e-5}, data="demo")
    assert by_name.algorithm.name == "sft" and by_name.algorithm.lr == 1e-5
    assert wb.Experiment("dpo_demo", algorithm="sft").spec == api.compose(["experiment=dpo_demo", "algorithm=sft"])
    assert wb.Experiment("dpo_demo") != wb.Experiment("dpo_demo", seed=1)


def test_but_keeps_what_was_given() -> None:
    first = wb.Experiment("dpo_demo", algorithm={"beta": 0.3})
    second = first.but(algorithm={"lr": 1e-5}, name="b")
    assert (second.algorithm.model_dump()["beta"], second.algorithm.lr, second.name, first.name) == (0.3, 1e-5, "b", "dpo-demo")
    assert repr(second) == "Experiment('dpo_demo', algorithm={'beta': 0.3, 'lr': 1e-05}, name='b')"
    assert eval(repr(second), {"Experiment": wb.Experiment}) == second


def test_another_choice_has_none_of_the_settings_of_the_first() -> None:
    cluster = wb.Experiment("dpo_demo", backend={"name": "slurm", "partition": "gpu", "num_nodes": 2})
    assert cluster.but(backend={"num_nodes": 4}).backend.model_dump()["partition"] == "gpu"
    here = {"name": "local", "ranks_per_node": 2}
    assert cluster.but(backend=here) == wb.Experiment("dpo_demo", backend=here)
    assert as_spec(cluster.spec, {"backend": here}).backend == cluster.but(backend=here).backend


def test_a_launch_goes_to_the_backend_that_is_named(unlaunched) -> None:
    experiment = wb.Experiment("dpo_demo")
    run = wb.launch(experiment, backend="local", ranks_per_node=2)
    assert run.spec.backend.ranks_per_node == 2 and run.name == "dpo-demo"
    with pytest.raises(SpecError, match=r"backend\.ranks_per_nod: there is no such key; did you mean 'ranks_per_node'"):
        wb.launch(experiment, ranks_per_nod=2)
    with pytest.raises(SpecError, match=r"backend: there is no 'slrm'; did you mean 'slurm'"):
        wb.launch(experiment, backend="slrm")
    assert len(wb.runs()) == 1


def test_once_finds_the_run_again(unlaunched) -> None:
    experiment = wb.Experiment("dpo_demo")
    run = wb.launch(experiment, once="first")
    assert wb.launch("dpo_demo", once="first").id == run.id and run.once == "first"
    assert wb.launch(experiment, once="second").id != run.id
    assert wb.launch(experiment.but(validation={"every_steps": 3}), once="first").id == run.id, "a resume may change it"
    with pytest.raises(SpecError, match=rf"algorithm\.beta: is 0\.3; once='first' was launched as {run.id} with 0\.1"):
        wb.launch(experiment.but(algorithm={"beta": 0.3}), once="first")
    assert len(wb.runs()) == 2


def test_once_of_two_at_the_same_time_is_one_run(unlaunched) -> None:
    ids: list[str] = []
    threads = [threading.Thread(target=lambda: ids.append(wb.launch("dpo_demo", once="x").id)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(ids) == 4 and len(set(ids)) == 1


def test_once_launches_what_was_created_and_never_launched(runs, monkeypatch) -> None:
    monkeypatch.setattr(launching, "launch", lambda run, task: None)  # as where the kernel is killed before the launch
    created = wb.launch("dpo_demo", once="x")
    assert created.status.state == State.CREATED
    monkeypatch.setattr(launching, "launch", lambda run, task: run.begin_attempt("waiting"))
    assert wb.launch("dpo_demo", once="x").id == created.id and created.status.state == State.QUEUED


def test_what_a_run_has_is_read_from_its_folder(runs) -> None:
    run = wb.Run(synthetic_rollouts.make(runs, 3, state=State.COMPLETED))
    assert run.metrics["step"].tolist() == [1, 2, 3] and "rewards" in run.metrics
    assert run.held_out["step"].tolist() == [0]
    assert set(run.answers.columns) == {"step", "prompt", "response"} and len(run.answers) == 4
    assert run.checkpoints.columns.tolist() == ["step", "path", "gib"] and len(run.checkpoints) == 0
    assert run.wait().state == asyncio.run(_awaited(run)).state == State.COMPLETED


def test_rollouts_are_filtered_sorted_and_asked_in_sql(runs) -> None:
    run = wb.Run(synthetic_rollouts.make(runs, 3))
    table = run.rollouts
    assert len(table) == 48 and len(table.where("step = 2")) == 16 and table.steps == [1, 2, 3]
    best = table.where("step > 1").where("finish_reason = 'stop'").sort("reward", descending=True)
    frame = best.df()
    assert frame["reward"].is_monotonic_decreasing and set(frame["step"]) == {2, 3} and len(frame) == len(best)
    assert best.sql("SELECT count(*) AS n, max(reward) AS best FROM rollouts").to_dict("records") == [{"n": len(best), "best": frame["reward"][0]}]
    assert best.df(1, tokens=True)["pieces"][0].tolist() == table.one(int(frame["step"][0]), int(frame["rollout"][0]))["pieces"]
    with pytest.raises(ValueError, match="no column 'rewrd'; there are: step"):
        table.sort("rewrd")
    with pytest.raises(ValueError, match="rewrd"):
        table.where("rewrd > 1").df()
    with pytest.raises(ValueError, match=rf"run {run.id} has no rollout 99 of step 1; steps: 1 to 3"):
        table.one(1, 99)
    assert len(wb.Run(synthetic.make(runs, "none", 1)).rollouts.where("reward > 0")) == 0


def test_runs_are_filtered_and_found(runs) -> None:
    made = [wb.Run(synthetic.make(runs, name, 1, state=state)) for name, state in (("aa", State.COMPLETED), ("bb", State.FAILED))]
    assert {run.id for run in wb.runs()} == {run.id for run in made}
    assert [run.name for run in wb.runs(state="failed", algorithm="dpo")] == ["bb"] and len(wb.runs(algorithm="ppo")) == 0
    assert wb.runs()[made[0].id[-4:]].id == made[0].id
    with pytest.raises(ValueError, match="no runs of these match 'zz'"):
        _ = wb.runs()["zz"]
    (made[1].dir.path / "status.json").write_text("{")
    assert [run.name for run in wb.runs()] == ["aa"], "what cannot be read hides no other"


def test_a_comparison_has_curves_and_what_differs(runs) -> None:
    first, second = (synthetic.make(runs, "same", 5, seed=seed, overrides=(f"algorithm.beta={beta}",)) for seed, beta in ((0, 0.1), (1, 0.3)))
    both = wb.compare([first, second.id])
    assert list(both.settings.index) == ["algorithm.beta"] and len(both.metrics) == 10
    figure = both.curves("loss")
    assert [trace["name"] for trace in json.loads(figure.to_json())["data"]] == list(both.names)
    with pytest.raises(ValueError, match="none of these runs has 'los'; there are: loss"):
        both.curves("los")
    with pytest.raises(ValueError, match="a run is given twice"):
        wb.compare([first, first])


def test_everything_has_a_picture_that_needs_no_script(runs) -> None:
    dpo, ppo = wb.Run(synthetic.make(runs, "dpo", 30, overrides=('name="<b>dpo</b>"',))), wb.Run(synthetic_rollouts.make(runs, 3))
    shown = [wb.Experiment("ppo_demo"), dpo, ppo, ppo.rollouts, wb.runs(), wb.compare([dpo, ppo]), wb.preflight("dpo_demo")]
    for each in shown:
        html = each._repr_html_()
        assert "<script" not in html and "<b>dpo</b>" not in html and repr(each), type(each)
    assert dpo._repr_html_().count("<svg") == 6 and "aria-label" in dpo._repr_html_()
    assert wb.Run(synthetic.make(runs, "new", 0))._repr_html_().count("<svg") >= 1, "the first validation"


def test_a_picture_of_values_that_are_not_finite(runs) -> None:
    run = wb.Run(synthetic.make(runs, "x", 2, metrics_of=lambda step, seed: {"loss": float("nan") if step == 2 else 0.7, "lr": float("inf")}))
    assert "nan" in run._repr_html_()


def test_a_damaged_run_names_its_file(runs) -> None:
    run, other = wb.Run(synthetic.make(runs, "x", 3)), wb.Run(synthetic.make(runs, "y", 3))
    listed = wb.runs()
    (run.dir.path / "status.json").write_text("{")
    with pytest.raises(ValueError, match=r"status\.json"):
        _ = run.status
    assert all(f"{run.dir.path}/status.json" in shown for shown in (repr(run), run._repr_html_(), repr(listed), listed._repr_html_()))
    assert other.id in listed._repr_html_()


def test_a_run_links_to_its_page_in_the_app(runs, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("WORKBENCH_STATE", str(tmp_path / "state"))
    run = wb.Run(synthetic.make(runs, "x", 3))
    assert run.link == ""
    login = logins.register_app(8501, "http://127.0.0.1:8501", with_token=True)
    assert run.link == f"http://127.0.0.1:8501/run?id={run.id}" and login.token not in run._repr_html_() and run.link in run._repr_html_()
    (tmp_path / "state").chmod(0o755)
    assert run.link == ""


def test_an_export_that_is_refused_says_why(runs) -> None:
    run = wb.Run(synthetic.make(runs, "x", 3, state=State.COMPLETED))
    with pytest.raises(ValueError, match=rf"run {run.id} has no complete checkpoint"):
        run.export(runs / "out")


def test_check_data_shows_bad_rows_with_their_lines(runs) -> None:
    data = runs / "rows.jsonl"
    good = json.dumps({"prompt": "a", "chosen": "b", "rejected": "c"})
    data.write_text(f"{good}\n{{}}\n{good}\n")
    report = wb.check_data(str(data), max_length=64)
    preview = report.widget()
    assert (preview.source, preview.max_length, preview.model) == (str(data), 64, "smollm2-135m-instruct")
    preview.close()
    assert report.report.rows == 2 and report.bad_rows["where"].tolist() == [f"{data}:2"]
    assert f"{data}:2" in report._repr_html_() and "<svg" in report._repr_html_() and "2 rows" in repr(report)


async def _awaited(run: wb.Run) -> store.Status:
    return await run


def _words(command: str) -> list[str]:
    import shlex

    return shlex.split(command)[2:]
