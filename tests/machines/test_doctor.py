"""What the doctor finds, and that it survives what is not there."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from workbench.machines import doctor


def test_every_missing_part_says_what_it_would_enable_and_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No program and no package can be found: still no crash, and nothing is claimed."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "path", [])
    parts = doctor.examine(tmp_path / "not" / "there")
    missing = {part.name for part in parts if part.found is None}
    assert {"GPU", "torch", "megatron-core", "nvidia-pytriton", "SLURM", "Chromium"} <= missing
    assert all(part.enables and part.install for part in parts if part.found is None)
    console = Console(width=200, record=True)
    doctor.render(parts, console)
    assert "pip install -c constraints.txt torch" in console.export_text()


def test_a_program_that_fails_or_hangs_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "sinfo"
    program.write_text("#!/bin/sh\necho 'cannot reach the controller' >&2; exit 1\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    found = {part.name: part.found for part in doctor.examine(tmp_path)}["SLURM"]
    assert found == "there, but failed: cannot reach the controller"


def test_nothing_heavy_is_imported(tmp_path: Path) -> None:
    code = f"import sys; from pathlib import Path; from workbench.machines import doctor; doctor.examine(Path({str(tmp_path)!r})); print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"
