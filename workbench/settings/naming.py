"""Names: of the files that add something to the workbench, and the nearest known one to a name that is not."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

from workbench.settings.shipped import PACKAGE


def module_names(folder: str) -> list[str]:
    """The files of a folder of the package (`algorithms`, `rollout/engines`), by name; those that begin with an underscore are not meant."""
    return sorted(path.stem for path in (PACKAGE / folder).glob("[a-z]*.py"))


def nearest(word: str, known: Sequence[str]) -> str:
    """`; did you mean …?`, or nothing where no known word is close."""
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else ""
