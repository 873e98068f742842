"""A synthetic run that grows, watched in Chromium."""

import time
from itertools import pairwise

import pytest
from playwright.sync_api import expect

from tests.app import synthetic
from tests.browser.conftest import LOSS, page_of, settled, until_charted
from tests.waiting import until
from workbench.rundir import listing
from workbench.rundir.events import EventWriter
from workbench.rundir.store import State

pytestmark = pytest.mark.browser


def last_step(page) -> int:
    return int(float(page.locator(LOSS).get_attribute("data-last") or -1))


def test_points_arrive_within_two_seconds(server, page, seen):
    """The page asks twice a second, and draws a point with the first answer that can have it."""
    run = synthetic.make(server.runs, "dpo-demo", 20, 200)
    page.goto(f"{server.url}/run?id={run.id}")
    until_charted(page, 20)
    writer = EventWriter(run)
    delays, asked = [], []
    for step in range(21, 33):
        writer.write("step", step=step, metrics=synthetic.step_metrics(step))
        delays.append(until_charted(page, step))
        asked.append(sum("/metrics?" in url for url in seen.requests))
    delays.sort()
    print(f"from the event to the chart: median {delays[len(delays) // 2] * 1e3:.0f} ms, worst {delays[-1] * 1e3:.0f} ms")
    assert max(after - before for before, after in pairwise(asked)) <= 3  # under way before the event, with it, and while the chart is looked at
    expect(page.get_by_test_id("stMetric").filter(has=page.get_by_text("Step", exact=True))).to_contain_text("32")
    assert seen.errors == []
    assert [url for url in seen.requests if not url.startswith((server.url, server.url.replace("http", "ws"), "blob:", "data:"))] == []


def test_a_resume_replaces_the_curve(server, page, seen):
    run = synthetic.make(server.runs, "dpo-demo", 30, 200)
    page.goto(f"{server.url}/run?id={run.id}")
    until_charted(page, 30)
    writer = EventWriter(run)
    writer.write("state", state="running", step=20, total_steps=200)
    writer.write("step", step=21, metrics=synthetic.step_metrics(21) | {"loss": 3.0})
    page.wait_for_function(f"() => +document.querySelector('{LOSS}').dataset.last === 21", timeout=60_000)
    steps, losses = page.evaluate(f"() => {{ const t = document.querySelector('{LOSS} .wb-plot').data[0]; return [[...t.x], [...t.y]]; }}")
    assert steps == list(range(1, 22))
    assert losses[-1] == 3.0
    assert seen.errors == []


def test_a_rerun_of_the_page_does_not_redraw(server, page):
    run = synthetic.make(server.runs, "dpo-demo", 30, 200)
    page.goto(f"{server.url}/run?id={run.id}")
    until_charted(page, 30)
    page.evaluate(f"() => {{ document.querySelector('{LOSS} .wb-plot').mark = 'same'; }}")
    page.get_by_role("tab", name="Log").click()
    expect(page.get_by_text("step 30: loss")).to_be_visible()
    page.get_by_role("tab", name="Curves").click()
    EventWriter(run).write("step", step=31, metrics=synthetic.step_metrics(31))
    until_charted(page, 31)
    assert page.evaluate(f"() => document.querySelector('{LOSS} .wb-plot').mark") == "same"


def test_the_charts_survive_a_restart_of_the_server(server, page):
    run = synthetic.make(server.runs, "dpo-demo", 30, 200)
    page.goto(f"{server.url}/run?id={run.id}")
    until_charted(page, 30)
    server.stop()
    expect(page.locator(".wb-banner")).to_contain_text("Disconnected", timeout=60_000)
    EventWriter(run).write("step", step=31, metrics=synthetic.step_metrics(31))
    server.start()
    until_charted(page, 31)
    expect(page.locator(".wb-banner")).to_be_hidden()
    assert run.id in page.url


def test_a_refresh_loses_nothing(server, page):
    run = synthetic.make(server.runs, "dpo-demo", 30, 200)
    synthetic.make(server.runs, "z-newer", 3, 200)
    page.goto(f"{server.url}/run?id={run.id}")
    until_charted(page, 30)
    page.reload()
    until_charted(page, 30)
    expect(page.get_by_role("heading", name="dpo-demo")).to_be_visible()


def test_ten_thousand_steps(server, page):
    run = synthetic.make(server.runs, "long", 10_000, 10_000, State.COMPLETED)
    page.goto(server.url)
    expect(page.get_by_test_id("stDataFrame")).to_be_visible()
    began = time.perf_counter()
    page.goto(f"{server.url}/run?id={run.id}")
    until_charted(page, 10_000)
    print(f"10,000 steps drawn {time.perf_counter() - began:.1f} s after the address was entered")
    assert int(page.locator(LOSS).get_attribute("data-points")) <= 1001  # a thousand and the last


def test_smoothing_and_time_axis(server, page, seen):
    run = synthetic.make(server.runs, "dpo-demo", 61, 200)
    page.goto(f"{server.url}/run?id={run.id}")
    until_charted(page, 61)
    page.get_by_role("radio", name="Time").or_(page.get_by_role("button", name="Time", exact=True)).first.click()
    page.wait_for_function(f"() => +document.querySelector('{LOSS}').dataset.last < 2", timeout=60_000)
    assert page.evaluate(f"() => document.querySelector('{LOSS} .wb-plot').layout.xaxis.title.text") == "training time (minutes)"
    page.get_by_role("radio", name="Off").or_(page.get_by_role("button", name="Off", exact=True)).first.click()
    page.wait_for_function(f"() => document.querySelector('{LOSS} .wb-plot').data.length === 2", timeout=60_000)
    assert seen.errors == []


def test_the_charts_follow_the_theme(browser, server):
    run = synthetic.make(server.runs, "dpo-demo", 30, 200)
    colours = {}
    for scheme in ("light", "dark"):
        with page_of(browser, server, color_scheme=scheme) as (page, seen):
            page.goto(f"{server.url}/run?id={run.id}")
            until_charted(page, 30)
            colours[scheme] = page.evaluate(f"() => document.querySelector('{LOSS} .wb-plot').layout.font.color")
            assert seen.errors == []
    assert colours == {"light": "#111827", "dark": "#e7eaf0"}


@pytest.mark.parametrize("path", ["", "launch", "compare", "datasets"])
def test_every_page_stays_on_this_machine(server, page, seen, path):
    synthetic.gallery(server.runs)
    page.goto(f"{server.url}/{path}")
    expect(page.get_by_role("heading", level=2)).to_be_visible()
    page.wait_for_timeout(1500)
    assert [url for url in seen.requests if not url.startswith((server.url, server.url.replace("http", "ws"), "blob:", "data:"))] == []
    assert seen.errors == []


def test_an_action_in_the_table_of_runs(server, page):
    """The keyboard alone opens a run: search, walk into the grid, press its button."""
    synthetic.make(server.runs, "dpo-demo", 30, 200)
    page.goto(server.url)
    expect(page.get_by_test_id("stDataFrame")).to_be_visible()
    page.get_by_text("1 of 1 runs").wait_for()
    assert listing.list_runs(server.runs)[0].status.state == State.RUNNING
    settled(page)
    canvas = page.get_by_test_id("stDataFrame").locator("canvas").first
    box = canvas.bounding_box()
    page.mouse.click(box["x"] + 32 + 98 + 130 + 37, box["y"] + 32 + 19)
    page.get_by_text("Stop", exact=True).last.click()
    until(lambda: listing.list_runs(server.runs)[0].status.state == State.STOPPING)
