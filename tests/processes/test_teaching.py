"""Whole runs of a distillation: where the teacher's probabilities come from makes no difference, and neither does kill -9."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from transformers import AutoModelForCausalLM

from tests import models
from tests.hold import Hold
from tests.waiting import until, until_step
from workbench import api, metrics
from workbench.data.chat import Chat
from workbench.data.packing import Row
from workbench.data.rows import Conversation, Message
from workbench.processes import teaching
from workbench.rundir.store import State

TOP_K, STEPS = 6, 6
COUNT = teaching.PART + 20
"""Rows of a cache of two parts, and of one pass of the steps."""
Submit = Callable[..., api.Run]


def conversation(i: int) -> tuple[str, str]:
    return f"What is {i} and {i}?", f"The sum of them is {2 * i}, and bread is {'not ' * (i % 3)}made of it."


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A student, a teacher of another depth, rows, and a few held out."""
    made = tmp_path_factory.mktemp("distillation")
    models.save(made / "student", num_hidden_layers=2)
    models.save(made / "teacher", num_hidden_layers=4)
    for name, numbers in (("rows", range(COUNT)), ("held_out", range(COUNT, COUNT + 5))):
        rows = [
            {"messages": [{"role": role, "content": text} for role, text in zip(("user", "assistant"), conversation(i), strict=True)]}
            for i in numbers
        ]
        (made / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return made


@pytest.fixture
def submit(folder: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Submit:
    monkeypatch.setenv("WORKBENCH_RUNS", str(tmp_path / "runs"))
    words = (
        "algorithm=distill",
        f"model.source={folder / 'student'}",
        f"data.train={folder / 'rows.jsonl'}",
        f"data.validation={folder / 'held_out.jsonl'}",
        "data.max_row_mb=64",
        f"algorithm.teacher.top_k={TOP_K}",
        f"algorithm.global_batch_size={COUNT // STEPS}",
        f"algorithm.max_steps={STEPS}",
        "algorithm.lr=1e-3",
        "algorithm.warmup_steps=0",
        "algorithm.sft_loss_weight=0.1",
        "validation.every_steps=0",
        "validation.samples=0",
        "backend.threads_per_rank=1",
    )
    return lambda *overrides: api.submit(api.compose([*words, *overrides]))


def asking(folder: Path, computed: str, *words: str) -> tuple[str, ...]:
    return (f"algorithm.teacher.source={folder / 'teacher'}", f"algorithm.teacher.computed={computed}", *words)


def completed(run: api.Run) -> api.Run:
    assert run.wait(240).state == State.COMPLETED, run.status.message + run.log_tail()
    unknown = {name for values in curve(run) for name in values if metrics.find(name) is None}
    assert not unknown, f"register them in workbench/metrics.py: {sorted(unknown)}"
    return run


def curve(run: api.Run) -> list[dict[str, float]]:
    """The metrics of each step, and of the held-out rows; of a step that was done twice, the later ones."""
    steps = {(event["kind"], event["step"]): event["metrics"] for event in run.events() if event["kind"] in ("step", "validation")}
    return [steps[key] for key in sorted(steps)]


def said(run: api.Run) -> list[str]:
    return [event["message"] for event in run.events() if event["kind"] == "phase"]


NAMES = ("loss", "teacher_divergence", "sft_loss", "teacher_mass", "grad_norm")


def assert_equal(ours: api.Run, theirs: api.Run, tolerance: float) -> None:
    assert len(curve(ours)) == len(curve(theirs)) == STEPS + 2
    for a, b in zip(curve(ours), curve(theirs), strict=True):
        for name in NAMES:
            assert (name in a) == (name in b)
            assert a.get(name, 0.0) == pytest.approx(b.get(name, 0.0), abs=tolerance, rel=tolerance), name


def nemo_rows(folder: Path, numbers: range, k: int) -> str:
    """The rows as NeMo-Aligner's script writes them: padded on the right, with the teacher's logits at each place, by transformers."""
    chat, model = Chat(models.tokenizer()), AutoModelForCausalLM.from_pretrained(folder / "teacher", dtype=torch.float32)
    lines = []
    for i in numbers:
        question, answer = conversation(i)
        row = chat.one(Conversation((Message("user", question), Message("assistant", answer))))
        with torch.no_grad():
            logits = model(torch.tensor([list(row.prefix)])).logits[0, :-1].double()
        top, padding = logits.topk(k), i % 3
        line: dict[str, Any] = {
            "tokens": [*row.prefix[:-1], *[0] * padding],
            "labels": [*row.prefix[1:], *[0] * padding],
            "loss_mask": [*map(float, row.learn[1:]), *[0.0] * padding],
            "topk_logits": [*top.values.tolist(), *[[0.0] * k] * padding],
            "topk_token_ids": [*top.indices.tolist(), *[list(range(k))] * padding],
            "log_sum_exp_logits": [*logits.logsumexp(1).tolist(), *[0.0] * padding],
            "index": i,
        }
        lines.append(json.dumps(line) + "\n")
    return "".join(lines)


def test_in_the_process_once_and_in_the_rows(submit: Submit, folder: Path, cache: Path, tmp_path: Path) -> None:
    """The same curve: of each step's teacher, of its cache to 1e-6, and of rows that transformers filled, which tell more tokens than are asked for."""
    here = completed(submit(*asking(folder, "each_step")))
    once = completed(submit(*asking(folder, "once")))
    assert_equal(here, once, 1e-6)
    assert all("time_teacher_s" in values for values in curve(here) if "lr" in values)
    bytes_a_token = TOP_K * 8 + 4
    files = sorted(path.stat().st_size for path in (cache / "teacher").iterdir())
    assert [path.suffix for path in (cache / "teacher").iterdir()] == [".bin", ".bin"]
    sizes = [message for message in said(once) if "will take" in message]
    assert len(sizes) == 2 and "KiB" in sizes[0] and f"x {TOP_K} of the teacher's likeliest" in sizes[0]
    assert all(size % bytes_a_token == 0 for size in files)
    again = completed(submit(*asking(folder, "once")))
    assert not [message for message in said(again) if "will take" in message or message == "loading the teacher"]
    assert_equal(again, once, 0)
    for name, numbers in (("taught", range(COUNT)), ("taught_held_out", range(COUNT, COUNT + 5))):
        (tmp_path / f"{name}.jsonl").write_text(nemo_rows(folder, numbers, TOP_K + 3))
    data = (f"data.train={tmp_path / 'taught.jsonl'}", f"data.validation={tmp_path / 'taught_held_out.jsonl'}")
    assert_equal(completed(submit("algorithm.teacher.computed=in_rows", *data)), here, 1e-4)


def rank_pid(run: api.Run) -> int:
    def find() -> int:
        for process in psutil.process_iter(["cmdline"]):
            words = process.info["cmdline"] or []
            if "workbench.processes.worker" in words and str(run.dir.path) in words:
                return process.pid
        return 0

    return until(find, what="the rank's process", run=run)


def test_killed_while_it_caches_and_while_it_trains(
    submit: Submit, folder: Path, cache: Path, hold: Hold, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """kill -9 after the first of two parts, with half of one written after it, and again in mid-training: file and curve are the undisturbed ones."""
    words = asking(folder, "once", "checkpoint.every_steps=2", "checkpoint.asynchronous=false", "model.lora.dropout=0.1")
    hold.at_phase("the teacher's probabilities (train)")
    run = submit(*words)
    (partial,) = until(lambda: [path for path in (cache / "teacher").glob("*.partial") if path.stat().st_size], run=run)
    until(lambda: "the teacher's probabilities (train)" in said(run), run=run)
    os.kill(rank_pid(run), signal.SIGKILL)
    assert run.wait(240).state == State.FAILED
    written = partial.read_bytes()
    assert written and len(written) % (TOP_K * 8 + 4) == 0
    partial.write_bytes(written + b"half of a part that was not written to its end")
    hold.at(3)
    run.resume()
    until_step(run, 3)
    os.kill(rank_pid(run), signal.SIGKILL)
    assert run.wait(240).state == State.FAILED
    hold.release()
    run.resume()
    completed(run)
    table = partial.with_suffix(".bin").read_bytes()
    assert table.startswith(written) and len(table) > len(written)
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path / "another"))
    other = completed(submit(*words))
    assert (tmp_path / "another" / "teacher" / partial.with_suffix(".bin").name).read_bytes() == table
    assert_equal(run, other, 0)


def row(k: int = 3, highest: int = 9) -> Row:
    arrays = {
        "teacher_tokens": np.arange(highest - k + 1, highest + 1)[None].repeat(2, 0),
        "teacher_top_logprobs": np.log(np.full((2, k), 0.9 / k, np.float32)),
        "teacher_rest": np.log(np.full(2, 0.1, np.float32)),
    }
    return Row([1, 2, 3], learn=[False, True, True], arrays=arrays)


class _Policy:
    class hf_config:
        vocab_size = 10


def in_rows(top_k: int) -> teaching.Teaching:
    from types import SimpleNamespace

    algorithm = SimpleNamespace(teacher=SimpleNamespace(computed="in_rows", source=None, top_k=top_k), temperature=1.0)
    rank: Any = SimpleNamespace(spec=SimpleNamespace(algorithm=algorithm))
    policy: Any = _Policy
    return teaching.Teaching(rank, policy)


def test_rows_tell_more_than_is_asked_for_or_another_vocabulary() -> None:
    """Of 3 tokens of 0.3 each two are kept: the others have 0.1 + 0.3."""
    (taught,) = in_rows(2).before([row()])
    assert taught.arrays["teacher_tokens"].tolist() == [[7, 8]] * 2
    assert np.exp(taught.arrays["teacher_rest"]) == pytest.approx([0.4, 0.4])
    assert in_rows(5).before([row()])[0].arrays["teacher_tokens"].shape == (2, 3)
    assert np.isneginf(in_rows(99).before([row(k=10)])[0].arrays["teacher_rest"]).all()
    with pytest.raises(ValueError, match="the rows: the teacher names token 10, and the policy's vocabulary has 10"):
        in_rows(5).before([row(highest=10)])
    with pytest.raises(ValueError, match=r"tell 3 to 4 of the teacher's tokens: set algorithm\.teacher\.top_k=3"):
        in_rows(5).before([row(), row(k=4)])
    assert in_rows(5).held_out([]) == []


def test_a_disk_without_room_is_told_before_anything_is_computed(submit: Submit, folder: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from types import SimpleNamespace

    monkeypatch.setattr(teaching.shutil, "disk_usage", lambda path: SimpleNamespace(free=1000))
    keeper = in_rows(TOP_K)
    with pytest.raises(ValueError, match=r"take 5 MiB \(train: 100,000 tokens x 6 .* has 1000 B left: set WORKBENCH_CACHE to a larger disk"):
        keeper._announce(cache / "teacher" / "a.partial", 100_000, TOP_K * 8 + 4, "train")


def test_without_a_teacher_nothing_is_launched(submit: Submit) -> None:
    with pytest.raises(ValueError, match=r"algorithm\.teacher\.source.*name its directory or hub id"):
        submit()
