"""The sliders in a real JupyterLab in Chromium: moved while a cell runs, they change streamed answers; a page that is loaded again shows them as they were."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests import fake_endpoint
from tests.notebook.jupyter import ROOT, Jupyter, Notebook
from tests.waiting import until
from workbench.rundir.store import State

pytestmark = pytest.mark.browser
LONG = "import time\n\nwhile True:\n    time.sleep(0.1)"


def test_sliders_move_streamed_answers(jupyter: Jupyter, browser_page: Page) -> None:
    root = Path(jupyter.environment["WORKBENCH_RUNS"])
    root.mkdir(exist_ok=True)
    with fake_endpoint.serving(root) as endpoint:
        cell = f"import workbench as wb\n\nsliders = wb.AttributeSliders('{endpoint.run.id}')\nsliders"
        jupyter.write("sliders.ipynb", [cell, LONG, "print(len(sliders.rows), sliders.rows[-1]['attributes'])\nsliders.stop()"])
        notebook = Notebook(browser_page, jupyter, "sliders.ipynb")
        notebook.open()
        notebook.run(0)
        panel = notebook.output(0).locator(".wb-studio")
        prompt, answer = panel.get_by_role("textbox", name="Prompt", exact=True), panel.locator(".wb-text").first
        expect(prompt).to_be_visible()
        notebook.run(1, wait=False)
        notebook.is_running(1)
        panel.get_by_role("slider", name="verbosity").press("0")
        prompt.fill("What is a map?")
        prompt.press("Enter")
        expect(answer).to_have_text("STEERLM A map shows")
        panel.get_by_role("slider", name="verbosity").press("4")
        expect(answer).to_contain_text("It also tells what lies")
        expect(panel.locator("tr[data-measured=verbosity]")).to_contain_text("4 rule")
        panel.get_by_role("slider", name="verbosity").press("3")
        expect(answer).not_to_contain_text("It also tells")
        prompt.fill("Please hold.")
        prompt.press("Control+Enter")
        expect(panel.locator(".wb-said").first).to_have_attribute("data-status", "streaming")
        panel.get_by_role("button", name="Stop").click()
        expect(panel.locator(".wb-said").first).to_contain_text("stopped")
        until(lambda: endpoint.cancelled == 1)
        browser_page.screenshot(path=ROOT / "build" / "screenshots" / "jupyterlab-sliders.png")
        notebook.is_running(1)
        notebook.do("notebook:interrupt-kernel")
        notebook.has_run(1)
        notebook.save()
        notebook.reload()
        expect(prompt).to_have_value("Please hold.")
        expect(answer).to_have_text("STEERLM A map")
        notebook.run(2)
        expect(notebook.output(2)).to_contain_text("4 {}")
        assert endpoint.run.status.state == State.STOPPING
