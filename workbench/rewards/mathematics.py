"""Whether two results are the same in mathematics: numbers here, all else by math-verify, in a process of its own with a limit on time and memory.

What stands in an answer is text that nobody has checked: `9^{9^{9^9}}` would take for ever, in any process that simplifies it.
"""

from __future__ import annotations

import atexit
import json
import os
import re
import select
import subprocess
import sys
import threading
from dataclasses import dataclass
from decimal import Decimal

LIMIT_S = 120.0
"""So long an answer is waited for, in seconds; the process that compares has a limit on its processor time of its own."""
START_S = 120.0
LONGEST = 4000
"""Characters of an answer without a marked result that are looked at: its last ones."""

_NUMBER = re.compile(
    r"(?:\$?(?<![\w)\]}])[-−](?=\\?\$?[\d.]))?\\?\$?"  # a minus that follows a word or a bracket is a difference
    r"(?P<number>(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?|(?<!\.)\.\d+)(?:/(?P<below>\d+))?"
)
_HASHES = re.compile(rf"####[ \t*]*(?P<marked>{_NUMBER.pattern})")
_HASHED_FORMULA = re.compile(r"####[ \t]*(?P<marked>[^\n]*[\\^=][^\n]*)")
_BOXED = re.compile(r"\\(?:boxed|fbox)\s*\{")
_FRACTION = re.compile(r"\\[dt]?frac\{(\d+)\}\{(\d+)\}")
_FORMULA = re.compile(r"[\\^=<>]|[a-zA-Z]\s*[-+*/]|[-+*/]\s*[a-zA-Z]|^[(\[{].*[)\]}]$|^[a-zA-Z]$")
_HASHED = re.compile(r"####[ \t]*([^\n]+)")
_PERCENT = re.compile(r"(?P<number>.*?)\s*\\?%")
_MIXED = re.compile(r"(?P<sign>-?)(?P<whole>\d+)[ ~]+(?P<above>\d+)/(?P<below>\d+)")
_SCIENTIFIC = re.compile(r"-?\d+(?:\.\d+)?[eE][-+]?\d{1,2}")
_CHOICE = re.compile(r"\(?(?P<letter>[A-J])\)?")
"""A multiple-choice question's answer."""
_NAMED = re.compile(r"(?i:answer|option|choice)\s*(?i:is|:)?\s*[*$(]*(?P<letter>[A-J])\b")
_AROUND = " \t\n$*.。"


@dataclass(frozen=True)
class Result:
    """What a text comes to: a number, or a formula in LaTeX. `marked` where the text marks it; else it is a guess from its end."""

    number: Decimal | None = None
    formula: str | None = None
    marked: bool = True


def result_of(text: str) -> Result | None:
    """The last number marked `#### 42` (as GSM8K writes it, arXiv 2110.14168), else the last formula marked so, else what is in the last `\\boxed{}`,
    else the last number of all; None where there is none.
    """
    text = _FRACTION.sub(r"\1/\2", text).replace("{,}", ",")
    if hashed := _last(_HASHES, text):
        return Result(number) if (number := value_of(hashed)) is not None else None
    if hashed := _last(_HASHED_FORMULA, text):
        return _read(hashed)
    if (boxed := _last_boxed(text)) is not None:
        return _read(boxed)
    numbers = [match[0] for match in _NUMBER.finditer(text)]
    number = value_of(numbers[-1]) if numbers else None
    return None if number is None else Result(number, marked=False)


def same(expected: str, answer: str) -> bool:
    """Whether an answer's result is the expected one.

    Raises:
        ValueError: nothing is expected: neither a number nor a formula.
    """
    marked = _marked(answer)
    if (letter := _CHOICE.fullmatch(_plain(expected))) is not None:
        chosen = _CHOICE.fullmatch(_plain(answer if marked is None else marked)) or _chosen(answer)
        return chosen is not None and chosen["letter"] == letter["letter"]
    if marked is not None and _plain(marked) == _plain(expected):
        return True
    gold = _expected(expected)
    result = result_of(answer)
    if gold.number is not None and marked is not None and (percent := _PERCENT.fullmatch(marked.strip(_AROUND))):
        number = value_of(percent["number"])
        return number is not None and gold.number in (number, number / 100)
    if gold.number is not None and (result is None or result.number is not None):
        return result is not None and result.number == gold.number
    if result is None or not result.marked:  # a formula is expected, and none is marked: math-verify looks for one
        return _Checker.shared().equal(_latex(gold), answer[-LONGEST:], marked=False)
    return _Checker.shared().equal(_latex(gold), _latex(result), marked=True)


