"""Log-probabilities of the reference for rows that there are not."""

from typing import cast

from workbench.engine.step import Policy
from workbench.processes.rank import Rank
from workbench.processes.reference_cache import with_reference


def test_no_rows_need_no_model_and_no_file() -> None:
    """As with data.validation_fraction=0."""
    assert with_reference([], "validation", cast(Policy, None), cast(Rank, None)) == []
