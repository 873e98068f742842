"""What each rank is doing, so that a hang has a name.

A rank notes in memory what it does; a thread of its own writes that to `beats/<role>-<rank>.json` of the run directory, where the driver looks
(`workbench.monitoring.hang`). The thread that trains touches no file: a full disk or a file system that stands still stops the beats, never the run.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import socket
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType

import psutil

from workbench.rundir import checks, opening
from workbench.rundir.files import read_json, replacing
from workbench.rundir.opening import Unreadable
from workbench.rundir.store import RunDir

RANKS_A_SECOND = 50
"""Beats of a whole gang in a second, at most: a shared file system is no message bus."""
_COLLECTIVES = "torch/distributed/distributed_c10d.py"
_WRAPPERS = "workbench/engine/parallel.py"
_PROJECT = Path(__file__).parents[2]

_doing: dict[int, list[tuple[str, float]]] = defaultdict(list)
_moves, _moved_at, _step = 0, time.monotonic(), 0


@dataclass(frozen=True)
class Beat:
    """One rank's newest sign of life. Its times are durations by its own clock, so that clocks of nodes need not agree.

    `number` counts the beats, `moves` the pieces of work done so far; `quiet_s` is the time since the last piece, `phase_s` that since `phase`
    began. `collective` is the collective operation that the training thread is in, if it is in one, and `place` (file:line) where our code called it.
    `cpus` is how many CPUs the process used since the beat before; its memory in MiB, and the share of the last moments in which its GPU was busy.
    """

    role: str
    rank: int
    attempt: int
    host: str
    pid: int
    number: int
    interval_s: float
    step: int
    phase: str
    phase_s: float
    collective: str
    place: str
    moves: int
    quiet_s: float
    ended: bool = False
    cpus: float = 0.0
    memory_mib: float = 0.0
    gpu_memory_mib: float | None = None
    gpu_busy: float | None = None


def _no_gpu() -> tuple[float | None, float | None]:
    return None, None


gauge: Callable[[], tuple[float | None, float | None]] = _no_gpu
"""What the rank uses of its GPU, in MiB and as a share of the time. Whoever takes a GPU (`workbench.engine.device`) sets it."""


@contextlib.contextmanager
def doing(what: str) -> Iterator[None]:
    """Within: this thread of the rank does `what`."""
    mine = _doing[threading.get_ident()]
    mine.append((what, time.monotonic()))
    moved()
    try:
        yield
    finally:
        mine.pop()
        moved()


def moved(step: int | None = None) -> None:
    """A piece of work is done (a microbatch, a token of each answer, a pause that lasts): the rank does not hang."""
    global _moves, _moved_at, _step
    _moves, _moved_at = _moves + 1, time.monotonic()
    _step = _step if step is None else step


class Heart(threading.Thread):
    """Writes this rank's beats until `end`, or until the process ends."""

    def __init__(self, run: RunDir, role: str):
        super().__init__(name="heart", daemon=True)
        environment = os.environ
        self.role, self.rank, self.attempt = role, int(environment.get("RANK", 0)), int(environment.get("WORKBENCH_ATTEMPT", 1))
        self.interval_s = max(1.0, int(environment.get("WORLD_SIZE", 1)) / RANKS_A_SECOND)
        self._folder, self._number, self._warned = run.path / "beats", 0, False
        self._over = threading.Event()
        self._process, self._spent = psutil.Process(), (time.monotonic(), time.process_time())

    def run(self) -> None:
        while not self._over.wait(self.interval_s if self._number else 0):
            self._beat()
        self._beat()

    def end(self) -> None:
        """A last beat that says so, unless the file system stands still."""
        self._over.set()
        self.join(2 * self.interval_s)

    def _beat(self) -> None:
        self._number += 1
        beat, path = self._now(), self._folder / f"{self.role}-{self.rank}.json"
        try:
            opening.make_folder(self._folder)
            with replacing(path, durable=False) as file:  # not synced: a crash of the machine needs no beats
                file.write(json.dumps(asdict(beat)).encode())
        except (OSError, Unreadable) as error:
            if not self._warned:
                print(
                    f"warning: no beats can be written ({error}); the run continues, a hang of this rank will be reported less exactly",
                    file=sys.stderr,
                )
            self._warned = True

    def _now(self) -> Beat:
        main = threading.main_thread().ident or 0
        now = time.monotonic()
        phase, since = (_doing[main] or [("starting", _moved_at)])[-1]
        collective, code_line = _where(sys._current_frames().get(main))
        spent = time.monotonic(), time.process_time()  # one right after the other: the quotient is of the same time
        (then, before), self._spent = self._spent, spent
        gpu_memory_mib, gpu_busy = gauge()
        return Beat(
            role=self.role,
            rank=self.rank,
            attempt=self.attempt,
            host=socket.gethostname(),
            pid=os.getpid(),
            number=self._number,
            interval_s=self.interval_s,
            step=_step,
            phase=phase,
            phase_s=now - since,
            collective=collective,
            place=code_line,
            moves=_moves,
            quiet_s=now - _moved_at,
            ended=self._over.is_set(),
            cpus=(spent[1] - before) / max(spent[0] - then, 1e-3),
            memory_mib=self._process.memory_info().rss / 2**20,
            gpu_memory_mib=gpu_memory_mib,
            gpu_busy=gpu_busy,
        )


def begin(run: RunDir, role: str) -> None:
    """This process is the rank of the role that its environment says: from now on it beats, to its end."""
    heart = Heart(run, role)
    heart.start()
    atexit.register(heart.end)


def read(run: RunDir) -> list[Beat]:
    """The newest beat of every rank that has one. A file that cannot be read now is passed over: `problems` names it."""
    beats = []
    with contextlib.suppress(Unreadable):  # of the folder
        for path in _paths(run):
            with contextlib.suppress(OSError, Unreadable):
                beats.append(_beat(path))
    return beats


def problems(run: RunDir) -> list[Unreadable]:
    """The beats that cannot be read. Raises Unreadable where the folder cannot."""
    bad = []
    for path in _paths(run):
        try:
            _beat(path)
        except FileNotFoundError:
            continue  # replaced, or gone
        except Unreadable as error:
            bad.append(error)
    return bad


def _paths(run: RunDir) -> list[Path]:
    folder = run.path / "beats"
    return [folder / name for name in opening.names(folder) if name.endswith(".json") and not name.startswith(".")]


def _beat(path: Path) -> Beat:
    """Raises FileNotFoundError and Unreadable."""
    said = read_json(path)
    if wrong := checks.beat(said):
        raise Unreadable(path, f"no beat: {wrong}")
    beat = Beat(**said)
    if path.name != f"{beat.role}-{beat.rank}.json":
        raise Unreadable(path, f"the beat of another rank: {beat.role}-{beat.rank}")
    return beat


def _where(frame: FrameType | None) -> tuple[str, str]:
    """The collective operation that a thread is in, and the innermost place in our own code outside the one file that wraps them."""
    collective = ""
    while frame is not None:
        code = frame.f_code
        if code.co_filename.endswith(_COLLECTIVES):
            collective = code.co_name.strip("_")
        elif code.co_filename.startswith(str(_PROJECT)) and not code.co_filename.endswith(_WRAPPERS):
            relative = Path(code.co_filename).relative_to(_PROJECT)
            if relative.parts[0] == "workbench":
                return collective, f"{relative}:{frame.f_lineno} {code.co_name}"
        frame = frame.f_back
    return collective, ""
