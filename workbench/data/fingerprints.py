"""What a file was: its size, its time and its content, to see later whether it still is that."""

from __future__ import annotations

import hashlib
from pathlib import Path

from pydantic import BaseModel


class Fingerprint(BaseModel, extra="forbid"):
    """`mtime_ns` is when it was last written, in nanoseconds; `sha256` is of the whole content."""

    path: str
    size: int
    mtime_ns: int
    sha256: str


def of(path: Path) -> Fingerprint:
    """Reads the whole file. Raises OSError."""
    stat = path.stat()
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return Fingerprint(path=str(path.absolute()), size=stat.st_size, mtime_ns=stat.st_mtime_ns, sha256=digest)


def difference(was: Fingerprint) -> str:
    """How the file differs now, for people; empty where it does not. It is read only where its size is the same and its time is not."""
    path = Path(was.path)
    try:
        stat = path.stat()
        if stat.st_size != was.size:
            return f"it had {was.size:,} bytes and has {stat.st_size:,}"
        if stat.st_mtime_ns != was.mtime_ns and of(path).sha256 != was.sha256:
            return "its content is another one of the same size"
    except FileNotFoundError:
        return "it is not there any more"
    except OSError as error:
        return f"it cannot be read: {error}"
    return ""
