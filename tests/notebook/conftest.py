"""JupyterLab in a real Chromium: one server a module, with the runs and the tiny model of its notebooks."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Page, expect

from tests.hold import Hold
from tests.notebook.jupyter import Jupyter
from workbench.bench.browser import chromium

expect.set_options(timeout=60_000)


@pytest.fixture(scope="module")
def lab_hold(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hold]:
    """Holds the runs that the notebooks of the module's server launch."""
    with pytest.MonkeyPatch.context() as patch:
        yield Hold(tmp_path_factory.mktemp("held") / "hold", patch)


@pytest.fixture(scope="module")
def jupyter(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, lab_hold: Hold) -> Iterator[Jupyter]:
    """JupyterLab, or what a test's parameter names, over an empty folder; the runs of its notebooks lie beside it."""
    folder = tmp_path_factory.mktemp("jupyter")
    (folder / "notebooks").mkdir()
    environment = {"WORKBENCH_RUNS": str(folder / "runs"), "WORKBENCH_CACHE": str(folder / "cache")}
    server = Jupyter(folder / "notebooks", environment, getattr(request, "param", "lab"))
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def browser_page() -> Iterator[Page]:
    with chromium() as browser:
        page = browser.new_context(viewport={"width": 1440, "height": 2400}).new_page()
        page.set_default_timeout(60_000)
        yield page
