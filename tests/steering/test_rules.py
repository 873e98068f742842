"""The rules' ratings by example, and what a rule of the user's may give."""

from __future__ import annotations

from pathlib import Path

import pytest

from workbench.steering import rules


@pytest.mark.parametrize(
    ("name", "response", "rating"),
    [
        *(
            ("verbosity", " ".join(["word"] * words), rating)
            for words, rating in ((0, 0), (15, 0), (16, 1), (24, 1), (25, 2), (33, 3), (41, 3), (42, 4), (500, 4))
        ),
        ("quotes", 'He said "yes".', 4),
        ("quotes", "It's the cats' own.", 0),
        ("quotes", "«Oui»", 4),
        ("address", "Bring an umbrella.", 0),
        ("address", "Your umbrella.", 2),
        ("address", "You should bring your own for yourself.", 4),
        ("address", "The youth of today.", 0),
        ("first_person", "I think so.", 4),
        ("first_person", "In the army, i.e. here.", 0),
        ("exclamation", "Oh! Well.", 4),
        ("article", "A stone.", 4),
        ("article", " The stone.", 4),
        ("article", "Another stone, the last.", 0),
        ("bullets", "Take:\n- salt\n* oil\n3. rice", 4),
        ("bullets", "First:\n1) salt", 2),
        ("bullets", "Take - say - salt", 0),
        ("question", "Who knows? (Do you?) ", 4),
        ("question", "Who knows? Nobody.", 0),
    ],
)
def test_rules_by_example(name: str, response: str, rating: float):
    assert rules.rate(*rules.find(name), [{"role": "user", "content": "?"}], response) == rating


def test_one_of_the_users_own(tmp_path: Path):
    path = tmp_path / "mine.py"
    path.write_text("def shouting(prompt, response):\n    return None if not response else 9 * response.isupper()\n")
    found = rules.find_all(["verbosity", f"{path}:shouting"])
    assert list(found) == ["verbosity", "shouting"]
    assert [rules.rate("shouting", found["shouting"], [], text) for text in ("AH", "ah", "")] == [9, 0, None]


def test_what_is_no_rating_is_refused_by_name():
    with pytest.raises(ValueError, match="the rule of wit gave nan; expected a finite number"):
        rules.rate("wit", lambda prompt, response: float("nan"), [], "x")
    with pytest.raises(ValueError, match="the rule of wit gave 'much'"):
        rules.rate("wit", lambda prompt, response: "much", [], "x")  # pyright: ignore[reportArgumentType, reportReturnType]
    with pytest.raises(ValueError, match=r"the rule of wit raised ZeroDivisionError: .*answer: 'x'"):
        rules.rate("wit", lambda prompt, response: 1 / 0, [], "x")


def test_names_are_checked_before_anything_runs(tmp_path: Path):
    assert rules.problems(["verbosity"]) == []
    assert "did you mean 'verbosity'" in rules.problems(["verbosty"])[0] or "verbosity" in rules.problems(["verbosty"])[0]
    (tmp_path / "mine.py").write_text("def verbosity(prompt, response):\n    return 1\n")
    with pytest.raises(ValueError, match="two rules rate verbosity"):
        rules.find_all(["verbosity", f"{tmp_path / 'mine.py'}:verbosity"])
