"""Serving: checkpoints and models side by side behind an OpenAI-compatible HTTP API, until a stop, or until nobody has asked for a while.

endpoints/http.json   where it is reached, and the token; the owner's alone
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from workbench.settings.sections import CheckpointsJob

if TYPE_CHECKING:
    from workbench.processes.rank import Rank


class Config(CheckpointsJob):
    """Answer requests by HTTP with one or several checkpoints."""

    sections = ("model", "watch", "backend")
    ends = False

    name: Literal["serve"] = "serve"


def work(rank: Rank) -> None:
    """What a rank of this kind of job does."""
    from workbench.processes.serving import Serving

    Serving(rank).go()
