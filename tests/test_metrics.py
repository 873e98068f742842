"""The registry of metrics: complete, without doubles, read by everyone, and the only file that spells a metric's name."""

from __future__ import annotations

import ast
import json
import pickle
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tests.app import synthetic
from workbench import metrics
from workbench.metrics import FAMILIES, METRICS, Averaging, combined, find
from workbench.rundir.events import EventWriter
from workbench.terminal.cli import app
from workbench.views import catalogue, figures, tables

ROOT = Path(__file__).parents[1]
EVERY = [*METRICS.values(), *(family("part") for family in FAMILIES)]

AMBIGUOUS = {
    "kl",  # a column of the rollout files and a field of an Experience; a module
    "entropy",  # likewise
    "logprobs",  # likewise; a phase of a step; an array of an endpoint
    "lr",  # a setting
    "kl_coefficient",  # a setting
    "loss",  # a function of every algorithm
    "prompt_lengths",  # an array of an endpoint
}
"""Words that are a metric's name and something else as well."""
OTHER_THINGS = {
    "workbench/settings/online.py": {"rewards"},  # a setting
    "workbench/settings/upgrade.py": {"rewards"},  # a setting
    "app/ui/run_table.py": {"rewards"},  # a setting
    "app/ui/rollout_panels.py": {"rewards"},  # a setting
    "workbench/processes/kinds/reward.py": {"rewards"},  # a setting, and a column
    "workbench/rundir/annotations.py": {"rewards"},  # a column
    "workbench/models/roles/reward.py": {"rewards"},  # an array of an endpoint
    "workbench/rundir/rollout_files.py": {"reward/"},  # columns
    "workbench/rollout/experience.py": {"reward/"},  # columns
    "workbench/bench/streaming.py": {"reward/helpful"},  # a column
}
"""Where a metric's name means something else."""
WITHOUT = (
    "workbench/bench/trl_side.py",  # runs in another environment, which lacks the project
)
"""Modules that spell the names themselves."""


def spelled(path: Path) -> Iterator[tuple[str, int]]:
    """The string literals of a module that are a registered name, or begin an f-string as a family's names begin."""
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr) and node.values and isinstance(first := node.values[0], ast.Constant):
            if first.value in {family.name.partition("{}")[0] for family in FAMILIES}:
                yield str(first.value), node.lineno
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and (find(node.value) or node.value == "reward/"):
            yield node.value, node.lineno


def test_names_are_spelled_in_the_registry_alone() -> None:
    wrong = []
    for path in sorted([*(ROOT / "workbench").rglob("*.py"), *(ROOT / "app").rglob("*.py")]):
        name = path.relative_to(ROOT).as_posix()
        if name not in ("workbench/metrics.py", *WITHOUT):
            wrong += [f"{name}:{line} spells {word!r}" for word, line in spelled(path) if word not in AMBIGUOUS | OTHER_THINGS.get(name, set())]
    assert not wrong, "\n".join(wrong)


def test_each_is_registered_in_one_line() -> None:
    tree = ast.parse((ROOT / "workbench" / "metrics.py").read_text())
    lines = [
        (node.lineno, node.end_lineno)
        for node in tree.body
        if isinstance(node, ast.Assign)
        and isinstance(node.value, ast.Call)
        and ast.unparse(node.value.func).rpartition(".")[2] in ("metric", "family")
    ]
    assert len(lines) == len(METRICS) + len(FAMILIES)
    assert all(first == last for first, last in lines)


@pytest.mark.parametrize("metric", EVERY, ids=str)
def test_each_has_a_title_and_help(metric: metrics.Metric) -> None:
    assert metric.heading and metric.label and metric.group in metrics.GROUPS
    assert metric.help.endswith(".") and "\n" not in metric.help and "{" not in metric.help + metric.heading


def test_no_two_are_alike() -> None:
    for titles in ([metric.heading for metric in EVERY], [(metric.chart.key, metric.label) for metric in EVERY]):
        assert len(titles) == len(set(titles))
    keys = {metric.chart.key: metric.chart for metric in EVERY}
    assert all(keys[metric.chart.key] == metric.chart for metric in EVERY)
    briefs = [metric.brief for metric in EVERY if metric.brief]
    assert len(briefs) == len(set(briefs))


def test_a_name_or_a_chart_is_registered_once(registry: None) -> None:
    with pytest.raises(ValueError, match=r"'loss' is registered already, as 'Loss'"):
        metrics.metric("loss", "Another", "", "No.")
    with pytest.raises(ValueError, match=r"the key 'values', which that of 'values_mean' has"):
        metrics.metric("values", "Values", "", "No.")
    with pytest.raises(ValueError, match="registered already"):
        metrics.family("mae_{}", "Again: {}", "No.", metrics.LOSS.chart)


