"""Rows of JSON files, a line or an array's item each, read in a stream: one that cannot be read spoils no other."""

from __future__ import annotations

import codecs
import gzip
import json
import re
import zlib
from collections.abc import Callable, Generator
from pathlib import Path
from typing import IO, Protocol

from workbench.data.decoding import Broken
from workbench.data.growth import Growth
from workbench.data.limits import ROW_BYTES, Limits

_BOM = b"\xef\xbb\xbf"
_ARRAY = re.compile(rb"(?:\xef\xbb\xbf)?\s*\[\s*[{\]]")
_SPACE = re.compile(r"[\s,]*")
_NOT_UTF8 = re.compile("[\udc80-\udcff]")
_ITEM = re.compile(r"\}\s*,\s*(?=\{)")
_DECODER = json.JSONDecoder()
_CHUNK = 1 << 18
_EDGE = 16
"""An error so near to the end of what is read may be due to what is not yet."""


def json_rows(path: Path, limits: Limits) -> Generator[tuple[str, object]]:
    """The rows of a file, with their places: `file:line`, of an array `file:number`; what cannot be read is a `Broken`.

    Raises:
        DataError: it expands beyond the limits.
    """
    packed = path.name.endswith(".gz")
    number = 0
    with path.open("rb") as stored, gzip.GzipFile(fileobj=stored) if packed else stored as file:
        growth = Growth(limits.expansion if packed else None)
        try:
            if _ARRAY.match(file.peek(_CHUNK)) and _closes(path, packed):
                given = _Text(file, lambda size, where: growth.check(size, stored.tell(), where))
                for number, row in _items(given, str(path), limits):
                    yield f"{path}:{number}", row
            else:
                for number, row in _lines(file, stored, growth, path, limits):
                    if row is not None:
                        yield f"{path}:{number}", row
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            yield f"{path}:{number + 1}", Broken("a whole gzip file", f"{type(error).__name__}: {error}")


def _closes(path: Path, packed: bool) -> bool:
    """Whether the file ends as an array does; of a compressed one its name decides."""
    if packed:
        return path.name.endswith(".json.gz")
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 64))
        return file.read().rstrip().endswith(b"]")


class _Tells(Protocol):
    def tell(self) -> int: ...


def _lines(file: IO[bytes] | gzip.GzipFile, stored: _Tells, growth: Growth, path: Path, limits: Limits) -> Generator[tuple[int, object]]:
    """(number, row) of each line; None for an empty one."""
    number = 0
    while line := file.readline(limits.row_bytes + 1):
        number += 1
        where = f"{path}:{number}"
        size = len(line)
        growth.check(size + ROW_BYTES, stored.tell(), where)
        if size > limits.row_bytes:
            while not line.endswith(b"\n") and (line := file.readline(limits.row_bytes)):
                size += len(line)
                growth.check(len(line), stored.tell(), where)
            yield number, Broken(f"a line of at most {limits.row_bytes / 2**20:g} MiB (data.max_row_mb)", f"{size / 2**20:.1f} MiB")
        elif line.strip(_BOM + b" \t\r\n"):
            yield number, _decoded(line.removeprefix(_BOM) if number == 1 else line)
        else:
            yield number, None


def _decoded(line: bytes) -> object:
    try:
        return json.loads(line.decode())
    except UnicodeDecodeError as error:
        return Broken("UTF-8 text", f"byte 0x{line[error.start]:02x} at {error.start}")
    except RecursionError:
        return Broken("JSON", "brackets nested too deeply")
    except ValueError as error:
        return Broken("JSON", f"{error}: {line[:40]!r}"[:160])


class _Text:
    """The text of a file as far as it is read, from `at` on."""

    def __init__(self, file: IO[bytes] | gzip.GzipFile, grown: Callable[[int, str], None]):
        self._file, self._grown = file, grown
        self._decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape")
        self.text, self.at, self.ended = "", 0, False

    def more(self, where: str) -> bool:
        """Read as much again as there is; False at the end."""
        chunk = self._file.read(max(_CHUNK, len(self.text) - self.at))
        self._grown(len(chunk), where)
        self.text, self.at, self.ended = self.text[self.at :] + self._decoder.decode(chunk, not chunk), 0, not chunk
        return not self.ended

    def skip(self, pattern: re.Pattern[str], where: str) -> bool:
        """Go on behind the next match; False where there is none."""
        while (found := pattern.search(self.text, self.at)) is None:
            self.at = max(self.at, len(self.text) - 1024)
            if not self.more(where):
                return False
        self.at = found.end()
        return True

    def character(self, where: str) -> str:
        """The next one that is neither space nor comma; empty at the end."""
        while True:
            found = _SPACE.match(self.text, self.at)
            self.at = found.end() if found else self.at
            if self.at < len(self.text) or not self.more(where):
                return self.text[self.at : self.at + 1]


def _items(given: _Text, path: str, limits: Limits) -> Generator[tuple[int, object]]:
    """(number, row) of each item of the array. Behind one that cannot be read, the next begins where an item does that begins as the first did."""
    number, begins = 0, _ITEM
    given.skip(re.compile(r"\["), path)
    while True:
        where = f"{path}:{number + 1}"
        character = given.character(where)
        if not character:
            yield number + 1, Broken("a whole JSON array", "one without its closing bracket")
            return
        row, whole = _item(given, where, limits) if character != "]" else (None, False)
        if character == "]":
            given.at += 1
            if not given.character(where):
                return
            row = Broken("nothing after the array's end", repr(given.text[given.at : given.at + 40]))
        number += 1
        yield number, row
        if not whole:
            given.at += 1
            if not given.skip(begins, where):
                return
        elif begins is _ITEM and isinstance(row, dict) and row:
            begins = re.compile(rf"[,\s](?=\{{\s*{re.escape(json.dumps(next(iter(row)), ensure_ascii=False))}\s*:)")


def _item(given: _Text, where: str, limits: Limits) -> tuple[object, bool]:
    """The value that begins here, and whether it was read to its end, so that the next follows."""
    too_long = f"a row of at most {limits.row_bytes / 2**20:g} MiB (data.max_row_mb)"
    while True:
        try:
            value, end = _DECODER.raw_decode(given.text, given.at)
            if end < len(given.text) or given.ended:
                found, given.at = given.text[given.at : end], end
                if len(found) > limits.row_bytes:
                    return Broken(too_long, f"{len(found) / 2**20:.1f} MiB"), True
                if spoilt := _NOT_UTF8.search(found):
                    return Broken("UTF-8 text", f"byte 0x{ord(spoilt[0]) - 0xDC00:02x} at {spoilt.start()}"), True
                return value, True
            problem = Broken("JSON", "an item that is not complete")
        except json.JSONDecodeError as error:
            problem = Broken("JSON", f"{error.msg}: {given.text[given.at : given.at + 40]!r}"[:160])
            if error.pos < len(given.text) - _EDGE and not error.msg.startswith("Unterminated"):
                return problem, False
        except RecursionError:
            return Broken("JSON", "brackets nested too deeply"), False
        except ValueError as error:
            return Broken("JSON", f"{error}"[:160]), False
        if given.ended:
            return problem, False
        if len(given.text) - given.at > limits.row_bytes:
            return Broken(too_long, "a longer one"), False
        given.more(where)