def _marked(text: str) -> str | None:
    """What a text marks as its result, as it is written; None where it marks none."""
    hashed = _HASHED.findall(text)
    return hashed[-1] if hashed else _last_boxed(text)


def _plain(text: str) -> str:
    """A result without what is only set around it."""
    return re.sub(r"\\text\s*\{([^{}]*)\}", r"\1", text).strip(_AROUND + "#").replace(" ", "")


def _chosen(answer: str) -> re.Match[str] | None:
    """The last letter that an answer names as its choice."""
    named = list(_NAMED.finditer(answer))
    return named[-1] if named else None


def value_of(written: str) -> Decimal | None:
    """A number as it is written, alone; None for any other text."""
    if mixed := _MIXED.fullmatch(written):
        below = Decimal(mixed["below"])
        parts = Decimal(mixed["whole"]), Decimal(mixed["above"])
        return (parts[0] + parts[1] / below) * (-1 if mixed["sign"] else 1) if below else None
    if _SCIENTIFIC.fullmatch(written):
        return Decimal(written)
    match = _NUMBER.fullmatch(written)
    if not match:
        return None
    number = Decimal(match["number"].replace(",", ""))
    if match["below"]:
        below = Decimal(match["below"])
        if not below:
            return None
        number /= below
    return -number if set("-−") & set(written) else number


def _expected(text: str) -> Result:
    """As `result_of`; a text that is a formula as a whole needs no mark."""
    result = result_of(text)
    whole = text.strip(_AROUND)
    if (result is None or not result.marked) and value_of(whole) is None and whole and _FORMULA.search(whole):
        return Result(formula=whole)
    if result is None:
        raise ValueError(f"the row's answer has no number and is no formula: {text[-60:]!r}")
    return result


def _read(content: str) -> Result:
    number = value_of(content.strip(_AROUND))
    return Result(number) if number is not None else Result(formula=content.strip())


def _latex(result: Result) -> str:
    return str(result.number) if result.formula is None else result.formula


def _last(pattern: re.Pattern[str], text: str) -> str | None:
    matches = [match["marked"] for match in pattern.finditer(text)]
    return matches[-1] if matches else None


def _last_boxed(text: str) -> str | None:
    """What stands in the last `\\boxed{}` whose braces are balanced."""
    for match in reversed(list(_BOXED.finditer(text))):
        depth = 1
        for end in range(match.end(), len(text)):
            depth += (text[end] == "{") - (text[end] == "}")
            if not depth:
                return text[match.end() : end]
    return None


class _Checker:
    """The process that compares formulas, started with the first one, and again where one took too long or too much memory."""

    _made: _Checker | None = None
    _making = threading.Lock()

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._asking = threading.Lock()
        self._pid = os.getpid()
        atexit.register(self.close)

    @classmethod
    def shared(cls) -> _Checker:
        """This process's one: a forked process has none of its parent's."""
        with cls._making:
            if cls._made is None or cls._made._pid != os.getpid():
                cls._made = _Checker()
            return cls._made

    def equal(self, expected: str, answer: str, marked: bool) -> bool:
        """False where it takes longer than the limit, or more memory.

        Raises:
            ValueError: math-verify is not installed.
        """
        question = json.dumps({"expected": expected, "answer": answer, "marked": marked}).encode() + b"\n"
        with self._asking:
            process = self._started()
            assert process.stdin and process.stdout
            try:
                process.stdin.write(question)
                process.stdin.flush()
            except BrokenPipeError:
                self.close()
                return False
            line = self._line(process, LIMIT_S)
            if not line:
                self.close()
            return line == b"true\n"

    def close(self) -> None:
        if self._process is not None and self._pid == os.getpid():
            self._process.kill()
            self._process.wait()
            self._process = None

    def _started(self) -> subprocess.Popen[bytes]:
        if self._process is None or self._process.poll() is not None:
            command = (sys.executable, "-m", "workbench.rewards.math_check")
            self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
            ready = self._line(self._process, START_S)
            if ready != b"ready\n":
                self.close()
                raise ValueError(
                    f"the reward math compares formulas by math-verify, which cannot be used here: {ready.decode().strip() or 'no answer'}"
                )
        return self._process

    def _line(self, process: subprocess.Popen[bytes], limit_s: float) -> bytes:
        """The next line; nothing where none comes in time, or the process has ended."""
        assert process.stdout
        return process.stdout.readline() if select.select([process.stdout], [], [], limit_s)[0] else b""
