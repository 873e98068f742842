"""A policy endpoint of the tiny models, as a run of its own."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.waiting import ended, until
from workbench import api
from workbench.rundir import beats
from workbench.rundir.store import State
from workbench.serve import discovery
from workbench.serve.completions import Completions


@dataclass(frozen=True)
class Served:
    """A run that serves, and how it is asked."""

    run: api.Run
    url: str
    token: str

    @property
    def client(self) -> Completions:
        return Completions(self.url, self.token)

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])


@contextmanager
def served(folder: Path, checkpoints: Sequence[str], *words: str) -> Iterator[Served]:
    """Stopped at the end."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WORKBENCH_RUNS", str(folder / "runs"))
        patch.setenv("WORKBENCH_CACHE", str(folder / "cache"))
        run = api.serve(checkpoints, ["backend.threads_per_rank=1", *words])
    file = run.dir.path / "endpoints" / discovery.HTTP_FILE
    try:
        until(file.exists, what="endpoints/http.json", run=run)
        yield Served(run, *discovery.read_http(file))
    finally:
        ranks = [psutil.Process(beat.pid) for beat in beats.read(run.dir)]
        if not run.status.state.ended:
            run.stop()
            assert run.wait(120).state == State.STOPPED
        until(lambda: all(ended(process) for process in ranks), what="the end of the endpoint's processes")
        assert not file.exists()


def events(text: str) -> list[dict[str, Any]]:
    """Of a stream of server-sent events, without its end."""
    lines = [line.removeprefix("data: ") for line in text.splitlines() if line]
    assert lines[-1] == "[DONE]"
    return [json.loads(line) for line in lines[:-1]]
