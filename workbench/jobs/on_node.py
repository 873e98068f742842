"""What a compute node can do for a run: `python -m workbench.jobs.on_node FOLDER… -- FILE…` prints it as JSON. Started there by a preflight."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import sys
from collections.abc import Sequence
from importlib import import_module

MODULES = ("torch", "megatron.core", "transformers", "peft", "distributed", "workbench.processes.worker")
"""What a rank imports."""


def look(folders: Sequence[str], files: Sequence[str]) -> dict[str, object]:
    """The host, why modules cannot be imported, which folders cannot be written and which files not be read, and how many GPUs torch sees."""
    broken = {}
    for name in MODULES:
        try:
            with contextlib.redirect_stdout(sys.stderr):
                import_module(name)
        except (ImportError, OSError) as error:
            broken[name] = str(error)
    torch = sys.modules.get("torch")
    return {
        "host": socket.gethostname(),
        "python": sys.executable,
        "broken": broken,
        "unwritable": [path for path in folders if not os.access(path, os.W_OK)],
        "unreadable": [path for path in files if not os.access(path, os.R_OK)],
        "gpus": torch.cuda.device_count() if torch else 0,
    }


if __name__ == "__main__":
    divide = sys.argv.index("--")
    print(json.dumps(look(sys.argv[1:divide], sys.argv[divide + 1 :])))
