"""Jobs that do not train, on checkpoints of the tiny model: in another layout, killed and resumed, from command line and API."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from tests import models
from tests.algorithms.runs import finished
from tests.hold import Hold
from workbench import api
from workbench.rundir import rollouts
from workbench.rundir.store import State
from workbench.settings.composing import SpecError

ROWS = [{"prompt": f"What is {i} and {i}?", "chosen": f"It is {2 * i}.", "rejected": "No.", "note": str(i)} for i in range(20)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("kinds")
    (made / "prompts.jsonl").write_text("".join(json.dumps({"prompt": row["prompt"], "note": row["note"]}) + "\n" for row in ROWS))
    return made


@pytest.fixture(scope="module")
def trained(folder: Path) -> api.Run:
    """A DPO run of four steps with a checkpoint at 2 and 4, whose layers two ranks can share."""
    model = models.save(folder / "model", num_hidden_layers=2)
    with pytest.MonkeyPatch.context() as monkeypatch:
        words = ("algorithm=dpo", "algorithm.max_steps=4", "checkpoint.every_steps=2", "validation.every_steps=2")
        return finished(ROWS, folder, monkeypatch, model, *words)


@pytest.fixture(autouse=True)
def there(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKBENCH_RUNS", str(folder / "runs"))
    monkeypatch.setenv("WORKBENCH_CACHE", str(folder / "cache"))


def generated(folder: Path, *words: str) -> api.Run:
    shared = ("job=generate", f"data.train={folder / 'prompts.jsonl'}", "job.max_tokens=8", "job.prompts_per_step=8", "job.samples_per_prompt=2")
    return api.submit(api.compose([*shared, "backend.threads_per_rank=1", *words]))


def ended(run: api.Run) -> api.Run:
    assert run.wait(240).state == State.COMPLETED, run.status.message
    return run


def answers(run: api.Run) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run.dir.path / "answers.jsonl").read_text().splitlines()]


def alike(ours: Sequence[dict[str, Any]], theirs: Sequence[dict[str, Any]]) -> None:
    assert [answer["tokens"] for answer in ours] == [answer["tokens"] for answer in theirs]
    for a, b in zip(ours, theirs, strict=True):
        assert np.allclose(a["logprobs"], b["logprobs"], atol=1e-4)


@pytest.fixture(scope="module")
def plain(folder: Path, trained: api.Run) -> api.Run:
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setenv("WORKBENCH_RUNS", str(folder / "runs"))
        monkeypatch.setenv("WORKBENCH_CACHE", str(folder / "cache"))
        return ended(generated(folder, f"job.checkpoint={trained.id}"))


def test_every_prompt_is_answered_with_its_log_probabilities(plain: api.Run, trained: api.Run) -> None:
    assert plain.spec.job.checkpoint == str(trained.dir.checkpoints / "4")  # type: ignore[attr-defined]
    assert plain.spec.model == trained.spec.model
    assert plain.spec.algorithm.name == "none"
    told = answers(plain)
    assert [(answer["row"], answer["sample"]) for answer in told] == [(i, sample) for i in range(20) for sample in (0, 1)]
    assert [answer["note"] for answer in told[::2]] == [row["note"] for row in ROWS]
    assert told[6]["prompt"] == [{"role": "user", "content": ROWS[3]["prompt"]}]
    assert all(len(answer["tokens"]) == len(answer["logprobs"]) and max(answer["logprobs"]) <= 0 for answer in told)
    assert any(told[i]["tokens"] != told[i + 1]["tokens"] for i in range(0, 40, 2))
    table = pq.read_table(plain.dir.path / "answers.parquet")
    assert table["row"].to_pylist() == [answer["row"] for answer in told]
    assert table["reward"].null_count == 40  # nobody scored them
    assert rollouts.steps(plain.dir) == [1, 2, 3]
    assert (plain.status.step, plain.status.total_steps) == (3, 3)


def test_the_log_probabilities_are_those_of_the_checkpoint_exported(plain: api.Run, trained: api.Run, tmp_path: Path) -> None:
    """transformers reads prompt and answer, and gives each sampled token the same log-probability."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from workbench.jobs.export import export

    export(trained.dir, tmp_path / "out")
    model, tokenizer = AutoModelForCausalLM.from_pretrained(tmp_path / "out"), AutoTokenizer.from_pretrained(tmp_path / "out")
    for answer in answers(plain)[:4]:
        prompt = tokenizer.apply_chat_template(answer["prompt"], add_generation_prompt=True)["input_ids"]
        with torch.no_grad():
            logprobs_TV = model(torch.tensor([[*prompt, *answer["tokens"]]])).logits[0].log_softmax(-1)
        expected = [logprobs_TV[len(prompt) - 1 + i, token].item() for i, token in enumerate(answer["tokens"])]
        assert np.allclose(answer["logprobs"], expected, atol=1e-4)


