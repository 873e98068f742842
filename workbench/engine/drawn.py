"""From which distribution the targets of a pack were drawn: what their log-probabilities and entropies are of."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from workbench.data.packing import Pack
from workbench.engine import device


@dataclass(frozen=True)
class Drawn:
    """softmax(logits x inverse_N), for temperatures 1 / inverse_N; among the `kept` tokens alone where top-k or top-p left others out.

    `kept` are the targets' tokens end to end, `starts` where each one's begin and the last one's end [N + 1].
    """

    inverse_N: Tensor | None = None
    kept: Tensor | None = None
    starts: np.ndarray | None = None


def drawn(packed: Pack, here: np.ndarray) -> Drawn | None:
    """How the targets `here` of a pack were drawn; None: at temperature 1 among all tokens."""
    if packed.temperature_N is None and packed.kept is None:
        return None
    to = device.current()
    inverse_N = None if packed.temperature_N is None else torch.from_numpy(1 / packed.temperature_N[here]).to(to)
    if packed.kept is None:
        return Drawn(inverse_N)
    kept = packed.kept if len(here) == len(packed.target_N) else packed.kept.of(here)
    return Drawn(inverse_N, torch.from_numpy(kept.tokens.astype(np.int64)).to(to), kept.starts)


def at_temperature(temperature: float, count: int) -> Drawn | None:
    """softmax(logits / temperature) for each of `count` targets; None at temperature 1."""
    return None if temperature == 1 else Drawn(torch.full((count,), 1 / temperature, device=device.current()))
