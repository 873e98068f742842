"""Pairs of rated answers: which are made, which are left out and counted, and what is refused."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest

from workbench.data.rows import Conversation, Message
from workbench.processes.kinds import pairs


def rated(prompt: str, answer: str, ratings: Mapping[str, float] | None = None, **columns: object) -> Conversation:
    return Conversation((Message("user", prompt), Message("assistant", answer, ratings=ratings or {})), f"rows.jsonl:{answer}", columns=columns)


def made(rows: Sequence[Conversation], **settings: Any) -> list[tuple[str, str, float, float]]:
    found = pairs.paired(rows, pairs.Config(**settings)).pairs
    return [(pair.chosen.messages[-1].content, pair.rejected.messages[-1].content, pair.chosen_reward, pair.rejected_reward) for pair in found]


def test_the_best_and_the_worst_answer_to_each_prompt() -> None:
    """Of three answers worth 1, 3 and 2 the second and the first; a prompt's answers need not lie together."""
    rows = [rated("p", "a", reward=1), rated("q", "d", reward=0.5), rated("p", "b", reward=3), rated("q", "e", reward=-2), rated("p", "c", reward=2)]
    assert made(rows) == [("b", "a", 3, 1), ("d", "e", 0.5, -2)]
    result = pairs.paired(rows, pairs.Config())
    assert result.pairs[0].line() == {
        "prompt": [{"role": "user", "content": "p"}],
        "chosen": "b",
        "rejected": "a",
        "chosen_reward": 3,
        "rejected_reward": 1,
    }
    assert result.metrics() == {"rewards_chosen_mean": 1.75, "rewards_rejected_mean": -0.5, "rewards_margin": 2.25}
    assert result.warnings() == []


def test_the_system_turn_and_the_tools_are_part_of_a_prompt() -> None:
    turns = (Message("system", "Be kind."), Message("user", "p"))
    kind = [Conversation((*turns, Message("assistant", text)), columns={"reward": i}, tools=({"name": "add"},)) for i, text in enumerate("ab")]
    (pair,) = pairs.paired([rated("p", "c", reward=9), *kind], pairs.Config()).pairs
    assert pair.line() == {
        "prompt": [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "p"}],
        "chosen": "b",
        "rejected": "a",
        "chosen_reward": 1,
        "rejected_reward": 0,
        "tools": [{"name": "add"}],
    }


def test_what_is_left_out_is_counted() -> None:
    """Ties, equal texts, single answers, answers that nobody rated, and those that were cut off."""
    rows = [
        rated("tied", "a", reward=1),
        rated("tied", "b", reward=1),
        rated("equal", "a", reward=1),
        rated("equal", "a", reward=2),
        rated("alone", "a", reward=1),
        rated("alone", "b", reward=None),
        rated("cut", "a", reward=1),
        rated("cut", "b", reward=5, finish_reason="length"),
        rated("whole", "a", reward=1, finish_reason="stop"),
        rated("whole", "b", reward=1.5),
    ]
    result = pairs.paired(rows, pairs.Config())
    assert [pair.line()["chosen"] for pair in result.pairs] == ["b"]
    assert dict(result.left_out) == {"tied": 1, "equal": 1, "alone": 3, "unrated": 1, "truncated": 1}
    assert result.warnings() == [
        "1 answers were cut off at their longest",
        "1 answers have no rating",
        "1 answers are equal to another one to their prompt",
        "3 prompts have one answer that is left",
        "1 prompts have answers of equal worth, or nearer than job.margin",
    ]
    assert made(rows, truncated="keep") == [("b", "a", 5, 1), ("b", "a", 1.5, 1)]
    assert made(rows, truncated="keep", margin=1) == [("b", "a", 5, 1)]
    with pytest.raises(ValueError, match=r"no prompt has two answers of different worth \(1 answers were cut off.*sample several answers"):
        pairs.paired(rows, pairs.Config(margin=4))


def test_attributes_are_weighted_and_a_models_expectations_count_more_than_whole_ratings() -> None:
    """a: 4 - 0.5 * 2 = 3; b: 3.9 - 0.5 * 0 = 3.9, whose whole rating is a's."""
    rows = [
        rated("p", "a", {"quality": 4, "verbosity": 2}),
        rated("p", "b", {"quality": 4, "verbosity": 0}, expected={"quality": 3.9}),
        rated("p", "c", {"verbosity": 0}),
    ]
    assert made(rows, by={"quality": 1, "verbosity": -0.5}) == [("b", "a", 3.9, 3)]
    assert made(rows, by={"verbosity": 1}) == [("a", "c", 2, 0)]
    with pytest.raises(ValueError, match=r"job\.by: the rows have several ratings \(quality, verbosity\): say which"):
        pairs.paired(rows, pairs.Config())
    assert made([rated("p", "a", {"quality": 1}), rated("p", "b", {"quality": 0})]) == [("a", "b", 1, 0)]
    assert made([rated("p", "a", {"x": 1, "y": 2}, reward=0), rated("p", "b", reward=1)]) == [("b", "a", 1, 0)]


@pytest.mark.parametrize(
    ("rows", "settings", "said"),
    [
        ([rated("p", "a")], {}, "job=pairs needs rated answers"),
        ([rated("p", "a", reward=1)], {"by": {"wit": 1}}, r"job\.by=wit: no row has this rating; there are: reward"),
        ([rated("p", "a", reward="high")], {}, "rows.jsonl:a: reward: expected a finite number.*'high'"),
        ([rated("p", "a", reward=float("inf"))], {}, "rows.jsonl:a: reward: expected a finite number"),
        (
            [Conversation((Message("user", "p"), Message("assistant", "", extra={"tool_calls": []})), "x:1", columns={"reward": 1})],
            {},
            "x:1: .* tool_calls",
        ),
    ],
)
def test_what_cannot_be_paired_is_refused(rows: list[Conversation], settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        pairs.paired(rows, pairs.Config(**settings))


def test_all_pairs_of_random_ratings_are_those_of_a_search() -> None:
    """Against every two answers looked at by themselves."""
    rng = np.random.default_rng(0)
    for _ in range(50):
        worth = rng.integers(0, 5, (4, 5)).astype(float)
        rows = [rated(f"p{p}", f"a{i}", reward=worth[p, i]) for p in range(4) for i in range(5)]
        for margin in (0.0, 2.0):
            every = {
                (p, i, j)
                for p in range(4)
                for i, j in itertools.permutations(range(5), 2)
                if worth[p, i] > worth[p, j] and worth[p, i] - worth[p, j] >= margin
            }
            found = pairs.paired(rows, pairs.Config(pairs="all", margin=margin)).pairs
            numbers = {tuple(int(turn.content[1:]) for turn in (*pair.chosen.messages, pair.rejected.messages[1])) for pair in found}
            assert len(found) == len(every) and numbers == every
            extremes = pairs.paired(rows, pairs.Config(margin=margin)).pairs
            assert [(pair.chosen_reward, pair.rejected_reward) for pair in extremes] == [
                (of.max(), of.min()) for of in worth if of.max() > of.min() and of.max() - of.min() >= margin
            ]
