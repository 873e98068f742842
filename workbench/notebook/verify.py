"""Whether the numbers that a saved notebook quotes still come out of the finished runs: `workbench notebook verify FILE`.

What is compared, cell by cell: the numbers in the standard output and in the `text/plain` results of code cells, in their order. A number is a run of
digits with its sign, thousands separators, decimals and exponent that no letter, digit, dot or underscore precedes; `nan` and `inf` are numbers. The
new one must equal the saved one to the digits that were saved: they differ by at most half a unit of its last digit. Cells tagged `varies` are
executed and not compared; nor are widgets, which show what was known when they were drawn.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from itertools import zip_longest
from pathlib import Path

from nbformat import NotebookNode

from workbench import api
from workbench.notebook.execution import CELL_TIMEOUT_S, CellFailed, execute, read
from workbench.notebook.parameters import tags
from workbench.notebook.used_runs import VERIFYING, noted
from workbench.rundir import opening
from workbench.rundir.store import RunDir

VARIES, MAY_RAISE = "varies", "raises-exception"
"""Tags of cells: outputs that are not compared; an error that is expected (nbclient's)."""
WIDGET = "application/vnd.jupyter.widget-view+json"
PICTURE = 'class="wb-picture"'
"""In the HTML below a widget of ours, which shows what it showed."""
NUMBER = re.compile(
    r"(?<![\w.])[-+−]?(?:(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d*)?|\.\d+)(?:e[-+]?\d+)?|(?<![\w.])[-+−]?(?:nan|inf)(?!\w)", re.IGNORECASE
)


@dataclass(frozen=True)
class Quoted:
    """A number of an output, as it is written, and its line."""

    text: str
    line: str

    @property
    def value(self) -> Decimal:
        return Decimal(self.text.replace(",", "").replace("−", "-"))

    def comes_out_as(self, new: Quoted) -> bool:
        """Whether the new number is this one, to the digits that this one shows."""
        if not self.value.is_finite() or not new.value.is_finite():
            return str(self.value) == str(new.value)
        unit = Decimal(1).scaleb(int(self.value.as_tuple().exponent))
        return abs(new.value - self.value) <= unit / 2


@dataclass(frozen=True)
class Verification:
    """What `verify` found: how many numbers it compared in how many cells, the ids of the runs they are of, what is wrong, and what is worth a note."""

    numbers: int
    cells: int
    runs: tuple[str, ...]
    problems: tuple[str, ...]
    notes: tuple[str, ...]


def verify(path: Path, timeout_s: float = CELL_TIMEOUT_S) -> Verification:
    """Execute the saved notebook again, where launching is refused, and compare. The file is left as it is.

    Raises ValueError for a file that is not a notebook or has no outputs: there is nothing to compare.
    """
    saved = read(path)
    code = [(number, cell) for number, cell in enumerate(saved.cells, 1) if cell.cell_type == "code" and cell.source.strip()]
    if not any(cell.outputs for _, cell in code):
        raise ValueError(f"{path} has no outputs to verify: run all its cells and save it")
    problems = list(_problems_as_saved(code))
    with tempfile.TemporaryDirectory() as folder:
        file, executed = Path(folder) / "runs", Path(folder) / "executed.ipynb"
        try:
            execute(path, out=executed, environment={VERIFYING: str(file)}, timeout_s=timeout_s)
            done = len(saved.cells)
        except CellFailed as error:
            problems.append(f"cell {error.cell}: {error.reason}")
            done = error.cell - 1
        new = read(executed)
        runs = noted(file)
    compared = [(number, quoted(cell), quoted(new.cells[number - 1])) for number, cell in code if number <= done and VARIES not in tags(cell)]
    for number, before, now in compared:
        problems.extend(f"cell {number}: {difference}" for difference in differences(before, now))
    wrong, notes = _check_runs(runs, path.stat().st_mtime)
    counts = [len(before) for _, before, _ in compared if before]
    if not counts and not problems:
        raise ValueError(f"{path} quotes no number in a cell that is compared")
    return Verification(sum(counts), len(counts), tuple(runs), (*problems, *wrong), tuple(notes))


def quoted(cell: NotebookNode) -> list[Quoted]:
    """The numbers of a code cell's outputs: standard output first, then the results, so that their order does not depend on timing."""
    streams = ["".join(output.text) for output in cell.outputs if output.output_type == "stream" and output.name == "stdout"]
    shown = [output.data for output in cell.outputs if output.output_type in ("execute_result", "display_data")]
    results = ["".join(data.get("text/plain", "")) for data in shown if WIDGET not in data and PICTURE not in "".join(data.get("text/html", ""))]
    lines = [line for text in ("".join(streams), *results) for line in text.splitlines()]
    return [Quoted(match[0], line.strip()) for line in lines for match in NUMBER.finditer(line)]


def differences(saved: list[Quoted], new: list[Quoted]) -> Iterator[str]:
    """What differs, a line each; the first alone where there are more or fewer numbers than before, as the rest is then out of step."""
    for before, now in zip_longest(saved, new):
        if before is None:
            yield f"was saved with {len(saved)} numbers and now has {len(new)}; the first new one is {now.text} in “{now.line}”"
            return
        if now is None:
            yield f"saved {before.text} in “{before.line}”, which no longer comes out: the cell now has {len(new)} numbers of {len(saved)}"
            return
        if not before.comes_out_as(now):
            yield f"saved {before.text} in “{before.line}”, now {now.text} in “{now.line}”"
            if len(saved) != len(new):
                return


def _problems_as_saved(code: list[tuple[int, NotebookNode]]) -> Iterator[str]:
    for number, cell in code:
        errors = [output for output in cell.outputs if output.output_type == "error"]
        if errors and MAY_RAISE not in tags(cell):
            yield f"cell {number}: was saved with an error, {errors[0].ename}: {errors[0].evalue}"
        elif cell.execution_count is None:
            yield f"cell {number}: was not run before the notebook was saved"


def _check_runs(ids: list[str], saved_time: float) -> tuple[list[str], list[str]]:
    """What is wrong with the runs, and what is to be noted: files that changed after the notebook was saved."""
    wrong, notes = [], []
    for run in map(api.get, ids):
        wrong.extend(f"run {run.id}: {problem}" for problem in run.problems())
        if not run.status.state.ended:
            wrong.append(f"run {run.id} is {run.status.state}: numbers of a run that has not ended cannot be verified")
        if changed := [path for path in _files(run.dir) if opening.stat(path).st_mtime > saved_time]:
            names = ", ".join(str(path.relative_to(run.dir.path)) for path in changed)
            notes.append(f"run {run.id}: changed after the notebook was saved: {names}")
    return wrong, notes


def _files(run: RunDir) -> Iterator[Path]:
    """What numbers of a run are read from: its settings, events, rollouts and answers."""
    for folder, endings in ((run.path, (".yaml", ".parquet")), (run.path / "events", (".jsonl",)), (run.path / "rollouts", (".parquet",))):
        try:
            names = opening.names(folder)
        except FileNotFoundError:
            continue
        yield from (folder / name for name in sorted(names) if name.endswith(endings))
