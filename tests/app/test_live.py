"""The live-data routes: what they answer. Whom the app answers at all: test_origin.py, test_owner.py, tests/trust/test_app.py."""

import json
import time

import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient
from ui import live

from tests.app import synthetic
from workbench.rundir.events import EventWriter
from workbench.rundir.store import State


@pytest.fixture
def client(runs):
    return TestClient(Starlette(routes=live.routes()))


def ask(client, run_id, **query):
    answer = client.get(f"/live/{run_id}/metrics", params=query)
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_first_answer_has_everything(client, runs):
    run = synthetic.make(runs, steps=25, total=50)
    answer = ask(client, run.id)
    assert answer["reset"] is True
    assert answer["live"] is True
    assert answer["train"]["loss"]["raw"][0] == list(range(1, 26))
    assert answer["train"]["loss"]["smooth"] is None
    assert answer["held_out"]["accuracy"][0] == [0, 10, 20]
    assert {"loss", "accuracy", "rewards", "time", "lr"} <= {chart["key"] for chart in answer["charts"]}


def test_later_answers_have_only_the_new_points(client, runs):
    run = synthetic.make(runs, steps=25, total=50)
    cursor = ask(client, run.id)["cursor"]
    quiet = ask(client, run.id, after=cursor)
    assert (quiet["reset"], "train" in quiet, "held_out" in quiet) == (False, False, False)
    synthetic.write_steps(run, 26, 30)
    answer = ask(client, run.id, after=cursor, smoothing=0.9)
    assert answer["reset"] is False
    assert answer["train"]["loss"]["raw"][0] == [26, 27, 28, 29, 30]
    assert answer["train"]["loss"]["smooth"][0] == [26, 27, 28, 29, 30]
    assert answer["held_out"]["loss"][0] == [30]


def test_smoothing_of_a_piece_is_that_of_the_whole(client, runs):
    run = synthetic.make(runs, steps=25, total=50)
    cursor = ask(client, run.id, smoothing=0.9)["cursor"]
    synthetic.write_steps(run, 26, 30)
    piece = ask(client, run.id, after=cursor, smoothing=0.9)["train"]["loss"]["smooth"][1]
    whole = ask(client, run.id, smoothing=0.9)["train"]["loss"]["smooth"][1]
    assert piece == whole[-5:]


def test_resume_replaces_what_it_takes_back(client, runs):
    run = synthetic.make(runs, steps=25, total=50)
    cursor = ask(client, run.id)["cursor"]
    writer = EventWriter(run)
    writer.write("state", state="running", step=20, total_steps=50)
    writer.write("step", step=21, metrics={"loss": 9.0})
    answer = ask(client, run.id, after=cursor)
    assert answer["reset"] is True
    assert answer["train"]["loss"]["raw"][0] == list(range(1, 22))
    assert answer["train"]["loss"]["raw"][1][-1] == 9.0


def test_resume_past_the_reader_replaces_too(client, runs):
    """The new attempt is already further than the reader was: only the generation tells."""
    run = synthetic.make(runs, steps=25, total=50)
    cursor = ask(client, run.id)["cursor"]
    EventWriter(run).write("state", state="running", step=20, total_steps=50)
    synthetic.write_steps(run, 21, 40, seed=5)
    answer = ask(client, run.id, after=cursor)
    assert (answer["reset"], len(answer["train"]["loss"]["raw"][0])) == (True, 40)


def test_a_new_metric_starts_the_charts_over(client, runs):
    run = synthetic.make(runs, steps=5, total=50)
    cursor = ask(client, run.id)["cursor"]
    EventWriter(run).write("step", step=6, metrics={"loss": 0.5, "kl": 0.1})
    answer = ask(client, run.id, after=cursor)
    assert answer["reset"] is True
    assert answer["train"]["kl"]["raw"][1] == [None, None, None, None, None, 0.1]
    assert [chart["title"] for chart in answer["charts"] if chart["key"] == "kl"] == ["KL"]


