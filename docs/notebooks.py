"""The notebooks as pages of the site, with their outputs: `python docs/notebooks.py FOLDER`.

Takes what `make notebooks-test` has executed with SmolLM2, where that is newer than the notebook; executes the others with a tiny random model.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

import nbformat

from workbench.chaos import lab, tiny
from workbench.notebook.execution import execute, read
from workbench.notebook.parameters import parameters
from workbench.notebook.verify import WIDGET

ROOT = Path(__file__).resolve().parents[1]
EXECUTED = ROOT / "build" / "notebooks"


def main(folder: Path) -> None:
    """Write each notebook there, its outputs static and its links those of the site."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="workbench-docs-") as temporary:
        os.environ["WORKBENCH_RUNS"] = f"{temporary}/runs"
        model = tiny.save(Path(temporary) / "model")
        values = {"MODEL": str(model), "OUT": f"{temporary}/out", "STEPS": 3, "ROLLOUTS": 8, "LAB": True}
        for path in sorted((ROOT / "notebooks").glob("[0-9]*.ipynb")):
            ready = EXECUTED / path.name
            if not ready.exists() or ready.stat().st_mtime < path.stat().st_mtime:
                ready = _executed(path, {name: value for name, value in values.items() if name in parameters(read(path))}, Path(temporary))
            nbformat.write(_for_the_site(read(ready)), folder / path.name)


def _executed(path: Path, values: dict[str, object], temporary: Path) -> Path:
    """The executed notebook; the notebook as it is where it needs a SLURM lab and there is none."""
    if "LAB" in values and (why := lab.missing()):
        print(f"{path.name} is shown without outputs: {why}", file=sys.stderr)
        return path
    print(f"executing {path.name} with a tiny model …", file=sys.stderr)
    execute(path, values, temporary / path.name)
    return temporary / path.name


def _for_the_site(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """Without widgets, which need a kernel: below each stands its picture. Links to docs/ lead to pages of the site."""
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            cell.source = cell.source.replace("](../docs/", "](../")
        for output in cell.get("outputs", ()):
            output.get("data", {}).pop(WIDGET, None)
    return notebook


if __name__ == "__main__":
    main(Path(sys.argv[1]))
