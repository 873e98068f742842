"""HelpSteer3's preferences between two answers."""

from __future__ import annotations

from workbench.data.formats._answers import answered
from workbench.data.formats._parts import Asked, Parsed, prompt
from workbench.data.formats._preferred import preferred
from workbench.data.formats._values import Raw, number, value
from workbench.data.rows import Kind

SCHEMA = '{"context": messages, "response1", "response2", "overall_preference"}: negative, the first answer is better; 0 gives no pair (HelpSteer3)'
GIVES: tuple[Kind, ...] = ("preference", "conversation", "unpaired", "prompt")
KEYS = (frozenset({"context", "response1", "response2", "overall_preference"}),)
READS = frozenset({"context", "response1", "response2", "overall_preference"})


def fits(row: Raw, asked: Asked) -> int:
    return 3


def parse(row: Raw, asked: Asked) -> Parsed:
    asking, (first, second) = answered(row, ("response1", "response2"), prompt(value(row, "context"), "context", asked), asked)
    return preferred(asking, first, second, number(value(row, "overall_preference"), "overall_preference"), asked)
