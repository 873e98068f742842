"""What is checked and settled before a launch, and the launch itself."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from tests.backends import stand_in
from workbench import api
from workbench.jobs import launch
from workbench.rundir import store
from workbench.rundir.store import State


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("WORKBENCH_RUNS", str(tmp_path))
    return tmp_path


@pytest.fixture
def run(root: Path) -> api.Run:
    return api.Run(store.create(root, "one", "{}"))


def test_of_two_launches_one_is_refused(run: api.Run) -> None:
    refused: list[str] = []

    def launch_once() -> None:
        try:
            launch.launch(run.dir, stand_in.task(run.dir, "steps(1)"))
        except ValueError as error:
            refused.append(str(error))

    threads = [threading.Thread(target=launch_once) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(refused) == 3
    assert run.wait(30).state == State.COMPLETED
    assert [path.name for path in run.logs("driver")] == ["driver.1.log"]


def test_the_users_files_are_named_from_the_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.jsonl").touch()
    spec = api.compose(["data.train=mine.jsonl", "data.validation=org/hub-id"]).with_absolute_paths()
    assert (spec.data.train, spec.data.validation) == (str(tmp_path / "mine.jsonl"), "org/hub-id")
    demo = api.compose(["experiment=dpo_demo"])
    assert demo.with_absolute_paths() == demo


def test_the_users_functions_are_looked_for_before_anything_is_launched(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every one that is not there, at once, with the nearest name; nothing is made. Those that are there are named from the root."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text("1 / 0\ndef short(prompt, response, row): ...\ndef gentle(answer): ...\n")
    (tmp_path / "rows.jsonl").write_text('{"prompt": "a"}\n')
    words = [
        "algorithm=grpo",
        "data.train=rows.jsonl",
        "algorithm.shaping=mine.py:{}",
        "algorithm.rewards={{a: {{program: {}}}, b: {{program: {}}}}}",
    ]

    def composed(shaping: str, *programs: str) -> api.Experiment:
        return api.compose([*words[:2], words[2].format(shaping), words[3].format(*programs)])

    with pytest.raises(api.SpecError) as caught:
        api.submit(composed("gentel", "mine.py:shrt", "maths"))
    told = dict(caught.value.problems)
    assert told.keys() == {"algorithm.rewards.a.program", "algorithm.rewards.b.program", "algorithm.shaping"}
    for (key, what), near in zip(sorted(told.items()), ("short", "math", "gentle"), strict=True):
        assert f"did you mean '{near}'?" in what, key
    assert api.runs() == []
    sound = composed("gentle", "mine.py:short", "math")
    sound.check_files()
    algorithm = sound.with_absolute_paths().algorithm
    assert algorithm.shaping == f"{tmp_path}/mine.py:gentle"  # type: ignore[attr-defined]
    assert [reward.program for reward in algorithm.rewards.values()] == [f"{tmp_path}/mine.py:short", "math"]  # type: ignore[attr-defined]


def test_what_a_run_here_would_not_find_is_told_before_it_is_launched(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also words that are no path at all: too long for one, or below the home of nobody."""
    words = [
        "experiment=ppo_demo",
        f"data.train={tmp_path}/rows.jsonl",
        "data.validation='~nobody-here/rows.jsonl'",
        f"model.source={tmp_path}/model",
    ]
    monkeypatch.setattr("workbench.settings.spec.find_spec", lambda name: None)
    with pytest.raises(api.SpecError) as caught:
        api.submit(api.compose(words))
    told = dict(caught.value.problems)
    assert told.keys() == {"data.train", "data.validation", "model.source", "algorithm.served"}
    assert "pip install" in told["algorithm.served"]
    assert api.runs() == []
    with pytest.raises(api.SpecError, match="File name too long"):
        api.submit(api.compose(["experiment=dpo_demo", f"data.train={'x' * 5000}"]))
    api.compose(["experiment=dpo_demo", f"model.source={'x' * 5000}", "backend.ranks_per_node=2"])
    away = api.compose(["experiment=dpo_demo", f"data.train={tmp_path}/rows.jsonl", "backend=slurm"])
    away.check_files()
