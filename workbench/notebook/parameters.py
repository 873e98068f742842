"""The parameters of a notebook: the names that its cell tagged `parameters` assigns, set to other values by a cell put after it."""

from __future__ import annotations

import ast
import copy
from collections.abc import Mapping
from pathlib import Path

import nbformat
from nbformat import NotebookNode

from workbench.settings.naming import nearest

PARAMETERS, INJECTED = "parameters", "injected-parameters"
"""Tags of cells: the notebook's own, and the one that is put after it. Both are papermill's."""


def tags(cell: NotebookNode) -> list[str]:
    """The cell's tags."""
    return list(cell.metadata.get("tags", ()))


def parameters(notebook: NotebookNode) -> dict[str, str]:
    """Each name that the parameters cell assigns at its top level, with the source of its value; none without such a cell."""
    statements = [statement for cell in notebook.cells if PARAMETERS in tags(cell) for statement in ast.parse(cell.source).body]
    return {
        target.id: ast.unparse(statement.value)
        for statement in statements
        if isinstance(statement, ast.Assign)
        for target in statement.targets
        if isinstance(target, ast.Name)
    }


def with_parameters(notebook: NotebookNode, values: Mapping[str, object], path: Path) -> NotebookNode:
    """A copy in which a cell after the parameters cell assigns these values, as Python literals. `path` is for messages.

    Raises ValueError for a name that the parameters cell does not assign, and for a value that has no literal.
    """
    result = copy.deepcopy(notebook)
    if not values:
        return result
    known = parameters(notebook)
    lines = []
    for name, value in values.items():
        if name not in known:
            raise ValueError(f"{path} has no parameter {name!r}{nearest(name, list(known))}; it has: {', '.join(known) or 'none'}")
        if not _is_literal(value):
            raise ValueError(f"parameter {name}: {value!r} is not a number, text, boolean, None, or a list or mapping of these")
        lines.append(f"{name} = {value!r}")
    index = next(index for index, cell in enumerate(result.cells) if PARAMETERS in tags(cell))
    result.cells = [cell for cell in result.cells if INJECTED not in tags(cell)]
    result.cells.insert(index + 1, nbformat.v4.new_code_cell("\n".join(lines), id="injected-parameters", metadata={"tags": [INJECTED]}))
    return result


def _is_literal(value: object) -> bool:
    try:
        return ast.literal_eval(repr(value)) == value
    except (ValueError, SyntaxError):
        return False
