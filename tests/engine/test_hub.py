"""Models of the hub, from a cache laid out as `huggingface_hub` does: which commit is read, and that the run keeps it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from huggingface_hub import constants

from tests import models
from workbench import api
from workbench.engine import hf
from workbench.jobs import launch
from workbench.processes import startup
from workbench.rundir import store
from workbench.rundir.store import RunDir, State
from workbench.settings.spec import compose

OLD, NEW = "a" * 40, "b" * 40


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The cache's folder of someone/model: main is the newer of its two commits, the tag v1 the older."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    folder = tmp_path / "hub" / "models--someone--model"
    models.save(folder / "snapshots" / OLD)
    shutil.copytree(folder / "snapshots" / OLD, folder / "snapshots" / NEW)
    (folder / "refs").mkdir()
    for name, commit in (("main", NEW), ("v1", OLD)):
        (folder / "refs" / name).write_text(commit)
    return folder


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    return store.create(tmp_path / "runs", "one", "{}")


@pytest.mark.parametrize(("revision", "commit"), [(None, NEW), ("main", NEW), ("v1", OLD), (OLD, OLD)])
def test_a_revision_is_the_commit_that_is_read(hub: Path, revision: str | None, commit: str) -> None:
    directory = hf.local_directory("someone/model", revision)
    assert directory == hub / "snapshots" / commit
    assert hf.commit_of("someone/model", directory) == commit


@pytest.mark.usefixtures("hub")
def test_a_revision_that_is_not_there_is_refused(tiny_model: Path) -> None:
    with pytest.raises(ValueError, match="someone/model at revision v9: neither a directory"):
        hf.local_directory("someone/model", "v9")
    with pytest.raises(ValueError, match="a revision is of a model of the hub, and .* is none"):
        hf.local_directory(str(tiny_model), "v1")


def test_the_run_keeps_the_commit(hub: Path, run: RunDir) -> None:
    """A resume reads it again where the hub's main branch has moved meanwhile, and so does what reads the run's checkpoints."""
    spec = compose(["experiment=dpo_demo", "model.source=someone/model", "model.revision=v1"])
    directory, pinned = startup.fetched(run, spec)
    assert (directory, pinned.model.revision, (run.path / "commit").read_text()) == (hub / "snapshots" / OLD, OLD, OLD)
    (hub / "refs" / "v1").write_text(NEW)
    assert startup.fetched(run, spec) == (directory, pinned)
    assert startup.settled(run, spec) == pinned


def test_of_two_gangs_the_first_decides(hub: Path, run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = compose(["experiment=dpo_demo", "model.source=someone/model"])

    def moved(source: str, directory: Path) -> str:
        (run.path / "commit").write_text(OLD)  # by the gang that was first, just now
        return directory.name

    monkeypatch.setattr(hf, "commit_of", moved)
    directory, pinned = startup.fetched(run, spec)
    assert (directory.name, pinned.model.revision) == (OLD, OLD)


def test_weights_that_were_replaced_are_refused_until_told(run: RunDir, tmp_path: Path) -> None:
    """As under adapters, between a checkpoint and a resume. A directory has no commit."""
    model = models.save(tmp_path / "model")
    spec = compose(["experiment=dpo_demo", f"model.source={model}"])
    for _ in range(2):
        assert startup.fetched(run, spec) == (model, spec)
    assert startup.changed_weights(run, spec) == []
    assert not (run.path / "commit").exists()
    models.save(model, num_key_value_heads=4)
    with pytest.raises(ValueError, match=r"has other weights than when the run began .*--changed-data"):
        startup.fetched(run, spec)
    (told,) = startup.changed_weights(run, spec)
    assert "--changed-data" in told
    startup.accept_other_weights(run)
    assert startup.fetched(run, spec) == (model, spec)
    assert startup.changed_weights(run, spec) == []


def test_a_launch_looks_at_the_revision_and_at_what_it_is(hub: Path, tiny_model: Path) -> None:
    def told(*words: str) -> str:
        return dict(api.check_sources(api.compose(["experiment=dpo_demo", *words])).problems).get("model.source", "")

    assert told("model.source=someone/model", "model.revision=v1") == ""
    assert "at revision v9 in the hub's cache" in told("model.source=someone/model", "model.revision=v9")
    assert "a revision is of a model of the hub" in told(f"model.source={tiny_model}", "model.revision=v1")
    config = hub / "snapshots" / NEW / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "model_type": "mamba"}))
    assert "model_type 'mamba' has no family" in told("model.source=someone/model", f"model.revision={NEW}")
    with pytest.raises(ValueError, match=r"someone/model, config\.json: model_type 'mamba'"):
        hf.local_directory("someone/model")


def test_a_resume_says_so_before_anything_is_launched(tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = compose(["experiment=dpo_demo", f"model.source={tiny_model}"])
    run = store.create(tmp_path / "runs", "one", spec.to_yaml())
    run.update(state=State.STOPPED, attempt=1)
    (run.path / "weights").write_text("0" * 32)
    launched: list[RunDir] = []
    monkeypatch.setattr(launch, "launch", lambda run, task: launched.append(run))
    with pytest.raises(ValueError, match="has other weights than when the run began"):
        api.Run(run).resume()
    assert launched == []
    api.Run(run).resume(changed_data=True)
    assert launched == [run] and not (run.path / "weights").exists()
