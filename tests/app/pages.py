"""Pages as streamlit's own test client draws them, through the app's own frame; whatever a page shows, it raises nothing."""

import shlex

from streamlit.testing.v1 import AppTest

from tests.app.conftest import APP
from workbench.rundir.store import RunDir
from workbench.settings import spec


def open_page(name: str, **query: str) -> AppTest:
    """A page with a query."""
    page = AppTest.from_file(str(APP / "main.py"), default_timeout=240).run()
    page.query_params.clear()
    for key, value in query.items():
        page.query_params[key] = value
    return settled(page.switch_page(f"pages/{name}.py").run())


def settled(page: AppTest) -> AppTest:
    assert not page.exception, [error.value for error in page.exception]
    return page


def on_tab(page: AppTest, run: RunDir, name: str) -> AppTest:
    page.session_state[f"tab-{run.id}"] = next(tab.label for tab in page.tabs if tab.label.endswith(name))
    return settled(page.run())


def words(page: AppTest) -> str:
    elements = (page.markdown, page.caption, page.info, page.error, page.warning, page.success, page.code, page.text)
    return "\n".join(str(item.value) for kind in elements for item in kind)


def by_label(elements, label):
    return next(item for item in elements if item.label == label)


def composed(command: str):
    program, verb, *overrides = shlex.split(command)
    assert (program, verb) == ("workbench", "run")
    return spec.compose(overrides)
