"""Batch scripts of two launches, compared."""

from __future__ import annotations

import re


def without_id(text: str) -> str:
    """A script but for the run's id, which has the second and chance in it."""
    return re.sub(r"\d{8}-\d{6}-run-[0-9a-f]{4}", "RUN", text)