def test_families_find_their_members() -> None:
    assert [find(name) for name in ("reward/a/b", "mae_humor", "time_x_s", "wire_x_s")] == ["reward/a/b", "mae_humor", "time_x_s", "wire_x_s"]
    assert [find(name) for name in ("reward/", "mae_", "time__s", "time_x", "server_s", "nobody", "")] == [None] * 7
    brevity = find("mae_brevity")
    assert brevity is not None
    assert (brevity.heading, brevity.label, brevity.chart) == ("Rating error: brevity", "brevity", metrics.MAE.chart)
    assert metrics.TIME_OF("init_logprobs").heading == "Time of a step: init log-probs"
    assert find("mae") is metrics.MAE
    assert metrics.REWARD_OF("ended").chart.key == "reward/ended"


def test_a_metric_is_its_name_wherever_it_goes() -> None:
    assert {metrics.LOSS: 1}["loss"] == 1
    assert json.dumps({metrics.LOSS: 1}) == '{"loss": 1}'
    assert type(pickle.loads(pickle.dumps(metrics.LOSS))) is str
    assert f"{metrics.TIME_OF('data')}" == "time_data_s"


def test_updates_are_combined_as_each_says() -> None:
    """Two updates of a step: means, sums of seconds, the higher peak; the mean of what nobody registered and of what a part lacks."""
    parts = [
        {"loss": 1.0, "step_time_s": 2.0, "time_data_s": 0.25, "peak_memory_gib": 3.0, "mine": 4.0, "kl": 1.0},
        {"loss": 2.0, "step_time_s": 3.0, "time_data_s": 0.5, "peak_memory_gib": 1.0, "mine": 5.0},
    ]
    assert combined(parts) == {"loss": 1.5, "step_time_s": 5.0, "time_data_s": 0.75, "peak_memory_gib": 3.0, "mine": 4.5, "kl": 1.0}
    assert find("time_validation_s").averaging == Averaging.SUM  # type: ignore[union-attr]


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test registers is forgotten after it."""
    for name in ("METRICS", "FAMILIES"):
        before = getattr(metrics, name)
        copy = before.copy()
        monkeypatch.setattr(metrics, name, copy)
    monkeypatch.setattr("workbench.terminal.metrics.METRICS", metrics.METRICS)


def test_one_line_is_all_that_a_metric_costs(registry: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    metrics.metric("joy", "Joy of reading", "smiles", "Of a panel of ten.", label="panel", brief="joy", averaging=Averaging.MAX)

    chart = next(chart for chart in catalogue.charts(["mine", "joy", "loss"]) if chart.key == "joy")
    assert (chart.title, chart.unit, chart.series, chart.group, chart.help) == (
        "Joy of reading",
        "smiles",
        (("joy", "panel"),),
        "Learning",
        "Of a panel of ten.",
    )
    assert (catalogue.label("joy"), catalogue.unit("joy"), catalogue.explained("joy")) == ("Joy of reading", "smiles", "Of a panel of ten.")
    assert figures.axis_title("joy") == "Joy of reading (smiles)"
    assert tables.measured({"joy": 2.0}, {}) == [tables.Measured("joy", "Joy of reading", "smiles", 2.0, None, "Of a panel of ten.")]
    assert combined([{"joy": 1.0}, {"joy": 2.0}]) == {"joy": 2.0}
    assert metrics.brief({"joy": 2.0}) == "joy 2"

    monkeypatch.setenv("WORKBENCH_RUNS", str(tmp_path))
    run = synthetic.make(tmp_path, "joyful", 2, 10)
    EventWriter(run).write("step", step=3, metrics={"joy": 0.5, "mine": 1.0})
    shown = CliRunner().invoke(app, ["show", "latest"], env={"COLUMNS": "200"}, catch_exceptions=False).stdout
    assert re.search(r"joy +0\.5 +smiles +Joy of reading\. Of", shown), shown
    assert re.search(r"mine +1 ", shown), shown
    listed = json.loads(CliRunner().invoke(app, ["metrics", "--json"], catch_exceptions=False).stdout)
    assert {
        "name": "joy",
        "title": "Joy of reading",
        "unit": "smiles",
        "group": "Learning",
        "averaging": "max",
        "help": "Of a panel of ten.",
    } in listed


def test_a_shared_chart_explains_each_of_its_curves() -> None:
    (chart,) = catalogue.charts(["returns_mean", "values_mean"])
    assert chart.series == (("values_mean", "values"), ("returns_mean", "returns"))
    assert [line.partition(": ")[0] for line in chart.help.splitlines()] == ["values", "returns"]


def test_the_terminal_lists_them_all() -> None:
    result = CliRunner().invoke(app, ["metrics"], env={"COLUMNS": "160"}, catch_exceptions=False)
    assert result.exit_code == 0
    assert all(name in result.stdout for name in (*METRICS, "mae_…", "reward/…"))
