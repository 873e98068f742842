"""Scoring: what answers are worth, by the reward role and the run's shaping function."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from workbench.engine import parallel
from workbench.engine.batch import Metrics
from workbench.models.protocol import Scoring
from workbench.rewards import resolve
from workbench.rewards.shaping import shaped
from workbench.rewards.waiting import until_known
from workbench.rollout.experience import Experience


class Scorer:
    """The rewards of answers. Every rank has one; all make the same calls, except `begin`.

    `report` is called with what is waited for; `stopped` is asked meanwhile whether the run is to stop.
    """

    def __init__(self, reward: Scoring, shaping: str | None, report: Callable[[str], None], stopped: Callable[[], bool]):
        self._reward, self._name = reward, shaping
        self._report, self._stopped = report, stopped
        self._shaping = None if shaping is None else resolve.find(shaping, resolve.SHAPING)

    def begin(self, experiences: Sequence[Experience]) -> None:
        """Some of this rank's answers are finished."""
        self._reward.begin(experiences)

    def fill(self, experiences: Sequence[Experience]) -> None:
        """Fill components and rewards of all experiences, on every rank; those that take time are waited for.

        Raises:
            StopRequested: the run is to stop, and something is still waited for.
        """
        until_known(lambda: self._reward.fill(experiences), self._report, self._stopped)
        if self._shaping is not None:
            self._shape(experiences)

    def metrics(self) -> Metrics:
        """What the scorers counted since it was asked last, the same on every rank."""
        return self._reward.metrics()

    def _shape(self, experiences: Sequence[Experience]) -> None:
        """Each rank shapes some rewards, so that all hold the same even where a function throws dice."""
        assert self._shaping is not None
        mine = [i for i in range(parallel.rank(), len(experiences), parallel.world_size()) if experiences[i].reward is not None]
        rewards = {i: shaped(self._shaping, str(self._name), experiences[i].answer()) for i in mine}
        for part in parallel.gather_over_all(rewards):
            for i, (reward, by_token) in part.items():
                experiences[i].reward = reward
                experiences[i].shaped = experiences[i].shaped if by_token is None else by_token
