"""The safetensors files of a Hugging Face directory, by their headers: which tensors there are, of which types and shapes. Imports no torch."""

from __future__ import annotations

import hashlib
import json
import os
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workbench.rundir.files import decoded

INDEX, WHOLE = "model.safetensors.index.json", "model.safetensors"
MAX_HEADER_BYTES = 100 << 20
"""As safetensors' own reader allows."""
SAMPLE_BYTES = 256
PASSING = ("transformers_version", "_name_or_path", "use_cache")
"""Keys of a configuration that another writer of the same model writes otherwise."""


@dataclass(frozen=True)
class Entry:
    """A tensor in a file: its type as the header names it, its shape, and the bytes it takes from `start` on."""

    path: Path
    dtype: str
    shape: tuple[int, ...]
    start: int
    size: int


def files(directory: Path) -> list[Path]:
    """Those that transformers reads: `model.safetensors`, else those that the index names, else every one that there is."""
    if (directory / WHOLE).is_file():
        return [directory / WHOLE]
    if (directory / INDEX).is_file():
        places = decoded((directory / INDEX).read_bytes())
        names = places.get("weight_map", {}) if isinstance(places, dict) else {}
        return sorted({directory / str(name) for name in names.values()})
    return sorted(directory.glob("*.safetensors"))


def entries(directory: Path) -> dict[str, Entry]:
    """Every tensor by its name; none where there is no file.

    Raises:
        ValueError: a file that the index names is missing, or one is damaged.
    """
    return {name: entry for path in files(directory) for name, entry in _entries(path)}


def _entries(path: Path) -> Iterator[tuple[str, Entry]]:
    if not path.is_file():
        raise ValueError(f"{path} is missing: the index beside it names it; fetch the whole model")
    for name, value in _header(path).items():
        if name == "__metadata__":
            continue
        try:
            begin, end = value["data_offsets"]
            yield name, Entry(path, str(value["dtype"]), tuple(map(int, value["shape"])), begin, end - begin)
        except (KeyError, TypeError, ValueError):
            raise ValueError(f"{path}: its header does not tell the type, the shape and the place of {name!r}") from None


def _header(path: Path) -> dict[str, Any]:
    total = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(8)
        size = struct.unpack("<Q", start)[0] if len(start) == 8 else total
        if size > min(total - 8, MAX_HEADER_BYTES):
            raise ValueError(f"{path} is not a whole safetensors file ({total:,} bytes); fetch it again")
        content = decoded(file.read(size))
    if not isinstance(content, dict):
        raise ValueError(f"{path} is not a safetensors file: its header is no mapping")
    return content


def digest(directory: Path) -> str:
    """Names the weights as they lie here: a hash of the configuration, and of every file's name, size and date."""
    hasher = hashlib.sha256((directory / "config.json").read_bytes())
    for path in files(directory):
        stat = path.stat()
        hasher.update(f"{path.name} {stat.st_size} {stat.st_mtime_ns}".encode())
    return hasher.hexdigest()[:16]


def fingerprint(directory: Path) -> str:
    """A hash of the configuration, of the files' headers, and of a few bytes of every tensor: another model's weights have another one.

    It costs some thousand short reads, whatever the model's size. Names and dates of files do not count.
    """
    config = decoded((directory / "config.json").read_bytes())
    hasher = hashlib.sha256(json.dumps({key: value for key, value in config.items() if key not in PASSING}, sort_keys=True).encode())
    for path in files(directory):
        tensors = sorted(_entries(path), key=lambda item: item[1].start)
        data = path.stat().st_size - max((entry.start + entry.size for _, entry in tensors), default=0)
        with path.open("rb") as file:
            for name, entry in tensors:
                hasher.update(json.dumps([name, entry.dtype, entry.shape]).encode())
                for at in (0, entry.size // 3, entry.size * 2 // 3, max(entry.size - SAMPLE_BYTES, 0)):
                    hasher.update(os.pread(file.fileno(), min(SAMPLE_BYTES, entry.size - at), data + entry.start + at))
    return hasher.hexdigest()[:32]


def types(tensors: Mapping[str, Entry]) -> dict[str, str]:
    return {name: entry.dtype for name, entry in tensors.items()}
