"""Small files that somebody else may have written: opened as plain files alone, read up to a size, parsed as JSON."""

from __future__ import annotations

import json
import os
import stat
import zipfile
from io import BufferedReader
from pathlib import Path
from typing import Any

MAX_JSON_BYTES = 16 << 20


def open_plain(path: Path) -> BufferedReader:
    """A regular file for reading. No link is followed, and no pipe or device waited for.

    Raises:
        ValueError: there is something else of this name.
        OSError: there is nothing, or it cannot be read.
    """
    if path.is_symlink():
        raise ValueError(f"{path} is a symbolic link; expected a plain file: copy what it points at in its place, if that is to be read")
    file = os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC), "rb")
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise ValueError(f"{path} is no plain file; expected one")
    return file


def json_object(path: Path, max_bytes: int = MAX_JSON_BYTES) -> dict[str, Any]:
    """The JSON object in a plain file.

    Raises:
        ValueError: it is longer, no JSON, or no object; the message names the file.
        OSError: it cannot be read.
    """
    with open_plain(path) as file:
        text = file.read(max_bytes + 1)
    if len(text) > max_bytes:
        raise ValueError(f"{path} has more than {max_bytes:,} bytes; expected a short JSON object")
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not JSON: {type(error).__name__}: {error}") from None
    if not isinstance(found, dict):
        raise ValueError(f"{path}: expected a JSON object, got {type(found).__name__}")
    return found


def check_name(name: str, where: Path) -> str:
    """A file's name that a file gives, as it is: a name alone, which leads nowhere else.

    Raises:
        ValueError: it has a folder in it, or is no name.
    """
    if name in ("", ".", "..") or "/" in name or "\\" in name or "\0" in name:
        raise ValueError(f"{where} names the file {name!r}; expected a plain name, of a file beside it")
    return name


def check_stored(path: Path) -> None:
    """Refuse a zip file, as numpy writes, whose parts expand when they are read.

    Raises:
        ValueError: a part is compressed, or no zip file.
    """
    try:
        with open_plain(path) as file, zipfile.ZipFile(file) as parts:
            packed = [part.filename for part in parts.infolist() if part.compress_type != zipfile.ZIP_STORED or part.file_size > part.compress_size]
    except zipfile.BadZipFile as error:
        raise ValueError(f"{path}: {error}") from None
    if packed:
        raise ValueError(f"{path}: {packed[0]} is compressed; expected numbers as they are (numpy.savez)")
