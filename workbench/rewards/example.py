"""A reward of your own is a function in a file of your own, named in the settings: `algorithm.rewards={concise: {program: my_rewards.py:concise}}`."""

from __future__ import annotations

from collections.abc import Mapping


def concise(prompt: str, response: str, row: Mapping[str, str]) -> float:
    """Up to 0.9: half for an answer that ends as a sentence does, half for how far it stays below 40 words, and less for one of under 8 words.

    Args:
        prompt: what was asked, with the chat template's marks.
        response: the answer, without its end token.
        row: the data row's other columns, as text (say, the expected `answer`).
    """
    words = len(response.split())
    ended = response.rstrip().endswith((".", "!", "?"))
    return min(1.0, words / 8) * (0.5 * ended + 0.5 * max(0.0, 1 - words / 40))
