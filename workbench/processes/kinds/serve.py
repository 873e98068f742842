"""Serving: checkpoints and models side by side behind an OpenAI-compatible HTTP API, until a stop, or until nobody has asked for a while.

endpoints/http.json   where it is reached, and the token; the owner's alone
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from workbench.settings.sections import CheckpointsJob

if TYPE_CHECKING:
    from workbench.processes.rank import Rank


class Config(CheckpointsJob):
    """Answer requests by HTTP with one or several checkpoints."""

    sections = ("model", "watch", "backend")
    ends = False

    name: Literal["serve"] = "serve"
    port: int = Field(default=0, ge=0, le=65535, description="The HTTP port on this machine; 0: a free one.")
    idle_timeout_s: float = Field(default=3600.0, ge=0, description="Seconds without a request after which the endpoint ends; 0: never.")
    slots: int = Field(default=8, ge=1, le=4096, description="Answers decoded at a time, of each model; others wait.")
    max_length: int = Field(
        default=4096, ge=8, description="Longest prompt and answer together in tokens, where the model's context is not shorter; bounds the caches."
    )
    max_waiting: int = Field(default=256, ge=1, description="Requests that may wait or be answered at a time; further ones are refused (429).")
    max_request_mb: int = Field(default=8, ge=1, le=1024, description="Largest request in MiB.")


def work(rank: Rank) -> None:
    """What a rank of this kind of job does."""
    from workbench.processes.serving import Serving

    Serving(rank).go()
