"""A stop string and what follows it are no part of what is scored."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from workbench.rewards.base import before_stop

PIECES = ["Pa", "ris", ".\n", "Us", "er:", " more"]


def decode(tokens: Sequence[int]) -> str:
    return "".join(PIECES[token] for token in tokens)


@pytest.mark.parametrize(
    ("tokens", "stop_strings", "text", "scored"),
    [
        ([0, 1, 2, 3, 4], ("User:",), "Paris.\n", [0, 1, 2]),
        ([0, 1, 2, 3, 4], ("\nUser:",), "Paris.", [0, 1, 2]),  # the token that ends the text has the stop string's beginning too
        ([0, 1, 2, 3, 4, 5], ("more", "User:"), "Paris.\n", [0, 1, 2]),  # the first one counts
        ([3, 4], ("User:",), "", [3]),
        ([0, 1], ("User:",), "Paris", [0, 1]),
        ([0, 1], (), "Paris", [0, 1]),
    ],
)
def test_what_is_scored(tokens: list[int], stop_strings: tuple[str, ...], text: str, scored: list[int]) -> None:
    assert before_stop(tokens, decode, stop_strings) == (text, scored)
