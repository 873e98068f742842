"""A `data.map` for rated rows: each rating in a row of its own, so that a model learns to be asked for one attribute, the others left free."""

from __future__ import annotations

from collections.abc import Mapping


def each_alone(row: Mapping[str, object]) -> list[dict[str, object]]:
    """The row once for each of its `attributes`, with that one alone.

    Raises:
        ValueError: it has no `attributes`, as `job=annotate` writes them.
    """
    ratings = row.get("attributes")
    if not isinstance(ratings, Mapping) or not ratings:
        raise ValueError("each_alone takes rows with attributes, as job=annotate writes them")
    return [{**row, "attributes": {name: rating}} for name, rating in ratings.items()]
