"""What an algorithm sees: a batch for its loss, and the runtime for its loop."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from torch import Tensor

    from workbench.data.packing import Row
    from workbench.experience import Experience

Metrics = dict[str, Any]
"""In a loss: tensors, each averaged over all its values in the global batch. After an update: floats."""

Loss = Callable[["Batch", Any], "tuple[Tensor, Metrics]"]
"""`loss(batch, cfg)`: one value a unit (a pair, a token), averaged over the global batch's units, and its metrics."""


@dataclass(frozen=True)
class Batch:
    """One microbatch as a loss sees it. N target tokens, in S sequences; see `workbench.data.packing`.

    `logprobs_N` are the policy's, with gradient; `reference_logprobs_N` the reference policy's (zeros where the algorithm has none). A model
    with a score head (`AlgorithmConfig.num_scores`) gives `scores_SK` instead: K scores at the last token of each sequence, or before each
    target (`score_at`, then S is N). `entropy_N` is that of each prediction, where the algorithm asks for it; `arrays` are the rows'.
    """

    logprobs_N: Tensor
    reference_logprobs_N: Tensor
    sequence_N: Tensor
    num_sequences: int
    rows: Sequence[Row]
    scores_SK: Tensor | None = None
    entropy_N: Tensor | None = None
    arrays: Mapping[str, Tensor] = field(default_factory=dict)

    def value(self, name: str) -> Tensor:
        """The rows' scalar called `name`, one a row (B). Raises ValueError for a row that has none."""
        missing = next((row for row in self.rows if name not in row.values), None)
        if missing is not None:
            raise ValueError(f"this loss needs {name!r} in every row; a row has only: {', '.join(missing.values) or 'no values'}")
        return self.logprobs_N.new_tensor([row.values[name] for row in self.rows])


class Runtime(Protocol):
    """What the worker hands to an algorithm's `train`."""

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
        """The algorithm's settings as they are now: some may be changed while the run goes on."""
        ...

    def set(self, **values: Any) -> None:
        """Change settings from now on."""
        ...

    @property
    def online(self) -> OnlineRuntime:
        """Rollouts, for an algorithm whose settings extend `OnlineConfig`."""
        ...

    def update(self, rows: Sequence[Row], loss: Loss) -> Metrics:
        """One optimizer step on a global batch. Returns the metrics, averaged over all ranks."""
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

    def train_critic(self, experiences: Sequence[Experience]) -> Callable[[], Metrics]:
        """Begin the critic's lesson on values and returns; what is returned waits for its metrics."""
        ...

    def learn(self, experiences: Sequence[Experience], loss: Loss) -> Metrics:
        """The policy's updates on the experiences: `update_epochs` passes in minibatches of `global_batch_size`."""
        ...

    def keep(self, experiences: Sequence[Experience]) -> None:
        """Store the step's rollouts for whoever looks at the run."""
        ...
