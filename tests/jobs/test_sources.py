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
    (tmp_path / "model" / "config.json").write_text('{"model_type": "llama"}')
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


def test_models_that_are_not_read_are_refused_before_anything_is_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the launch, by a dry run and a preflight, and in the form, which asks the same. A directory's answer is of its files as they are."""
    monkeypatch.setenv("WORKBENCH_RUNS", str(tmp_path / "runs"))
    config = tmp_path / "config.json"
    for settings, said in {
        '{"model_type": "gpt2"}': "model_type 'gpt2' has no family",
        '{"model_type": "qwen2", "use_sliding_window": true}': "use_sliding_window=True",
        '{"model_type": "llama", "quantization_config": {"quant_method": "awq", "bits": 4}}': "quant_method=awq, bits=4",
        '{"model_type"': "is not JSON",
    }.items():
        config.write_text(settings)
        for launch in (api.submit, api.script, api.preflight):
            with pytest.raises(api.SpecError, match=r"model\.source: ") as caught:
                launch(api.compose(["experiment=dpo_demo", f"model.source={tmp_path}"]))
            assert said in str(caught.value)
    config.write_text('{"model_type": "llama", "vocab_size": 2}')
    assert problems(f"model.source={tmp_path}") == {}
    (tmp_path / "tokenizer.json").write_text('{"model": {"vocab": {"a": 0, "b": 1}}, "added_tokens": [{"id": 2, "content": "<new>"}]}')
    assert "the first is '<new>' (2)" in problems(f"model.source={tmp_path}")["model.source"]
    assert api.runs() == []


def test_a_reward_model_has_a_trained_head(tiny_model: Path, tiny_reward: Path) -> None:
    def told(reward: str) -> dict[str, str]:
        return problems(
            "algorithm=grpo", f"algorithm.rewards={{liked: {{model: {reward}}}}}", "algorithm.samples_per_prompt=2", "algorithm.served=[]"
        )

    assert "is no reward model: it has no trained score head" in told(str(tiny_model))["algorithm.rewards.liked.model"]
    assert "is no reward model" in told("smollm2-135m-instruct")["algorithm.rewards.liked.model"]
    assert told(str(tiny_reward)) == {}
