"""The `workbench` command: a run on this machine begins to import what its ranks need before the command line has imported what it needs itself."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from workbench.backends import forking
from workbench.processes import WARM


def runs_here(arguments: Sequence[str]) -> bool:
    """Whether these words, after `workbench`, launch a run on this machine and wait for it. A backend that an experiment's file names is not looked up.
    The stages of a pipeline are launched by another process."""
    elsewhere = any(word.startswith(("backend=", "pipeline=")) and word != "backend=local" for word in arguments)
    return arguments[:1] == ["run"] and len(arguments) > 1 and not elsewhere and not {"--dry-run", "--detach", "--help"} & {*arguments}


def main() -> None:
    """Raises SystemExit as `workbench.terminal.cli.main` does."""
    if runs_here(sys.argv[1:]) and forking.WARM not in os.environ:
        forking.own(WARM)
    from workbench.terminal import cli

    cli.main()


if __name__ == "__main__":
    main()
