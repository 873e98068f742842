"""Logs in a terminal: whatever a run or its libraries printed, nothing in it steers the terminal."""

from __future__ import annotations

import codecs
from collections import defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path

from workbench.rundir import opening
from workbench.views.text import visible


class LogReader:
    """What is new in growing logs; what is in those of `passed` already is passed over."""

    def __init__(self, passed: Iterable[Path] = ()):
        self._read = defaultdict(int, {path: opening.stat(path).st_size for path in passed})
        decoder = codecs.getincrementaldecoder("utf-8")
        self._decoders: defaultdict[Path, Callable[[bytes], str]] = defaultdict(lambda: decoder(errors="replace").decode)

    def new_text(self, path: Path) -> str:
        """Control characters are escapes that show. Raises FileNotFoundError and Unreadable."""
        with open(path, "rb", opener=opening.opener) as file:
            file.seek(self._read[path])
            content = file.read()
        self._read[path] += len(content)
        return visible(self._decoders[path](content))
