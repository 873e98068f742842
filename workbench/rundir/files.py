"""Files that several processes write and read at once, on a disk or on a network file system: atomic, appended by whole lines, read by byte cursor.

All are opened as `workbench.rundir.opening` says, and raise what it raises.
"""

from __future__ import annotations

import errno
import fcntl
import json
import math
import os
import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import IO, Any

from workbench.rundir import opening
from workbench.rundir.opening import ReadOnly, Unreadable, opener

LOCK_POLL_S = 0.005
LONGEST_LINE = 1 << 26
"""Bytes of a line: a validation's samples and diagnostics are far fewer."""


@dataclass
class ByteCursor:
    """How far a reader is in one file, in bytes."""

    offset: int = 0


def finite(value: object) -> object:
    """JSON has no NaN or infinity: such a number is written as its name in a string, which no chart draws and every reader sees."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return value


def decoded(text: str | bytes) -> Any:
    """What a JSON text says. Raises ValueError for what is none, and for one that is nested too deeply."""
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def read_json(path: Path, limit: int = opening.MOST_BYTES) -> dict[str, Any]:
    """The mapping that a JSON file of at most `limit` bytes holds. Raises FileNotFoundError, and Unreadable for anything else."""
    text = opening.read_text(path, limit)
    try:
        value = decoded(text)
    except ValueError as error:
        raise Unreadable(path, "empty" if not text.strip("\0 \r\n\t") else f"no JSON: {error}") from None
    if not isinstance(value, dict):
        raise Unreadable(path, f"expected a JSON object, got {text[:40]!r}")
    return value


def tail(path: Path, cursor: ByteCursor, check: Callable[[Mapping[str, object]], str] = lambda line: "") -> Iterator[dict[str, Any]]:
    """The whole JSON lines after the cursor, which moves on past each. `check` says what is wrong with a line, where something is.

    A host that loses power may leave zeros where it had not written yet: a line with zeros is lost, and passed over.

    Raises:
        Unreadable: a complete line that is no JSON object, or is not what it should be; the message names the file and the byte. The cursor stays before it.
    """
    try:
        file = open(path, "rb", opener=opener)  # noqa: SIM115
    except FileNotFoundError:
        return
    with file:
        file.seek(cursor.offset)
        while line := file.readline(LONGEST_LINE):
            if not line.endswith(b"\n"):
                if len(line) == LONGEST_LINE:
                    raise Unreadable(path, f"a line of more than {LONGEST_LINE >> 20} MiB at byte {cursor.offset}")
                return
            event = None if b"\0" in line else _object(path, cursor.offset, line)
            if event is not None and (wrong := check(event)):
                raise Unreadable(path, f"byte {cursor.offset}: {wrong}")
            cursor.offset += len(line)
            if event is not None:
                yield event


def _object(path: Path, offset: int, line: bytes) -> dict[str, Any]:
    try:
        value = decoded(line)
    except ValueError:
        raise Unreadable(path, f"no JSON at byte {offset}: {line[:80]!r}") from None
    if not isinstance(value, dict):
        raise Unreadable(path, f"no JSON object at byte {offset}: {line[:80]!r}")
    return value


def last_lines(path: Path, count: int, longest: int = 400) -> list[str]:
    """The last lines of a text file, fewer where they are longer than `longest` bytes on average."""
    with open(path, "rb", opener=opener) as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - longest * count))
        return file.read().decode(errors="replace").splitlines()[-count:]


def append_line(path: Path, value: Mapping[str, object]) -> None:
    """Append one JSON line; several writers take turns. Raises OSError on a full disk, and then leaves the file as it was."""
    with open(path, "ab", buffering=0, opener=opener) as file:
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
    if not opening.is_file(path):
        return
    with open(path, "rb+", opener=opener) as file:
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
    with replacing(path) as file:
        file.write(text.encode())


@contextmanager
def replacing(path: Path, mode: int = 0o600, durable: bool = True) -> Iterator[IO[bytes]]:
    """A file that appears at `path`, in place of what is there, when it is written and, if it is to be `durable`, on the disk; until then nothing does."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    try:
        with open(temporary, "xb", opener=opener) as file:
            yield file
            file.flush()
            os.fchmod(file.fileno(), mode)
            if durable:
                os.fsync(file.fileno())
        opening.rename(temporary, path.name)
    except BaseException:
        opening.unlink(temporary)
        raise


def write_once(path: Path, text: str) -> None:
    with replacing(path, mode=0o400) as file:
        file.write(text.encode())


def touch(path: Path) -> os.stat_result:
    """Give a file the time of now by its file system; an empty one is made where there is none."""
    with open(path, "ab", opener=opener) as file:
        os.utime(file.fileno())
        return os.fstat(file.fileno())


def now_on(folder: Path) -> float:
    """The time by the folder's file system: what a file that is written there now gets. Hosts' clocks may differ, and none of them is asked.

    By this host's clock where nothing can be written: nothing is, in another's folder.
    """
    try:
        return touch(folder / ".now").st_mtime
    except (OSError, ReadOnly, Unreadable):
        return time.time()


@contextmanager
def lock(path: Path, timeout_s: float = math.inf) -> Iterator[None]:
    """Only one at a time is within. Who stands still there, or was on a host that died, is waited for so long only.

    Nothing is written into the file: where another has its place, that one stays as it is.
    """
    with open(path, "ab", opener=opener) as file:
        deadline = time.monotonic() + timeout_s
        while not _locked(file) and time.monotonic() < deadline:
            time.sleep(LOCK_POLL_S)
        yield


def _locked(file: IO[bytes]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
