"""The site of the documentation: `make docs`."""

from __future__ import annotations

import re
from pathlib import Path

from sphinx.application import Sphinx

ROOT = Path(__file__).parents[1]

project = "Alignment Workbench"
release = re.findall(r'^__version__ = "(.+)"$', (ROOT / "workbench" / "__init__.py").read_text(), re.MULTILINE)[0]
html_title = f"{project} {release}"
extensions = ["myst_nb", "sphinx_copybutton"]
nb_execution_mode = "off"  # docs/notebooks.py has done it, where the project is installed
myst_heading_anchors = 4
exclude_patterns = ["requirements.txt"]

html_theme = "furo"
html_static_path = ["site.css", "../app/static/fonts", "../app/static/logo-light.svg", "../app/static/logo-dark.svg"]
html_css_files = ["site.css"]
html_favicon = "../app/static/favicon.svg"
html_copy_source = False
html_show_sphinx = False
FONTS = {"font-stack": "Inter, system-ui, sans-serif", "font-stack--monospace": "'JetBrains Mono', ui-monospace, monospace"}
html_theme_options = {
    "light_logo": "logo-light.svg",
    "dark_logo": "logo-dark.svg",
    "sidebar_hide_name": True,
    "light_css_variables": {"color-brand-primary": "#3b5bdb", "color-brand-content": "#3b5bdb", **FONTS},
    "dark_css_variables": {"color-brand-primary": "#91a7ff", "color-brand-content": "#91a7ff", **FONTS},
}
copybutton_exclude = ".linenos, .gp, .go"


BESIDE = {"index": "README.md", "security": "SECURITY.md"}
"""Pages that begin with a file of the repository's root, where GitHub looks for it."""


def setup(app: Sphinx) -> None:
    app.connect("source-read", _with_root_files)


def _with_root_files(app: Sphinx, name: str, source: list[str]) -> None:
    if name in BESIDE:
        source[0] = LINK.sub(_moved, (ROOT / BESIDE[name]).read_text()) + source[0]
    source[0] = source[0].replace("../SECURITY.md", "security.md").replace("](../../notebooks/", "](../notebooks/")


LINK = re.compile(r"\]\((?![a-z]+:|#)([^)]+)\)")


def _moved(link: re.Match[str]) -> str:
    """A link from the repository's root as one from docs/."""
    return f"]({link[1].removeprefix('docs/') if link[1].startswith('docs/') else '../' + link[1]})"
