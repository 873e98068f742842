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
_ARRAY, _ARRAY_OF_OBJECTS = (re.compile(rb"(?:\xef\xbb\xbf)?\s*\[" + more) for more in (rb"", rb"\s*[{\]]"))
_SPACE = re.compile(r"[\s,]*")
_NOT_UTF8 = re.compile("[\udc80-\udcff]")
_ITEM = re.compile(r"[,\s\[]\s*(?=\{)")
_DECODER = json.JSONDecoder()
"""Where only the extent of a value is asked for."""
_CHUNK = 1 << 18
_EDGE = 16
"""An error so near to the end of what is read may be due to what is not yet."""


class _Decoder:
    """Decodes JSON; `twice` is the key that an object of the last value has twice, or empty."""

    def __init__(self) -> None:
        self._decoder = json.JSONDecoder(object_pairs_hook=self._object)
        self.twice = ""

    def decode(self, text: str, at: int) -> tuple[object, int]:
        """(the value that begins here, where it ends)."""
        self.twice = ""
        return self._decoder.raw_decode(text, at)

    def line(self, text: str) -> object:
        self.twice = ""
        return self._decoder.decode(text)

    def broken(self) -> Broken:
        return Broken("JSON objects that have each key once", f"the key {self.twice[:40]!r} twice")

    def _object(self, pairs: list[tuple[str, object]]) -> dict[str, object]:
        made = dict(pairs)
        if len(made) < len(pairs):
            seen: set[str] = set()
            self.twice = next(key or " " for key, _ in pairs if key in seen or seen.add(key))
        return made


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
            array = _ARRAY if path.name.endswith((".json", ".json.gz")) else _ARRAY_OF_OBJECTS
            if array.match(file.peek(_CHUNK)) and _closes(path, packed):
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
    decoder = _Decoder()
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
            yield number, _decoded(line.removeprefix(_BOM) if number == 1 else line, decoder)
        else:
            yield number, None


def _decoded(line: bytes, decoder: _Decoder) -> object:
    try:
        row = decoder.line(line.decode())
        return decoder.broken() if decoder.twice else row
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
        self.json = _Decoder()
        self.text, self.at, self.ended = "", 0, False

    def more(self, where: str) -> bool:
        """Read as much again as there is; False at the end."""
        chunk = self._file.read(max(_CHUNK, len(self.text) - self.at))
        self._grown(len(chunk), where)
        self.text, self.at, self.ended = self.text[self.at :] + self._decoder.decode(chunk, not chunk), 0, not chunk
        return not self.ended

    def skip(self, pattern: re.Pattern[str], where: str) -> bool:
        """Continue behind the next match; False where there is none."""
        while (match := pattern.search(self.text, self.at)) is None:
            self.at = max(self.at, len(self.text) - 1024)
            if not self.more(where):
                return False
        self.at = match.end()
        return True

    def character(self, where: str) -> str:
        """The next one that is neither space nor comma; empty at the end."""
        while True:
            match = _SPACE.match(self.text, self.at)
            self.at = match.end() if match else self.at
            if self.at < len(self.text) or not self.more(where):
                return self.text[self.at : self.at + 1]


def _items(given: _Text, path: str, limits: Limits) -> Generator[tuple[int, object]]:
    """(number, row) of each item of the array. Behind one that cannot be read, the next begins where an object does whose first key two rows in turn had."""
    number = 0
    given.skip(re.compile(r"\["), path)
    begins: re.Pattern[str] | None = None
    first_key: object = None
    while True:
        where = f"{path}:{number + 1}"
        character = given.character(where)
        if not character:
            yield number + 1, Broken("a whole JSON array", "one without its closing bracket")
            return
        row, whole = _item(given, where, limits) if character not in "[]" else (Broken("a JSON object", "the bracket of a list"), False)
        if character == "]":
            given.at += 1
            if not (after := given.character(where)):
                return
            row, whole = Broken("nothing after the array's end", repr(given.text[given.at : given.at + 40])), after == "{"
        number += 1
        yield number, row
        if isinstance(row, dict) and row:
            key = next(iter(row))
            begins = _beginning(json.dumps(key, ensure_ascii=False)) if key == first_key else begins
            first_key = key
        if not whole and not (given.skip(begins, where) if begins else _skip_first(given)):
            return


def _skip_first(given: _Text) -> bool:
    """Behind an item that cannot be read, while no key is known: go to where the longest row of whole objects begins. False where there is none."""
    starts = [match.end() for match in _ITEM.finditer(given.text, given.at, given.at + _CHUNK)]
    longest, start = max(((_extent(given.text, start), start) for start in starts), default=(0, 0))
    given.at = start if longest else len(given.text)
    return longest > 0


def _extent(text: str, start: int) -> int:
    """How many characters of objects with commas between them stand here."""
    at = start
    try:
        while text[at : at + 1] == "{" and at - start < _CHUNK:
            _, at = _DECODER.raw_decode(text, at)
            match = _SPACE.match(text, at)
            at = match.end() if match else at
    except (ValueError, RecursionError):
        pass
    return at - start


def _beginning(key: str) -> re.Pattern[str]:
    """Where an item begins whose first key this is, as JSON."""
    return re.compile(rf"[,\s\[](?=\{{\s*{re.escape(key)}\s*:)")


def _item(given: _Text, where: str, limits: Limits) -> tuple[object, bool]:
    """The value that begins here, and whether it was read to its end, so that the next follows."""
    too_long = f"a row of at most {limits.row_bytes / 2**20:g} MiB (data.max_row_mb)"
    while True:
        try:
            value, end = given.json.decode(given.text, given.at)
            if end < len(given.text) or given.ended:
                written, given.at = given.text[given.at : end], end
                if len(written) > limits.row_bytes:
                    return Broken(too_long, f"{len(written) / 2**20:.1f} MiB"), True
                if spoilt := _NOT_UTF8.search(written):
                    return Broken("UTF-8 text", f"byte 0x{ord(spoilt[0]) - 0xDC00:02x} at {spoilt.start()}"), True
                return given.json.broken() if given.json.twice else value, True
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
