"""Jupyter in a real Chromium: the server as `make notebooks` starts it, and a notebook's page."""

from __future__ import annotations

import json
import os
import secrets
import shlex
import shutil
import subprocess
import tempfile
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nbformat
import psutil
from nbformat import NotebookNode
from playwright.sync_api import Locator, Page, expect

from tests.waiting import ended, until
from workbench.bench.notebook import IDLE

ROOT = Path(__file__).parents[2]
TIMEOUT_MS = 240_000
SETTINGS = {
    "@jupyterlab/notebook-extension/tracker": {"windowingMode": "none", "autoStartDefaultKernel": True},
    "@jupyterlab/apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False, "doNotDisturbMode": True},
    "@jupyterlab/docmanager-extension/plugin": {"autosave": False},
}
"""Every cell is in the page, and nothing asks or saves by itself."""


def command(folder: Path) -> list[str]:
    """What `make notebooks` runs, over this folder instead of the project's notebooks."""
    printed = subprocess.run(["make", "--no-print-directory", "--dry-run", "notebooks"], capture_output=True, text=True, check=True, cwd=ROOT).stdout
    _, *words = shlex.split(printed.splitlines()[-1])
    return [f"--ServerApp.root_dir={folder}" if word.startswith("--ServerApp.root_dir=") else word for word in words]


