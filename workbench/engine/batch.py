"""What a model gave, a microbatch as a loss sees it, and what a loss is."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, TypeVar

if TYPE_CHECKING:
    from torch import Tensor

    from workbench.data.packing import Row

Metrics = dict[str, Any]
"""In a loss: tensors, each averaged over all its values in the global batch. After an update: floats."""

Loss = Callable[["Batch", Any], "tuple[Tensor, Metrics]"]
"""`loss(batch, cfg)`: one value a unit (a pair, a token), averaged over the global batch's units, and its metrics."""

Array = TypeVar("Array")
"""A tensor (in a loss), or a numpy array (of one row, afterwards)."""


@dataclass(frozen=True)
class TopK(Generic[Array]):
    """K tokens of each of N predictions: their log-probabilities [N, K], and the log of all other tokens' mass [N], both with gradient.

    A model's own likeliest tokens are in order, the likeliest first, and of equally likely ones the lower number first. `rest_N` is -inf, and
    without gradient, where there are no others.
    """

    tokens_NK: Array
    logprobs_NK: Array
    rest_N: Array


@dataclass(frozen=True)
class Given(Generic[Array]):
    """What a model gave of N targets in S sequences, as its `Outputs` ask; None is what was not asked for."""

    logprobs_N: Array | None = None
    entropy_N: Array | None = None
    top_k: TopK[Array] | None = None
    at: TopK[Array] | None = None
    scores_SK: Array | None = None

    def of(self, name: str) -> Any:
        """The field `name`. Raises ValueError where it was not asked for."""
        value = getattr(self, name)
        if value is None:
            asked = name.partition("_")[0] if name != "top_k" else name
            raise ValueError(f"the model was not asked for {name}: set {asked} in the algorithm's OUTPUTS")
        return value


@dataclass(frozen=True)
class Batch:
    """One microbatch as a loss sees it: what the policy gave, with gradient. N target tokens, in S sequences; see `workbench.data.packing`.

    `reference_N` are the reference policy's log-probabilities where the rows have them, `arrays` the rows' other values of each target.
    Everything that the algorithm did not ask for raises ValueError when it is read.
    """

    given: Given[Tensor]
    reference_N: Tensor | None
    sequence_N: Tensor
    num_sequences: int
    rows: Sequence[Row]
    arrays: Mapping[str, Tensor] = field(default_factory=dict)

    @property
    def logprobs_N(self) -> Tensor:
        return self.given.of("logprobs_N")

    @property
    def entropy_N(self) -> Tensor:
        return self.given.of("entropy_N")

    @property
    def scores_SK(self) -> Tensor:
        """Of each sequence, or of each target (then S is N)."""
        return self.given.of("scores_SK")

    @property
    def top_k(self) -> TopK[Tensor]:
        return self.given.of("top_k")

    @property
    def at(self) -> TopK[Tensor]:
        """The log-probabilities at the tokens that the rows name."""
        return self.given.of("at")

    @property
    def reference_logprobs_N(self) -> Tensor:
        """The reference policy's log-probabilities. Raises ValueError where the rows have none."""
        if self.reference_N is None:
            raise ValueError("the rows have no reference log-probabilities: name 'reference' in the algorithm's ROLES")
        return self.reference_N

    def value(self, name: str) -> Tensor:
        """The rows' scalar called `name`, one a row (B), fp32. Raises ValueError for a row that has none."""
        import torch

        missing = next((row for row in self.rows if name not in row.values), None)
        if missing is not None:
            raise ValueError(f"this loss needs {name!r} in every row; a row has only: {', '.join(missing.values) or 'no values'}")
        return torch.tensor([row.values[name] for row in self.rows], dtype=torch.float32, device=self.sequence_N.device)

    def branch_value(self, name: str) -> Tensor:
        """The number called `name` of each of the rows' answers (S), fp32. Raises ValueError for a row that has none."""
        import torch

        if any(name not in row.branch_values for row in self.rows):
            raise ValueError(f"this loss needs {name!r} of every answer, and a row has none")
        return torch.tensor([value for row in self.rows for value in row.branch_values[name]], dtype=torch.float32, device=self.sequence_N.device)

    @property
    def row_S(self) -> Tensor:
        """The number of each sequence's row, from 0."""
        import torch

        counts = [max(1, len(row.branches)) for row in self.rows]
        return torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts)).to(self.sequence_N.device)
