"""`python -m workbench.backends.beside MODULES MODULE ARGUMENT...` runs a module with a fork server of its own, which imports others meanwhile."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib import import_module

from workbench.backends import forking


def command(modules: Sequence[str], module: str, *arguments: str) -> list[str]:
    """The command of `module`, beside a server that imports `modules`."""
    return [sys.executable, "-m", "workbench.backends.beside", ",".join(modules), module, *arguments]


def main() -> int:
    modules, module = sys.argv[1].split(","), sys.argv[2]
    with forking.serving(modules) as path:
        os.environ[forking.SOCKET] = path
        sys.argv[1:3] = []
        return import_module(module).main()


if __name__ == "__main__":
    sys.exit(main())
