"""SPIN: its plan and loss by hand, and whole runs on a tiny model: exact after kills, the same in any layout, answers that can be read."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from tests import models
from tests.algorithms.runs import steps, worker_of
from tests.hold import Hold
from workbench import api
from workbench.algorithms import Answer, dpo, spin
from workbench.data.packing import Row
from workbench.engine.batch import Batch, Given
from workbench.rundir import rollouts
from workbench.rundir.store import State


def test_loss_of_one_pair() -> None:
    """The data's answer: log-ratio (-1 - -1.5) + (-2 - -2.5) = 1. The opponent's: -3 - -2 = -1. D = 2, beta 0.5: -log sigmoid(1) = 0.313262."""
    row = Row([1], ((2, 3), (4,)), values={"beta": 0.5})
    batch = Batch(Given(torch.tensor([-1.0, -2.0, -3.0])), torch.tensor([-1.5, -2.5, -2.0]), torch.tensor([0, 0, 1]), 2, [row])
    loss_B, metrics = spin.loss(batch, spin.Config())
    assert loss_B.tolist() == pytest.approx([0.313262], abs=1e-6)
    assert {name: metrics[name].tolist() for name in ("rewards_actual_mean", "rewards_generated_mean", "rewards_margin", "opponent_win_rate")} == {
        "rewards_actual_mean": [0.5],
        "rewards_generated_mean": [-0.5],
        "rewards_margin": [1.0],
        "opponent_win_rate": [0.0],
    }


def test_the_loss_is_dpos_with_the_opponents_answers_as_rejected() -> None:
    generator = torch.Generator().manual_seed(0)
    for _ in range(200):
        lengths = torch.randint(1, 6, (6,), generator=generator)
        policy, reference = (-torch.rand(int(lengths.sum()), generator=generator) * 3 for _ in range(2))
        rows = [Row([1], ((2,), (3,)), values={"beta": 0.3}) for _ in range(3)]
        batch = Batch(Given(policy), reference, torch.repeat_interleave(torch.arange(6), lengths), 6, rows)
        ours, theirs = spin.loss(batch, spin.Config())[0], dpo.loss(batch, dpo.Config(beta=0.3))[0]
        assert ours.tolist() == pytest.approx(theirs.tolist(), rel=1e-6)


def test_a_plan_without_earlier_pairs() -> None:
    """5 rows in pairs: 2 steps an iteration, whose 4 rows are answered; each pass is an order of its own."""
    iterations = spin.plan(spin.Config(iterations=2, global_batch_size=2, mix_previous=False), 5, seed=0)
    assert [(each.number, each.first, len(each.batches)) for each in iterations] == [(0, 0, 2), (1, 2, 2)]
    for each in iterations:
        drawn = [pair for batch in each.batches for pair in batch]
        assert {number for number, _ in drawn} == {each.number}
        assert each.answered == tuple(row for _, row in drawn)
        assert len(set(drawn)) == 4


def test_a_plan_with_the_pairs_of_the_iteration_before() -> None:
    """As in the paper: from the second iteration on there are twice as many pairs, half of them with answers of the opponent before."""
    iterations = spin.plan(spin.Config(iterations=3, global_batch_size=2), 4, seed=0)
    assert [(each.first, len(each.batches)) for each in iterations] == [(0, 2), (2, 4), (6, 4)]
    for each in iterations[1:]:
        drawn = sorted(pair for batch in each.batches for pair in batch)
        assert drawn == [(number, row) for number in (each.number - 1, each.number) for row in range(4)]


def test_a_plan_of_few_steps_answers_only_what_they_draw() -> None:
    """And draws of the earlier answers only those that there are; `max_steps` ends the last iteration sooner."""
    iterations = spin.plan(spin.Config(iterations=3, iteration_steps=3, max_steps=8, global_batch_size=2), 100, seed=1)
    assert [(each.first, len(each.batches)) for each in iterations] == [(0, 3), (3, 3), (6, 2)]
    for before, each in zip([None, *iterations], iterations, strict=False):
        drawn = [pair for batch in each.batches for pair in batch]
        assert set(each.answered) == {row for number, row in drawn if number == each.number}
        assert before is None or {row for number, row in drawn if number < each.number} <= set(before.answered)
    covered = spin.coverage(spin.Config(iterations=3, iteration_steps=3, max_steps=8, global_batch_size=2), 100, seed=1)
    rows = {row for each in iterations for batch in each.batches for _, row in batch}
    assert (covered.drawn, covered.never, covered.repeated) == (16, 100 - len(rows), 16 - len(rows))


def test_schedules() -> None:
    cfg = spin.Config.model_validate({"beta": [0.1, 5], "lr_by_iteration": [5e-7, 1e-7]})
    assert [spin.of_iteration(cfg.beta, number) for number in range(3)] == [0.1, 5, 5]
    assert spin.Config.model_validate({"beta": 0.2}).beta == (0.2,)
    with pytest.raises(ValueError, match="greater than 0"):
        spin.Config.model_validate({"beta": 0})


def test_a_conversation_gives_its_last_answer_or_every_one() -> None:
    """Tokens 1 to 9, of which 3, 4 and 8, 9 are the assistant's."""
    row = Row(list(range(1, 10)), learn=[False, False, True, True, False, False, False, True, True])
    (last,) = spin.examples([row], spin.Config())
    assert (list(last.prefix), last.branches) == ([1, 2, 3, 4, 5, 6, 7], ([8, 9],))
    first, second = spin.examples([row], spin.Config(turns="every"))
    assert (list(first.prefix), first.branches) == ([1, 2], ([3, 4],))
    assert second == last
    (pair,) = spin.pairs([last], [Answer([5, 6], True)], 0.5)
    assert (pair.branches, pair.values) == (([8, 9], [5, 6]), {"beta": 0.5, "ended": 1.0})
    with pytest.raises(ValueError, match="text without turns"):
        spin.examples([Row([1, 2], learn=[True, True])], spin.Config())


