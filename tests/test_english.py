"""The lint of words and names: what it must catch is caught, with its line and what to write instead."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[1]
BAD = '''"""The newest sound
checkpoint is told."""

def told(words: str, *, place: int) -> None:
    found = f"{words} is no value"  # the run goes on
    _obeyed = [trees for trees in found]


class Sight:
    place: int
'''


@pytest.fixture(scope="module")
def english() -> ModuleType:
    spec = importlib.util.spec_from_file_location("english", ROOT / ".ci" / "english.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_each_is_reported_with_its_line_and_what_to_write(english: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A phrase over a line break too; a class's annotated field is left, and what reads a name is not its definition."""
    (tmp_path / "workbench").mkdir()
    (tmp_path / "workbench" / "bad.py").write_text(BAD)
    (tmp_path / "README.md").write_text("# A\n\nThe run goes on.\n")
    assert english.main(tmp_path) == 1
    shown = [line.partition(": ") for line in capsys.readouterr().out.splitlines()]
    lines = [(where.rpartition("/")[2], what.partition(":")[0]) for where, _, what in shown]
    assert sorted(lines) == [
        ("README.md:3", '"goes on"'),
        ("bad.py:1", '"sound checkpoint"'),
        ("bad.py:2", '"is told"'),
        ("bad.py:4", "name place"),
        ("bad.py:4", "name told"),
        ("bad.py:4", "name words"),
        ("bad.py:5", '"goes on"'),
        ("bad.py:5", '"is no value"'),
        ("bad.py:5", "name found"),
        ("bad.py:6", "name _obeyed"),
        ("bad.py:6", "name trees"),
        ("bad.py:9", "name Sight"),
    ]
    assert all(what.partition(": ")[2] for _, _, what in shown)


def test_what_is_fine_passes(english: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "app").mkdir()
    (tmp_path / "app" / "good.py").write_text('"""The latest valid checkpoint."""\n\n\nclass Row:\n    found: str\n')
    assert (english.main(tmp_path), capsys.readouterr().out) == (0, "")
