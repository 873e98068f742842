"""`workbench app`: the app that comes with the installed project."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from workbench.settings.shipped import APP

PASSED_ON = {"allow_extra_args": True, "ignore_unknown_options": True}
"""What Streamlit is to read is not this command's to check."""


def app_(
    context: typer.Context,
    port: Annotated[int | None, typer.Option(min=0, max=65535, help="Where it listens on 127.0.0.1; 8501 without it.")] = None,
    headless: Annotated[bool, typer.Option("--headless", help="Open no browser, as with HEADLESS=1: only print the login link.")] = False,
) -> None:
    """Start the app and print its login link. Further options go to Streamlit, as in `--server.maxUploadSize=5`.

    It is `streamlit run` on the app's folder: the same settings, the same login, the same checks. Runs are those below the working directory,
    or in $WORKBENCH_RUNS.
    """
    if headless:
        os.environ["HEADLESS"] = "1"
    arguments = [*(() if port is None else (f"--server.port={port}",)), *context.args]
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, "-P", "-m", "streamlit", "run", str(APP), *arguments])
