"""The ratings that a job asks of each prompt's answers."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, cast

import numpy as np

from workbench.data import targets
from workbench.data.rows import Malformed, PromptOnly, TextRow
from workbench.data.steering import attribute_string
from workbench.data.targets import Targets
from workbench.processes.rank import Rank
from workbench.settings import Steering

if TYPE_CHECKING:
    from workbench.data.packing import Row

KEYS = "job.targets, job.sweep or job.drawn"


class Asking(Protocol):
    """Settings of what is asked for."""

    @property
    def checkpoint(self) -> str | None: ...

    @property
    def targets(self) -> Sequence[Mapping[str, float]]: ...

    @property
    def sweep(self) -> Sequence[str]: ...

    @property
    def base(self) -> Mapping[str, float]: ...

    @property
    def drawn(self) -> int: ...

    @property
    def unconditioned(self) -> bool: ...


class Requests:
    """What `job.targets`, `job.sweep` or `job.drawn` ask for, checked against the attributes that the model was trained with.

    Raises:
        ValueError: an attribute or a rating that the model does not know; ratings are asked of a model without any, or none of a model with some.
    """

    def __init__(self, rank: Rank):
        cfg = cast(Asking, rank.spec.job)
        self._rank, self._cfg, self._steering = rank, cfg, rank.spec.data.steering
        self._vectors: tuple[list[Mapping[str, float]], np.ndarray] | None = None
        asks = bool(cfg.targets or cfg.sweep or cfg.drawn)
        if self._steering is None:
            if asks:
                raise ValueError(f"{KEYS} ask for ratings, and the model was not trained with data.steering; set it to how the model is asked")
            self._every: Sequence[Mapping[str, float] | None] = (None,)
            return
        if not asks and not cfg.unconditioned:
            raise ValueError(
                f"the model was trained to answer as ratings of {', '.join(self._steering.attributes)} say: set {KEYS}, or job.unconditioned=true"
            )
        self._every = (None,) if cfg.unconditioned else (*cfg.targets, *(_swept(cfg.sweep, cfg.base, self._steering)))
        for requested in self._every:
            if requested is not None:
                self._check(requested)
        if cfg.drawn:
            self._vectors = self._known()

    def of(self, number: int) -> Sequence[Mapping[str, float] | None]:
        """What is asked of prompt `number`; None: without ratings."""
        if self._vectors is None or self._steering is None:
            return self._every
        vectors, shares = self._vectors
        chosen = np.random.default_rng((self._rank.spec.seed, number)).choice(len(vectors), self._cfg.drawn, p=shares)
        return [vectors[i] for i in chosen]

    def conditioned(self, row: Row, text: TextRow, requested: Mapping[str, float]) -> Row:
        """The prompt with the ratings as text."""
        turns = text.prompt
        asked = PromptOnly((*turns[:-1], dataclasses.replace(turns[-1], ratings=dict(requested))), row.columns, text.where, text.tools)
        try:
            return self._rank.chat.one(asked)
        except Malformed as error:
            raise ValueError(f"{text.where}: expected {error.args[0]}; found {error.args[1]}") from None

    def _check(self, requested: Mapping[str, float]) -> None:
        assert self._steering is not None
        try:
            attribute_string(requested, self._steering)
        except Malformed as error:
            raise ValueError(f"{KEYS}: expected {error.args[0]}; found {error.args[1]}") from None

    def _known(self) -> tuple[list[Mapping[str, float]], np.ndarray]:
        """The training rows' ratings, those that are missing left out, and the share of each."""
        of = Path(self._cfg.checkpoint).parents[1] if self._cfg.checkpoint else self._rank.directory
        if not (of / targets.FILE).is_file():
            raise ValueError(f"job.drawn draws from the ratings of the training rows, and {of} has no {targets.FILE}: set job.targets or job.sweep")
        known = Targets.read(of / targets.FILE) if self._cfg.checkpoint else Targets.beside(of)
        assert known is not None  # looked at above
        named = [
            {name: value for name, value in zip(known.steering.attributes, vector, strict=True) if value is not None} for vector in known.vectors
        ]
        counts = np.array(known.counts, float)
        return list(named), counts / counts.sum()


def _swept(names: Sequence[str], base: Mapping[str, float], steering: Steering) -> list[Mapping[str, float]]:
    """One request a level of each attribute, the others as in `base`."""
    return [{**base, name: float(level)} for name, level in itertools.product(names, steering.levels)]
