"""The command line in the test's own process: what `python -m workbench.terminal.cli` does, without its second and a half of imports."""

from __future__ import annotations

import io
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout

import pytest

from workbench.terminal import cli


def workbench(*words: str, **env: str) -> subprocess.CompletedProcess[str]:
    """`workbench WORDS` with these variables in the environment: its exit code, and what it printed on 200 columns."""
    out, err, code = io.StringIO(), io.StringIO(), 0
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.setattr(sys, "argv", ["workbench", *words])
        for name, value in {"COLUMNS": "200", **env}.items():
            patch.setenv(name, value)
        try:
            cli.main()
        except SystemExit as end:
            assert end.code is None or isinstance(end.code, int), end
            code = end.code or 0
    return subprocess.CompletedProcess(["workbench", *words], code, out.getvalue(), err.getvalue())
