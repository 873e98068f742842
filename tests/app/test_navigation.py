"""A page is one file: what it says of itself places it in the navigation."""

from __future__ import annotations

from pathlib import Path

import pytest
from ui import navigation

from tests.app.conftest import APP
from tests.extend import extended, python

NOTES = '''"""What the group writes down."""

import streamlit as st

PAGE = {"title": "Field notes", "icon": "edit_note", "section": "Data", "order": 65}

st.markdown("## Field notes")
'''
LOOK = """
import sys
from pathlib import Path
app = Path("app").resolve()
sys.path.insert(0, str(app))
from streamlit.testing.v1 import AppTest
from ui import navigation
for entry in navigation.entries(app / "pages"):
    print(entry.section, entry.title)
page = AppTest.from_file(str(app / "main.py"), default_timeout=240).run().switch_page("pages/notes.py").run()
assert not page.exception, page.exception
print(page.markdown[0].value)
"""


def test_a_page_that_is_added_is_in_the_navigation(tmp_path: Path) -> None:
    folder = extended(tmp_path, {"app/pages/notes.py": NOTES})
    done = python(folder, "-c", LOOK)
    assert done.returncode == 0, done.stderr
    train = [f"Train {title}" for title in ("Launch", "Runs", "Pipelines", "Run", "Rollouts", "Compare")]
    assert done.stdout.splitlines() == [*train, "Try Steer", "Try Chat", "Machines Cluster", "Data Field notes", "Data Datasets", "## Field notes"]


def test_one_page_is_the_home_page() -> None:
    assert [entry.path.name for entry in navigation.entries(APP / "pages") if entry.home] == ["runs.py"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("x = 1\n", "has no PAGE"),
        ('PAGE = {"title": "A"}\n', "missing"),
        ("PAGE = dict(title='A')\n", "malformed"),
        ('PAGE = {"title": "A", "icon": "b", "section": "C", "order": 1, "colour": "red"}\n', "colour"),
    ],
)
def test_a_page_that_does_not_say_where_it_stands(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "a.py").write_text(text)
    with pytest.raises(ValueError, match=said) as refused:
        navigation.entries(tmp_path)
    assert str(tmp_path / "a.py") in str(refused.value)
