"""Views of a run's events: thinning, smoothing, histories across a resume, times, comparisons."""

import math
import random

import numpy as np
import pytest

from workbench.rundir.store import State, Status
from workbench.views import History, catalogue, diagnostics, figures, series, tables, text
from workbench.views.history import HistoryCursor


def step(number, at, **metrics):
    return {"kind": "step", "time": at, "step": number, "metrics": metrics}


def test_thin_keeps_short_curves_whole():
    assert series.thin([3.0, 1.0, 2.0], limit=3).tolist() == [0, 1, 2]
    assert series.thin([]).tolist() == []


def test_thin_keeps_the_extremes_of_every_stretch():
    """limit 6 makes two stretches of 0..9: [0..4] has its least at 2 and greatest at 3, [5..9] at 7 and 6; both ends stay."""
    y = [5.0, 5.0, 1.0, 9.0, 5.0, 5.0, 8.0, 0.0, 5.0, 5.0]
    assert series.thin(y, limit=6).tolist() == [0, 2, 3, 6, 7, 9]


def test_thin_finds_one_spike_in_ten_thousand_steps():
    y = np.sin(np.arange(10_000) / 500)
    y[6123] = 40.0
    keep = series.thin(y)
    assert 6123 in keep
    assert len(keep) <= series.POINTS
    assert {0, 9999} <= set(keep.tolist())
    assert y[keep].min() == y.min()


def test_thin_shows_a_gap():
    y = np.zeros(4000)
    y[1234] = math.nan
    y[3000] = math.inf
    assert {1234, 3000} <= set(series.thin(y).tolist())


def test_thin_of_nothing_finite():
    assert len(series.thin([math.nan] * 5000)) <= series.POINTS


def test_ema_by_hand():
    """w = 1/2 on 4, 8, nan, 2: 4; (8 + 4/2) / (1 + 1/2) = 20/3; unchanged; (2 + 8/2 + 4/4) / (1 + 1/2 + 1/4) = 4."""
    assert series.ema([4.0, 8.0, math.nan, 2.0], 0.5) == pytest.approx([4, 20 / 3, 20 / 3, 4])
    assert series.ema([4.0, 8.0], 0).tolist() == [4, 8]
    assert series.ema([1.0, math.inf, 1.0], 0.5) == pytest.approx([1, 1, 1])


def test_resumed_run_has_one_continuous_history():
    """Steps 1..5 one second apart; resumed an hour later from step 3: 4 and 5 are done again, the pause is no training time."""
    history = History()
    history.extend([{"kind": "state", "time": 100.0, "state": "running", "step": 0, "total_steps": 9}])
    history.extend(step(n, 100.0 + n, loss=n / 10) for n in range(1, 6))
    history.extend([{"kind": "validation", "time": 105.5, "step": 5, "metrics": {"loss": 1.0}}])
    before = history.cursor
    history.extend([{"kind": "state", "time": 3700.0, "state": "running", "step": 3, "total_steps": 9}])
    assert history.steps == [1, 2, 3]
    assert history.validations == []
    history.extend([step(4, 3701.0, loss=7.0), step(5, 3702.0, loss=8.0)])
    assert history.steps == [1, 2, 3, 4, 5]
    assert history.metrics["loss"] == [0.1, 0.2, 0.3, 7.0, 8.0]
    assert history.elapsed_s == [1, 2, 3, 4, 5]
    assert history.cursor.generation == before.generation + 1
    assert history.total_steps == 9


def test_resume_that_loses_nothing_keeps_the_generation():
    history = History()
    history.extend([step(1, 1.0, loss=1.0), {"kind": "state", "time": 9.0, "step": 1, "total_steps": 5}, step(2, 10.0, loss=1.0)])
    assert history.cursor.generation == 0
    assert history.elapsed_s == [0, 1]


def test_a_step_written_twice_counts_once():
    history = History()
    history.extend([step(1, 1.0, loss=1.0), step(2, 2.0, loss=2.0), step(2, 3.0, loss=5.0)])
    assert history.steps == [1, 2]
    assert history.metrics["loss"] == [1.0, 5.0]


def test_late_and_missing_metrics_fill_with_nan():
    history = History()
    history.extend([step(1, 1.0, loss=1.0), step(2, 2.0, loss="nan", kl=0.5), step(3, 3.0, kl="inf", note="text")])
    assert history.metrics.keys() == {"loss", "kl"}
    np.testing.assert_equal(history.metrics["loss"], [1.0, math.nan, math.nan])
    np.testing.assert_equal(history.metrics["kl"], [math.nan, 0.5, math.inf])


