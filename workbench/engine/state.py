"""The state of a run in a checkpoint: JSON's values, with numpy arrays in a file beside them. Nothing in it is code."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from workbench.rundir import opening
from workbench.rundir.files import read_json

FILE, ARRAYS = "state.json", "state.npz"
MAX_STATE_BYTES = 1 << 30
_ARRAY = "__array__"


def write(folder: Path, state: Mapping[str, object]) -> None:
    """Write `state.json` and `state.npz`.

    Raises:
        TypeError: a value that is neither JSON's nor a numpy array of numbers; the message names its path.
    """
    arrays: dict[str, np.ndarray] = {}
    (folder / FILE).write_text(json.dumps(_without_arrays(state, "", arrays), allow_nan=True))
    with (folder / ARRAYS).open("wb") as file:
        np.savez(file, **arrays)  # object arrays, which would be pickled, are refused above


def read(folder: Path) -> dict[str, Any]:
    """What `write` was given; tuples come back as lists.

    Raises:
        ValueError: a file is not what `write` makes of it.
    """
    _check_stored(folder / ARRAYS)
    with np.load(folder / ARRAYS, allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}
    return _with_arrays(read_json(folder / FILE, MAX_STATE_BYTES), arrays)


def _check_stored(path: Path) -> None:
    """Refuse a zip file, as numpy writes, whose parts expand when they are read.

    Raises:
        ValueError: a part is compressed, or no zip file.
    """
    try:
        with open(path, "rb", opener=opening.opener) as file, zipfile.ZipFile(file) as parts:
            packed = [part.filename for part in parts.infolist() if part.compress_type != zipfile.ZIP_STORED or part.file_size > part.compress_size]
    except zipfile.BadZipFile as error:
        raise ValueError(f"{path}: {error}") from None
    if packed:
        raise ValueError(f"{path}: {packed[0]} is compressed; expected numbers as they are (numpy.savez)")


def _without_arrays(value: object, path: str, arrays: dict[str, np.ndarray]) -> object:
    if isinstance(value, np.ndarray) and value.dtype != object:
        arrays[path] = value
        return {_ARRAY: path}
    if isinstance(value, Mapping):
        if wrong := [key for key in value if not isinstance(key, str) or key == _ARRAY]:
            raise TypeError(f"state{path}: keys are texts, got {wrong[0]!r}")
        return {key: _without_arrays(item, f"{path}/{key}", arrays) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_arrays(item, f"{path}/{i}", arrays) for i, item in enumerate(value)]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(f"state{path}: a checkpoint keeps numbers, texts, lists, mappings and numpy arrays, got {type(value).__name__}")


def _with_arrays(value: Any, arrays: Mapping[str, np.ndarray]) -> Any:
    if isinstance(value, dict):
        return arrays[value[_ARRAY]] if _ARRAY in value else {key: _with_arrays(item, arrays) for key, item in value.items()}
    return [_with_arrays(item, arrays) for item in value] if isinstance(value, list) else value
