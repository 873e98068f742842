"""Executes a notebook file: its parameters set, every code cell in order, the outputs in a new file."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

import nbformat
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
from nbformat import NotebookNode

from workbench.notebook.parameters import with_parameters

CELL_TIMEOUT_S = 1800


class CellFailed(ValueError):
    """A cell raised an error, took too long, or lost its kernel. `cell` is its number among the executed notebook's cells, from 1."""

    def __init__(self, path: Path, cell: int, reason: str):
        self.cell, self.reason = cell, reason
        super().__init__(f"{path}: cell {cell}: {reason}")


def read(path: Path) -> NotebookNode:
    """The notebook in this file, in the newest format. Raises ValueError for a file that is none."""
    try:
        notebook = nbformat.read(path, as_version=4)
        nbformat.validate(notebook)
    except (nbformat.ValidationError, nbformat.reader.NotJSONError, UnicodeDecodeError, AttributeError) as error:
        raise ValueError(f"{path} is not a valid notebook: {str(error).splitlines()[0]}") from None
    return notebook


def execute(
    path: Path,
    parameters: Mapping[str, object] | None = None,
    out: Path | None = None,
    *,
    environment: Mapping[str, str] | None = None,
    timeout_s: float = CELL_TIMEOUT_S,
) -> NotebookNode:
    """Run every code cell of the notebook from the top, in a new kernel of this interpreter whose working directory is the notebook's folder.

    Args:
        parameters: values for names of the notebook's parameters cell, see `with_parameters`.
        out: a new file for the executed notebook; also written, as far as it came, when a cell fails.
        environment: added to this process's for the kernel.
        timeout_s: longest execution of one cell.

    Returns:
        The executed notebook. The state of its widgets is not kept: their static pictures are.

    Raises:
        CellFailed: a cell raised an error, took too long, or its kernel died. Later cells did not run.
        ValueError: the file is not a notebook, it has no such parameter, or `out` is the notebook itself.
    """
    if out is not None and out.exists() and out.samefile(path):
        raise ValueError(f"{out} is the notebook itself: name a new file for the executed one")
    notebook = with_parameters(read(path), parameters or {}, path)
    try:
        with tempfile.TemporaryDirectory(prefix="workbench-kernel-") as sockets:
            _execute(notebook, path, Path(sockets), {**os.environ, **(environment or {})}, timeout_s)
    finally:
        if out is not None:
            out.parent.mkdir(parents=True, exist_ok=True)
            nbformat.write(notebook, out)
    return notebook


def _execute(notebook: NotebookNode, path: Path, sockets: Path, environment: Mapping[str, str], timeout_s: float) -> None:
    # A kernel spec that the user installed may name another environment: without any it is ipykernel's own, of this interpreter. Its sockets lie in a
    # folder of the user's own: from TCP ports anyone on the machine could read the outputs.
    specs = KernelSpecManager(kernel_dirs=[])
    manager = AsyncKernelManager(kernel_spec_manager=specs, transport="ipc", connection_file=str(sockets / "kernel.json"), ip=str(sockets / "kernel"))
    current = 0

    def begin(cell: NotebookNode, cell_index: int) -> None:
        nonlocal current
        current = cell_index + 1

    folder = {"metadata": {"path": str(path.resolve().parent)}}
    client = NotebookClient(notebook, km=manager, timeout=timeout_s, store_widget_state=False, resources=folder, on_cell_start=begin)
    try:
        client.execute(cleanup_kc=True, env=environment)
    except CellExecutionError as error:
        raise CellFailed(path, current, f"{error.ename}: {error.evalue}") from None
    except CellTimeoutError:
        raise CellFailed(path, current, f"took longer than {timeout_s:g} s") from None
    except DeadKernelError:
        raise CellFailed(path, current, "the kernel died") from None
