"""Whole runs of a tiny model through the local backend: real processes, killed for real."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest

from tests import models
from tests.hold import Hold
from tests.waiting import until_step
from workbench import api
from workbench.jobs.sources import FIRST_ROWS
from workbench.rundir.store import State

STEPS = 12


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pairs in which the longer answer is preferred."""
    rng = np.random.default_rng(0)
    path = tmp_path_factory.mktemp("data") / "pairs.jsonl"
    words = ["bread", "Paris", "short", "capital", "made", "user", "the", "of"]

    def say(n: int) -> str:
        return " ".join(rng.choice(words, n))

    with path.open("w") as file:
        for _ in range(60):
            file.write(json.dumps({"prompt": say(6), "chosen": say(12), "rejected": say(3)}) + "\n")
    return path


@pytest.fixture(scope="module")
def submit(tiny_model: Path, rows: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., api.Run]]:
    root = tmp_path_factory.mktemp("runs")

    def start(*overrides: str) -> api.Run:
        words = (
            f"model.source={tiny_model}",
            f"data.train={rows}",
            f"algorithm.max_steps={STEPS}",
            "algorithm.global_batch_size=8",
            "algorithm.lr=1e-3",
            "model.lora.dropout=0.1",
            "validation.every_steps=4",
            "validation.sample_tokens=4",
            "checkpoint.every_steps=3",
            "backend.threads_per_rank=1",
        )
        return api.submit(api.compose([*words, *overrides]))

    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("WORKBENCH_RUNS", str(root))
        environment.setenv("WORKBENCH_CACHE", str(root / "cache"))
        yield start


@pytest.fixture(scope="module")
def undisturbed(submit: Callable[..., api.Run]) -> api.Run:
    run = submit("name=undisturbed")
    assert run.wait(240).state == State.COMPLETED, run.status.message
    return run


