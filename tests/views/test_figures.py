"""Figures of curves and lengths."""

from tests.views.events import step
from workbench.views import History, figures


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


def test_lengths_figure():
    figure = figures.lengths([0, 64, 128], [3, 5], limit=100)
    assert list(figure.data[0].y) == [3, 5]
    assert figure.layout.xaxis.title.text == "tokens in a row"
