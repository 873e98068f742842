"""Adherence of small grids whose figures can be computed by hand, and of what cannot be measured."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from workbench.data.targets import Targets
from workbench.rundir import adherence as file
from workbench.rundir.opening import Unreadable
from workbench.settings import Steering
from workbench.steering import adherence
from workbench.steering.adherence import Answered


def row(prompt: int, requested: dict[str, float], measured: dict[str, float | None], words: int = 5) -> Answered:
    return Answered(str(prompt), requested, measured, words)


def sweep(lift: float = 0.0) -> list[Answered]:
    """Six prompts; humor 0, 2, 4 with wit at 1, then wit 0, 1, 4 with humor at 2. Measured humor is half of the requested, measured wit is what is
    requested and `lift` times humor."""
    settings = [{"humor": h, "wit": 1} for h in (0, 2, 4)] + [{"humor": 2, "wit": w} for w in (0, 1, 4)]
    return [
        row(p, dict(each), {"humor": each["humor"] / 2 + 0.1 * (p % 2), "wit": each["wit"] + lift * each["humor"]}, 3 + each["humor"])
        for p in range(6)
        for each in settings
    ]


def test_a_sweep_by_hand():
    """Measured humor at requested 0, 2, 4: 0.05, 1.05, 2.05 (half of the prompts have 0.1 more). Its error is mean(0.05, 0.95, 1.95); at humor 2 and wit 1
    there are twice as many rows, since both sweeps have that setting: (6 x 0.05 + 12 x 0.95 + 6 x 1.95) / 24 = 0.975;
    the bias has the first with the other sign."""
    measured = adherence.measure(sweep(), resamples=200)
    humor = measured.of("humor")
    assert [(level.requested, level.rows, level.achieved.value) for level in humor.levels] == [
        (0, 6, pytest.approx(0.05)),
        (2, 12, pytest.approx(1.05)),
        (4, 6, pytest.approx(2.05)),
    ]
    assert [level.words.value for level in humor.levels] == [3, 5, 7]
    assert (humor.rows, humor.alone, humor.error.value, humor.bias.value) == (24, True, pytest.approx(0.975), pytest.approx(-0.95))
    assert humor.words.value == pytest.approx(1.0)
    assert humor.moved["humor"].value == pytest.approx(2.0) and humor.moved["wit"].value == 0
    assert (measured.of("wit").error.value, measured.of("wit").moved["wit"].value) == (0, 4)
    assert (measured.rows, measured.prompts, measured.warnings) == (36, 6, [])


def test_leakage_is_what_remains_of_another_request():
    clean, leaking = (adherence.measure(sweep(lift), resamples=200).leakage for lift in (0.0, 0.3))
    assert clean["humor"]["wit"].value is None and "follows from" in clean["humor"]["wit"].why  # wit is exactly its own request: nothing is left
    assert leaking["humor"]["wit"].value == pytest.approx(1.0)
    assert abs(clean["wit"]["humor"].value or 0) < 1e-6


def test_leakage_of_requests_one_at_a_time_is_the_plain_correlation():
    """Nothing else is requested with humor, so that nothing is given: r of (0, 2, 4) and (1, 2, 2) is 3 / sqrt(12) = 0.866."""
    rows = [row(p, {"humor": h}, {"humor": h, "wit": w}) for p in range(4) for h, w in ((0, 1), (2, 2), (4, 2))]
    rows += [row(p, {"wit": w}, {"humor": 9 * p, "wit": w}) for p in range(4) for w in (0, 4)]
    assert adherence.measure(rows, resamples=100).leakage["humor"]["wit"].value == pytest.approx(3 / 12**0.5)


def test_drawn_requests_are_judged_on_all_rows_and_said_so():
    """Two attributes that were always requested alike: what one does cannot be told from the other, and no figure pretends to."""
    rows = [row(p, {"humor": h, "wit": h}, {"humor": h + 0.1 * p, "wit": 4 - h}) for p in range(4) for h in (0, 2, 4)]
    measured = adherence.measure(rows, resamples=100)
    assert not measured.of("humor").alone
    assert measured.leakage["humor"]["humor"].value is None and "follows from" in measured.leakage["humor"]["humor"].why
    assert measured.of("wit").spearman.value == pytest.approx(-1.0)
    assert any(warning.startswith("humor: other attributes' requests vary along with it") for warning in measured.warnings)


def test_missing_and_constant_measures_are_none_and_named():
    rows = [row(p, {"humor": h, "wit": 1}, {"humor": None if p == 0 else 1.0, "wit": None}) for p in range(3) for h in (0, 4)]
    measured = adherence.measure(rows, resamples=100)
    humor, wit = measured.of("humor"), measured.of("wit")
    assert (humor.rows, humor.spearman.value, humor.spearman.why) == (4, None, "measured humor does not vary over 4 rows")
    assert (humor.error.value, wit.rows, wit.error.value) == (2.0, 0, None)
    assert (wit.error.why, wit.moved["humor"].why) == ("no row was measured", "requested at one level only")
    assert measured.leakage["humor"]["wit"].why == "no row has a request of humor and a measured wit"
    assert measured.warnings == ["wit was requested, and is not measured in any row"]


def test_the_data_correlation_stands_beside(tmp_path: Path):
    steering = Steering(attributes=("humor", "wit"))
    ratings = [{"humor": 0, "wit": 4}, {"humor": 4, "wit": 0}, {"humor": 2, "wit": 2}, {"humor": 1}]
    measured = adherence.measure(sweep(), Targets.of(steering, ratings, {}), {"humor": "rule humor"}, ["a doubt"], resamples=100)
    assert measured.correlation == {
        "humor": {"humor": pytest.approx(1), "wit": pytest.approx(-1)},
        "wit": {"humor": pytest.approx(-1), "wit": pytest.approx(1)},
    }
    assert measured.warnings == ["a doubt"]
    measured.write(tmp_path / file.FILE)
    assert file.read(tmp_path / file.FILE) == measured


@pytest.mark.parametrize(
    ("text", "reason"), [('{"format": 2}', "of format 2"), ('{"format": 1, "rows": 1}', "no adherence: "), ("[]", "expected a JSON object")]
)
def test_another_file_is_refused(tmp_path: Path, text: str, reason: str):
    (tmp_path / file.FILE).write_text(text)
    with pytest.raises(Unreadable, match=reason):
        file.read(tmp_path / file.FILE)


def test_rows_are_read_with_their_words(tmp_path: Path):
    path = tmp_path / "annotated.jsonl"
    line = {
        "prompt": [{"role": "user", "content": "Hi"}],
        "response": "Good  day to\nyou.",
        "attributes": {"humor": 1, "wit": None},
        "requested": {"humor": 4},
    }
    path.write_text(json.dumps(line) + "\n")
    (read,) = adherence.read(path)
    assert (read.requested, read.measured, read.words) == ({"humor": 4.0}, {"humor": 1.0, "wit": None}, 4)


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"requested": None}, r"annotated\.jsonl:1: no ratings were requested"),
        ({"attributes": None}, "the answer is not measured"),
        ({"requested": {"humor": None}}, "requested humor is null"),
        ({"attributes": {"humor": "4"}}, "humor is '4'; expected a number"),
        ({"attributes": {"humor": True}}, "humor is True"),
    ],
)
def test_rows_that_are_no_measured_requests_are_refused(tmp_path: Path, changed: dict[str, object], reason: str):
    path = tmp_path / "annotated.jsonl"
    path.write_text(json.dumps({"prompt": "Hi", "response": "x", "attributes": {"humor": 1}, "requested": {"humor": 4}, **changed}) + "\n")
    with pytest.raises(ValueError, match=reason):
        adherence.read(path)
