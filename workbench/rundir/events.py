"""The event files of a run, `events/<role>.jsonl`: one writer a file, any number of readers (`RunDir.events`)."""

from __future__ import annotations

import os
import threading
import time

from workbench.rundir import opening
from workbench.rundir.files import append, end_torn_line
from workbench.rundir.store import RunDir

FLUSH_AFTER_S = 0.2


class EventWriter:
    """Appends to one role's event file. Only one process may hold it; a new attempt continues with the numbering.

    On a network file system other hosts see what was written once it is flushed, which the kernel may put off for half a minute: so a thread
    flushes it soon after, and the writer does not wait.
    """

    def __init__(self, run: RunDir, role: str = "actor"):
        path = run.events_path(role)
        opening.make_folder(path.parent)
        end_torn_line(path)
        self._seq = 1 + max((event["seq"] for event in run.events(role=role)), default=-1)
        self._file = open(path, "ab", buffering=0, opener=opening.opener)  # noqa: SIM115
        self._flushing = False
        self._failed: OSError | None = None

    def write(self, kind: str, **values: object) -> None:
        """Append one event in a single write, so that a reader sees the whole line or none of it.

        Raises OSError on a full disk; where that shows only when earlier events are flushed, then for those.
        """
        if self._failed:
            raise self._failed
        append(self._file, {"seq": self._seq, "time": time.time(), "kind": kind, **values})
        self._seq += 1
        if not self._flushing:
            self._flushing = True
            threading.Thread(target=self._flush, name="flush", daemon=True).start()

    def _flush(self) -> None:
        """Until nothing new has come. A write after that starts another."""
        while True:
            time.sleep(FLUSH_AFTER_S)
            seq = self._seq
            try:
                os.fdatasync(self._file.fileno())
            except ValueError:
                return  # closed, which flushes too
            except OSError as error:
                self._failed = error
                return
            self._flushing = False
            if seq == self._seq:
                return
            self._flushing = True

    def close(self) -> None:
        os.fsync(self._file.fileno())
        self._file.close()
