"""A microbatch as a loss sees it, and what a loss is."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

    from workbench.data.packing import Row

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
