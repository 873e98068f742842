"""How long a run takes to begin and to end: `workbench run` of a few SFT steps on this machine, from the command to the first step and from the last to the prompt."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from workbench.rundir.store import RunDir

TINY, STEPS, ROWS = "tiny", 2, 64
SETTINGS = ("algorithm=sft", f"algorithm.max_steps={STEPS}", "algorithm.global_batch_size=8", "data.format=preference", f"data.limit={ROWS}")
SPIN = "while True: pass"


@dataclass(frozen=True)
class Start:
    """One run's times, in seconds since its command: a rank's first event, the data read, the model ready, the first step reported.

    `end_s` is from the last step to the prompt, without the checkpoint's `checkpoint_s`.
    """

    model: str
    ranks: int
    rank_s: float
    data_s: float
    ready_s: float
    step_s: float
    checkpoint_s: float
    end_s: float


def measure(models: Sequence[str], ranks: Sequence[int], rounds: int, busy: int, as_json: bool, out: Console) -> None:
    """Print a table of medians, with the range of the first step. `busy` loops take processor time meanwhile.

    Raises:
        RuntimeError: a run failed; with the end of what it printed.
    """
    starts: list[Start] = []
    with tempfile.TemporaryDirectory() as folder, _busy(busy), out.status("…") as status:
        sources = {model: _source(model, Path(folder)) for model in models}
        for number in range(rounds + 1):  # the first reads files that the others find in memory, and is left out
            for model in models:
                for each in ranks:
                    status.update(f"{model}, {each} {'rank' if each == 1 else 'ranks'}, round {number} of {rounds}")
                    start = _run(model, sources[model], each, Path(folder) / "runs")
                    starts += [start] if number else []
    if as_json:
        print(json.dumps([asdict(start) for start in starts], indent=2))
        return
    names = ("a rank speaks", "data read", "model ready", "first step", "", "checkpoint", "end to prompt")
    table = Table("model", "ranks", *names, title=f"seconds, median of {rounds}" + (f", beside {busy} busy loops" if busy else ""))
    for model in models:
        for each in ranks:
            of = [start for start in starts if (start.model, start.ranks) == (model, each)]
            first = [start.step_s for start in of]
            medians = [statistics.median(getattr(start, name) for start in of) for name in ("rank_s", "data_s", "ready_s", "step_s")]
            ends = [statistics.median(getattr(start, name) for start in of) for name in ("checkpoint_s", "end_s")]
            cells = [f"{value:.2f}" for value in medians]
            table.add_row(model, str(each), *cells, f"({min(first):.2f} to {max(first):.2f})", *(f"{value:.2f}" for value in ends))
    out.print(table)


def _source(model: str, folder: Path) -> str:
    if model != TINY:
        return model
    from workbench.bench import tiny

    return str(tiny.save(folder / TINY))


@contextmanager
def _busy(loops: int) -> Iterator[None]:
    processes = [subprocess.Popen([sys.executable, "-c", SPIN]) for _ in range(loops)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def _run(model: str, source: str, ranks: int, runs: Path) -> Start:
    command = ["run", *SETTINGS, f"name={model}-{ranks}", f"model.source={source}", f"backend.ranks_per_node={ranks}"]
    before = {*runs.glob("*")}
    began = time.time()
    done = subprocess.run(
        [sys.executable, "-m", "workbench.terminal.main", *command],
        env={**os.environ, "WORKBENCH_RUNS": str(runs)},
        capture_output=True,
        text=True,
        check=False,
    )
    ended = time.time()
    if done.returncode:
        raise RuntimeError(f"the run of {model} on {ranks} ranks failed:\n{done.stdout[-500:]}{done.stderr[-500:]}")
    (path,) = {*runs.glob("*")} - before
    events = list(RunDir(path).events())

    def at(kind: str, which: int = 0) -> float:
        return [event["time"] for event in events if event["kind"] == kind][which] - began

    last, saved = at("step", -1), at("checkpoint", -1)
    checkpoint_s = next(event["seconds"] for event in events if event["kind"] == "checkpoint")
    return Start(
        model, ranks, at("phase"), at("data"), at("state"), at("step"), checkpoint_s, ended - began - max(last, saved - checkpoint_s) - checkpoint_s
    )
