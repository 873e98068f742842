"""Two answers and which of them people prefer, as HelpSteer counts it."""

from __future__ import annotations

from collections.abc import Sequence

from workbench.data.formats._parts import Asked
from workbench.data.rows import Malformed, Message, Preference

NEITHER = -100
STRONGEST = 3


def preferred(prompt: Sequence[Message], first: str, second: str, strength: float, asked: Asked) -> list[Preference]:
    """The pair, the strength of the preference as the chosen answer's reward; none where people prefer neither.

    Raises:
        Malformed: a strength beyond 3 that is not -100.
    """
    if strength in (0, NEITHER):
        asked.doubts.add("prefer neither answer (0, or -100 where none is acceptable), and are left out")
        return []
    if abs(strength) > STRONGEST:
        raise Malformed(f"a preference from -{STRONGEST} to {STRONGEST}, or {NEITHER}", f"{strength:g}")
    chosen, rejected = (first, second) if strength < 0 else (second, first)
    return [Preference(tuple(prompt), chosen, rejected, abs(strength), 0.0, asked.where)]