# --- runs


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("spin")
    models.save(made / "model", num_hidden_layers=2, tie_word_embeddings=True)
    rows = [{"messages": [{"role": "user", "content": f"What is {i}?"}, {"role": "assistant", "content": f"{i} is bread."}]} for i in range(14)]
    (made / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return made


def run(folder: Path, monkeypatch: pytest.MonkeyPatch, *overrides: str) -> api.Run:
    """Three iterations of two steps of four pairs, checkpoints after steps 3 and 6."""
    monkeypatch.setenv("WORKBENCH_RUNS", str(folder / "runs"))
    monkeypatch.setenv("WORKBENCH_CACHE", str(folder / "cache"))
    words = (
        "algorithm=spin",
        "seed=5",
        f"model.source={folder / 'model'}",
        f"data.train={folder / 'rows.jsonl'}",
        "data.validation_fraction=0.2",
        "algorithm.global_batch_size=4",
        "algorithm.iteration_steps=2",
        "algorithm.max_tokens=6",
        "algorithm.lr=3e-3",
        "algorithm.beta=[0.1,0.5]",
        "algorithm.lr_by_iteration=[3e-3,3e-3,1e-3]",
        "algorithm.warmup_steps=0",
        "validation.every_steps=2",
        "validation.samples=0",
        "checkpoint.every_steps=3",
        "checkpoint.asynchronous=false",
        "backend.threads_per_rank=1",
    )
    return api.submit(api.compose([*words, *overrides]))


def curve(run: api.Run) -> dict[int, tuple[float, ...]]:
    names = ("loss", "grad_norm", "rewards_margin", "generation_length", "lr", "iteration")
    return {event["step"]: tuple(event["metrics"][name] for name in names) for event in run.events() if event["kind"] == "step"}


def opponents(run: api.Run) -> list[dict[str, Any]]:
    return [dict(event) for event in run.events() if event["kind"] == "reference"]


def answers(run: api.Run) -> list[tuple[int, int, list[int]]]:
    return [(step, each["weights_version"], each["tokens"]) for step in rollouts.steps(run.dir) for each in rollouts.whole_step(run.dir, step)]


@pytest.fixture(scope="module")
def undisturbed(folder: Path) -> api.Run:
    with pytest.MonkeyPatch.context() as monkeypatch:
        made = run(folder, monkeypatch, "name=undisturbed")
        assert made.wait(240).state == State.COMPLETED, made.status.message
    return made


@pytest.fixture(scope="module")
def whole(folder: Path) -> api.Run:
    """Full fine-tuning."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        made = run(folder, monkeypatch, "name=whole", "model.lora.rank=0")
        assert made.wait(240).state == State.COMPLETED, made.status.message
    return made


def test_each_iteration_begins_at_a_draw_against_a_new_opponent(undisturbed: api.Run) -> None:
    """Against itself a policy has the loss log 2 and no margin, and the opponent wins half the pairs; a step later it is ahead."""
    at = curve(undisturbed)
    assert sorted(at) == [1, 2, 3, 4, 5, 6]
    for step, (loss, _, margin, *_) in at.items():
        if step % 2:
            assert (loss, margin) == (pytest.approx(math.log(2), abs=1e-5), pytest.approx(0, abs=1e-5))
        else:
            assert margin > 1e-3
    assert [iteration for *_, iteration in at.values()] == [1, 1, 2, 2, 3, 3]
    assert [(event["version"], event["step"]) for event in opponents(undisturbed)] == [(1, 0), (2, 2), (3, 4)]
    assert len({event["digest"] for event in opponents(undisturbed)}) == 3
    won = [step["opponent_win_rate"] for step in steps(undisturbed)]
    assert won[0] == won[2] == won[4] == 0.5


def test_held_out_pairs_have_answers_of_the_opponent_that_is_played(undisturbed: api.Run) -> None:
    """Measured after steps 0, 2, 4 and 6, each before the policy becomes its opponent."""
    held_out = [event["metrics"] for event in undisturbed.events() if event["kind"] == "validation"]
    margins = [each["rewards_margin"] for each in held_out]
    assert margins[0] == pytest.approx(0, abs=1e-5)
    assert all(margin > 1e-3 for margin in margins[1:])
    assert {"opponent_win_rate", "logprobs_chosen", "rewards_actual_mean"} <= held_out[0].keys()


def test_the_opponents_answers_are_rollouts(undisturbed: api.Run) -> None:
    """A file of four answers or fewer for each of an iteration's first steps, by weights that saw as many updates as the iteration began with."""
    files = rollouts.steps(undisturbed.dir)
    assert {1, 2, 3, 5} <= set(files)
    for step in files:
        kept = rollouts.whole_step(undisturbed.dir, step)
        assert 1 <= len(kept) <= 4
        assert {each["weights_version"] for each in kept} == {(step - 1) // 2 * 2}
        assert all(each["prompt"] and each["response_tokens"] <= 6 for each in kept)


@pytest.mark.parametrize("where", ["training", "generation"])
@pytest.mark.parametrize("lora", [16, 0])
def test_after_kill_9_it_continues_bit_for_bit(
    where: str, lora: int, folder: Path, undisturbed: api.Run, whole: api.Run, hold: Hold, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In mid-training after step 4, in mid-generation between the files of steps 5 and 6, the last checkpoint that of step 3. Of full fine-tuning the opponent
    lies in host memory. The file that was there is not sampled again."""
    expected = undisturbed if lora else whole
    if where == "training":
        hold.at(4)
    else:
        hold.at_rollouts(5)
    killed = run(folder, monkeypatch, f"name=killed-{where}-{lora}", f"model.lora.rank={lora}", "backend.max_restarts=1")
    hold.wait(killed)
    assert (6 in rollouts.steps(killed.dir)) is False
    stored = {path.name: path.stat().st_mtime_ns for path in (killed.dir.path / "rollouts").iterdir()}
    (victim,) = worker_of(killed)
    victim.kill()
    hold.release()
    assert killed.wait(240).state == State.COMPLETED, killed.status.message
    assert killed.status.attempt == 2
    assert [event["step"] for event in killed.events() if event["kind"] == "state"] == [0, 3]
    assert curve(killed) == curve(expected)
    assert [event["metrics"]["rewards_margin"] for event in killed.events() if event["kind"] == "validation"][-1:] == [
        event["metrics"]["rewards_margin"] for event in expected.events() if event["kind"] == "validation"
    ][-1:]
    assert answers(killed) == answers(expected)
    assert {event["digest"] for event in opponents(killed)} == {event["digest"] for event in opponents(expected)}
    now = {path.name: path.stat().st_mtime_ns for path in (killed.dir.path / "rollouts").iterdir()}
    assert stored == {name: now[name] for name in stored}


@pytest.mark.parametrize(
    "words",
    [
        ("backend.ranks_per_node=2",),
        ("model.tensor_parallel=2", "model.pipeline_parallel=2", "backend.ranks_per_node=4"),
        ("rollout.name=hf", "backend.ranks_per_node=2"),
    ],
    ids=["DP2", "TP2-PP2", "hf-DP2"],
)
def test_other_layouts_and_engines_do_what_one_rank_does(
    words: tuple[str, ...], folder: Path, undisturbed: api.Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same answers, sampled by whichever rank comes, and the same steps."""
    shared = run(folder, monkeypatch, "name=shared", *words)
    assert shared.wait(240).state == State.COMPLETED, shared.status.message
    assert answers(shared) == answers(undisturbed)
    for step, values in curve(undisturbed).items():
        assert curve(shared)[step] == pytest.approx(values, rel=1e-3, abs=1e-5)


def test_an_evaluation_plays_against_the_opponent_of_the_checkpoint(folder: Path, undisturbed: api.Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """It measures what the run did after its last step, on the held-out rows with answers of the same opponent, drawn the same way."""
    monkeypatch.setenv("WORKBENCH_RUNS", str(folder / "runs"))
    monkeypatch.setenv("WORKBENCH_CACHE", str(folder / "cache"))
    evaluation = api.evaluate(undisturbed.id, 6)
    assert evaluation.wait(240).state == State.COMPLETED, evaluation.status.message
    (ours,) = [event["metrics"] for event in evaluation.events() if event["kind"] == "validation"]
    theirs = next(event["metrics"] for event in undisturbed.events() if event["kind"] == "validation" and event["step"] == 6)
    assert theirs["rewards_margin"] > 1e-3
    for name, value in theirs.items():
        if not name.startswith("time_"):
            assert ours[name] == pytest.approx(value, rel=1e-4, abs=1e-6), name


def test_every_turn_of_a_conversation_is_played_for(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two answers a row, each after the row's own turns: the second prompt has the data's first answer, not the opponent's."""
    rows = [["What?", f"{i} is bread.", "And?", f"{i} is Paris."] for i in range(4)]
    roles = ("user", "assistant", "user", "assistant")
    turns = [{"messages": [{"role": role, "content": text} for role, text in zip(roles, row, strict=True)]} for row in rows]
    (folder / "talks.jsonl").write_text("".join(json.dumps(row) + "\n" for row in turns))
    words = (f"data.train={folder / 'talks.jsonl'}", "data.validation_fraction=0", "algorithm.turns=every", "algorithm.iterations=2")
    played = run(folder, monkeypatch, "name=every", *words)
    assert played.wait(240).state == State.COMPLETED, played.status.message
    prompts = [each["prompt"] for step in (1, 2) for each in rollouts.whole_step(played.dir, step)]
    assert len(prompts) == 8
    assert sorted(f"{i} is bread." for i in range(4)) == sorted(
        text.split("<|im_start|>assistant\n")[1].split("<|im_end|>")[0] for text in prompts if "And?" in text
    )
    assert sum("And?" not in text for text in prompts) == 4
    assert [step["iteration"] for step in steps(played)] == [1, 1, 2, 2]
    assert steps(played)[0]["loss"] == pytest.approx(math.log(2), abs=1e-5)
