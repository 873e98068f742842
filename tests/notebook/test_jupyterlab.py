"""The live widgets in a real JupyterLab 4 in Chromium."""

from __future__ import annotations

import pytest
from playwright.sync_api import Page, expect

from tests.notebook.jupyter import Jupyter, Notebook

pytestmark = pytest.mark.browser


def test_a_widget(jupyter: Jupyter, browser_page: Page) -> None:
    jupyter.write("trivial.ipynb", ["import ipywidgets\nslider = ipywidgets.IntSlider(3)\nslider", "print(slider.value)"])
    notebook = Notebook(browser_page, jupyter, "trivial.ipynb")
    notebook.open()
    notebook.run(0)
    expect(notebook.output(0).locator(".widget-slider")).to_be_visible()
    notebook.run(1)
    expect(notebook.output(1)).to_contain_text("3")
    browser_page.screenshot(path="/tmp/lab-trivial.png")
