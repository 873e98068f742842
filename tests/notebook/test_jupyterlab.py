"""Notebook 3 in a real JupyterLab 4 in Chromium, with a tiny model: live while cells run, drawn again after a reload, found again by a new kernel."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest
from playwright.sync_api import Locator, Page, expect

from tests.app import synthetic_rollouts
from tests.hold import Hold
from tests.notebook.jupyter import ROOT, TIMEOUT_MS, Jupyter, Notebook
from tests.waiting import until, until_step
from workbench import api
from workbench.notebook.parameters import with_parameters
from workbench.rundir.listing import list_runs
from workbench.rundir.store import RunDir, State

pytestmark = pytest.mark.browser
PICTURES = ROOT / "build" / "screenshots"
CHART = '.wb-charts [data-chart="reward"]'
CUT = """() => [...document.querySelectorAll('.wb-notebook :is(dt, dd, button, .wb-badge)')]
    .filter(each => each.offsetParent && each.scrollWidth > each.clientWidth + 1).map(each => each.innerText)"""
"""Texts of a widget that are wider than what they are in."""
LONG = "import time\n\nwhile True:\n    time.sleep(0.1)"


@pytest.fixture
def notebook_03(jupyter: Jupyter, browser_page: Page, tiny_model: Path) -> Notebook:
    """Notebook 3 with more steps than anyone waits for; its last cells are one that is quick and one that runs until it is interrupted."""
    path = ROOT / "notebooks" / "03_ppo_live_rollouts.ipynb"
    values = {"MODEL": str(tiny_model), "STEPS": 100_000, "ROLLOUTS": 4}
    notebook = with_parameters(nbformat.read(path, as_version=4), values, path)
    notebook.cells += [nbformat.v4.new_code_cell("6 * 7"), nbformat.v4.new_code_cell(LONG)]
    nbformat.write(notebook, jupyter.folder / path.name)
    opened = Notebook(browser_page, jupyter, path.name)
    opened.open()
    return opened


@pytest.fixture
def run_root(jupyter: Jupyter) -> Iterator[Path]:
    """The folder of runs; those that are still running are killed at the end."""
    root = Path(jupyter.environment["WORKBENCH_RUNS"])
    yield root
    for run in map(api.Run, list_runs(root)):
        if not run.status.state.ended:
            run.kill()


def charted(page: Page, step: int) -> None:
    """Wait until the curve of the reward, which is drawn where it is seen, ends at this step or a later one."""
    page.locator(CHART).scroll_into_view_if_needed()
    page.wait_for_function("([chart, step]) => +document.querySelector(chart)?.dataset.last >= step", arg=[CHART, step], timeout=TIMEOUT_MS)


def points(page: Page) -> int:
    return int(page.locator(CHART).get_attribute("data-points") or 0)


def button(cell: Locator, text: str) -> Locator:
    """By its text: its accessible name has the icon's glyph before it."""
    return cell.locator("button", has_text=re.compile(rf"^\s*{text}\s*$"))


def only_run(root: Path) -> RunDir:
    (run,) = list_runs(root)
    return run


