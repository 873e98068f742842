"""The project's notebooks, executed with a tiny model and few steps, and what their outputs hold."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from nbformat import NotebookNode

from tests.rooms import ROOT
from workbench.notebook.execution import execute, read
from workbench.notebook.parameters import parameters
from workbench.notebook.verify import PICTURE, WIDGET

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


@dataclass(frozen=True)
class Executed:
    """An executed notebook and its file."""

    path: Path
    notebook: NotebookNode

    def cell(self, part: str) -> NotebookNode:
        """The only code cell whose source has this part."""
        (cell,) = [cell for cell in self.notebook.cells if cell.cell_type == "code" and part in cell.source]
        return cell

    def text(self, part: str) -> str:
        """What that cell printed, and its results as plain text."""
        outputs = self.cell(part).outputs
        streams = [output.text for output in outputs if output.output_type == "stream" and output.name == "stdout"]
        return "".join([*streams, *(output.data.get("text/plain", "") for output in outputs if "data" in output)])

    def html(self, part: str) -> str:
        return "".join(output.data.get("text/html", "") for output in self.cell(part).outputs if "data" in output)

    def picture(self, part: str) -> str:
        """The static picture below that cell's widget, as a saved notebook keeps it."""
        outputs = [output.data for output in self.cell(part).outputs if "data" in output]
        assert any(WIDGET in data for data in outputs), f"no widget below {part}"
        (picture,) = [data["text/html"] for data in outputs if PICTURE in data.get("text/html", "")]
        return picture


def executed(name: str, folder: Path, values: Mapping[str, object], environment: Mapping[str, str] | None = None) -> Executed:
    """Execute the notebook whose name begins so into `folder`, with those of the values that are parameters of it."""
    (path,) = [path for path in NOTEBOOKS if path.name.startswith(name)]
    known = parameters(read(path))
    target = folder / path.name
    return Executed(target, execute(path, {key: value for key, value in values.items() if key in known}, target, environment=environment))