def test_history_in_pieces_equals_history_at_once():
    rng = random.Random(0)
    events = [step(n, float(n), loss=rng.random()) for n in range(1, 50)]
    events.insert(30, {"kind": "state", "time": 31.0, "step": 20, "total_steps": 60})
    whole, pieces = History(), History()
    whole.extend(events)
    for event in events:
        pieces.extend([event])
    assert whole.frame().equals(pieces.frame())
    assert whole.cursor == pieces.cursor


def test_unknown_kind_is_passed_over():
    history = History()
    history.extend([{"kind": "from_the_future", "time": 1.0}, {"kind": "control", "time": 2.0, "request": "stop"}])
    assert history.steps == []


@pytest.mark.parametrize("words", ["", "1.2.3", "1.2.3.x", "-1.2.3.4", "1.2.3.4.5", "1.2.3.99999999999999999999", "١.2.3.4"])
def test_cursor_refuses(words):
    with pytest.raises(ValueError, match="expected a cursor"):
        HistoryCursor.parse(words)


def test_cursor_round_trip():
    assert HistoryCursor.parse(str(HistoryCursor(1, 2, 3, 4))) == HistoryCursor(1, 2, 3, 4)


def test_eta_is_the_median_pace_of_what_is_left():
    """Paces 2, 2, 20 (a checkpoint), 2 seconds: the median is 2, and 95 steps are left."""
    assert text.eta_s([1, 2, 3, 4, 5], [0, 2, 4, 24, 26], 100) == 190
    assert text.eta_s([1], [0], 100) is None
    assert text.eta_s([1, 2], [0, 1], 0) is None
    assert text.eta_s([9, 10], [0, 1], 10) == 0


@pytest.mark.parametrize(
    ("value", "words"),
    [(0.69314, "0.6931"), (12.3456, "12.35"), (1234.5, "1,234"), (5e-5, "5e-5"), (0.0, "0"), (-0.25, "−0.2500"), (math.nan, "nan"), (None, "–")],
)
def test_number(value, words):
    assert text.number(value) == words


@pytest.mark.parametrize(
    ("seconds", "words"), [(48.4, "48 s"), (725, "12 m 05 s"), (13_320, "3 h 42 m"), (190_000, "2 d 4 h"), (None, "–"), (math.inf, "–")]
)
def test_duration(seconds, words):
    assert text.duration(seconds) == words


def test_every_state_has_a_colour_and_an_icon():
    assert set(State) == set(text.STATE_COLOURS) == set(text.STATE_ICONS)


def test_charts_show_every_metric_once():
    names = ["loss", "rewards_chosen_mean", "lr", "time_data_s", "time_generate_s", "mine", "peak_memory_gib"]
    charts = catalogue.charts(names)
    assert sorted(name for chart in charts for name, _ in chart.series) == sorted(names)
    by_key = {chart.key: chart for chart in charts}
    assert by_key["mine"].group == "Other"
    assert [label for _, label in by_key["time"].series] == ["data", "generate"]
    assert [chart.group for chart in charts] == sorted((chart.group for chart in charts), key=catalogue.GROUPS.index)


def test_phases_of_an_unknown_algorithm_get_the_time_chart():
    (chart,) = catalogue.charts(["time_rollout_s"])
    assert (chart.key, chart.stacked, chart.series) == ("time", True, (("time_rollout_s", "rollout"),))


def test_config_diff_has_only_what_differs():
    one = {"lr": 0.1, "model": {"source": "a", "lora": {"rank": 16}}, "limit": None, "on": True}
    two = {"lr": 0.1, "model": {"source": "b", "lora": {"rank": 16, "alpha": 32}}, "limit": 5, "on": False}
    diff = tables.config_diff({"one": one, "two": two})
    assert diff.to_dict("index") == {
        "model.source": {"one": "a", "two": "b"},
        "limit": {"one": "null", "two": "5"},
        "on": {"one": "true", "two": "false"},
        "model.lora.alpha": {"one": "–", "two": "32"},
    }
    assert tables.config_diff({"one": one, "same": dict(one)}).empty


def test_followed_prompts():
    history = History()
    for at in (0, 10):
        history.extend([{"kind": "validation", "time": 1.0 + at, "step": at, "metrics": {}, "samples": [{"prompt": "p", "response": f"r{at}"}]}])
    assert tables.followed(history.validations) == {"p": {0: "r0", 10: "r10"}}


def test_headline():
    history = History(total_steps=100)
    history.extend([{"kind": "validation", "time": 0.0, "step": 0, "metrics": {"accuracy": 0.5}}])
    history.extend(step(n, float(n), loss=2.0 if n <= 10 else 1.0, tokens_per_s=1234.0) for n in range(1, 21))
    history.extend([{"kind": "validation", "time": 20.5, "step": 20, "metrics": {"accuracy": 0.75}}])
    shown = {figure.label: (figure.value, figure.note) for figure in tables.headline(history, Status(state=State.RUNNING))}
    assert shown == {
        "Loss": ("1.000", "−1.00"),
        "Held-out accuracy": ("75.0%", "from 50.0%"),
        "Tokens / s": ("1,234", ""),
        "Step": ("20", "of 100 · 20%"),
        "Time left": ("1 m 20 s", "20 s trained"),
    }


