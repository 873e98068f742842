"""Scoring: what answers are worth, by the reward role and the run's shaping function."""

from __future__ import annotations

from collections.abc import Sequence

from workbench.engine import parallel
from workbench.models.protocol import Role
from workbench.rewards import resolve
from workbench.rewards.shaping import shaped
from workbench.rollout.experience import Experience


class Scorer:
    """The rewards of answers. Every rank has one; all make the same calls, except `begin`."""

    def __init__(self, reward: Role, shaping: str | None):
        self._reward, self._name = reward, shaping
        self._shaping = None if shaping is None else resolve.find(shaping, resolve.SHAPING)

    def begin(self, experiences: Sequence[Experience]) -> None:
        """Some of this rank's answers are finished."""
        self._reward.begin(experiences)

    def fill(self, experiences: Sequence[Experience]) -> None:
        """Fill components and rewards of all experiences, on every rank."""
        self._reward.fill(experiences)
        if self._shaping is not None:
            self._shape(experiences)

    def _shape(self, experiences: Sequence[Experience]) -> None:
        """Each rank shapes some rewards, so that all hold the same even where a function throws dice."""
        assert self._shaping is not None
        mine = [i for i in range(parallel.rank(), len(experiences), parallel.world_size()) if experiences[i].reward is not None]
        found = {i: shaped(self._shaping, str(self._name), experiences[i].answer()) for i in mine}
        for part in parallel.gather_over_all(found):
            for i, (reward, by_token) in part.items():
                experiences[i].reward = reward
                experiences[i].shaped = experiences[i].shaped if by_token is None else by_token
