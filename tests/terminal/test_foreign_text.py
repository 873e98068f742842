"""What others wrote reaches the terminal as it is: no control character, no markup."""

from __future__ import annotations

import io
import json
import shutil
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from tests.rundir.damages import OLD
from workbench import api
from workbench.jobs import launch
from workbench.rundir.store import RunDir
from workbench.settings.spec import compose
from workbench.terminal import cli
from workbench.terminal.console import Console
from workbench.views.text import visible

EVIL = "\x1b]52;c;cm0=\x07\x1b[2J\x9b31m[bold]x[/bold][/nothing] \u202egnp.exe\u2066 \rover"
SHOWN = r"\x1b]52;c;cm0=\x07\x1b[2J\x9b31m[bold]x[/bold][/nothing] \u202egnp.exe\u2066 \rover"


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunDir:
    """A run in a folder with brackets in its name, whose files all say EVIL."""
    root = tmp_path / "runs [bold] [/] of [link=x]"
    monkeypatch.setenv("WORKBENCH_RUNS", str(root))
    monkeypatch.setenv("COLUMNS", "400")
    found = RunDir(shutil.copytree(OLD / "stopped", root / "20261126-000000-evil-a4e7"))
    status = json.loads(found.status_path.read_text()) | {"message": EVIL, "state": "failed"}
    found.status_path.write_text(json.dumps(status))
    (found.path / "spec.yaml").write_text(
        (OLD / "stopped" / "spec.yaml").read_text().replace("{ROOT}", "/nowhere").replace("old stopped", "'[red]evil[/]'")
    )
    (found.logs / "actor-0.1.log").write_text(EVIL)
    found.events_path("driver").write_text(json.dumps({"seq": 0, "time": 1.0, "kind": "warning", "message": EVIL}) + "\n")
    return found


def workbench(*arguments: str) -> str:
    done = CliRunner().invoke(cli.app, arguments, catch_exceptions=False)
    return done.output


@pytest.mark.parametrize("arguments", [("list",), ("show",), ("logs",)])
def test_a_hostile_run_in_the_terminal(run: RunDir, arguments: tuple[str, ...]) -> None:
    printed = workbench(*arguments, *(() if arguments == ("list",) else (run.id,)))
    assert SHOWN.partition(r" \rover")[0] in printed
    assert not any(char in printed for char in "\x1b\x07\x9b\u202e\u2066\r")
    if arguments == ("show",):
        assert str(run.path) in printed


def test_a_path_with_brackets_after_a_launch(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api, "submit", lambda experiment: api.Run(run))
    assert str(run.path) in workbench("run", "experiment=dpo_demo", "--detach")
    monkeypatch.setattr(launch, "launch", lambda run, task: None)
    assert run.id in workbench("resume", run.id, "--detach")


def test_errors_are_printed_without_control_characters(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    told = io.StringIO()
    monkeypatch.setattr(cli, "err", Console(file=told, width=400))
    monkeypatch.setattr("sys.argv", ["workbench", "show", f"nothing{EVIL}"])
    with pytest.raises(SystemExit):
        cli.main()
    assert "\x1b" not in told.getvalue() and r"\x1b]52" in told.getvalue()


@given(st.text())
def test_no_character_that_steers_is_left(words: str) -> None:
    shown = visible(words)
    assert not [char for char in shown if unicodedata.category(char) in ("Cc", "Cs") and char not in "\n\t"]
    assert visible(shown) == shown
    assert shown.isprintable() or "\n" in shown or any(unicodedata.category(char) not in ("Cc", "Cs") for char in shown)


@pytest.mark.parametrize("word", ['name="${oc.env:HOME}"', "name='${oc.env:HOME}'", "name=${oc.env:HOME}", r"name='\${oc.env:HOME}'"])
def test_nothing_is_taken_from_the_environment(word: str) -> None:
    assert compose(["experiment=dpo_demo", word]).name == "${oc.env:HOME}"
    assert compose(["experiment=dpo_demo", "data.train='/x/${oc.env:HOME}/${seed}.jsonl'"]).data.train == "/x/${oc.env:HOME}/${seed}.jsonl"


def test_hydras_own_settings_are_not_read() -> None:
    with pytest.raises(ValueError, match="there is no such key: Hydra's own settings"):
        compose(["experiment=dpo_demo", "+hydra.searchpath=[file:///tmp]"])