@pytest.mark.parametrize("layout", [("model.tensor_parallel=2",), ("model.pipeline_parallel=2",), ()], ids=["TP2", "PP2", "DP2"])
def test_any_layout_gives_the_same_answers(layout: tuple[str, ...], plain: api.Run, trained: api.Run, folder: Path) -> None:
    run = ended(generated(folder, f"job.checkpoint={trained.dir.checkpoints / '4'}", "backend.ranks_per_node=2", *layout))
    alike(answers(run), answers(plain))


def test_one_that_was_stopped_goes_on_with_the_next_prompts(plain: api.Run, trained: api.Run, folder: Path, hold: Hold) -> None:
    hold.at(1)
    run = generated(folder, f"job.checkpoint={trained.id}:4")
    hold.wait(run)
    run.kill()
    assert run.status.state == State.KILLED
    assert not (run.dir.path / "answers.jsonl").exists()
    assert rollouts.steps(run.dir) == [1]
    kept = (run.dir.path / "rollouts" / "1.parquet").stat().st_mtime_ns
    hold.release()
    run.resume()
    ended(run)
    assert (run.dir.path / "rollouts" / "1.parquet").stat().st_mtime_ns == kept
    assert answers(run) == answers(plain)


def test_another_checkpoint_answers_otherwise_and_the_model_alone_too(plain: api.Run, trained: api.Run, folder: Path) -> None:
    early, base = generated(folder, f"job.checkpoint={trained.id}:2"), generated(folder, f"model.source={folder / 'model'}")
    found = [[answer["tokens"] for answer in answers(run)] for run in (plain, ended(early), ended(base))]
    assert found[0] != found[1] != found[2] != found[0]


def test_what_is_no_checkpoint_is_told_before_the_launch(trained: api.Run, folder: Path) -> None:
    for checkpoint, said in (
        (f"'{trained.id}:3'", "no complete checkpoint of step 3; there are: 2, 4"),
        ("nobody", "no runs match 'nobody'"),
        (str(folder / "model"), "is no complete checkpoint"),
    ):
        with pytest.raises(SpecError, match=said) as refused:
            generated(folder, f"job.checkpoint={checkpoint}")
        assert refused.value.problems[0][0] == "job.checkpoint"


@pytest.mark.parametrize("layout", [(), ("model.tensor_parallel=2", "backend.ranks_per_node=2")], ids=["alone", "TP2"])
def test_an_evaluation_measures_what_the_run_did(layout: tuple[str, ...], trained: api.Run) -> None:
    run = ended(api.evaluate(trained.id, 2, layout))
    (ours,) = [event for event in run.events() if event["kind"] == "validation"]
    theirs = next(event for event in trained.events() if event["kind"] == "validation" and event["step"] == 2)
    assert ours["step"] == 2
    assert [sample["response"] for sample in ours["samples"]] == [sample["response"] for sample in theirs["samples"]]
    for name, value in theirs["metrics"].items():
        if not name.startswith("time_"):
            assert ours["metrics"][name] == pytest.approx(value, rel=1e-4, abs=1e-6), name
