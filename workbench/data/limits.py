"""How much reading somebody else's files may take: in one row, in memory, in processor time, and by how much a small file may grow.

None of these is on a data set's size: what is large because it has many rows is read.
"""

from __future__ import annotations

import math
import resource
import signal
from dataclasses import dataclass

from workbench.settings import Data

FREE_BYTES = 64 << 20
"""So much comes out of any file, however small, before its growth is looked at."""
ROW_BYTES = 200
"""What a row takes in memory beside its text, for the growth."""
BATCH_CPU_S = 60


@dataclass(frozen=True)
class Limits:
    """`expansion` is how many times its size on disk a compressed file may become; `memory_bytes` is for the process that decodes it."""

    row_bytes: int = 8 << 20
    expansion: int = 200
    memory_bytes: int = 4 << 30

    @classmethod
    def of(cls, data: Data) -> Limits:
        """As a run's data settings have them."""
        return cls(data.max_row_mb << 20, data.max_expansion, int(data.reader_memory_gb * 2**30))


def of_memory(limit_bytes: int) -> None:
    """This process, and what it starts, may write to so much memory each, and leaves no core file."""
    _lower(resource.RLIMIT_DATA, limit_bytes)
    _lower(resource.RLIMIT_CORE, 0)


def processor_time(seconds: int) -> None:
    """From now on this process may use so much processor time, or is ended by SIGXCPU. Called again, it begins anew."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    soft = math.ceil(used.ru_utime + used.ru_stime) + seconds
    resource.setrlimit(resource.RLIMIT_CPU, (soft if hard == resource.RLIM_INFINITY else min(soft, hard), hard))


def ended_by(code: int, cpu_s: int, memory_bytes: int) -> str:
    """Why a process with such limits ended, from its exit code."""
    if code == -signal.SIGXCPU:
        return f"it took more than {cpu_s} s of processor time"
    if code < 0:
        return f"it was ended by {signal.Signals(-code).name}; its limit is {memory_bytes / 2**30:g} GiB of memory"
    return f"it exited with {code}"


def _lower(which: int, value: int) -> None:
    """A limit that is lower already stays."""
    _, hard = resource.getrlimit(which)
    resource.setrlimit(which, (value, hard) if hard == resource.RLIM_INFINITY else (min(value, hard), hard))
