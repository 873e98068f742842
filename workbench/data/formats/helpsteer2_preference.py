"""HelpSteer2's preferences between two answers."""

from __future__ import annotations

from workbench.data.formats._answers import answered
from workbench.data.formats._parts import Asked, Parsed, question
from workbench.data.formats._preferred import preferred
from workbench.data.formats._values import Raw, number, value
from workbench.data.rows import Kind

SCHEMA = '{"prompt", "response_1", "response_2", "preference_strength"}: negative, the first answer is better; 0 and -100 (neither is acceptable) give no pair (HelpSteer2-Preference)'
GIVES: tuple[Kind, ...] = ("preference", "conversation", "unpaired", "prompt")
KEYS = (frozenset({"prompt", "response_1", "response_2", "preference_strength"}),)
READS = frozenset({"response_1", "response_2", "preference_strength"})


def fits(row: Raw, asked: Asked) -> int:
    return 3


def parse(row: Raw, asked: Asked) -> Parsed:
    prompt, (first, second) = answered(row, ("response_1", "response_2"), question(row, asked), asked)
    return preferred(prompt, first, second, number(value(row, "preference_strength"), "preference_strength"), asked)