@pytest.fixture(scope="module")
def even(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose layers two stages can share."""
    return models.save(tmp_path_factory.mktemp("even") / "model", num_hidden_layers=2)


@pytest.fixture(scope="module")
def without_dropout(submit: Callable[..., api.Run], even: Path) -> api.Run:
    """One rank's undisturbed run of that model: dropout depends on the layout."""
    run = submit("name=without dropout", f"model.source={even}", "model.lora.dropout=0")
    assert run.wait(240).state == State.COMPLETED, run.status.message
    return run


def losses(run: api.Run) -> dict[int, float]:
    return {event["step"]: event["metrics"]["loss"] for event in run.events() if event["kind"] == "step"}


def rank_pids(run: api.Run) -> list[int]:
    found = []
    for process in psutil.process_iter(["cmdline"]):
        words = process.info["cmdline"] or []
        if "workbench.processes.worker" in words and str(run.dir.path) in words:
            found.append(process.pid)
    return found


def test_a_healthy_runs_logs_tell_phases_steps_and_checkpoints(undisturbed: api.Run) -> None:
    for role in ("actor", "driver"):
        lines = undisturbed.log_tail(role).splitlines()
        stamped = [line.partition("  ")[2] for line in lines if re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d  ", line)]
        for said in (
            "loading the model",
            f"running from step 0 of {STEPS}",
            "step 1: loss 0.69",
            "step 12: checkpoint saved in ",
            "completed at step 12",
        ):
            assert any(line.startswith(said) for line in stamped), (role, said, lines)


def test_learns_and_reports(undisturbed: api.Run) -> None:
    events = list(undisturbed.events())
    validations = [event for event in events if event["kind"] == "validation"]
    assert [event["step"] for event in validations] == [0, 4, 8, 12]
    assert validations[0]["metrics"]["accuracy"] == pytest.approx(0.5)
    assert validations[-1]["metrics"]["rewards_margin"] > 0
    assert len(validations[0]["samples"]) == 4
    assert sorted(losses(undisturbed)) == list(range(1, STEPS + 1))
    assert losses(undisturbed)[1] == pytest.approx(np.log(2), abs=1e-6)
    step = next(event["metrics"] for event in events if event["kind"] == "step")
    wanted = "loss accuracy rewards_chosen_mean rewards_rejected_mean rewards_margin logprobs_chosen grad_norm lr tokens_per_s samples_per_s step_time_s peak_memory_gib"
    assert set(wanted.split()) <= step.keys()
    assert sorted(path.name for path in undisturbed.dir.checkpoints.iterdir()) == ["12", "9"]


def test_killed_run_resumes_on_the_same_curve(submit: Callable[..., api.Run], undisturbed: api.Run, hold: Hold) -> None:
    """kill -9 of the rank in mid-run, a half-written checkpoint and one without its marker left behind: the curve is the undisturbed one."""
    hold.at(5)
    run = submit("name=killed", "checkpoint.asynchronous=false")
    until_step(run, 5)
    os.kill(rank_pids(run)[0], signal.SIGKILL)
    assert run.wait(240).state == State.FAILED
    assert "rank 0 was killed by SIGKILL" in run.status.message
    newest = max(path for path in run.dir.checkpoints.iterdir() if path.name.isdigit())
    shutil.copytree(newest, run.dir.checkpoints / "99", ignore=shutil.ignore_patterns("COMPLETE"))
    (run.dir.checkpoints / ".98.partial").mkdir()
    hold.release()
    run.resume()
    assert run.wait(240).state == State.COMPLETED, run.status.message
    resumed = next(event["step"] for event in list(run.events())[::-1] if event["kind"] == "state")
    assert resumed == 3
    ours, theirs = losses(run), losses(undisturbed)
    assert max(abs(ours[step] - theirs[step]) for step in theirs) < 1e-6


def test_stop_saves_and_resume_goes_on(submit: Callable[..., api.Run], undisturbed: api.Run, hold: Hold) -> None:
    hold.at(2)
    run = submit("name=stopped")
    until_step(run, 2)
    run.stop()
    hold.release()
    assert run.wait(240).state == State.STOPPED
    stopped_at = run.status.step
    assert stopped_at == 2
    assert (run.dir.checkpoints / str(stopped_at) / "COMPLETE").is_file()
    run.resume()
    assert run.wait(240).state == State.COMPLETED, run.status.message
    ours, theirs = losses(run), losses(undisturbed)
    assert max(abs(ours[step] - theirs[step]) for step in theirs) < 1e-6


def test_killed_at_tp2_pp2_resumes_at_dp4(submit: Callable[..., api.Run], even: Path, without_dropout: api.Run, hold: Hold) -> None:
    """Four ranks share each layer and the layers, one is killed; four ranks with a whole model each go on along one rank's curve."""
    same = (f"model.source={even}", "model.lora.dropout=0")
    hold.at(4)
    run = submit(
        "name=moved", *same, "model.tensor_parallel=2", "model.pipeline_parallel=2", "backend.ranks_per_node=4", "checkpoint.asynchronous=false"
    )
    until_step(run, 4)
    os.kill(rank_pids(run)[-1], signal.SIGKILL)
    assert run.wait(240).state == State.FAILED
    hold.release()
    run.resume(["model.tensor_parallel=1", "model.pipeline_parallel=1"])
    assert run.wait(240).state == State.COMPLETED, run.status.message
    ours, theirs = losses(run), losses(without_dropout)
    assert sorted(ours) == list(range(1, STEPS + 1))
    assert max(abs(ours[step] - theirs[step]) for step in theirs) < 1e-4
    assert [event["step"] for event in run.events() if event["kind"] == "state"] == [0, 3]
    assert run.spec.model.pipeline_parallel == 1
    with pytest.raises(ValueError, match=r"algorithm\.lr: a resume cannot change it"):
        run.dir.update(state=State.STOPPED)
        run.resume(["algorithm.lr=1"])


def test_two_ranks_equal_one(submit: Callable[..., api.Run], even: Path, without_dropout: api.Run) -> None:
    """Data parallel over two processes: the same losses and gradient norms as one, to 1e-5, without dropout."""
    run = submit(f"model.source={even}", "model.lora.dropout=0", "backend.ranks_per_node=2")
    assert run.wait(240).state == State.COMPLETED, run.status.message
    one, two = ([event["metrics"] for event in each.events() if event["kind"] == "step"] for each in (without_dropout, run))
    for a, b in zip(one, two, strict=True):
        assert a["loss"] == pytest.approx(b["loss"], rel=1e-5)
        assert a["grad_norm"] == pytest.approx(b["grad_norm"], rel=1e-5)


def test_sft_full_fine_tuning_in_bf16(submit: Callable[..., api.Run], tmp_path: Path) -> None:
    """Every weight learns, in bf16 with fp32 masters; the exported model loads in transformers with the engine's logits."""
    from transformers import AutoModelForCausalLM

    from workbench.jobs.export import export

    run = submit("algorithm=sft", "algorithm.lr=1e-3", "model.lora.rank=0", "model.precision=bf16")
    assert run.wait(240).state == State.COMPLETED, run.status.message
    curve = losses(run)
    assert curve[STEPS] < curve[1] - 0.1
    export(run.dir, tmp_path / "out")
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "out").dtype.itemsize == 2


def test_failure_tells_its_reason(submit: Callable[..., api.Run], tmp_path: Path) -> None:
    good = '{"prompt": "a", "chosen": "b", "rejected": "c"}\n'  # the launch looks at the first rows itself
    (tmp_path / "bad.jsonl").write_text(good * FIRST_ROWS + '{"prompt": "a", "chosen": "b"}\n')
    run = submit(f"data.train={tmp_path / 'bad.jsonl'}")
    assert run.wait(240).state == State.FAILED
    assert f"bad.jsonl:{FIRST_ROWS + 1}" in run.status.message
