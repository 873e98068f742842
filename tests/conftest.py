"""Settings and fixtures that every test shares."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.hold import Hold
from workbench.jobs import launch

os.environ.update(HF_HUB_OFFLINE="1", HF_HUB_DISABLE_TELEMETRY="1", TOKENIZERS_PARALLELISM="false")
os.environ.setdefault("OMP_NUM_THREADS", "1")
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell lets what it starts in the background ignore Ctrl-C, and so all that this starts

settings.register_profile("certain", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])  # whatever else the machine does
settings.load_profile("certain")


def pytest_sessionstart() -> None:
    """What the tests start on this machine is forked from one process, as what the app starts is."""
    launch.keep_warm("tests.held")


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random 3-layer Llama with its tokenizer, as a Hugging Face directory."""
    from tests import models

    return models.save(tmp_path_factory.mktemp("tiny") / "llama")


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


@pytest.fixture
def hold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hold:
    return Hold(tmp_path / "hold", monkeypatch)
