"""Files of a run folder are opened in one place (`workbench.rundir.opening`), which no reader or writer goes round."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from workbench.rundir import opening
from workbench.rundir.opening import Unreadable

ROOT = Path(__file__).parents[2]
ROOMS = ("workbench/rundir", "workbench/jobs", "workbench/views", "workbench/terminal", "workbench/notebook", "app/ui", "app/pages")
CALLS = {
    *("open", "read_text", "read_bytes", "write_text", "write_bytes", "touch", "glob", "rglob", "iterdir", "stat", "is_file", "is_dir", "exists"),
    *("unlink", "rename", "mkdir", "rmtree", "scandir", "listdir"),
}
ELSEWHERE = {
    "workbench/rundir/opening.py": "the one place",
    "workbench/jobs/export.py": "the directory that an export makes",
    "workbench/jobs/model.py": "models in the cache",
    "workbench/jobs/preflight.py": "the files that the settings name",
    "workbench/jobs/sources.py": "the files that the settings name",
    "workbench/views/live.py": "the scripts of the charts",
    "workbench/notebook/execution.py": "notebooks",
    "workbench/notebook/used_runs.py": "the list that a verification keeps",
    "workbench/notebook/verify.py": "notebooks",
    "workbench/notebook/widgets/style.py": "the style sheets of the widgets",
    "workbench/notebook/widgets/studio.py": "the scripts of the widgets",
    "app/ui/studio.py": "the app's own scripts",
    "app/ui/door.py": "the app's own login page, and what the browser is opened with",
    "app/ui/headers.py": "the page that Streamlit serves",
    "app/ui/navigation.py": "the app's own pages",
    "app/ui/charts.py": "the app's own scripts",
    "app/ui/data_panels.py": "data sets",
}
"""Files that open what is no run's."""
WITHIN = {
    ("workbench/rundir/store.py", "create"): "a folder that is being made, under a name of its own",
    ("workbench/rundir/store.py", "discard"): "of a run that is this user's: looked at before; links in it are taken away, not followed",
    ("workbench/rundir/listing.py", "list_runs"): "the folder of runs itself",
    ("workbench/rundir/pipelines.py", "create"): "a folder that is being made, under a name of its own",
    ("workbench/rundir/pipelines.py", "list_pipelines"): "the folder of pipelines itself",
    ("workbench/rundir/once.py", "one_launcher"): "the folder of runs itself",
    ("workbench/jobs/checkpoints.py", "locate"): "a folder that its user names",
    ("workbench/jobs/checkpoints.py", "_asked_as_beside"): "the model that the settings name",
    ("workbench/jobs/checkpoints.py", "_with_checkpoints"): "a folder that its user names",
    ("workbench/jobs/checkpoints.py", "_from_the_root"): "a model that its user names",
    ("workbench/jobs/checkpoints.py", "_path"): "a model that its user names",
    ("workbench/jobs/steering.py", "adherence"): "a file that its user names",
    ("app/ui/run_panels.py", "view_of"): "the app's own files",
}


def calls() -> Iterator[tuple[str, str, int, str]]:
    """Every call in the rooms that opens, lists or changes a file otherwise than through `opening`: file, function, line and what is called."""
    for path in (path for room in ROOMS for path in sorted((ROOT / room).rglob("*.py"))):
        name = str(path.relative_to(ROOT))
        for function in ast.walk(ast.parse(path.read_text())):
            if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
                for node in ast.walk(function):
                    if isinstance(node, ast.Call) and (called := _called(node)):
                        yield name, function.name, node.lineno, called


def _called(node: ast.Call) -> str:
    function = node.func
    if isinstance(function, ast.Name) and function.id == "open":
        return "" if any(keyword.arg == "opener" for keyword in node.keywords) else "open without its opener"
    if isinstance(function, ast.Attribute) and function.attr in CALLS and ast.unparse(function.value) not in ("opening", "self.console"):
        return ast.unparse(function)
    return ""


def test_run_files_are_opened_in_one_place() -> None:
    wrong = [
        f"{name}:{line} {function}: {called}" for name, function, line, called in calls() if name not in ELSEWHERE and (name, function) not in WITHIN
    ]
    assert not wrong, "open files of a run through workbench.rundir.opening:\n" + "\n".join(wrong)


def test_what_is_excused_is_there() -> None:
    found = {(name, function) for name, function, _, _ in calls()}
    assert WITHIN.keys() <= found
    assert ELSEWHERE.keys() <= {name for name, _ in found}


@pytest.mark.parametrize("name", ["../x", "beats/../../x", ".."])
def test_no_way_leads_out_of_the_folder(tmp_path: Path, name: str) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "x").write_text("outside")
    with pytest.raises(Unreadable, match="no name of a file"):
        opening.read_text(tmp_path / "run" / name)


def test_the_folders_of_the_layout_are_entered_from_the_run(tmp_path: Path) -> None:
    """A link in any of them is one within the run: in the last place, or on the way."""
    run, outside = tmp_path / "run", tmp_path / "outside"
    for folder in ("events", "checkpoints/20", "critic/checkpoints/20", "critic/journal"):
        (run / folder).mkdir(parents=True)
        (run / folder / "file").write_text("inside")
        assert opening.read_text(run / folder / "file") == "inside"
    outside.mkdir()
    (outside / "file").write_text("outside")
    for folder in ("events", "checkpoints/20", "critic"):
        (run / folder).rename(run / f"{folder}.old")
        (run / folder).symlink_to(outside)
        with pytest.raises(Unreadable, match="a symbolic link, not a folder"):
            opening.read_text(run / folder / ("checkpoints/20/file" if folder == "critic" else "file"))
        assert folder == "critic" or (opening.names(run) and (run / folder).is_symlink())
