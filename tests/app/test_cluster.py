"""The Cluster page. (Its tiles: tests/browser.)"""

import time

from tests.app.pages import words
from tests.machines.sample import sample
from workbench import api
from workbench.backends.base import ClusterSnapshot
from workbench.machines.usage import Cluster


def test_without_slurm_it_shows_this_machine(app, runs, monkeypatch):
    monkeypatch.setattr(api, "places", lambda: ["local"])
    page = app("cluster")
    shown = {metric.label: metric.value for metric in page.metric}
    assert {"CPUs busy", "Memory busy", "My runs"} <= shown.keys()
    assert "Nothing of yours runs here" in words(page)
    assert not page.dataframe


def test_with_slurm_nodes_queue_partitions_and_ranks(app, runs, monkeypatch):
    monkeypatch.setattr(api, "places", lambda: ["slurm", "local"])
    monkeypatch.setattr(api, "cluster", lambda where: sample())
    page = app("cluster")
    assert {metric.label: metric.value for metric in page.metric}["GPUs given"] == "11"
    ranks, queue, partitions = (table.value for table in page.dataframe)
    assert ranks["Process"].tolist() == ["actor 0", "actor 1"]
    assert ranks["GPU"].tolist() == [93, 0]
    assert queue["Name"].tolist() == ["sft", "dpo", "job"]
    assert partitions["Partition"].tolist() == ["h100", "all *", "cpu"]
    assert "waiting for nodes" in words(page)
    assert "down: fan" not in words(page)  # a tile's, which is html: see tests/browser


def test_a_slurm_that_does_not_answer_is_quoted(app, runs, monkeypatch):
    broken = Cluster(ClusterSnapshot("slurm", "SLURM", time.time(), error="Unable to contact slurm controller"))
    monkeypatch.setattr(api, "places", lambda: ["slurm", "local"])
    monkeypatch.setattr(api, "cluster", lambda where: broken)
    page = app("cluster")
    assert "Unable to contact slurm controller" in page.error[0].value
