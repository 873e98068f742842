"""The Steer and Chat panels: components that ask the endpoints through `ui.asking`. They are drawn with what the notebooks' widgets are drawn with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import streamlit as st
from streamlit.components.v2 import component

from ui import choose, frame
from workbench import api
from workbench.views import live

HERE = Path(__file__).parent
Panel = Literal["steer", "chat"]


def draw(panel: Panel, served: Sequence[api.Served], first: str | None) -> Mapping[str, object] | None:
    """Mount the panel over what is served. A rerun of the page leaves it as it is.

    Args:
        first: the checkpoint to begin with, as `Served.key`.

    Returns:
        The endpoint, model and attributes that a training run is to be set up with, once, when the visitor asks for it.
    """
    scripts = [live.text_of("studio.js"), live.text_of(f"{panel}.js"), f"const PANEL = {panel}Panel;", HERE.joinpath("studio.js").read_text()]
    mounted = component(
        f"{panel}_panel",
        html='<div class="wb-studio"></div>',
        css=live.text_of("studio.css") + HERE.joinpath("studio.css").read_text(),
        js="\n".join(scripts),
        isolate_styles=False,
    )
    result = mounted(
        key=f"{panel}-panel",
        data={"panel": panel, "models": [each.json() for each in served], "first": first},
        on_launch_change=lambda: None,
    )
    launch = result.launch
    return launch if isinstance(launch, Mapping) else None


def launch(wanted: Mapping[str, object]) -> None:
    """Open the launcher for a model that answers as the sliders are set, without them; or say why there is none."""
    attributes = (
        {str(name): value for name, value in wanted["attributes"].items() if isinstance(value, int | float)}
        if isinstance(wanted["attributes"], Mapping)
        else {}
    )
    try:
        name, overrides = api.with_targets(str(wanted["endpoint"]), str(wanted["model"]), attributes)
    except ValueError as error:
        st.warning(frame.sentence(str(error)), icon=":material/tune:")
    else:
        choose.open_new_pipeline(name, overrides)
