"""Settings and fixtures that every test shares."""

from __future__ import annotations

import functools
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, settings

from tests.backends import slurm_commands
from tests.hold import Hold
from tests.trust import intruder as intruders
from tests.trust.intruder import Intruder
from workbench.jobs import launch

if TYPE_CHECKING:
    from tests.serve.endpoint import Served
    from workbench.serve.client import Client

os.environ.update(HF_HUB_OFFLINE="1", HF_HUB_DISABLE_TELEMETRY="1", TOKENIZERS_PARALLELISM="false")
os.environ.setdefault("OMP_NUM_THREADS", "1")
for each in ("COLUMNS", "LINES"):  # readline sets them in what pytest-xdist starts; a console that is made while they are set keeps that width
    os.environ.pop(each, None)
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell lets what it starts in the background ignore Ctrl-C, and so all that this starts

settings.register_profile("certain", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])  # whatever else the machine does
settings.load_profile("certain")


ONE_AT_A_TIME = ("slurm", "machines", "browser/test_cluster.py")
"""Below tests/: they share one cluster or one set of network namespaces of the machine. `make test` runs the first two by themselves."""


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Where tests are dealt to several processes (`-n 2`), those of a file stay together and in order, and so do those that share the machine."""
    from xdist.scheduler import LoadScopeScheduling

    class ByFile(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            path = nodeid.partition("::")[0].removeprefix("tests/")
            return "the machine" if path.startswith(ONE_AT_A_TIME) else path

    return ByFile(config, log)


def pytest_sessionstart(session: pytest.Session) -> None:
    """What the tests start on this machine is forked from one process, as what the app starts is. One that only deals tests to others starts nothing."""
    if not session.config.getoption("numprocesses", None):
        launch.keep_warm("tests.held")


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random 3-layer Llama with its tokenizer, as a Hugging Face directory."""
    from tests import models

    return models.save(tmp_path_factory.mktemp("tiny") / "llama")


@pytest.fixture(scope="session")
def tied_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As `tiny_model`, with the embedding's weights as the head's."""
    from tests import models

    return models.save(tmp_path_factory.mktemp("tied") / "llama", tie_word_embeddings=True)


@pytest.fixture(scope="session")
def tiny_reward(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random reward model on the tiny model's tokens."""
    from tests import models

    return models.save_reward_model(tmp_path_factory.mktemp("reward"), seed=1)


@pytest.fixture(scope="module")
def alone() -> Iterator[None]:
    """This process as a gang of one rank, for the tests of one module."""
    from workbench.engine import parallel

    parallel.start()
    yield
    parallel.stop()


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache folder of the test's own."""
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="session")
def sound_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A stopped run with every file that a run can have."""
    from tests.rundir import damages

    return damages.sound_run(tmp_path_factory.mktemp("sound"))


@pytest.fixture
def commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Writes a stand-in for a command of SLURM's: `commands(name, text, code)` has its standard output and its exit code."""
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setenv("SLURM_CONF", str(tmp_path))
    return functools.partial(slurm_commands.write, tmp_path)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, subprocess.Popen]]:
    """A run's folder and the echo server that answers for it."""
    from tests.serve import echo_server

    run = tmp_path_factory.mktemp("run")
    process = echo_server.start(run)
    yield run, process
    echo_server.end(process)


@pytest.fixture
def client(served: tuple[Path, subprocess.Popen]) -> Iterator[Client]:
    """Of the echo server."""
    from workbench.serve.client import Client

    client = Client(served[0], "echo", patience_s=120)
    yield client
    client.close()


@pytest.fixture(scope="session")
def endpoint(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, tied_model: Path) -> Iterator[Served]:
    """A policy endpoint with two tiny models."""
    from tests.serve.endpoint import served

    with served(
        tmp_path_factory.mktemp("endpoint"),
        [str(tiny_model), str(tied_model)],
        "job.slots=4",
        "job.max_request_mb=1",
        "job.rules=[verbosity,question]",
    ) as made:
        yield made


@pytest.fixture(scope="session")
def intruder() -> Iterator[Intruder]:
    """The second user of the machine."""
    if os.getuid() != 0:
        pytest.skip("making a second user of this machine takes root")
    with intruders.made() as user:
        yield user


@pytest.fixture
def hold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hold:
    return Hold(tmp_path / "hold", monkeypatch)