def test_not_finite_values_are_gaps_and_are_said(client, runs):
    run = synthetic.make(runs, steps=5, total=50)
    EventWriter(run).write("step", step=6, metrics={"loss": float("nan")})
    loss = ask(client, run.id)["train"]["loss"]
    assert (loss["raw"][1][-1], loss["last"]) == (None, "nan")


def test_a_torn_line_is_not_seen_yet(client, runs):
    run = synthetic.make(runs, steps=5, total=50)
    cursor = ask(client, run.id)["cursor"]
    line = json.dumps({"seq": 99, "time": 1.0, "kind": "step", "step": 6, "metrics": {"loss": 1.0}})
    with run.events_path().open("a") as file:
        file.write(line[:30])
    assert "train" not in ask(client, run.id, after=cursor)
    with run.events_path().open("a") as file:
        file.write(line[30:] + "\n")
    assert ask(client, run.id, after=cursor)["train"]["loss"]["raw"] == [[6], [1.0]]


def test_run_without_events(client, runs):
    run = synthetic.make(runs, steps=0, total=50)
    run.events_path().unlink()
    answer = ask(client, run.id)
    assert answer["charts"] == []


def test_ten_thousand_steps_are_thin_and_fast(client, runs):
    run = synthetic.make(runs, steps=10_000, total=10_000, state=State.COMPLETED)
    began = time.process_time()
    answer = ask(client, run.id, smoothing=0.9)
    first_s = time.process_time() - began
    raw = answer["train"]["loss"]["raw"]
    assert len(raw[0]) <= 1000
    assert (raw[0][0], raw[0][-1]) == (1, 10_000)
    assert first_s < 3
    began = time.process_time()
    ask(client, run.id, smoothing=0.9)
    again_s = time.process_time() - began
    began = time.process_time()
    ask(client, run.id, after=answer["cursor"], smoothing=0.9)
    quiet_s = time.process_time() - began
    print(f"10,000 steps: first {first_s * 1e3:.0f} ms, again {again_s * 1e3:.0f} ms, nothing new {quiet_s * 1e3:.1f} ms")
    assert quiet_s < 0.2


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/live/nobody/metrics", 404),
        ("/live/../metrics", 404),
        ("/live/..%2f..%2fetc/metrics", 404),
        ("/live/%2e%2e/metrics", 404),
        ("/live/%2Ftmp/metrics", 404),
        ("/live/a%00b/metrics", 404),
        ("/live/{run}/metrics?after=x", 400),
        ("/live/{run}/metrics?after=1.2.3.-4", 400),
        ("/live/{run}/metrics?smoothing=1", 400),
        ("/live/{run}/metrics?smoothing=nan", 400),
    ],
)
def test_refuses_what_is_no_run_or_no_cursor(client, runs, path, status):
    run = synthetic.make(runs / "inner", steps=3) if "{run}" not in path else synthetic.make(runs, steps=3)
    assert client.get(path.replace("{run}", run.id)).status_code == status


def test_a_run_outside_the_folder_is_not_found(client, runs, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    run = synthetic.make(elsewhere, steps=3)
    for name in (str(run.path), f"../{elsewhere.name}/{run.id}", f"..%2F{elsewhere.name}%2F{run.id}"):
        assert client.get(f"/live/{name}/metrics").status_code == 404


def test_only_get(client, runs):
    run = synthetic.make(runs, steps=3)
    assert client.post(f"/live/{run.id}/metrics").status_code == 405


def test_answers_are_not_for_caches(client, runs):
    run = synthetic.make(runs, steps=3)
    assert client.get(f"/live/{run.id}/metrics").headers["cache-control"] == "no-store"
    assert client.get("/live/nobody/metrics").headers["cache-control"] == "no-store"


def test_plotly_comes_from_this_server(client):
    answer = client.get("/live/plotly.min.js")
    assert answer.status_code == 200
    assert "javascript" in answer.headers["content-type"]
