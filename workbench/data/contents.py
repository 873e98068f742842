"""What a data file is by its first bytes, where its name says something else."""

from __future__ import annotations

import re
from pathlib import Path

from workbench.settings.sources import DataError

_LFS = b"version https://git-lfs.github.com/spec/"
_GZIP, _PARQUET = b"\x1f\x8b", b"PAR1"
_OTHERS = {
    b"PK\x03\x04": "a zip archive",
    b"\x28\xb5\x2f\xfd": "compressed with zstd",
    b"BZh": "compressed with bzip2",
    b"\xfd7zXZ": "compressed with xz",
}
_HEAD_BYTES = 128
_UTF16 = (b"\xff\xfe", b"\xfe\xff")
_WRAPPED = re.compile(rb'(?:\xef\xbb\xbf)?\s*\{\s*"(data|dataset|rows|records|examples|samples|instances|train)"\s*:\s*\[\s*\{')
"""The beginning of an object that has the rows in a list."""


def check(path: Path) -> None:
    """Raises DataError: the file is not what its ending says, in one sentence with the way out."""
    with path.open("rb") as file:
        head = file.read(_HEAD_BYTES)
    if head.startswith(_LFS):
        raise DataError(f"{path} is a Git LFS pointer and not the data itself; `git lfs pull` in its repository fetches that")
    for mark, what in _OTHERS.items():
        if head.startswith(mark):
            raise DataError(f"{path} is {what}; unpack it first")
    packed, parquet = path.name.endswith(".gz"), path.name.endswith(".parquet")
    if head.startswith(_GZIP) and not packed:
        raise DataError(f"{path} is compressed with gzip, which its name does not say; rename it to {path.name}.gz, or unpack it")
    if head and packed and not head.startswith(_GZIP):
        raise DataError(f"{path} is not compressed with gzip, as its name says; rename it to {path.name.removesuffix('.gz')}")
    if head.startswith(_PARQUET) and not parquet:
        raise DataError(f"{path} is a Parquet file, which its name does not say; rename it to {path.stem}.parquet")
    if head and parquet and not head.startswith(_PARQUET):
        raise DataError(f"{path} is not a Parquet file, as its name says: it begins with {head[:8]!r}")
    if head.startswith(_UTF16) and not parquet:
        raise DataError(f"{path} is UTF-16 text; `iconv -f UTF-16 -t UTF-8` makes UTF-8 of it")
    if path.name.endswith(".json") and (wrapped := _WRAPPED.match(head)):
        key = wrapped[1].decode()
        raise DataError(
            f"{path} is an object with a list in its key {key!r}; write that list alone (`jq .{key}`), or name it .jsonl if each line is a row"
        )
