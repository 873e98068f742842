"""What another user of the machine can do to a gang: to its store, to gloo's ports, and to dask's."""

from __future__ import annotations

import json
import stat
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests import gang
from tests.hold import Hold
from tests.trust import gang_ranks
from tests.trust.intruder import Intruder
from tests.trust.sockets import family, knocked
from workbench import api
from workbench.rundir.store import State
from workbench.settings.layout import Layout


@pytest.fixture(scope="module")
def attacked(tmp_path_factory: pytest.TempPathFactory, intruder: Intruder) -> Path:
    """A gang of two that was attacked, and what its ranks wrote about it."""
    folder = tmp_path_factory.mktemp("gang")
    (folder / "uid").write_text(str(intruder.uid))
    gang.run(gang_ranks.attacked, folder, Layout(), data=2)
    return folder


@pytest.mark.parametrize("rank", [0, 1])
def test_a_stranger_among_a_groups_connections_is_cut_off_and_the_group_is_formed_anew(attacked: Path, rank: int) -> None:
    assert (attacked / f"result{rank}").read_text() == "2 [3.0, 3.0, 3.0] [0, 1]"
    assert (attacked / "stranger").read_text() == "got 0\n"


@pytest.mark.parametrize("rank", [0, 1])
def test_a_queue_that_was_changed_stops_the_ranks(attacked: Path, rank: int) -> None:
    told = (attacked / f"lost{rank}").read_text()
    assert told.startswith("the ranks were to sample 16 answers (2 to each of 8 prompts)"), told
    assert "2 of them wanted; prompts without all of theirs: [0, 1, 2, 3, 4, 5, 6]" in told
    assert "learnt from 3 rows of a batch of 4" in told
    assert "count 61 tokens together" in told


@pytest.fixture(scope="module")
def settings(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    rng, rows = np.random.default_rng(0), tmp_path_factory.mktemp("data") / "pairs.jsonl"
    say = lambda n: " ".join(rng.choice(["bread", "Paris", "short", "capital"], n))  # noqa: E731
    rows.write_text("".join(json.dumps({"prompt": say(4), "chosen": say(6), "rejected": say(3)}) + "\n" for _ in range(16)))
    algorithm = ("algorithm=dpo", "algorithm.max_steps=3", "algorithm.global_batch_size=4", "algorithm.lr=1e-3")
    return [*algorithm, f"model.source={tiny_model}", f"data.train={rows}", "backend.ranks_per_node=2", "backend.threads_per_rank=1"]


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[api.Run]]:
    monkeypatch.setenv("WORKBENCH_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path / "cache"))
    started: list[api.Run] = []
    yield started
    for run in started:
        if not run.status.state.ended:
            run.kill()


def losses(run: api.Run) -> list[float]:
    return [event["metrics"]["loss"] for event in run.events() if event["kind"] == "step"]


def test_a_local_runs_sockets_tell_another_user_nothing(runs: list[api.Run], settings: list[str], intruder: Intruder, hold: Hold) -> None:
    """Each is dask's, over TLS for the run's certificate only, or gloo's, which answers nobody any more; a connection that says nothing ends no run."""
    hold.at(1)
    runs.append(api.submit(api.compose([*settings, "backend.num_nodes=2", "backend.ranks_per_node=1"])))
    hold.wait(runs[0])
    with knocked(intruder, runs[0]) as places:
        of_ranks = [place for place, process in places.items() if "RANK" in process.environ()]
        assert of_ranks and len(places) - len(of_ranks) == 5, {
            place: process.cmdline() for place, process in places.items()
        }  # the scheduler, and of each node a nanny and a worker
        hold.release()
        assert runs[0].wait(240).state == State.COMPLETED, runs[0].status.message
    runs.append(api.submit(api.compose(settings)))
    assert runs[1].wait(240).state == State.COMPLETED, runs[1].status.message
    assert losses(runs[0]) == losses(runs[1]) and len(losses(runs[0])) == 3


def test_the_store_of_one_machine_is_a_file_of_its_owners(runs: list[api.Run], settings: list[str], intruder: Intruder, hold: Hold) -> None:
    hold.at(1)
    runs.append(api.submit(api.compose([*settings, "backend.num_nodes=2", "backend.ranks_per_node=1"])))
    hold.wait(runs[0])
    processes = family(runs[0])
    (address,) = {found for each in processes if (found := each.environ().get("WORKBENCH_STORE"))}
    store = Path(address.removeprefix("file:"))
    assert stat.S_IMODE(store.parent.stat().st_mode) == 0o700
    assert not intruder.reads(store) and not intruder.reads(store.parent)
    next(process for process in processes if "workbench.processes.worker" in process.cmdline()).kill()
    assert runs[0].wait(240).state == State.FAILED
    assert not store.parent.exists()
