"""The whole road in a real Chromium: a real run is launched from the form, watched, stopped, resumed."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import LOSS, started, until_charted
from tests.hold import Hold
from tests.waiting import until
from workbench.bench.browser import Server
from workbench.rundir.store import RunDir, State

pytestmark = pytest.mark.browser
STEPS = 60


@pytest.fixture
def app(hold: Hold, tmp_path: Path) -> Iterator[Server]:
    """Its runs stand still where they are told to."""
    with started(tmp_path) as server:
        yield server


def curve(page: Page) -> tuple[list[int], list[float]]:
    return page.evaluate(f"() => {{ const t = document.querySelector('{LOSS} .wb-plot').data[0]; return [[...t.x], [...t.y]]; }}")


def test_launch_watch_stop_resume(hold, server, page, seen, tiny_model: Path, tmp_path: Path) -> None:
    rows = tmp_path / "pairs.jsonl"
    rows.write_text("".join(json.dumps({"prompt": f"What is {i}?", "chosen": f"It is {i}.", "rejected": "No."}) + "\n" for i in range(40)))
    page.goto(f"{server.url}/launch")
    for label, value in (("Name", "from the form"), ("Source", str(tiny_model)), ("Train", str(rows))):
        page.get_by_role("textbox", name=label, exact=True).fill(value)
    for label, value in (("Max steps", STEPS), ("Global batch size", 8), ("Threads per rank", 1)):
        field = page.get_by_role("textbox", name=label, exact=True).or_(page.get_by_role("spinbutton", name=label, exact=True))
        field.fill(str(value))
        field.press("Enter")
    expect(page.get_by_text(f"algorithm.max_steps={STEPS}")).to_be_visible()
    expect(page.get_by_text("Every setting is valid.")).to_be_visible()
    hold.at(20)
    page.get_by_role("button", name="Launch run").click()

    page.wait_for_url("**/run?id=*", timeout=240_000)  # once what forks the run has imported what it needs
    run = RunDir(server.runs / page.url.partition("id=")[2])
    until_charted(page, 3)
    before = len(curve(page)[0])
    hold.at(40)
    until_charted(page, before + 5)
    assert len(curve(page)[0]) > before
    page.get_by_role("button", name="Stop").click()
    until(lambda: run.status.state == State.STOPPING)
    hold.release()
    expect(page.get_by_role("button", name="Resume")).to_be_visible(timeout=240_000)
    expect(page.get_by_text(re.compile("Stopped$")).first).to_be_visible()
    stopped = run.status.step
    assert before + 5 <= stopped <= 40
    assert (run.checkpoints / str(stopped) / "COMPLETE").is_file()
    until_charted(page, stopped)
    history = curve(page)

    page.get_by_role("button", name="Resume").click()
    until_charted(page, stopped + 5)
    steps, losses = curve(page)
    assert steps[: len(history[0])] == history[0]
    assert losses[: len(history[1])] == history[1]
    page.reload()
    until_charted(page, stopped + 5)
    assert curve(page)[1][:stopped] == pytest.approx(history[1])
    expect(page.get_by_text(re.compile("Completed$")).first).to_be_visible(timeout=240_000)
    assert run.status.state == State.COMPLETED
    assert seen.errors == []
