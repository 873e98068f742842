"""The reward model's losses on scores written out by hand, what it reports of held-out scores, and real runs of the tiny model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.algorithms.batches import REGRESSION, score_batch
from tests.algorithms.runs import finished, held_out, steps
from workbench.algorithms import reward_model
from workbench.data.packing import Row
from workbench.engine.batch import Given
from workbench.monitoring import score_diagnostics as diagnostics
from workbench.settings.composing import SpecError
from workbench.settings.spec import compose


def given(*scores: Any) -> list[Given[np.ndarray]]:
    """What the model gave of each row."""
    return [Given(scores_SK=np.asarray(each)) for each in scores]


def test_two_pairs() -> None:
    """Scores 2, 1 and 0, 3: differences 1 and -3; losses -log sigmoid(1) = 0.313262 and -log sigmoid(-3) = 3.048587."""
    loss, metrics = reward_model.loss(score_batch([[2.0], [1.0], [0.0], [3.0]], {}, {}), reward_model.Config())
    assert loss.tolist() == pytest.approx([0.313262, 3.048587], abs=1e-6)
    assert metrics["accuracy"].tolist() == [1, 0]
    assert metrics["rewards_chosen_mean"].tolist() == [2, 0]
    assert metrics["rewards_rejected_mean"].tolist() == [1, 3]
    assert metrics["rewards_margin"].tolist() == [1, -3]


def test_a_tie_is_half_right() -> None:
    """log 2 = 0.693147."""
    loss, metrics = reward_model.loss(score_batch([[2.0], [2.0]], {}), reward_model.Config())
    assert loss.item() == pytest.approx(0.693147, abs=1e-6)
    assert metrics["accuracy"].item() == 0.5


@pytest.mark.parametrize(("kind", "expected"), [("margin", 1.313262), ("scaled", 0.626523)])
def test_given_rewards(kind: str, expected: float) -> None:
    """The scores differ by 1, the given rewards by 4 - 2 = 2: -log sigmoid(1 - 2) = 1.313262; 2 * 0.313262 = 0.626523."""
    pair = score_batch([[2.0], [1.0]], {"chosen_reward": 4, "rejected_reward": 2})
    loss, _ = reward_model.loss(pair, reward_model.Config(ranking_loss=kind))  # type: ignore[arg-type]
    assert loss.item() == pytest.approx(expected, abs=1e-6)


def test_margin_without_rewards_says_what_is_missing() -> None:
    with pytest.raises(ValueError, match="needs 'chosen_reward' in every row"):
        reward_model.loss(score_batch([[2.0], [1.0]], {}), reward_model.Config(ranking_loss="margin"))


def test_ratings() -> None:
    """Row 1: (3 - 4)^2 = 1 and (1 - 3)^2 = 4. Row 2 is rated for humor alone: (2 - 1.5)^2 = 0.25. Errors 1, 2, 0.5."""
    loss, metrics = reward_model.loss(score_batch([[3.0, 1.0], [9.0, 2.0]], {"helpfulness": 4, "humor": 3}, {"humor": 1.5, "other": 7}), REGRESSION)
    assert loss.tolist() == [1, 4, 0.25]
    assert metrics["mae"].tolist() == [1, 2, 0.5]
    assert metrics["mae_helpfulness"].tolist() == [1]
    assert metrics["mae_humor"].tolist() == [2, 0.5]


def test_ordinal_ratings() -> None:
    """Levels 0 to 2 of two attributes. Logits (0, 0, log 2): P = (1/4, 1/4, 1/2), expected 1.25; rated 2: -log(1/2) = 0.693147, error 0.75.
    The other, rated 0, from (log 3, 0, 0): -log(3/5) = 0.510826, expected 0.6."""
    cfg = reward_model.Config(objective="ordinal", attributes=("helpfulness", "humor"), highest=2, likelihood="categorical")
    scores = [[0.0, 0.0, np.log(2), np.log(3), 0.0, 0.0]] * 2
    loss, metrics = reward_model.loss(score_batch(scores, {"helpfulness": 2, "humor": 0}, {"humor": 0}), cfg)
    assert loss.tolist() == pytest.approx([0.693147, 0.510826, 0.510826], abs=1e-6)
    assert metrics["mae_helpfulness"].tolist() == pytest.approx([0.75])
    assert metrics["mae_humor"].tolist() == pytest.approx([0.6, 0.6])


def test_what_a_head_cannot_learn_is_said_before_the_first_step() -> None:
    cfg = reward_model.Config(objective="ordinal", attributes=("helpfulness", "humor"), highest=4)
    rows = [Row([1], ((2,),), values={"helpfulness": 5.0})]
    with pytest.raises(ValueError, match=r"helpfulness=5, the head's levels are 0 to 4: set algorithm\.lowest and algorithm\.highest"):
        reward_model.check(rows, cfg)
    assert reward_model.check(rows, cfg.model_copy(update={"highest": 6})) == [
        "no row has a rating of humor (algorithm.attributes): these scores learn nothing"
    ]


def test_a_row_with_other_ratings_only() -> None:
    with pytest.raises(ValueError, match="a row has none of them, only: helpfullness"):
        reward_model.loss(score_batch([[3.0, 1.0]], {"helpfullness": 4}), REGRESSION)


def test_settings() -> None:
    assert (reward_model.OUTPUTS(reward_model.Config()).scores, reward_model.OUTPUTS(REGRESSION).scores) == (1, 2)
    assert (reward_model.ROWS(reward_model.Config()), reward_model.ROWS(REGRESSION)) == ("preference", "rated")
    with pytest.raises(SpecError, match="named twice"):
        compose(["algorithm=reward_model", "algorithm.attributes=[humor,humor]", "data=demo"])


def test_ranks_share_ties() -> None:
    """5 and 5 hold places 2 and 3."""
    assert diagnostics.ranks(np.array([5, 9, 1, 5])).tolist() == [2.5, 4, 1, 2.5]


def test_calibration_by_hand() -> None:
    """Margins log 3.9 and its negative are sure to 39 / 49 = 0.795918, one right of two; log 19 to 0.95, right. ECE: (2 * 0.295918 + 0.05) / 3 = 0.213946."""
    margin = np.log([3.9, 1 / 3.9, 19])
    bins, ece = diagnostics.calibration(margin, margin > 0)
    assert [(b["count"], b["observed"]) for b in bins] == [(2, 0.5), (1, 1.0)]
    assert [b["predicted"] for b in bins] == pytest.approx([39 / 49, 0.95])
    assert ece == pytest.approx(0.213946, abs=1e-6)


def test_diagnose_pairs() -> None:
    """Three pairs: longer chosen, right; shorter chosen, wrong; equal lengths, a tie. Scores are the lengths, so both correlations are 1."""
    rows = [Row([1], ([1] * a, [1] * b)) for a, b in ((4, 2), (1, 3), (2, 2))]
    outputs = [np.array([[float(len(branch))] for branch in row.branches], np.float32) for row in rows]
    found = reward_model.diagnose(rows, given(*outputs), reward_model.Config())
    metrics = found["metrics"]
    assert (metrics["accuracy"], metrics["accuracy_longer_chosen"], metrics["accuracy_shorter_chosen"]) == (0.5, 1, 0)
    assert (metrics["length_pearson"], metrics["length_spearman"]) == pytest.approx((1, 1))
    assert metrics["rewards_all_mean"] == pytest.approx(14 / 6)
    assert sum(b["count"] for b in found["calibration"]) == 3
    assert sum(found["histogram"]["chosen"]) == sum(found["histogram"]["rejected"]) == 3
    assert found["lengths"] == {"tokens": [4, 2, 1, 3, 2, 2], "scores": [4, 2, 1, 3, 2, 2], "chosen": [True, False] * 3}
    assert json.loads(json.dumps(found)) == found


def test_diagnose_ratings() -> None:
    """Helpfulness: errors 1, 1, 2; order kept: Spearman 1. Humor: one rating, so no order."""
    rows = [Row([1], ((1,),), values=values) for values in ({"helpfulness": 1, "humor": 2}, {"helpfulness": 2}, {"helpfulness": 3})]
    found = reward_model.diagnose(rows, given([[2.0, 5.0]], [[3.0, 0.0]], [[5.0, 0.0]]), REGRESSION)
    assert found["metrics"] == {"mae_helpfulness": pytest.approx(4 / 3), "spearman_helpfulness": pytest.approx(1), "mae_humor": 3}
    bins = [{"predicted": p, "observed": a, "count": 1} for p, a in ((2, 1), (3, 2), (5, 3))]
    assert found["attributes"][0] == {"name": "helpfulness", "rated": 3, "actual": [1, 2, 3], "predicted": [2, 3, 5], "bins": bins}
    assert json.loads(json.dumps(found)) == found


def test_diagnose_an_ordinal_head() -> None:
    """Categorical logits of levels 0, 1, 2: the likeliest is 2 with 0.8 and 0 with 0.5 (rated 2 and 1, so right and wrong): errors 0.2 and 0.5."""
    cfg = reward_model.Config(objective="ordinal", attributes=("humor",), likelihood="categorical", highest=2)
    rows = [Row([1], ((1,),), values={"humor": rating}) for rating in (2, 1)]
    found = reward_model.diagnose(rows, given(*np.log(np.array([[[0.1, 0.1, 0.8]], [[0.5, 0.3, 0.2]]], np.float32))), cfg)
    assert found["metrics"]["ece_humor"] == pytest.approx((0.2 + 0.5) / 2)
    assert found["attributes"][0]["confusion"] == {"levels": [0, 1, 2], "counts": [[0, 0, 0], [1, 0, 0], [0, 0, 1]]}
    assert found["attributes"][0]["predicted"] == pytest.approx([1.7, 0.7])
    assert json.loads(json.dumps(found)) == found


def test_diagnose_thousands_keeps_the_events_small() -> None:
    rng = np.random.default_rng(0)
    rows = [Row([1], ([1] * int(n), [1] * 5)) for n in rng.integers(1, 50, 3000)]
    found = reward_model.diagnose(rows, given(*rng.normal(size=(3000, 2, 1))), reward_model.Config())
    assert len(found["lengths"]["tokens"]) == diagnostics.POINTS
    assert len(json.dumps(found)) < 60_000
    assert found["metrics"]["accuracy"] == pytest.approx(0.5, abs=0.05)


def test_diagnose_of_a_diverged_model() -> None:
    rows = [Row([1], ((1,), (2,)))]
    assert reward_model.diagnose(rows, given([[np.nan], [1.0]]), reward_model.Config()) == {"kind": "ranking", "metrics": {}}


def test_a_run_on_pairs(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The longer answer is preferred: a random model learns that from pairs it never saw again."""
    rng = np.random.default_rng(0)
    rows = [{"prompt": _say(rng, 6), "chosen": _say(rng, 12), "rejected": _say(rng, 3)} for _ in range(60)]
    run = finished(rows, tmp_path, monkeypatch, tiny_model, "algorithm=reward_model", "algorithm.max_steps=12")
    assert held_out(run)[-1]["accuracy"] > 0.9
    assert held_out(run)[-1]["rewards_margin"] > held_out(run)[0]["rewards_margin"]
    assert steps(run)[-1]["loss"] < steps(run)[0]["loss"]
    newest = [event for event in run.events() if event["kind"] == "validation"][-1]
    pairs = sum(found["count"] for found in newest["diagnostics"]["calibration"])
    assert pairs == next(event["report"]["validation"] for event in run.events() if event["kind"] == "data")
    assert newest["metrics"]["accuracy_longer_chosen"] == pytest.approx(newest["metrics"]["accuracy"])
    assert newest["metrics"]["length_spearman"] > 0.5


