"""Policies of one rank on random pairs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from workbench.algorithms import dpo
from workbench.data.packing import Row
from workbench.engine.step import Policy
from workbench.settings import Lora, Model

FULL = Model(lora=Lora(rank=0))
"""Every weight is trained."""


def policy(directory: Path, model: Model = FULL, **settings: Any) -> Policy:
    return Policy(model, dpo.Config(**settings), directory, 10, dpo.OUTPUTS)


def logprobs(found: Policy, rows: list[Row], **settings: Any) -> list[np.ndarray]:
    return [given.of("logprobs_N") for given in found.outputs(rows, **settings)]


def pairs(count: int, seed: int = 0) -> list[Row]:
    rng = np.random.default_rng(seed)
    return [
        Row(
            *(rng.integers(3, 250, n).tolist() for n in (rng.integers(3, 40),)),
            tuple(rng.integers(3, 250, rng.integers(1, 30)).tolist() for _ in "ab"),
        )
        for _ in range(count)
    ]
