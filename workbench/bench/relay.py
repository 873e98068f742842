"""A relay of UNIX sockets that hands on what it reads a while later: a slow link in user space, for hosts whose kernel shapes none.

`python -m workbench.bench.relay SOCKET TARGET SECONDS` listens on SOCKET and relays to TARGET, each way that much later. Its own cost comes on
top: measure it with 0 seconds. The rate is not limited, and nothing is lost.
"""

from __future__ import annotations

import queue
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

CHUNK = 1 << 18
SPIN_S = 0.0002
"""The last part of a wait: the kernel's timers wake a process about this late."""


@contextmanager
def relayed(url: str, one_way_s: float) -> Iterator[str]:
    """The address, in place of `url`, at which everything takes this much longer each way. The relay is a process of its own."""
    with tempfile.TemporaryDirectory(prefix="workbench-relay-") as folder:
        path = f"{folder}/relay"
        command = [sys.executable, "-m", "workbench.bench.relay", path, url.removeprefix("unix:"), str(one_way_s)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        try:
            process.stdout.readline()
            yield f"unix:{path}"
        finally:
            process.kill()
            process.wait()


def serve(listening: socket.socket, target: str, one_way_s: float) -> None:
    """Relay every connection, for good."""
    while True:
        near, _ = listening.accept()
        far = socket.socket(socket.AF_UNIX)
        far.connect(target)
        for source, sink in ((near, far), (far, near)):
            chunks: queue.SimpleQueue[tuple[float, bytes]] = queue.SimpleQueue()
            threading.Thread(target=_read, args=(source, chunks, one_way_s), daemon=True).start()
            threading.Thread(target=_write, args=(sink, chunks), daemon=True).start()


def _read(source: socket.socket, chunks: queue.SimpleQueue[tuple[float, bytes]], one_way_s: float) -> None:
    data = b"-"
    while data:
        try:
            data = source.recv(CHUNK)
        except OSError:  # the other end is gone
            data = b""
        chunks.put((time.perf_counter() + one_way_s, data))


def _write(sink: socket.socket, chunks: queue.SimpleQueue[tuple[float, bytes]]) -> None:
    while True:
        due, data = chunks.get()
        if (left := due - time.perf_counter()) > SPIN_S:
            time.sleep(left - SPIN_S)
        while time.perf_counter() < due:
            pass
        try:
            if not data:
                sink.shutdown(socket.SHUT_WR)
                return
            sink.sendall(data)
        except OSError:  # the other end is gone
            return


def main() -> None:
    path, target, one_way_s = sys.argv[1:]
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(path)
        listening.listen()
        print("listening", flush=True)
        serve(listening, target, float(one_way_s))


if __name__ == "__main__":
    main()
