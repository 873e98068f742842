"""On-policy distillation: whole runs on a tiny model, whose answers are rollouts; exact after kills, the same in any layout and with a served teacher."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from tests import models
from tests.algorithms.runs import held_out, steps, worker_of
from tests.hold import Hold
from workbench import api, metrics
from workbench.rundir import rollouts
from workbench.rundir.store import State

SEED, FRACTION = 8, 0.5
OWN = [1, 3, 6]
"""The steps that learn from the policy's own answers, of six with this seed."""
BETA = 0.3


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A student, a teacher of another depth, and rows, some of them with an earlier answer."""
    made = tmp_path_factory.mktemp("on-policy")
    models.save(made / "student", num_hidden_layers=2)
    models.save(made / "teacher", num_hidden_layers=4)
    earlier = [{"role": "user", "content": "Hello?"}, {"role": "assistant", "content": "Hello."}]
    rows = [
        {"messages": [*earlier[: i % 2 * 2], {"role": "user", "content": f"What is {i}?"}, {"role": "assistant", "content": f"{i} is bread."}]}
        for i in range(14)
    ]
    (made / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return made


def run(folder: Path, monkeypatch: pytest.MonkeyPatch, *overrides: str) -> api.Run:
    """Six steps of four rows, every token of the vocabulary told, checkpoints after steps 2, 4 and 6."""
    monkeypatch.setenv("WORKBENCH_RUNS", str(folder / "runs"))
    monkeypatch.setenv("WORKBENCH_CACHE", str(folder / "cache"))
    words = (
        "algorithm=distill",
        f"seed={SEED}",
        f"model.source={folder / 'student'}",
        "model.lora.dropout=0.1",
        f"data.train={folder / 'rows.jsonl'}",
        "data.validation_fraction=0.2",
        f"algorithm.teacher.source={folder / 'teacher'}",
        f"algorithm.teacher.top_k={len(models.tokenizer())}",
        f"algorithm.on_policy.fraction={FRACTION}",
        "algorithm.on_policy.max_tokens=6",
        "algorithm.divergence=jensen_shannon",
        f"algorithm.teacher_share={BETA}",
        "algorithm.sft_loss_weight=0.1",
        "algorithm.global_batch_size=4",
        "algorithm.max_steps=6",
        "algorithm.lr=3e-3",
        "algorithm.warmup_steps=0",
        "validation.every_steps=2",
        "validation.samples=0",
        "checkpoint.every_steps=2",
        "checkpoint.asynchronous=false",
        "backend.threads_per_rank=1",
    )
    return api.submit(api.compose([*words, *overrides]))


def completed(made: api.Run) -> api.Run:
    assert made.wait(240).state == State.COMPLETED, made.status.message + made.log_tail()
    return made


@pytest.fixture(scope="module")
def undisturbed(folder: Path) -> api.Run:
    with pytest.MonkeyPatch.context() as monkeypatch:
        return completed(run(folder, monkeypatch, "name=undisturbed"))


NAMES = ("loss", "teacher_divergence", "grad_norm", "on_policy", "lr")


def curve(of: api.Run) -> dict[int, list[float]]:
    """Of a step that was done twice, the later metrics."""
    return {event["step"]: [event["metrics"][name] for name in NAMES] for event in of.events() if event["kind"] == "step"}


def answers(of: api.Run) -> list[tuple[int, int, list[int]]]:
    return [(step, each["weights_version"], each["tokens"]) for step in rollouts.steps(of.dir) for each in rollouts.whole_step(of.dir, step)]


def test_the_steps_that_are_drawn_learn_from_own_answers_that_are_rollouts(undisturbed: api.Run) -> None:
    """The others from the data's, with the data's own loss. Each of the former has four answers, by the weights of that step, to what stands before a row's last."""
    assert [i + 1 for i, each in enumerate(steps(undisturbed)) if each["on_policy"]] == rollouts.steps(undisturbed.dir) == OWN
    for number, each in enumerate(steps(undisturbed), start=1):
        assert not {name for name in each if metrics.find(name) is None}
        assert ("sft_loss" in each) == (number not in OWN)
        assert each["loss"] == pytest.approx(each["teacher_divergence"] + 0.1 * each.get("sft_loss", 0.0), abs=1e-5)
        if number in OWN:
            kept = rollouts.whole_step(undisturbed.dir, number)
            assert len(kept) == 4 and all(e["weights_version"] == number - 1 and 1 <= len(e["tokens"]) <= 6 for e in kept)
            assert all("bread" not in e["prompt"] and "What is" in e["prompt"] for e in kept)
            assert each["generation_length"] == sum(len(e["tokens"]) for e in kept) / 4
            assert each["fraction_of_samples_properly_ended"] == sum(e["finish_reason"] == "stop" for e in kept) / 4
            assert 0 < each["time_generate_s"] < each["step_time_s"]
        else:
            assert "generation_length" not in each and "time_generate_s" not in each
    asked = {e["prompt"].count("assistant") for number in OWN for e in rollouts.whole_step(undisturbed.dir, number)}
    assert asked == {1, 2}, "prompts without and with an earlier answer"


