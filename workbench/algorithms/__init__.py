"""One file an algorithm: its `Config`, the `OUTPUTS` it wants of the policy, its pure `loss`, its `train` loop. See `workbench/algorithms/dpo.py` for the shape.

Here is what an algorithm's file imports: the batch for its loss, and the runtime for its loop.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, cast

from workbench.engine.batch import Batch, Given, Loss, Metrics
from workbench.settings import AlgorithmConfig, Data
from workbench.settings.modules import AlgorithmModule, find_algorithm

if TYPE_CHECKING:
    from workbench.data.packing import Row
    from workbench.data.readers import Kind
    from workbench.rollout.base import Drawn
    from workbench.rollout.experience import Experience

__all__ = ["Algorithm", "Answer", "Batch", "Given", "Loss", "Metrics", "OnlineRuntime", "OpponentRuntime", "OwnAnswers", "Runtime"]


@dataclass(frozen=True)
class Answer:
    """An answer that was sampled: its tokens with the one that ended it, and whether one did."""

    tokens: list[int]
    ended: bool


class Algorithm(AlgorithmModule, Protocol):
    """An algorithm's file.

    It may also have `check(rows, cfg)`, what to warn of before the first step; `examples(rows, cfg)`, what it makes of the rows that were read;
    `coverage(cfg, num_rows, seed)`, how its steps go over these where it draws them itself; `held_out(rows, opponent, cfg)`, the held-out rows as its loss
    measures them; and `diagnose(rows, outputs, cfg)`, what held-out outputs tell.
    """

    ROWS: Kind | Callable[[AlgorithmConfig], Kind]
    loss: Loss

    def train(self, cfg: AlgorithmConfig, rt: Runtime) -> Iterator[Metrics]: ...


def find(name: str) -> Algorithm:
    """The file of an algorithm. Raises ValueError where there is none; the message names the nearest and lists all."""
    return cast(Algorithm, find_algorithm(name))


def kind_of_rows(algorithm: AlgorithmConfig, data: Data) -> Kind:
    """The kind of row that an algorithm with these settings learns from: of conversations, with `data.steering`, those with ratings.

    Raises:
        ValueError: the algorithm learns from rows that `data.steering` does not condition.
    """
    rows = find(algorithm.name).ROWS
    kind = rows(algorithm) if callable(rows) else rows
    if data.steering and kind in ("preference", "unpaired", "taught"):
        raise ValueError(f"data.steering conditions conversations on ratings, and algorithm={algorithm.name} learns from {kind} rows: leave it out")
    return "conditioned" if data.steering and kind == "conversation" else kind


class Runtime(Protocol):
    """What the worker hands to an algorithm's `train`."""

    @property
    def rows(self) -> Sequence[Row]:
        """All training rows, for an algorithm that draws its batches itself."""
        ...

    @property
    def seed(self) -> int:
        """The run's seed."""
        ...

    def batches(self) -> Iterator[Sequence[Row]]:
        """The global batch of each remaining step."""
        ...

    def evaluate(self, rows: Sequence[Row], loss: Loss) -> Metrics:
        """The loss's metrics on rows, averaged over all of them and all ranks, without learning from them."""
        ...

    @property
    def step(self) -> int:
        """Steps done so far."""
        ...

    @property
    def settings(self) -> Any:
        """The algorithm's settings as they are now: some may be changed during the run."""
        ...

    def set(self, **values: object) -> None:
        """Change settings from now on."""
        ...

    state: dict[str, object]
    """What the algorithm keeps beside the weights: in every checkpoint, whatever the layout. Numbers, texts, lists, mappings, numpy arrays."""

    def with_reference(self, rows: Sequence[Row]) -> list[Row]:
        """The rows with the log-probabilities of their targets under the reference as it is now. `batches` has them where it is frozen."""
        ...

    def with_teacher(self, rows: Sequence[Row]) -> list[Row]:
        """The rows with what the teacher among the algorithm's ROLES tells of their targets: see `workbench.processes.teaching`."""
        ...

    def advance_reference(self) -> str:
        """The reference is the policy as it is now, for an algorithm with `ROLES = {"reference": "advancing"}`. Returns the digest that names its weights."""
        ...

    def own_answers(self, drawn: Drawn) -> OwnAnswers:
        """The policy as one that answers prompts, drawn so: for an algorithm that learns from its own answers without a reward."""
        ...

    @property
    def opponent(self) -> OpponentRuntime:
        """The advancing reference as one that answers prompts."""
        ...

    @property
    def online(self) -> OnlineRuntime:
        """Rollouts, for an algorithm with a reward among its ROLES."""
        ...

    def update(self, rows: Sequence[Row], loss: Loss) -> Metrics:
        """One optimizer step on a global batch. Returns the metrics, averaged over all ranks."""
        ...


class OwnAnswers(Protocol):
    """Answers of the policy, which are rollouts of the run: all ranks have all of them."""

    def answers(self, rows: Sequence[Row]) -> list[Answer]:
        """One answer by the policy as it is now to each row's prompt, kept in the rollout file of the step that comes. Called once a step at most."""
        ...


class OpponentRuntime(Protocol):
    """What an algorithm does with its reference as an opponent: all ranks have all its answers."""

    @property
    def version(self) -> int:
        """How often the reference was moved up to the policy."""
        ...

    def answers(self, rows: Sequence[Row], first: int, digest: str, name: str) -> list[Answer]:
        """One answer by the opponent to each row's prompt. Those that the run's rollout files have of it are taken from there, the others put there.

        Args:
            first: the step (from 0) that learns from the first of them: its file and those of the next steps have `global_batch_size` answers each.
            digest: names the opponent's weights.
            name: what is said of it while it answers.
        """
        ...

    def earlier(self, rows: Sequence[Row], first: int, digest: str) -> list[Answer]:
        """The answers that an opponent before this one gave in the call of `answers` with these arguments. Raises ValueError: its files are gone."""
        ...

    def answers_once(self, rows: Sequence[Row]) -> list[Answer]:
        """One answer to each of the held-out rows' prompts, always from the same draws, kept in no file."""
        ...


class OnlineRuntime(Protocol):
    """What an algorithm does with its own rollouts, in the order of a step."""

    def rollout(self, rows: Sequence[Row]) -> list[Experience]:
        """Sampled answers to the rows' prompts with their rewards, all of them on every rank, prompt by prompt."""
        ...

    def measure(self, experiences: Sequence[Experience]) -> None:
        """Fill the trainer's own log-probabilities and entropies, and the reference policy's log-probabilities."""
        ...

    def values(self, experiences: Sequence[Experience]) -> None:
        """Fill the critic's values."""
        ...

    def ask(self, role: str, experiences: Sequence[Experience]) -> None:
        """Fill what another of the algorithm's ROLES knows of them."""
        ...

    def train_critic(self, experiences: Sequence[Experience]) -> Callable[[], Metrics]:
        """Begin the critic's lesson on values and returns; what is returned waits for its metrics."""
        ...

    def learn(self, experiences: Sequence[Experience], loss: Loss) -> Metrics:
        """The policy's updates on the experiences, which are not none: `update_epochs` passes in minibatches of at most `global_batch_size`."""
        ...

    def keep(self, experiences: Sequence[Experience]) -> None:
        """Store the step's rollouts for whoever looks at the run."""
        ...
