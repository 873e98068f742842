"""From a rank to the browser: the arithmetic, and one short measurement with everything in it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from workbench.bench import streaming
from workbench.bench.browser import CHROMIUM
from workbench.terminal.cli import app


def test_the_age_of_an_event_is_that_when_it_was_first_seen() -> None:
    """Steps 1, 2 and 3, written at 10, 11 and 12 s, are seen at 10.5 (the first) and 12.25 s (both others)."""
    assert streaming.ages([(10.0, 1), (11.0, 2), (12.0, 3)], [(9.0, 0), (10.5, 1), (12.25, 3)]) == [0.5, 1.25, 0.25]
    with pytest.raises(ValueError, match="number 3 of 3 was never seen; the last was 2"):
        streaming.ages([(12.0, 3)], [(12.5, 2)])


def test_quantiles_are_ages_that_there_were() -> None:
    ages = streaming.Ages([n / 1000 for n in range(200, 0, -1)])
    assert ages.record == {"count": 200, "p50_ms": 100.0, "p99_ms": 198.0, "max_ms": 200.0}


@pytest.mark.browser
@pytest.mark.skipif(not CHROMIUM.exists(), reason=f"no Chromium at {CHROMIUM}")
def test_ranks_viewers_and_a_browser(tmp_path: Path) -> None:
    words = ["bench", "streaming", "--rate", "10", "--viewers", "3", "--seconds", "5", "--folder", str(tmp_path), "--json"]
    result = CliRunner().invoke(app, words)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    found = json.loads(result.stdout)
    (measured,) = found["found"]
    assert (measured["charts"]["count"], measured["rollouts"]["count"], measured["feeds"]["count"]) == (50, 2, 100)
    assert 0 < measured["charts"]["p50_ms"] <= measured["charts"]["p99_ms"] <= measured["charts"]["max_ms"]
    assert " at /" in found["file_system"]
