"""A reward of your own, and its shaping, are functions in a file of your own that settings name:
`algorithm.rewards={concise: {program: my_rewards.py:concise}} algorithm.shaping=my_rewards.py:unhurried`.
"""

from __future__ import annotations

from collections.abc import Mapping

from workbench.rewards.shaping import Answer


def concise(prompt: str, response: str, row: Mapping[str, str]) -> float:
    """Up to 0.9: half for an answer that ends as a sentence does, half for how far it stays below 40 words, and less for one of under 8 words.

    Args:
        prompt: what was asked, with the chat template's marks.
        response: the answer, without its end token or stop string.
        row: the data row's other columns, as text (say, the expected `answer`).
    """
    length = len(response.split())
    ended = response.rstrip().endswith((".", "!", "?"))
    return min(1.0, length / 8) * (0.5 * ended + 0.5 * max(0.0, 1 - length / 40))


def unhurried(answer: Answer) -> float | list[float]:
    """The reward less 0.01 for each token beyond the 64th, taken at that token; a number alone would be the whole answer's."""
    tokens = len(answer.pieces)
    costs = [0.01 if i >= 64 else 0.0 for i in range(tokens)]
    return [*(-cost for cost in costs[:-1]), answer.reward - costs[-1]]