def test_a_run_on_ratings(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Verbosity is 0 or 2 by length; every third row lacks it. One attribute nobody rated does no harm."""
    rng = np.random.default_rng(0)
    rows = []
    for i in range(90):
        long = bool(rng.integers(2))
        rows.append({"prompt": _say(rng, 6), "response": _say(rng, 12 if long else 3), "verbosity": None if i % 3 == 0 else 2 * long, "humor": 1})
    words = ("algorithm=reward_model", "algorithm.objective=regression", "algorithm.attributes=[verbosity,humor,quality]", "algorithm.max_steps=16")
    run = finished(rows, tmp_path, monkeypatch, tiny_model, *words)
    first, last = held_out(run)[0], held_out(run)[-1]
    assert last["loss"] < 0.5 * first["loss"]
    assert last["mae_humor"] < first["mae_humor"]
    assert "mae_quality" not in last
    assert last["spearman_verbosity"] > 0.5
    newest = [event for event in run.events() if event["kind"] == "validation"][-1]
    assert [found["name"] for found in newest["diagnostics"]["attributes"]] == ["verbosity", "humor"]


def _say(rng: np.random.Generator, count: int) -> str:
    return " ".join(rng.choice(["bread", "Paris", "short", "capital", "made", "user", "the", "of"], count))