def test_headline_before_the_first_step():
    labels = [figure.label for figure in tables.headline(History(), Status(state=State.QUEUED))]
    assert labels == ["Step", "Time left"]


def test_compare_figure_draws_each_run_in_its_own_look():
    histories = {}
    for number in range(10):
        history = History()
        history.extend(step(n, float(60 * n), loss=float(n + number)) for n in range(1, 5))
        histories[f"run {number}"] = history
    figure = figures.compare(histories, "loss", axis="time")
    assert [trace.name for trace in figure.data] == list(histories)
    assert figure.data[0].x.tolist() == [0, 1, 2, 3]
    assert len({(trace.line.color, trace.line.dash) for trace in figure.data}) == 10
    assert figure.layout.xaxis.title.text == "training time (minutes)"
    assert figure.layout.yaxis.title.text == "Loss (nats)"


def test_compare_figure_without_the_metric_is_empty_not_broken():
    figure = figures.compare({"run": History()}, "kl")
    assert len(figure.data[0].x) == 0


def test_calibration_figure_has_a_point_a_bin():
    bins = [{"predicted": 0.55, "observed": 0.5, "count": 9}, {"predicted": 0.95, "observed": 1.0, "count": 1}]
    line, points = diagnostics.calibration({"calibration": bins}).data
    assert (list(line.x), list(line.y)) == ([0.5, 1], [0.5, 1])
    assert (list(points.x), list(points.y), list(points.customdata)) == ([0.55, 0.95], [0.5, 1.0], [9, 1])
    assert points.marker.size[0] > points.marker.size[1]


def test_score_figures_keep_the_sides_apart():
    found = {
        "histogram": {"edges": [0, 1, 2], "chosen": [1, 3], "rejected": [4, 0]},
        "lengths": {"tokens": [5, 2, 9], "scores": [0.5, -1.0, 2.0], "chosen": [True, False, True]},
    }
    chosen, rejected = diagnostics.histogram(found).data
    assert (chosen.name, list(chosen.x), list(chosen.y), list(rejected.y)) == ("chosen", [0.5, 1.5], [1, 3], [4, 0])
    chosen, rejected = diagnostics.lengths(found).data
    assert (list(chosen.x), list(chosen.y), list(rejected.x), list(rejected.y)) == ([5, 9], [0.5, 2.0], [2], [-1.0])


def test_ratings_figure_draws_the_line_over_the_ratings():
    line, points = diagnostics.ratings({"name": "humor", "actual": [3, 0, 4], "predicted": [2.5, 0.2, 3.9]}).data
    assert (list(line.x), list(points.y)) == ([0, 4], [2.5, 0.2, 3.9])


def test_history_keeps_the_diagnostics_of_a_validation():
    history = History()
    history.extend([{"kind": "validation", "time": 1.0, "step": 0, "metrics": {"ece": 0.1}, "diagnostics": {"kind": "ranking"}}])
    history.extend([{"kind": "validation", "time": 2.0, "step": 5, "metrics": {}}])
    assert [v.diagnostics for v in history.validations] == [{"kind": "ranking"}, None]


def test_a_reward_models_metrics_are_drawn_together():
    charts = {chart.key: chart.series for chart in catalogue.charts(["spearman_humor", "mae", "mae_humor", "length_pearson", "mae_brevity"])}
    assert charts["mae"] == (("mae", "all"), ("mae_humor", "humor"))
    assert charts.keys() == {"mae", "rank", "length", "mae_brevity"}


def test_lengths_figure():
    figure = figures.lengths([0, 64, 128], [3, 5], limit=100)
    assert list(figure.data[0].y) == [3, 5]
    assert figure.layout.xaxis.title.text == "tokens in a row"


def test_headline_of_an_online_run_leads_with_its_rewards():
    history = History()
    history.extend([{"kind": "validation", "time": 0.0, "step": 0, "metrics": {"rewards": 0.25, "accuracy": 1.0}}])
    history.extend([step(1, 1.0, rewards=0.5, loss=-0.1, init_policy_kl=2.0)])
    history.extend([{"kind": "validation", "time": 2.0, "step": 1, "metrics": {"rewards": 0.75}}])
    shown = [(figure.label, figure.value, figure.note) for figure in tables.headline(history, Status(state=State.RUNNING))]
    assert shown[:3] == [("Reward", "0.5000", ""), ("Held-out reward", "0.7500", "from 0.2500"), ("KL", "2.000", "")]