def logits(folder: Path, name: str, prompt: list[int], tokens: list[int]) -> torch.Tensor:
    model = AutoModelForCausalLM.from_pretrained(folder / name, dtype=torch.float32)
    with torch.no_grad():
        return model(torch.tensor([[*prompt, *tokens]])).logits[0, len(prompt) - 1 : -1].double()


def test_the_first_steps_loss_is_the_papers_by_transformers(undisturbed: api.Run, folder: Path) -> None:
    """The generalised Jensen-Shannon divergence (GKD, eq. 1) of both models' whole distributions at the tokens that were sampled; the dropout of adapters that
    begin at zero changes nothing."""
    words, total, count = models.tokenizer(), 0.0, 0
    for each in rollouts.whole_step(undisturbed.dir, 1):
        prompt = words(each["prompt"], add_special_tokens=False)["input_ids"]
        assert len(prompt) == each["prompt_tokens"]
        p, q = (logits(folder, name, prompt, each["tokens"]).softmax(1) for name in ("teacher", "student"))
        m = BETA * p + (1 - BETA) * q
        total += (BETA * (p * (p / m).log()).sum(1) + (1 - BETA) * (q * (q / m).log()).sum(1)).sum().item()
        count += len(each["tokens"])
    assert steps(undisturbed)[0]["loss"] == pytest.approx(total / count, rel=1e-4)


@pytest.mark.parametrize("where", ["training", "generation"])
def test_after_kill_9_it_continues_bit_for_bit(where: str, folder: Path, undisturbed: api.Run, hold: Hold, monkeypatch: pytest.MonkeyPatch) -> None:
    """After step 3, and in step 6 once its answers are written and before they are learnt from; the last checkpoints are those of steps 2 and 4."""
    if where == "training":
        hold.at(3)
    else:
        hold.at_rollouts(6)
    killed = run(folder, monkeypatch, f"name=killed-{where}", "backend.max_restarts=1")
    hold.wait(killed)
    (victim,) = worker_of(killed)
    victim.kill()
    hold.release()
    completed(killed)
    assert [event["step"] for event in killed.events() if event["kind"] == "state"] == [0, 2 if where == "training" else 4]
    assert curve(killed) == curve(undisturbed)
    assert answers(killed) == answers(undisturbed)
    assert held_out(killed)[-1]["teacher_divergence"] == held_out(undisturbed)[-1]["teacher_divergence"]


