"""How well served checkpoints do what their sliders ask: requested against achieved, and leakage into other attributes."""

from __future__ import annotations

from collections.abc import Sequence

import streamlit as st

from workbench.api import Served


def draw(served: Sequence[Served]) -> None:
    st.info("Not yet.")
