"""The reward `math`: what counts as the same result."""

from __future__ import annotations

import pytest

from workbench.rewards import mathematics
from workbench.rewards.programs import math

SAME = [
    ("B", "B"),
    ("B", "(B)"),
    ("(C)", r"\boxed{\text{C}}"),
    ("D", "So the answer is (D)."),
    ("50", r"\boxed{50\%}"),
    ("0.5", r"\boxed{50\%}"),
    ("3:00", r"\boxed{3:00}"),
    ("5/3", r"\boxed{1 2/3}"),
    ("1000", r"\boxed{1e3}"),
    ("42", r"\boxed{42}"),
    ("#### 42", r"It is \boxed{42.0}."),
    ("1,000", r"\boxed{1000}"),
    ("0.5", r"\boxed{\frac{1}{2}}"),
    ("0.5", r"\boxed{\dfrac12}"),
    (r"\frac{1}{2}", "#### 0.5"),
    (r"\frac{3}{4}", r"\boxed{\frac{6}{8}}"),
    (r"\frac{1}{3}", r"\boxed{1/3}"),
    ("3", r"\boxed{\sqrt{9}}"),
    (r"3\sqrt{2}", r"\boxed{\sqrt{18}}"),
    (r"\frac{\sqrt{3}}{3}", r"\boxed{\frac{1}{\sqrt{3}}}"),
    (r"2\pi", r"\boxed{\pi \cdot 2}"),
    ("8", r"\boxed{2^3}"),
    ("-4", r"\boxed{-4}"),
    ("5", r"\boxed{x = 5}"),
    ("x=5", r"\boxed{5}"),
    ("$x=3$", "so $x = 3$"),
    ("x^2+2x+1", r"\boxed{(x+1)^2}"),
    ("x(x-1)", r"\boxed{x^2 - x}"),
    (r"\frac{x}{2}", r"\boxed{0.5x}"),
    ("(1,2)", r"\boxed{(1, 2)}"),
    ("[0,1)", r"\boxed{[0, 1)}"),
    (r"\{1,2\}", r"\boxed{\{2,1\}}"),
    ("5", r"\boxed{5\text{ cm}}"),
    ("5", r"\boxed{\$5}"),
    ("1/2", r"so the half, $\boxed{\tfrac{1}{2}}$."),
    (r"\text{A}", r"\boxed{A}"),
    (r"\sqrt{2}", r"The side is $\sqrt{2}$."),
    (r"#### \frac{\sqrt{2}}{2}", r"#### \frac{1}{\sqrt{2}}"),
    (r"the root is \boxed{\sqrt{5}}", r"first \boxed{2}, no: \boxed{\sqrt{5}}"),
]
OTHER = [
    ("B", "A"),
    ("B", "The answer is a good one."),
    ("B", r"B looks right, but the answer is \boxed{C}"),
    ("50", r"\boxed{5\%}"),
    ("3:00", r"\boxed{3:30}"),
    ("1/3", r"\boxed{1 2/3}"),
    ("42", r"\boxed{43}"),
    ("3", r"\boxed{3\sqrt{2}}"),
    ("3", r"\boxed{3x}"),
    ("0.5", r"\boxed{\frac{1}{3}}"),
    ("0.333", r"\boxed{\frac{1}{3}}"),
    (r"\frac{1}{2}", r"\boxed{2}"),
    (r"3\sqrt{2}", r"\boxed{3}"),
    (r"\sqrt{2}", r"\boxed{1.41}"),
    (r"2\pi", r"\boxed{6.28}"),
    ("8", r"\boxed{3^2}"),
    ("-4", r"\boxed{4}"),
    ("5", r"\boxed{x = 6}"),
    ("x^2+2x+1", r"\boxed{(x-1)^2}"),
    ("x(x-1)", r"\boxed{x^2 + x}"),
    ("(1,2)", r"\boxed{(2, 1)}"),
    ("[0,1)", r"\boxed{[0, 1]}"),
    (r"\{1,2\}", r"\boxed{\{1,3\}}"),
    (r"\{1,2\}", r"\boxed{\{1\}}"),
    (r"\text{A}", r"\boxed{B}"),
    ("42", "no result"),
    (r"\sqrt{2}", "no result"),
    (r"\sqrt{2}", r"\boxed{}"),
    (r"\sqrt{2}", r"\boxed{\frac{1}{}"),
    ("42", r"\boxed{\text{forty-two}}"),
    (r"\sqrt{2}", r"\boxed{\sqrt{2}}, no: \boxed{\sqrt{3}}"),
    ("12", r"\boxed{1{,}2}"),
    ("x<5", r"\boxed{x>5}"),
    (r"\frac{x}{2}", r"\boxed{\frac{2}{x}}"),
    ("10", r"\boxed{10^{10}}"),
    ("7", r"\boxed{7, 8}"),
]


@pytest.mark.parametrize(("expected", "answer"), SAME)
def test_the_same(expected: str, answer: str) -> None:
    assert math("?", answer, {"answer": expected}) == 1


@pytest.mark.parametrize(("expected", "answer"), OTHER)
def test_another(expected: str, answer: str) -> None:
    assert math("?", answer, {"answer": expected}) == 0


def test_the_table_is_as_large_as_promised() -> None:
    assert len(SAME) + len(OTHER) >= 60


def test_a_formula_that_takes_too_long_is_no_result(monkeypatch: pytest.MonkeyPatch) -> None:
    """The process that computes it is ended, and the next formula has a new one."""
    monkeypatch.setattr(mathematics, "LIMIT_S", 0.2)
    assert math("?", r"\boxed{9^{9^{9^{9^{9}}}} - 1}", {"answer": r"9^{9^{9^{9^{9}}}}"}) == 0
    monkeypatch.undo()
    assert math("?", r"\boxed{\sqrt{4}}", {"answer": "2"}) == 1


def test_a_row_without_a_result() -> None:
    with pytest.raises(ValueError, match="no number and is no formula: 'none'"):
        math("?", "1", {"answer": "none"})
