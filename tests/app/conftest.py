import sys
from pathlib import Path

import pytest

APP = Path(__file__).parents[2] / "app"
sys.path.insert(0, str(APP))  # as `streamlit run app` does


@pytest.fixture
def runs(tmp_path, monkeypatch) -> Path:
    """An empty runs folder that the app reads."""
    monkeypatch.setenv("WORKBENCH_RUNS", str(tmp_path))
    return tmp_path


@pytest.fixture
def app(runs):
    """Opens a page that reads this folder of runs."""
    from tests.app.pages import open_page

    return open_page
