"""Every page in a narrow window: nothing is wider than it, no headline is cut, and each address leads somewhere."""

import pytest
from playwright.sync_api import expect

from tests.app import synthetic_rollouts
from tests.browser.conftest import CUT, settled

pytestmark = pytest.mark.browser


@pytest.mark.parametrize("name", ["launch", "runs", "run", "rollouts", "compare", "pipelines", "steer", "chat", "cluster", "datasets"])
def test_at_800_pixels(server, page, seen, name):
    synthetic_rollouts.make(server.runs, 12)
    page.set_viewport_size({"width": 800, "height": 900})
    page.goto(f"{server.url}/{name}")
    expect(page.get_by_role("heading", level=2).first).to_be_visible()
    settled(page)
    expect(page.get_by_text("Page not found")).to_have_count(0)
    assert page.evaluate(CUT) == []
    assert page.evaluate("() => document.documentElement.scrollWidth <= innerWidth")
    assert seen.errors == []
