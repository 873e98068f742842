"""How rows are grouped into microbatches, and how the steps go over them."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from workbench.data.packing import Coverage, Row, batch_indices, coverage, into_microbatches, learnt_spans


def first_fit(sizes: list[int], tokens: int) -> list[list[int]]:
    """The longest first, each into the first group that has room: the definition, by looking at every group."""
    groups: list[list[int]] = []
    for size in sorted(sizes, reverse=True):
        fitting = next((group for group in groups if sum(group) + size <= tokens), None)
        if fitting is None:
            groups.append([size])
        else:
            fitting.append(size)
    return groups


@given(st.lists(st.integers(1, 60), max_size=60), st.integers(16, 100))
def test_groups_are_those_of_first_fit(sizes: list[int], tokens: int) -> None:
    """Also rows longer than a group: each is one by itself."""
    groups = into_microbatches([Row(range(size)) for size in sizes], tokens)
    assert [[row.num_tokens for row in group] for group in groups] == first_fit(sizes, tokens)


def test_coverage() -> None:
    """100 rows in batches of 32: 3 steps leave 4 out, 9 steps 12 of the third pass, 2 steps 36; 5 rows in one of 32 are drawn 27 times more."""
    assert coverage(100, 32, 3) == Coverage(drawn=96, never=4, last_pass=4, repeated=0)
    assert coverage(100, 32, 9) == Coverage(drawn=288, never=0, last_pass=12, repeated=188)
    assert coverage(100, 32, 2) == Coverage(drawn=64, never=36, last_pass=36, repeated=0)
    assert coverage(5, 32, 1) == Coverage(drawn=32, never=0, last_pass=3, repeated=27)


@given(st.integers(1, 40), st.integers(1, 16), st.integers(1, 12))
def test_coverage_counts_what_is_drawn(rows: int, batch: int, steps: int) -> None:
    drawn = [int(i) for step in range(steps) for i in batch_indices(rows, batch, step, seed=3)]
    found = coverage(rows, batch, steps)
    assert (found.drawn, found.never, found.repeated) == (len(drawn), rows - len(set(drawn)), len(drawn) - len(set(drawn)))
    assert found.last_pass == sum(drawn.count(i) < max(map(drawn.count, drawn)) for i in range(rows))
    assert sorted(drawn) == sorted(batch_indices(rows, batch * steps, 0, seed=3).tolist())  # all steps at once


@given(st.lists(st.booleans(), min_size=1, max_size=30))
def test_the_spans_of_what_is_learnt(learn: list[bool]) -> None:
    """End to end, in order and apart, they are the places that are learnt."""
    spans = learnt_spans(Row(list(range(len(learn))), learn=learn))
    assert [i for start, end in spans for i in range(start, end)] == [i for i, learnt in enumerate(learn) if learnt]
    assert all(start < end for start, end in spans)
    assert all(end < start for (_, end), (start, _) in itertools.pairwise(spans))
