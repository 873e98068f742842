"""The live charts of one run: a component that fetches its own points. It draws with what the notebooks' widgets draw with."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from streamlit.components.v2 import component

from workbench.views import live

HERE = Path(__file__).parent


def draw(run_id: str, running: bool, smoothing: float, axis: Literal["step", "time"]) -> None:
    """Mount the charts. A rerun of the page with the same arguments leaves them as they are."""
    charts = component(
        "run_charts",
        html='<div class="wb-charts"></div>',
        css=live.text_of("charts.css") + HERE.joinpath("charts.css").read_text(),
        js=live.text_of("charts.js") + HERE.joinpath("charts.js").read_text(),
        isolate_styles=False,
    )
    charts(key=f"charts-{run_id}", data={"run": run_id, "live": running, "smoothing": smoothing, "axis": axis})
