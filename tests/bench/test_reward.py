"""The reward benchmark's baselines by hand, and that it finds its completed runs again."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from workbench import api
from workbench.bench import reward
from workbench.data.rows import Message, Preference
from workbench.rundir import store
from workbench.rundir.events import EventWriter
from workbench.rundir.store import State
from workbench.terminal.cli import app


def pair(prompt: str, chosen: str, rejected: str) -> Preference:
    return Preference((Message("user", prompt),), chosen, rejected)


def pairs(count: int) -> list[Preference]:
    """Good answers say "please", whatever else they say."""
    rng = np.random.default_rng(0)
    fillers = ["the", "of", "bread", "made", "short"]
    return [pair(f"p {i // 2}", f"please {' '.join(rng.choice(fillers, 4))}", " ".join(rng.choice(fillers, 5))) for i in range(count)]


def test_longer() -> None:
    """Right, wrong, a tie: 1.5 of 3."""
    assert reward.longer([pair("a", "long", "x"), pair("a", "x", "long"), pair("a", "x", "y")]) == 0.5


def test_bag_of_words_finds_the_word() -> None:
    kept, held = reward.split(pairs(200), 0)
    assert reward.bag_of_words(kept, held) == 1.0
    assert reward.bag_of_words(kept, [pair("a", "nothing known", "nor here")]) == 0.5


def test_the_fit_is_the_optimum() -> None:
    """There the gradient, mean(-sigmoid(-x w) x) + penalty w, is zero."""
    x_BD = np.random.default_rng(0).normal(0.2, 1, (40, 60))
    weights = x_BD.T @ reward.fit_logistic(x_BD @ x_BD.T, 0.1)
    gradient = -x_BD.T @ (1 / (1 + np.exp(x_BD @ weights))) / 40 + 0.1 * weights
    assert np.abs(gradient).max() < 1e-8


def test_split_is_by_prompt_and_by_seed() -> None:
    kept, held = reward.split(pairs(400), 0)
    assert {p.prompt for p in kept}.isdisjoint({p.prompt for p in held})
    assert 40 <= len(held) <= 120
    assert reward.split(pairs(400), 0) == (kept, held)
    assert reward.split(pairs(400), 1) != (kept, held)


def test_interval_by_hand() -> None:
    """0.6, 0.7, 0.8: mean 0.7, standard deviation 0.1; 4.303 * 0.1 / sqrt(3) = 0.248434. One value has no interval."""
    assert reward.interval([0.6, 0.7, 0.8]) == {"mean": pytest.approx(0.7), "half_width": pytest.approx(0.248434, abs=1e-6)}
    assert reward.interval([0.6]) == {"mean": 0.6, "half_width": None}


def test_baselines_of_the_demo() -> None:
    """Its chosen answers are the concise ones, so the longer one is never preferred."""
    done = CliRunner().invoke(app, ["bench", "reward", "--baselines", "--seeds", "2", "--limit", "60", "--json"])
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["pairs"] <= 60
    assert len(found["held_out"]) == len(found["words"]["accuracies"]) == 2
    assert found["longer"]["mean"] < 0.5
    assert "model" not in found


def test_completed_runs_are_reused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A first call submits a run a seed; the same call again submits none and reads their accuracies."""
    monkeypatch.setenv("WORKBENCH_RUNS", str(tmp_path / "runs"))
    monkeypatch.setattr(reward.sources, "cache_root", lambda: tmp_path / "cache")
    submitted = []

    def submit(experiment: api.Experiment) -> api.Run:
        experiment = experiment.with_absolute_paths()
        submitted.append(experiment)
        run = store.create(tmp_path / "runs", experiment.name, experiment.to_yaml())
        for step, accuracy in ((0, 0.5), (4, 0.9 - experiment.seed / 10)):
            EventWriter(run).write("validation", step=step, metrics={"accuracy": accuracy}, samples=[])
        run.update(state=State.COMPLETED)
        return api.Run(run)

    monkeypatch.setattr(api, "submit", submit)
    source = tmp_path / "pairs.jsonl"
    source.write_text("".join(json.dumps({"prompt": p.prompt[0].content, "chosen": p.chosen, "rejected": p.rejected}) + "\n" for p in pairs(60)))
    for _ in range(2):
        done = CliRunner().invoke(app, ["bench", "reward", "--data", str(source), "--seeds", "2", "--steps", "4", "--json"])
        assert done.exit_code == 0, done.output
        found = json.loads(done.stdout.splitlines()[-1])
        assert found["model"]["accuracies"] == pytest.approx([0.9, 0.8])
    assert [(run.seed, run.model.init_seed, run.algorithm.max_steps) for run in submitted] == [(0, 0, 4), (1, 1, 4)]
    assert len(Path(submitted[0].data.train).read_text().splitlines()) + len(Path(submitted[0].data.validation or "").read_text().splitlines()) == 60
