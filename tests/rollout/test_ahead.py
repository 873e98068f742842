"""Asynchronous rollouts: which weights a step's answers come from, alone and in runs of a tiny model."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from tests import models
from tests.algorithms.runs import begun, steps
from tests.waiting import until, until_step
from workbench.rollout.ahead import Ahead
from workbench.rollout.base import Sampling
from workbench.rundir import rollouts
from workbench.rundir.store import State

GREEDY = Sampling(4, temperature=0)
SLOW = "import time\ndef slow(prompt, response, row):\n    time.sleep(0.05)\n    return -len(response) / 50\n"


@pytest.mark.parametrize(("ahead", "begins", "versions"), [(1, 0, [0, 0, 1, 2, 3]), (2, 0, [0, 0, 0, 2, 2]), (3, 2, [None, None, 2, 2, 2])])
def test_a_step_learns_from_weights_that_lack_at_most_so_many_updates(ahead: int, begins: int, versions: list[int | None]) -> None:
    now, used = -1, {}

    def refit(version: int) -> None:
        nonlocal now
        now = version

    def sample(step: int, sampling: Sampling, over) -> list:
        used[step] = now
        return []

    sampler = Ahead(ahead, 5, refit, lambda: GREEDY, sample)
    for step in range(begins, 5):
        sampler.take(step)
    sampler.close()
    assert [used.get(step) for step in range(5)] == versions


def test_the_next_step_is_sampled_while_this_one_learns() -> None:
    learning = threading.Event()
    sampler = Ahead(1, 3, lambda version: None, lambda: GREEDY, lambda step, sampling, over: [] if step == 0 else [learning.wait(240)])
    sampler.take(0)
    learning.set()  # without a thread of its own the sampling would have ended before, empty-handed
    assert sampler.take(1) == [True]
    sampler.close()


def test_a_step_is_sampled_as_the_settings_were_when_it_was_asked_for() -> None:
    """On every rank alike, whenever its thread comes to it."""
    now, free, used = GREEDY, threading.Event(), {}

    def sample(step: int, sampling: Sampling, over) -> list:
        used[step] = sampling
        return [step == 0 or free.wait(240)]

    sampler = Ahead(2, 3, lambda version: None, lambda: now, sample)
    sampler.take(0)
    now = Sampling(8)
    free.set()
    sampler.take(1)
    sampler.take(2)
    sampler.close()
    assert [used[step] for step in range(3)] == [GREEDY] * 3


def test_what_the_sampling_raises_comes_out_and_an_end_cuts_it_short() -> None:
    def sample(step: int, sampling: Sampling, over) -> list:
        if step == 1:
            raise ValueError("no answer")
        if step:
            until(over)
        return []

    sampler = Ahead(2, 5, lambda version: None, lambda: GREEDY, sample)
    sampler.take(0)
    for asked in (sampler.wait, lambda: sampler.take(1)):
        with pytest.raises(ValueError, match="no answer"):
            asked()
    sampler.close()


def test_answers_are_those_of_the_weights_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tied_model: Path) -> None:
    """At a learning rate near nothing, asynchronous answers are the synchronous ones; at a real one they come from weights that lack one update."""
    words = ("algorithm=ppo", "algorithm.max_steps=3", "validation.every_steps=2")
    runs = {
        name: begun(tmp_path / name, monkeypatch, tied_model, *words, *more)
        for name, more in {
            "still": ("algorithm.lr=1e-30",),
            "still ahead": ("algorithm.lr=1e-30", "rollout.max_staleness=1"),
            "ahead": ("rollout.max_staleness=1",),
        }.items()
    }
    for run in runs.values():
        assert run.wait(240).state == State.COMPLETED, run.status.message
    for step in (1, 2, 3):
        still, ahead = (rollouts.of_step(runs[name].dir, step) for name in ("still", "still ahead"))
        assert still.response.tolist() == ahead.response.tolist()
        assert rollouts.of_step(runs["ahead"].dir, step).weights_version.unique().tolist() == [max(0, step - 2)]
    assert [metrics["staleness"] for metrics in steps(runs["ahead"])] == [0, 1, 1]
    mismatch = [metrics["logprob_mismatch_mean"] for metrics in steps(runs["ahead"])]
    assert mismatch[0] < 1e-5 < mismatch[1]
    assert sum(metrics["sampler_s"] for metrics in steps(runs["ahead"])) > 0  # a fast sampler is done within the step before


def test_two_stages_of_two_ranks_do_what_one_rank_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ("algorithm=reinforce", "algorithm.samples_per_prompt=4", "algorithm.max_steps=3", "rollout.max_staleness=1")
    layout = ("model.tensor_parallel=2", "model.pipeline_parallel=2", "backend.ranks_per_node=4")
    model = models.save(tmp_path / "even", num_hidden_layers=2)
    shared, whole = begun(tmp_path / "shared", monkeypatch, model, *words, *layout), begun(tmp_path / "whole", monkeypatch, model, *words)
    for run in (shared, whole):
        assert run.wait(240).state == State.COMPLETED, run.status.message
    for ours, theirs in zip(steps(shared), steps(whole), strict=True):
        for name in ("rewards", "generation_length", "loss", "grad_norm", "entropy", "logprob_mismatch_mean"):
            assert ours[name] == pytest.approx(theirs[name], rel=1e-3, abs=1e-5), name


def test_slow_rewards_cost_a_step_less(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tied_model: Path) -> None:
    """Scoring takes 1.6 s a step, beside learning that takes longer than that: most of it is hidden. A stop does not wait for more answers."""
    (tmp_path / "slow.py").write_text(SLOW)
    words = ("algorithm=ppo", "algorithm.max_steps=40", "algorithm.rollout_batch_size=32", "algorithm.update_epochs=16", "data.validation_fraction=0")
    reward = f"algorithm.rewards={{slow: {{program: {tmp_path / 'slow.py'}:slow}}}}"
    run = begun(tmp_path, monkeypatch, tied_model, *words, reward, "rollout.max_staleness=1")
    until_step(run, 4)
    run.stop()
    assert run.wait(240).state == State.STOPPED, run.status.message
    told = steps(run)[1:]
    sampled, waited = (sum(metrics[name] for metrics in told) for name in ("sampler_s", "time_generate_s"))
    assert sampled > 1.6 * (len(told) - 1)  # what ends between two steps counts for the later one
    assert waited < 0.5 * sampled
