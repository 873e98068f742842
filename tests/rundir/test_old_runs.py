"""Run folders of earlier versions list, open, compare and go on; those of newer ones are told from them and left alone.

fixtures/make.py made the folders, at the commit that they are named after.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tests.app.pages import by_label, on_tab, open_page, words
from tests.rundir.damages import OLD
from workbench import api
from workbench.rundir import rollouts, store
from workbench.rundir.store import COMPLETE, FORMAT, NewerFormat, RunDir, State
from workbench.settings import stored, upgrade
from workbench.settings.spec import Experiment
from workbench.terminal.cli import app as cli

NEWER = f"made by a newer version (format {FORMAT + 7}; this one reads up to {FORMAT})"

Restore = Callable[[str], api.Run]


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("WORKBENCH_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "runs"


@pytest.fixture
def restore(runs: Path, tmp_path: Path, tiny_model: Path) -> Restore:
    """Puts an old run where its model and its data are, as if it had been made there."""

    def put(name: str) -> api.Run:
        if not (tmp_path / "model").exists():
            shutil.copytree(tiny_model, tmp_path / "model")
            for rows in OLD.glob("*s.jsonl"):
                shutil.copy(rows, tmp_path)
        folder = shutil.copytree(OLD / name, runs / f"20261126-000000-{name}-a4e7")
        for path in folder.rglob("*"):
            if path.suffix in (".yaml", ".json", ".jsonl"):
                path.write_text(path.read_text().replace("{ROOT}", str(tmp_path)))
        for marker in folder.rglob(COMPLETE):
            write_sums(marker)
        return api.Run(RunDir(folder))

    return put


def write_sums(marker: Path) -> None:
    """Its checkpoint's meta.json names the model's folder, which is another one now."""
    files = json.loads(marker.read_text())
    meta = (marker.parent / "meta.json").read_bytes()
    files["meta.json"] = {"bytes": len(meta), "sha256": hashlib.sha256(meta).hexdigest()}
    marker.write_text(json.dumps(files))


@pytest.fixture
def newer(runs: Path) -> api.Run:
    """A run with a format and a status that this version does not know."""
    run = store.create(runs, "from the future", "settings: elsewhere\n")
    (run.path / "status.json").write_text(json.dumps({"format": FORMAT + 7, "phase": "dreaming"}))
    return api.Run(run)


def workbench(*arguments: str) -> str:
    done = CliRunner().invoke(cli, arguments, catch_exceptions=False, env={"COLUMNS": "300"})
    assert done.exit_code == 0, done.output
    return done.stdout


def losses(run: api.Run) -> list[float]:
    """By step, the last that was written of each."""
    return list({event["step"]: event["metrics"]["loss"] for event in run.events() if event["kind"] == "step"}.values())


def test_old_runs_are_listed_and_shown(restore: Restore) -> None:
    finished, stopped = restore("finished"), restore("stopped")
    assert (finished.dir.readable_format(), stopped.dir.readable_format()) == (1, 1)
    listed = {run["id"]: run for run in json.loads(workbench("list", "--json"))}
    assert {(run["name"], run["algorithm"], run["state"], run["step"]) for run in listed.values()} == {
        ("old finished", "grpo", "completed", 4),
        ("old stopped", "dpo", "stopped", 2),
    }
    shown = json.loads(workbench("show", stopped.id, "--json"))
    assert shown["metrics"]["loss"] == losses(stopped)[-1]
    assert shown["spec"]["model"]["lora"]["rank"] == 2
    assert finished.spec.algorithm.name == "grpo"


def test_old_runs_open_on_the_pages(restore: Restore) -> None:
    finished, stopped = restore("finished"), restore("stopped")
    page = open_page("run", id=finished.id)
    shown = {metric.label: metric.value for metric in page.metric}
    assert shown["Step"] == "4"
    assert {"Reward", "KL", "Held-out reward"} <= shown.keys()
    assert "bread" in words(on_tab(page, finished.dir, "Answers"))
    assert list(on_tab(page, finished.dir, "Checkpoints").dataframe[0].value["Step"]) == ["4"]
    assert by_label(open_page("run", id=stopped.id).button, "Resume")
    assert rollouts.steps(finished.dir) == [1, 2, 3, 4]
    table = open_page("rollouts", id=finished.id).dataframe[0].value
    assert len(table) == 4 * 8


def test_old_runs_are_compared_by_todays_names(restore: Restore) -> None:
    finished, stopped = restore("finished"), restore("stopped")
    page = open_page("compare", runs=f"{finished.id},{stopped.id}")
    standing, diff = (frame.value for frame in page.dataframe)
    assert list(standing["Steps"]) == ["4", "2"]
    assert list(diff.loc["algorithm.name"]) == ["grpo", "dpo"]
    assert set(diff.index) <= set(leaf_names(finished)) | set(leaf_names(stopped))


def leaf_names(run: api.Run) -> list[str]:
    from workbench.settings.composing import leaves

    return [key for key, _ in leaves(run.spec.model_dump(mode="json"))]


def test_an_old_run_is_resumed_to_the_losses_of_the_undisturbed_one(restore: Restore, tmp_path: Path) -> None:
    """With the learning rate that was changed before the checkpoint, which its meta.json keeps under `changes`."""
    told = json.loads((OLD / "losses.json").read_text())
    stopped = restore("stopped")
    weights = (tmp_path / "model" / "model.safetensors").read_bytes()
    assert hashlib.sha256(weights).hexdigest() == told["model_sha256"], "tests.models.save gives other weights than it did: the losses differ too"
    workbench("resume", stopped.id, "--detach")
    assert stopped.wait(240).state == State.COMPLETED, stopped.status.message
    assert losses(stopped) == pytest.approx(told["losses"], rel=1e-6)
    assert [event["step"] for event in stopped.events() if event["kind"] == "state"] == [0, 2]
    assert stopped.dir.readable_format() == FORMAT
    assert stopped.dir.spec_path.name == "spec.2.yaml"
    assert Experiment.from_yaml(stopped.dir.spec_path.read_text()) == stopped.spec


def test_settings_are_renamed_from_format_to_format(monkeypatch: pytest.MonkeyPatch) -> None:
    def rename(tree: upgrade.Tree) -> upgrade.Tree:
        return {"new" if key == "old" else key: value for key, value in tree.items()}

    def double(tree: upgrade.Tree) -> upgrade.Tree:
        return {**tree, "new": 2 * tree["new"]}

    monkeypatch.setattr(upgrade, "UPGRADES", ((1, rename), (2, double)))
    tree = {"old": 4, "same": 1}
    assert upgrade.upgrade(tree, 1) == {"new": 8, "same": 1}
    assert upgrade.upgrade({"new": 4}, 2) == {"new": 8}
    assert upgrade.upgrade(tree, 3) == tree
    assert tree == {"old": 4, "same": 1}


def test_unchecked_settings_are_read_anew_when_their_file_changes(restore: Restore) -> None:
    stopped = restore("stopped")
    assert stored.spec_tree(stopped.dir)["name"] == "old stopped"
    stopped.dir.change_spec(2, "name: another\n")
    assert stored.spec_tree(stopped.dir) == {"job": {"name": "train"}, "name": "another"}
    stopped.dir.change_spec(3, "- no mapping\n")
    assert stored.spec_tree(stopped.dir) == {}


def test_new_runs_have_the_format_of_this_version(runs: Path) -> None:
    run = store.create(runs, "new", "{}")
    assert json.loads((run.path / "status.json").read_text())["format"] == FORMAT == run.readable_format()


def test_a_newer_run_is_listed_as_one(newer: api.Run, restore: Restore) -> None:
    old = restore("stopped")
    listed = {run["id"]: run for run in json.loads(workbench("list", "--json"))}
    assert (listed[newer.id]["state"], listed[newer.id]["message"]) == (None, NEWER)
    assert listed[old.id]["state"] == "stopped"
    table = workbench("list")
    assert NEWER in table
    assert old.id in table
    assert api.cluster("local").allocations == ()


def test_a_newer_run_is_neither_shown_nor_changed(newer: api.Run, tmp_path: Path) -> None:
    before = sorted(newer.dir.path.rglob("*"))
    for command in (
        ["show", newer.id],
        ["profile", newer.id],
        ["logs", newer.id],
        ["stop", newer.id],
        ["pause", newer.id],
        ["kill", newer.id],
        ["set", newer.id, "lr=1"],
        ["resume", newer.id],
        ["export", newer.id, "--out", str(tmp_path / "out")],
    ):
        with pytest.raises(NewerFormat, match=r"was made by a newer version \(format"):
            CliRunner().invoke(cli, command, catch_exceptions=False)
    assert sorted(newer.dir.path.rglob("*")) == before


def test_pages_say_that_a_run_is_newer(newer: api.Run, restore: Restore) -> None:
    old = restore("stopped")
    for name in ("run", "rollouts"):
        page = open_page(name, id=newer.id)
        assert NEWER in page.error[0].value.replace("\\", "")
        assert not page.metric
    page = open_page("compare", runs=f"{newer.id},{old.id}")
    assert NEWER in page.error[0].value.replace("\\", "")
    assert page.multiselect[0].value == [old.id]
    page = open_page("runs")
    assert list(page.dataframe[0].value["name"]) == ["old stopped"]
    assert NEWER in words(page).replace("\\", "")
    assert NEWER in open_page("launch", clone=newer.id).warning[0].value.replace("\\", "")
    assert open_page("run").query_params["id"] == old.id