@dataclass
class Jupyter:
    """A server over a folder of notebooks, with configuration and state of its own."""

    folder: Path
    """Of the notebooks."""
    environment: Mapping[str, str]
    """Added to this process's for the server and its kernels."""
    application: str = "lab"
    token: str = field(default_factory=lambda: secrets.token_hex(16))
    home: Path = field(default_factory=lambda: Path(tempfile.mkdtemp(prefix="wbj")))
    """Short, as sockets of the kernels lie in it."""
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Returns when the server answers."""
        for name, values in SETTINGS.items():
            path = self.home / "settings" / f"{name}.jupyterlab-settings"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(values))
        words = [self.application if word == "lab" else word for word in command(self.folder)]
        if self.application == "notebook":
            words = [word.replace("--LabApp.", "--JupyterNotebookApp.") for word in words]
        words += [
            "--no-browser",
            "--ServerApp.port=18888",
            f"--{'LabApp' if self.application == 'lab' else 'JupyterNotebookApp'}.expose_app_in_browser=True",
        ]
        own = {
            "JUPYTER_TOKEN": self.token,
            **{f"JUPYTER_{part}_DIR": str(self.home / part.lower()) for part in ("CONFIG", "DATA", "RUNTIME")},
            **{f"JUPYTERLAB_{part}_DIR": str(self.home / part.lower()) for part in ("SETTINGS", "WORKSPACES")},
            "IPYTHONDIR": str(self.home / "ipython"),
        }
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                words, cwd=ROOT, env={**os.environ, **self.environment, **own}, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT
            )
        until(self._answers, what=f"Jupyter to answer; see {self.log}")

    @property
    def log(self) -> Path:
        return self.home / "server.log"

    @property
    def url(self) -> str:
        (info,) = (self.home / "runtime").glob("jpserver-*.json")
        return json.loads(info.read_text())["url"].rstrip("/")

    def _answers(self) -> bool:
        assert self.process and self.process.poll() is None, self.log.read_text()
        try:
            self.ask("status")
        except (urllib.error.URLError, ValueError, ConnectionError):
            return False
        return True

    def ask(self, what: str) -> Any:
        """What the server's own API says, as JSON."""
        request = urllib.request.Request(f"{self.url}/api/{what}", headers={"Authorization": f"token {self.token}"})
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer)

    def kernels(self) -> list[psutil.Process]:
        """The running kernels."""
        assert self.process
        alive = [child for child in psutil.Process(self.process.pid).children() if not ended(child)]
        return [child for child in alive if "ipykernel_launcher" in child.cmdline()]

    def stop(self) -> None:
        if self.process:
            self.process.terminate()
            self.process.wait(120)
        shutil.rmtree(self.home)

    def write(self, name: str, cells: Sequence[str | NotebookNode]) -> Path:
        """A notebook of these code cells in the folder."""
        notebook = nbformat.v4.new_notebook(
            cells=[nbformat.v4.new_code_cell(cell) if isinstance(cell, str) else cell for cell in cells],
            metadata={"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}},
        )
        path = self.folder / name
        nbformat.write(notebook, path)
        return path


@dataclass
class Notebook:
    """A notebook that is open in a page."""

    page: Page
    server: Jupyter
    name: str

    def open(self) -> None:
        """Open it alone; returns when its kernel is ready."""
        tree = "lab/tree" if self.server.application == "lab" else "notebooks"
        self.page.goto(f"{self.server.url}/{tree}/{self.name}?reset&token={self.server.token}")
        self.ready()

    def ready(self) -> None:
        """Wait until the notebook is drawn and its kernel is connected and idle: what is run before that is not run at all."""
        self.page.locator(".jp-Notebook .jp-CodeCell").first.wait_for()
        if self.server.application == "lab":
            self.page.wait_for_function(IDLE, arg=self.name, timeout=TIMEOUT_MS)
        else:  # its page tells nobody of its kernel
            until(self._connected, what=f"the kernel of {self.name}")

    def _connected(self) -> bool:
        kernels = [session["kernel"] for session in self.server.ask("sessions") if session["path"] == self.name]
        return any(kernel["connections"] and kernel["execution_state"] == "idle" for kernel in kernels)

    def reload(self) -> None:
        """Load the page again, as F5 does."""
        self.page.reload()
        self.ready()

    def cell(self, number: int) -> Locator:
        """A code cell, from 0."""
        return self.page.locator(".jp-Notebook .jp-CodeCell").nth(number)

    def output(self, number: int) -> Locator:
        return self.cell(number).locator(".jp-OutputArea")

    def run(self, number: int, wait: bool = True) -> None:
        """Run one cell; returns when it has ended, or at once."""
        prompt = self.cell(number).locator(".jp-InputPrompt")
        before = prompt.inner_text()
        self.cell(number).locator(".jp-InputArea-editor").click()
        self.page.keyboard.press("Control+Enter")
        if wait:
            self.has_run(number, before)

    def has_run(self, number: int, before: str = "[ ]:") -> None:
        """Wait until the cell has another number than `before` and none is running in it."""
        prompt = self.cell(number).locator(".jp-InputPrompt")
        expect(prompt).not_to_have_text(before, timeout=TIMEOUT_MS)
        expect(prompt).not_to_have_text("[*]:", timeout=TIMEOUT_MS)

    def is_running(self, number: int) -> None:
        """Wait until the cell is running."""
        expect(self.cell(number).locator(".jp-InputPrompt")).to_have_text("[*]:")

    def numbers(self) -> dict[str, int]:
        """The number of each code cell by its last line."""
        cells = [cell for cell in nbformat.read(self.server.folder / self.name, as_version=4).cells if cell.cell_type == "code"]
        return {cell.source.splitlines()[-1].strip(): number for number, cell in enumerate(cells)}

    def save(self) -> None:
        """Write the notebook with its outputs; returns when it is on the disk."""
        path = self.server.folder / self.name
        before = path.stat().st_mtime_ns
        self.do("docmanager:save")
        until(lambda: path.stat().st_mtime_ns != before, what=f"{path} to be saved")

    def restarted(self) -> None:
        """Say that the death of the kernel was seen, and wait for the new one. It counts from 1 again: numbers of before are taken away."""
        self.page.locator(".jp-Dialog button.jp-mod-accept").click()
        self.ready()
        self.do("notebook:clear-all-cell-outputs")
        expect(self.cell(0).locator(".jp-InputPrompt")).to_have_text("[ ]:")

    def do(self, name: str, **arguments: object) -> None:
        """One of JupyterLab's own commands, as its menus call them."""
        self.page.evaluate("([name, given]) => { window.jupyterapp.commands.execute(name, given) }", [name, arguments])