def test_a_run_is_live_while_cells_run_and_survives_reload_and_kernel(
    notebook_03: Notebook, jupyter: Jupyter, run_root: Path, lab_hold: Hold, browser_page: Page
) -> None:
    page, cells = browser_page, notebook_03.numbers()
    launch, quick, long = cells["run.live()"], cells["6 * 7"], cells[LONG.splitlines()[-1].strip()]
    lab_hold.at(2)
    for number in range(launch + 1):
        notebook_03.run(number)
    charted(page, 2)
    assert points(page) == 2
    notebook_03.run(quick)
    expect(notebook_03.output(quick)).to_contain_text("42")

    # the figure gains points while another cell runs
    notebook_03.run(long, wait=False)
    notebook_03.is_running(long)
    lab_hold.at(4)
    charted(page, 4)
    notebook_03.is_running(long)
    page.screenshot(path=PICTURES / "jupyterlab-live.png")
    notebook_03.do("notebook:interrupt-kernel")
    notebook_03.has_run(long)

    # a page that is loaded again draws the whole history
    notebook_03.save()
    lab_hold.at(5)
    notebook_03.reload()
    charted(page, 5)
    assert points(page) == 5

    # a new kernel finds the run by its name, and continues to draw it
    (kernel,) = jupyter.kernels()
    os.kill(kernel.pid, signal.SIGKILL)
    until(lambda: [each for each in jupyter.kernels() if each.pid != kernel.pid], what="a new kernel")
    notebook_03.restarted()
    lab_hold.at(6)
    for number in range(launch + 1):
        notebook_03.run(number)
    charted(page, 6)
    assert points(page) == 6
    run = api.Run(only_run(run_root))
    assert run.status.attempt == 1

    # Stop is heard while a cell runs
    notebook_03.run(long, wait=False)
    notebook_03.is_running(long)
    button(notebook_03.cell(launch), "Stop").click()
    until(lambda: run.status.state == State.STOPPING, run=run)
    notebook_03.is_running(long)
    lab_hold.release()
    assert run.wait(240).state == State.STOPPED
    expect(notebook_03.cell(launch)).to_contain_text("Stopped")
    notebook_03.is_running(long)
    page.screenshot(path=PICTURES / "jupyterlab-stopped.png")
    notebook_03.do("notebook:interrupt-kernel")
    notebook_03.has_run(long)
    assert only_run(run_root).id == run.id


def test_the_form_launches(jupyter: Jupyter, run_root: Path, lab_hold: Hold, browser_page: Page, tiny_model: Path) -> None:
    lab_hold.at(1)
    experiment = f"wb.Experiment('dpo_demo', name='from the form', model={{'source': {str(tiny_model)!r}}}, algorithm={{'max_steps': 9}})"
    before = {run.id for run in list_runs(run_root)}
    jupyter.write("form.ipynb", [f"import workbench as wb\n\nform = wb.RunForm({experiment})\nform", "print(form.run.id, form.run.status.state)"])
    notebook = Notebook(browser_page, jupyter, "form.ipynb")
    notebook.open()
    notebook.run(0)
    launch = button(notebook.cell(0), "Launch run")
    expect(launch).to_be_enabled()
    PICTURES.mkdir(parents=True, exist_ok=True)
    browser_page.screenshot(path=PICTURES / "jupyterlab-form.png")
    launch.click()
    expect(button(notebook.cell(0), "Stop")).to_be_visible()
    (run,) = [api.Run(run) for run in list_runs(run_root) if run.id not in before]
    until_step(run, 1)
    notebook.run(1)
    expect(notebook.output(1)).to_contain_text(f"{run.id} running")
    run.kill()


@pytest.mark.parametrize(("theme", "width"), [("JupyterLab Dark", 1440), ("JupyterLab Light", 700)])
def test_other_themes_and_widths(jupyter: Jupyter, run_root: Path, browser_page: Page, theme: str, width: int) -> None:
    """Drawn without a text that is cut off; the pictures are for people."""
    run = synthetic_rollouts.make(run_root, 40)
    run.update(state=State.COMPLETED)
    jupyter.write("theme.ipynb", [f"import workbench as wb\n\nview = wb.attach({run.id!r})\nview"])
    notebook = Notebook(browser_page, jupyter, "theme.ipynb")
    browser_page.set_viewport_size({"width": width, "height": 1600})
    notebook.open()
    notebook.do("apputils:change-theme", theme=theme)
    notebook.do("application:toggle-left-area")
    notebook.run(0)
    charted(browser_page, 40)
    assert browser_page.evaluate(CUT) == []
    browser_page.screenshot(path=PICTURES / f"jupyterlab-{theme.split()[1].lower()}-{width}.png")
    browser_page.set_viewport_size({"width": 1440, "height": 2400})
