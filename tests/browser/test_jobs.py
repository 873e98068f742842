"""A run that generated, in a real Chromium: from its page its answers are downloaded, in a narrow window too."""

from pathlib import Path

import pytest
from playwright.sync_api import expect

from tests.app import synthetic_jobs
from tests.browser.conftest import CUT, settled

pytestmark = pytest.mark.browser


def test_the_answers_are_downloaded(server, page, seen) -> None:
    run = synthetic_jobs.generate(server.runs)
    page.set_viewport_size({"width": 800, "height": 900})
    page.goto(f"{server.url}/run?id={run.id}")
    expect(page.get_by_text("of 20 rollouts")).to_be_visible()
    settled(page)
    assert page.evaluate(CUT) == []
    assert page.evaluate("() => document.documentElement.scrollWidth <= innerWidth")
    with page.expect_download() as download:
        page.get_by_role("button", name="answers.jsonl").click()
    assert Path(download.value.path()).read_bytes() == (run.path / "answers.jsonl").read_bytes()
    assert download.value.suggested_filename == f"{run.id}.jsonl"
    assert seen.errors == []
