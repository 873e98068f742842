"""The numbers that a row of text has beside its tokens: its own, its answers', and those of each learnt token."""

from __future__ import annotations

import numpy as np

from workbench.data.rows import Group, Preference, Rated, Taught, TextRow, Unpaired


def values(row: TextRow) -> dict[str, float]:
    """The row's numbers: the rewards that the source has, the ratings by attribute, or `desirable`, 1 or 0."""
    if isinstance(row, Preference):
        rewards = {"chosen_reward": row.chosen_reward, "rejected_reward": row.rejected_reward}
        return {name: value for name, value in rewards.items() if value is not None}
    if isinstance(row, Unpaired):
        return {"desirable": float(row.desirable)}
    return dict(row.attributes) if isinstance(row, Rated) else {}


def branch_values(row: TextRow) -> dict[str, tuple[float, ...]]:
    """The numbers of each of a row's answers."""
    return {"attribute_logprobs": row.attribute_logprobs, "base_logprobs": row.base_logprobs} if isinstance(row, Group) else {}


def arrays(row: Taught) -> dict[str, np.ndarray]:
    """What a teacher tells of each of the row's learnt tokens, by the names that a loss finds it under."""
    return {"teacher_tokens": row.teacher_tokens_NK, "teacher_top_logprobs": row.teacher_logprobs_NK, "teacher_rest": row.teacher_rest_N}
