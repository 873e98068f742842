"""What a narrow window leaves in sight on Launch, and how the rows of Runs are opened."""

import pytest
from playwright.sync_api import expect

from tests.app import synthetic
from tests.browser.conftest import settled
from workbench.rundir import listing

pytestmark = pytest.mark.browser
ROW_PX = 38
IN_SIGHT = """() => [...document.querySelectorAll('.st-key-launch button, .st-key-summary [data-testid=stAlert]')].map(each => each.getBoundingClientRect())
    .map(box => box.top >= 0 && box.bottom <= innerHeight && box.left >= 0 && box.right <= innerWidth)"""


def test_launch_stays_in_sight_and_rows_open(server, page, seen) -> None:
    page.goto(f"{server.url}/launch")
    for width, height in ((1440, 900), (1024, 768), (390, 844)):
        page.set_viewport_size({"width": width, "height": height})
        expect(page.get_by_role("button", name="Launch run")).to_be_visible()
        settled(page)
        assert page.evaluate(IN_SIGHT) == [True, True], width
        assert page.evaluate("() => document.documentElement.scrollWidth <= innerWidth")
    page.set_viewport_size({"width": 1440, "height": 900})
    for name in ("one", "two"):
        synthetic.make(server.runs, name, 3)
    run = listing.list_runs(server.runs)[0]
    page.goto(server.url)
    table = page.get_by_test_id("stDataFrame")
    expect(page.get_by_text("2 of 2 runs")).to_be_visible()
    settled(page)
    table.click(position={"x": 142, "y": 32 + ROW_PX / 2})
    page.wait_for_url(f"**/run?id={run.id}")
    page.get_by_role("link", name="Runs", exact=True).click()
    expect(page.get_by_text("2 of 2 runs")).to_be_visible()
    settled(page)
    table.click(position={"x": 70, "y": 32 + ROW_PX / 2})
    page.keyboard.press("ArrowUp")
    expect(page.get_by_role("button", name="Open")).to_be_visible()
    settled(page)
    page.keyboard.press("o")
    page.wait_for_url(f"**/run?id={run.id}")
    assert seen.errors == []
