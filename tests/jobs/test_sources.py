"""What is said of data and models before anything is launched."""

from __future__ import annotations

import gzip
import subprocess
import threading
from pathlib import Path

import pytest

from workbench import api
from workbench.data import hub

GOOD = '{"prompt": "a", "chosen": "b", "rejected": "c"}\n'


def problems(*words: str) -> dict[str, str]:
    found = api.check_sources(api.compose(["experiment=dpo_demo", *words]))
    assert not found.pending
    return dict(found.problems)


def test_names_endings_and_first_rows_of_data(tmp_path: Path) -> None:
    """Bad rows are told with their places; those that the settings leave out are no problem while a good one is among the first."""
    rows = tmp_path / "rows.jsonl"
    rows.write_text(GOOD * 3 + '{"prompt": 1}\n')
    (tmp_path / "empty.jsonl").touch()
    (tmp_path / "none.parquet").write_bytes(b"no parquet")
    (tmp_path / "cut.jsonl.gz").write_bytes(gzip.compress(GOOD.encode())[:-9])
    for name, told in {
        "README.md": "a data file ends in one of .jsonl",
        str(tmp_path / "nothing.jsonl"): "there is no file",
        str(rows): f"{rows}:4: expected",
        str(tmp_path / "empty.jsonl"): "there are no rows in it",
        str(tmp_path / "none.parquet"): "is not a Parquet file, as its name says",
        str(tmp_path / "cut.jsonl.gz"): "a whole gzip file",
        "nobody/nothing": "HF_HUB_OFFLINE",
        "no such thing": "not the id of a data set",
    }.items():
        assert told in problems(f"data.train='{name}'")["data.train"], name
    assert problems(f"data.train={rows}", "data.on_bad_row=skip") == {}
    assert problems(f"data.train={rows}", f"data.validation={tmp_path}/empty.jsonl").keys() == {"data.train", "data.validation"}
    assert problems(f"data.train={rows}", "data.limit=3") == {}
    rows.write_text(GOOD)
    assert problems(f"data.train={rows}") == {}
    assert "an unpaired row" not in problems(f"data.train={rows}", "algorithm=kto")


def test_models_of_every_role(tmp_path: Path) -> None:
    (tmp_path / "no-model").mkdir()
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    rewards = (
        f"algorithm.rewards={{a: {{model: nobody/nothing}}, b: {{model: {tmp_path}/no-model}}, c: {{judge: {{model: '~nobody-here/x'}}}}, "
        f"d: {{model: {tmp_path}/model}}}}"
    )
    found = problems(
        "algorithm=ppo", rewards, "algorithm.samples_per_prompt=2", "algorithm.served=[]", f"algorithm.critic.model.source={tmp_path}/gone"
    )
    assert found.keys() == {
        "algorithm.rewards.a.model",
        "algorithm.rewards.b.model",
        "algorithm.rewards.c.judge",
        "algorithm.critic.model.source",
    }
    assert "HF_HUB_OFFLINE" in found["algorithm.rewards.a.model"]
    assert "has no config.json" in found["algorithm.rewards.b.model"]
    assert "expected a Hugging Face directory" in found["algorithm.critic.model.source"]
    away = problems("algorithm=ppo", rewards, "algorithm.samples_per_prompt=2", "algorithm.served=[]", "backend=slurm")
    assert away.keys() == {"algorithm.rewards.b.model"}


def test_whoever_asks_waits_no_longer_than_they_say(monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer that takes long is asked for once, and known to whoever asks after it came."""
    answer, asked = threading.Event(), []

    def slow(repo_id: str, repo_type: hub.RepoType) -> str:
        asked.append(repo_id)
        answer.wait(60)
        return "gone"

    monkeypatch.setattr(hub, "problem", slow)
    experiment = api.compose(["experiment=dpo_demo", "data.train=someone/slow-rows"])
    for _ in range(2):
        assert api.check_sources(experiment, wait_s=0) == api.SourceCheck([], ["data.train"])
    answer.set()
    assert dict(api.check_sources(experiment).problems) == {"data.train": "someone/slow-rows: gone"}
    assert asked == ["someone/slow-rows"]


def test_a_launch_and_a_dry_run_refuse_them(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("WORKBENCH_RUNS", str(tmp_path))
    for launch in (api.submit, api.script, api.preflight):
        with pytest.raises(api.SpecError, match=r"data\.train: README\.md: a data file ends in one of"):
            launch(api.compose(["experiment=dpo_demo", "data.train=README.md"]))
    assert api.runs() == []


@pytest.mark.parametrize(
    ("source", "model", "told"),
    [
        ("/nowhere/rows.jsonl", "smollm2-135m-instruct", "there is no file /nowhere/rows.jsonl"),
        ("README.md", "smollm2-135m-instruct", "a data file ends in one of"),
        ("nobody/nothing", "smollm2-135m-instruct", "HF_HUB_OFFLINE"),
        ("workbench/data/demo/preferences.jsonl", "nobody/nothing", "nobody/nothing: there is no such file or directory"),
    ],
)
def test_a_check_of_what_is_not_there_starts_no_process(source: str, model: str, told: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Importing transformers and torch took up to 37 s before the answer."""
    monkeypatch.setattr(subprocess, "Popen", lambda *_, **__: pytest.fail("a process was started"))
    with pytest.raises(ValueError, match="there is no file|a data file|no such") as caught:
        api.check_data(source, "preference", model=model)
    assert told in str(caught.value)
