"""`make audit` fails where it finds something, and where it cannot look. pip-audit itself passes over a package that the index does not know."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOUND = "echo 'jinja2 3.1.4   PYSEC-2024-1 3.1.5'; exit 1"
CASES = {
    "nothing is wrong": (FOUND, "exit 0", True),
    "a package has a vulnerability": (FOUND, "echo 'x 1 GHSA-1'; exit 1", False),
    "the index knows nothing": ("echo 'No known vulnerabilities found'; exit 0", "exit 0", False),
    "there is no network": ("echo 'ConnectionError' >&2; exit 1", "exit 0", False),
}


@pytest.mark.parametrize(("known", "pinned", "passes"), CASES.values(), ids=CASES)
def test_audit(tmp_path: Path, known: str, pinned: str, passes: bool) -> None:
    auditor = tmp_path / "pip-audit"
    auditor.write_text(f'#!/bin/sh\ncase "$*" in *--strict*known.txt) {known};; *--strict*constraints.txt) {pinned};; *) exit 9;; esac\n')
    auditor.chmod(0o755)
    (tmp_path / ".venv-audit").mkdir()
    (tmp_path / ".venv-audit" / "made").touch()
    command = ["make", "-f", str(ROOT / "Makefile"), "-o", ".venv-audit/made", "audit", f"AUDIT={auditor}"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode == 0) == passes, done.stdout + done.stderr
    if not passes and known != FOUND:
        assert "cannot check: PyPI did not name" in done.stdout
