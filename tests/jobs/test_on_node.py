"""What a compute node can do for a run, as it tells itself."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from workbench.jobs import on_node


def test_what_a_node_can_import_and_see(tmp_path: Path) -> None:
    (file := tmp_path / "rows.jsonl").touch()
    command = [sys.executable, "-m", "workbench.jobs.on_node", str(tmp_path), "--", str(file), f"{tmp_path}/nope"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2])
    told = json.loads(done.stdout)
    assert told["broken"] == {}
    assert (told["unwritable"], told["unreadable"], told["python"]) == ([], [f"{tmp_path}/nope"], sys.executable)


def test_a_module_that_a_node_lacks_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(on_node, "MODULES", ("json", "no_such_module"))
    assert on_node.look([], [])["broken"] == {"no_such_module": "No module named 'no_such_module'"}
