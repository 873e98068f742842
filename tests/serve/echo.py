"""A server that says what it is given: `python -m tests.serve.echo RUN_DIR`."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

import numpy as np

from workbench.serve.endpoint import Arrays, Endpoint, Field, check_tokens
from workbench.serve.server import Server


def echo(arrays: Arrays) -> Arrays:
    check_tokens(arrays["tokens"], arrays["sequence_lengths"], vocabulary=100, longest=16)
    return {"sums": arrays["tokens"].sum(1).astype(np.float32), "pid": np.array([os.getpid()])}


def slow(arrays: Arrays) -> Arrays:
    time.sleep(float(arrays["seconds"][0]))
    return {"pid": np.array([os.getpid()])}


def main() -> None:
    ended: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: ended.append(number))
    tokens, lengths, pid = Field("tokens", np.int32, 2), Field("sequence_lengths", np.int32, 1), Field("pid", np.int64, 1)
    endpoints = [
        Endpoint("echo", (tokens, lengths), (Field("sums", np.float32, 1), pid), echo),
        Endpoint("slow", (Field("seconds", np.float32, 1),), (pid,), slow),
    ]
    Server(Path(sys.argv[1]), "echo", endpoints, max_request_bytes=1 << 20).run(lambda: bool(ended))


if __name__ == "__main__":
    main()