def test_two_ranks_of_a_layer_and_two_stages_do_what_one_rank_does(folder: Path, undisturbed: api.Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both without dropout, whose draws differ between layouts."""
    words = ("model.lora.dropout=0", "algorithm.max_steps=3")
    alone = completed(run(folder, monkeypatch, "name=alone", *words))
    layout = ("model.tensor_parallel=2", "model.pipeline_parallel=2", "backend.ranks_per_node=4")
    shared = completed(run(folder, monkeypatch, "name=shared", *words, *layout))
    assert answers(shared) == answers(alone) != []
    for step, values in curve(alone).items():
        assert curve(shared)[step] == pytest.approx(values, rel=1e-3, abs=1e-5)


def test_a_served_teacher_tells_what_one_in_the_process_tells(folder: Path, undisturbed: api.Run, monkeypatch: pytest.MonkeyPatch) -> None:
    served = completed(run(folder, monkeypatch, "name=served", "algorithm.served=[teacher]"))
    assert answers(served) == answers(undisturbed)
    assert all(each["server_teacher_s"] > 0 for each in steps(served))
    for step, values in curve(undisturbed).items():
        assert curve(served)[step] == pytest.approx(values, rel=1e-4, abs=1e-6)
    for ours, theirs in zip(held_out(served), held_out(undisturbed), strict=True):
        assert ours["teacher_divergence"] == pytest.approx(theirs["teacher_divergence"], rel=1e-4)


def test_a_served_teacher_is_asked_once_too(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the data's answers, before the first step: its cache is what the served teacher told, and it is asked nothing more."""
    words = ("algorithm.on_policy.fraction=0", "algorithm.max_steps=2")
    here = completed(run(folder, monkeypatch, "name=each-step", *words))
    served = completed(run(folder, monkeypatch, "name=once", *words, "algorithm.teacher.computed=once", "algorithm.served=[teacher]"))
    assert len(list((folder / "cache" / "teacher").glob("*.bin"))) == 2
    assert rollouts.steps(served.dir) == []
    for ours, theirs in zip([*steps(served), *held_out(served)], [*steps(here), *held_out(here)], strict=True):
        assert ours["teacher_divergence"] == pytest.approx(theirs["teacher_divergence"], rel=1e-4)
        assert "server_teacher_s" not in ours and "on_policy" not in ours


def test_an_evaluation_measures_what_the_run_did_and_names_another_teacher(
    folder: Path, undisturbed: api.Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of its checkpoint of step 4, first by the teacher that it learnt from, then with another model in that one's place."""
    monkeypatch.setenv("WORKBENCH_RUNS", str(folder / "runs"))
    monkeypatch.setenv("WORKBENCH_CACHE", str(folder / "cache"))
    theirs = next(event["metrics"] for event in undisturbed.events() if event["kind"] == "validation" and event["step"] == 4)
    same = completed(api.evaluate(undisturbed.id, 4))
    (ours,) = held_out(same)
    for name in ("loss", "teacher_divergence", "teacher_mass", "sft_loss"):
        assert ours[name] == pytest.approx(theirs[name], rel=1e-5), name
    kept = folder / "kept"
    shutil.move(folder / "teacher", kept)
    try:
        models.save(folder / "teacher", num_hidden_layers=3)
        other = completed(api.evaluate(undisturbed.id, 4))
    finally:
        shutil.rmtree(folder / "teacher")
        shutil.move(kept, folder / "teacher")
    assert held_out(other)[0]["teacher_divergence"] != pytest.approx(theirs["teacher_divergence"], rel=1e-3)
    said = [[event["message"] for event in each.events() if event["kind"] == "warning" and "teacher" in event["message"]] for each in (same, other)]
    assert said[0] == []
    assert "other weights than the teacher that this checkpoint learnt from" in said[1][0]


def test_a_teacher_with_other_weights_is_refused_on_a_resume(folder: Path, tmp_path: Path, hold: Hold, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed after step 3: its checkpoint of step 2 has the fingerprint of the teacher it learnt from. With the files put back the run completes."""
    shutil.copytree(folder / "teacher", tmp_path / "teacher")
    hold.at(3)
    killed = run(folder, monkeypatch, "name=another-teacher", f"algorithm.teacher.source={tmp_path / 'teacher'}", "algorithm.max_steps=4")
    hold.wait(killed)
    (victim,) = worker_of(killed)
    victim.kill()
    assert killed.wait(240).state == State.FAILED
    hold.release()
    models.save(tmp_path / "teacher", num_hidden_layers=3)
    killed.resume()
    assert killed.wait(240).state == State.FAILED
    assert "algorithm.teacher.source has other weights than when the run began" in killed.log_tail()
    assert max(event["step"] for event in killed.events() if event["kind"] == "step") == 3
    shutil.rmtree(tmp_path / "teacher")
    shutil.copytree(folder / "teacher", tmp_path / "teacher")
    killed.resume()
    completed(killed)


@pytest.mark.parametrize("served", ["[]", "[teacher]"])
def test_a_teacher_of_another_vocabulary_is_refused_before_anything_is_sampled(
    served: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = models.tokenizer()
    words.add_tokens(["another"])
    models.save(tmp_path / "teacher", vocab_size=len(words))
    words.save_pretrained(tmp_path / "teacher")
    mine = (f"algorithm.teacher.source={tmp_path / 'teacher'}", "algorithm.on_policy.fraction=1", "data.validation_fraction=0")
    refused = run(folder, monkeypatch, "name=vocabulary", *mine, f"algorithm.served={served}")
    assert refused.wait(240).state == State.FAILED
    assert "has another vocabulary than the policy" in refused.log_tail() + refused.log_tail("teacher")
    assert rollouts.steps(refused.dir) == []
