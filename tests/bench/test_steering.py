"""What the bench of steering makes of measured adherence."""

from __future__ import annotations

from dataclasses import replace

import pytest
from rich.console import Console

from workbench.bench import steering
from workbench.rundir.adherence import Adherence, Attribute, Estimate, Level

SURE = Estimate(0.5)


def attribute(name: str, words: tuple[float, ...], spearman: float, **moved: float) -> Attribute:
    levels = [Level(level, 5, SURE, Estimate(value)) for level, value in enumerate(words)]
    return Attribute(
        name, 5 * len(words), True, levels, SURE, SURE, SURE, Estimate(spearman), {other: Estimate(value) for other, value in moved.items()}
    )


def measured(words: tuple[float, ...] = (5, 9, 20), spearman: float = 0.7, own: float = 2.0, other: float = -0.5) -> steering.Measured:
    attributes = [attribute("verbosity", words, spearman, verbosity=3, humor=0.1), attribute("humor", (9, 9, 9), 0.0, verbosity=other, humor=own)]
    return steering.of("sft_adherence", "run-1", Adherence(60, 5, attributes, {}, {}, {}, []))


def test_sliders_that_do_what_they_say_pass():
    assert measured().passes
    assert measured().words == {"0": 5, "1": 9, "2": 20}


@pytest.mark.parametrize(
    "changed",
    [
        measured(words=(5, 20, 9)),
        measured(words=(5, 5, 9)),
        measured(spearman=0.59),
        measured(own=0.4),
        measured(own=-2.0),
        measured(other=-2.5),
        replace(measured(), spearman_words=None),
        replace(measured(), moved={"humor": {"humor": None, "verbosity": 0.0}}),
    ],
)
def test_each_promise_is_asked_for(changed: steering.Measured):
    assert not changed.passes


def test_the_tables_have_each_seed_and_their_spread():
    outcomes = [steering.Outcome(f"p{seed}", seed, 20.0 + seed, [measured(spearman=0.6 + seed / 10)]) for seed in range(3)]
    console = Console(width=160, record=True)
    for table in steering.tables(outcomes):
        console.print(table)
    text = console.export_text()
    assert "0.70 (0.60 to 0.80)" in text and "20.0" in text and "-0.50" in text


def test_without_a_requested_verbosity_it_is_refused():
    with pytest.raises(ValueError, match="verbosity was not requested; requested were: humor"):
        steering.of("s", "r", Adherence(5, 5, [attribute("humor", (1, 2), 0.5)], {}, {}, {}, []))
