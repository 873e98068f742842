"""Every page as axe-core sees it, without runs and with one of each kind, light and dark: no violation of serious or critical impact."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from tests import fake_endpoint
from tests.app import synthetic, synthetic_rollouts
from tests.browser.conftest import settled

pytestmark = pytest.mark.browser
PAGES = ("Launch", "Runs", "Run", "Rollouts", "Compare", "Pipelines", "Cluster", "Datasets")
ASKING = ("Steer", "Chat")
"""Those that are tried while an endpoint answers."""
STREAMLITS = {"list": "[data-testid=stSidebarNavItems]", "listitem": "[data-testid=stSidebarNavItems]"}
"""By rule the place of what Streamlit 1.67 draws so and no page can change: the navigation's sections are `div`s in its `ul`."""
RULES = {"resultTypes": ["violations"], "runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "best-practice"]}
STILL = "* { transition: none !important; animation: none !important; } [data-stale] { opacity: 1 !important; }"
"""Streamlit fades what it is about to draw again, and a page that refreshes itself may begin to at any moment."""


def violations(page: Page) -> Iterator[str]:
    """What axe-core finds on the page as it is, in both colour schemes, a line each."""
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        still(page)
        found = Axe().run(page, options=RULES).response["violations"]
        for rule in found:
            for node in rule["nodes"] if rule["impact"] in ("serious", "critical") else ():
                if not _is_streamlits(page, rule["id"], node["target"][0]):
                    yield f"{scheme}: {rule['id']}: {' '.join(map(str, node['target']))}: {node['html'][:200]} {[each['message'] for each in node['any']][:1]}"


def _is_streamlits(page: Page, rule: str, target: str) -> bool:
    return rule in STREAMLITS and page.locator(target).first.evaluate("(found, place) => Boolean(found.closest(place))", STREAMLITS[rule])


def still(page: Page) -> None:
    """Wait until the page is drawn, and let nothing move or fade from then on: what is faded has other colours."""
    settled(page)
    page.add_style_tag(content=STILL)


def look(page: Page, name: str, tabs: Sequence[str] = ()) -> list[str]:
    """The violations of one page, reached by its link, with each of its tabs open."""
    page.get_by_test_id("stSidebarNav").get_by_role("link", name=name, exact=True).click()
    expect(page.get_by_role("heading", level=2).first).to_be_visible()
    found = [f"{name}: {each}" for each in violations(page)]
    for tab in tabs:
        page.get_by_role("tab", name=tab).click()
        found += [f"{name}, {tab}: {each}" for each in violations(page)]
    return found


def test_no_page_keeps_anyone_out(server, page, seen) -> None:
    page.goto(server.url)
    found = [f"no runs: {each}" for name in ("Runs", "Compare") for each in look(page, name)]
    synthetic.gallery(server.runs)
    synthetic_rollouts.make(server.runs, 12)
    tabs = {"Run": ("Answers", "Profile", "Log", "Checkpoints", "Settings", "Controls"), "Steer": ("Adherence and leakage", "Answers")}
    found += [each for name in PAGES for each in look(page, name, tabs.get(name, ()))]
    with fake_endpoint.serving(server.runs):
        found += [each for name in ASKING for each in look(page, name, tabs.get(name, ()))]
    assert not found, "\n".join(found)
    assert seen.errors == []
