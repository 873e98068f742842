"""Compares formulas by math-verify: `python -m workbench.rewards.math_check` reads questions as lines of JSON and answers each with true or false.

It is a process of its own: whoever asks ends it where a formula takes too long, and its memory has a limit.
"""

from __future__ import annotations

import json
import resource
import sys

from math_verify import parse, verify

from workbench.data import limits

MEMORY_BYTES = 2 << 30
LIMIT_S = 5
"""Processor time that one comparison may take, in seconds."""
DIGITS = 12
"""Decimal places to which numbers that are not exact are compared."""


def main() -> int:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    print("ready", flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        limits.processor_time(LIMIT_S)
        try:
            expected = parse(f"\\boxed{{{asked['expected']}}}", parsing_timeout=0)
            answer = parse(f"\\boxed{{{asked['answer']}}}" if asked["marked"] else asked["answer"], parsing_timeout=0)
            equal = bool(expected and answer) and verify(expected, answer, float_rounding=DIGITS, timeout_seconds=0)
        except (ArithmeticError, AttributeError, LookupError, MemoryError, RecursionError, TypeError, ValueError):  # sympy's, of what makes no sense
            equal = False
        print(json.dumps(bool(equal)), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
