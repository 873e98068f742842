"""The live view in Notebook 7, the other of Jupyter's front ends."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import Page

from tests.app import synthetic
from tests.notebook.jupyter import TIMEOUT_MS, Jupyter, Notebook
from workbench.rundir.store import State

pytestmark = pytest.mark.browser
CHART = '.wb-charts [data-chart="loss"]'


def drawn(page: Page, step: int) -> None:
    page.locator(CHART).scroll_into_view_if_needed()  # what is not seen is not drawn
    page.wait_for_function("([chart, step]) => +document.querySelector(chart)?.dataset.last >= step", arg=[CHART, step], timeout=TIMEOUT_MS)


@pytest.mark.parametrize("jupyter", ["notebook"], indirect=True)
def test_a_run_is_drawn_and_followed(jupyter: Jupyter, browser_page: Page) -> None:
    run = synthetic.make(Path(jupyter.environment["WORKBENCH_RUNS"]), "dpo-demo", 30, 60)
    jupyter.write("live.ipynb", [f"import workbench as wb\n\nwb.attach({run.id!r})", "6 * 7"])
    notebook = Notebook(browser_page, jupyter, "live.ipynb")
    notebook.open()
    notebook.run(0)
    drawn(browser_page, 30)
    notebook.run(1)
    synthetic.write_steps(run, 31, 40)
    drawn(browser_page, 40)
    run.update(state=State.COMPLETED)
    notebook.cell(0).get_by_text("Completed").first.wait_for()
