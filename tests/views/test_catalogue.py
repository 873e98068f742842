"""Which metrics are drawn together."""

from workbench.views import catalogue


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


def test_a_reward_models_metrics_are_drawn_together():
    charts = {chart.key: chart.series for chart in catalogue.charts(["spearman_humor", "mae", "mae_humor", "length_pearson", "mae_brevity"])}
    assert charts["mae"] == (("mae", "all"), ("mae_humor", "humor"), ("mae_brevity", "brevity"))
    assert charts.keys() == {"mae", "rank", "length"}
