"""A server that says what it is given: `python -m tests.serve.echo RUN_DIR`."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import numpy as np

from workbench.models.endpoint import Arrays, Endpoint, Field, check_tokens
from workbench.serve.server import Server

TOKENS, LENGTHS, PID = Field("tokens", np.int32, 2), Field("sequence_lengths", np.int32, 1), Field("pid", np.int64, 1)


def echo(arrays: Arrays) -> Arrays:
    check_tokens(arrays["tokens"], arrays["sequence_lengths"], vocab_size=100, max_length=16)
    return {"sums": arrays["tokens"].sum(1).astype(np.float32), "pid": np.array([os.getpid()])}


def slow(arrays: Arrays) -> Arrays:
    """It has a fault: it does not refuse a time below 0."""
    time.sleep(float(arrays["seconds"][0]))
    return {"pid": np.array([os.getpid()])}


def held(arrays: Arrays) -> Arrays:
    """Says that it was asked, and answers when there is no file `hold` (any more)."""
    run = Path(sys.argv[1])
    (run / f"asked.{os.getpid()}").touch()
    while (run / "hold").exists():
        time.sleep(0.02)
    return {"pid": np.array([os.getpid()])}


def texts(arrays: Arrays) -> Arrays:
    return {"upper": np.array([text.upper() for text in arrays["texts"]])}


def main() -> None:
    endpoints = [
        Endpoint("echo", (TOKENS, LENGTHS), (Field("sums", np.float32, 1), PID), echo),
        Endpoint("slow", (Field("seconds", np.float32, 1),), (PID,), slow),
        Endpoint("held", (Field("seconds", np.float32, 1),), (PID,), held),
        Endpoint("texts", (Field("texts", bytes, 1),), (Field("upper", bytes, 1),), texts),
    ]
    Server(Path(sys.argv[1]), "echo", endpoints, max_request_bytes=1 << 20).run()


if __name__ == "__main__":
    main()
