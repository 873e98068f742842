"""Files that several processes write and read at once, on a disk or on a network file system: atomic, appended by whole lines, read by byte cursor."""

from __future__ import annotations

import errno
import fcntl
import json
import math
import os
import secrets
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import IO, Any

LOCK_POLL_S = 0.005


@dataclass
class ByteCursor:
    """How far a reader is in one file, in bytes."""

    offset: int = 0


def private(path: str, flags: int) -> int:
    """An opener for `open`: a new file is its owner's alone, mode 0600."""
    return os.open(path, flags, 0o600)


def finite(value: object) -> object:
    """JSON has no NaN or infinity: such a number is written as its name in a string, which no chart draws and every reader sees."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return value


def tail(path: Path, cursor: ByteCursor) -> Iterator[dict[str, Any]]:
    """The whole JSON lines after the cursor, which moves on past each.

    A host that loses power may leave zeros where it had not written yet: a line with zeros is lost, and passed over.

    Raises:
        ValueError: a complete line that is not JSON; the message names the file and the byte.
    """
    try:
        file = path.open("rb")
    except FileNotFoundError:
        return
    with file:
        file.seek(cursor.offset)
        for line in file:
            if not line.endswith(b"\n"):
                return
            try:
                event = None if b"\0" in line else json.loads(line)
            except ValueError:
                raise ValueError(f"{path}: no JSON at byte {cursor.offset}: {line[:80]!r}") from None
            cursor.offset += len(line)
            if event is not None:
                yield event


def last_lines(path: Path, count: int, longest: int = 400) -> list[str]:
    """The last lines of a text file, fewer where they are longer than `longest` bytes on average."""
    with path.open("rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - longest * count))
        return file.read().decode(errors="replace").splitlines()[-count:]


def append_line(path: Path, value: Mapping[str, object]) -> None:
    """Append one JSON line; several writers take turns. Raises OSError on a full disk, and then leaves the file as it was."""
    with open(path, "ab", buffering=0, opener=private) as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        append(file, value)


def append(file: FileIO, value: Mapping[str, object]) -> None:
    """Write one JSON line. A nearly full disk takes only the line's beginning: that is cut off again, or the next line would join it."""
    line = json.dumps(finite(value), allow_nan=False).encode() + b"\n"
    size = file.seek(0, os.SEEK_END)
    if (written := file.write(line)) != len(line):
        file.truncate(size)
        raise OSError(errno.ENOSPC, f"only {written} of {len(line)} bytes could be written", file.name)


def end_torn_line(path: Path) -> None:
    """Cut a line that a crash left half-written, so that the next append starts on a line of its own."""
    if not path.exists():
        return
    with path.open("rb+") as file:
        size = file.seek(0, os.SEEK_END)
        position = size
        while position > 0:
            start = max(0, position - 65536)
            file.seek(start)
            at = file.read(position - start).rfind(b"\n")
            if at >= 0:
                file.truncate(start + at + 1)
                return
            position = start
        file.truncate(0)


def write_atomic(path: Path, text: str) -> None:
    """Replace a file so that a reader, or a crash at any moment, sees the old text or the new."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    try:
        with open(temporary, "w", opener=private) as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_once(path: Path, text: str) -> None:
    write_atomic(path, text)
    path.chmod(0o400)


def now_on(folder: Path) -> float:
    """The time by the folder's file system: what a file that is written there now gets. Hosts' clocks may differ, and none of them is asked.

    By this host's clock where nothing can be written.
    """
    probe = folder / ".now"
    try:
        probe.touch(mode=0o600)
        return probe.stat().st_mtime
    except OSError:
        return time.time()


@contextmanager
def lock(path: Path, timeout_s: float = math.inf) -> Iterator[None]:
    """Only one at a time is within. Who stands still there, or was on a host that died, is waited for so long only."""
    with open(path, "w", opener=private) as file:
        deadline = time.monotonic() + timeout_s
        while not _locked(file) and time.monotonic() < deadline:
            time.sleep(LOCK_POLL_S)
        yield


def _locked(file: IO[str]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
