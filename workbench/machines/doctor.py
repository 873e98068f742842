"""What this machine has: `workbench doctor`. Every part is looked up without importing it."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import resource
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import psutil
from rich.console import Console
from rich.table import Table

from workbench.settings.shipped import pip_install
from workbench.settings.sources import EMBEDDED, embedded_model

TENSORRT_LLM = "pip install tensorrt-llm 'ray[default]' --extra-index-url https://pypi.nvidia.com"
"""Its wheels come from NVIDIA's index, and it starts its workers through Ray."""


@dataclass(frozen=True)
class Part:
    """One finding. `found` is None where the part is missing; then `enables` says what it would bring and `install` how to get it."""

    name: str
    found: str | None
    enables: str = ""
    install: str = ""
    needed: bool = False


def examine(runs: Path) -> list[Part]:
    """All findings: the machine first, then what must be there, then what would enable more."""
    return [
        Part("CPU", f"{platform.processor() or platform.machine()}, {len(os.sched_getaffinity(0))} cores"),
        Part("memory", f"{psutil.virtual_memory().total / 2**30:.0f} GiB, {psutil.virtual_memory().available / 2**30:.0f} GiB free"),
        Part("disk for runs", f"{shutil.disk_usage(_existing(runs)).free / 2**30:.0f} GiB free at {runs}"),
        Part(
            "/dev/shm",
            f"{shutil.disk_usage('/dev/shm').free / 2**30:.1f} GiB free" if Path("/dev/shm").is_dir() else None,
            "fast gloo and NCCL between ranks",
        ),
        Part("open files", f"at most {resource.getrlimit(resource.RLIMIT_NOFILE)[0]} a process"),
        Part("GPU", _gpus(), "NCCL, CUDA kernels, models beyond a few hundred million parameters", "an NVIDIA driver; nvidia-smi must list the GPU"),
        *(_package(name, what, pip_install(name), needed=True) for name, what in _NEEDED.items()),
        Part(f"model {EMBEDDED}", _embedded(), "the demo, without a download", "workbench model get"),
        _package("nvidia-pytriton", "reward and critic servers", pip_install("nvidia-pytriton")),
        _package("tensorrt-llm", "TensorRT-LLM rollouts, rollout.name=tensorrt_llm (needs an NVIDIA GPU)", TENSORRT_LLM),
        _package(
            "transformer-engine", "fused norms, FP8, varlen attention on the GPU", "pip install --no-build-isolation transformer-engine[pytorch]"
        ),
        _package("dask-jobqueue", "multi-node runs on SLURM, PBS, LSF, SGE", pip_install("dask-jobqueue")),
        _package("nvidia-ml-py", "the busy share of each rank's GPU on the Cluster page", pip_install("nvidia-ml-py")),
        _package("jupyterlab", "the notebooks", pip_install("jupyterlab", "ipywidgets", "anywidget")),
        Part(
            "SLURM",
            _version("sinfo", "--version"),
            "multi-node runs from this machine",
            "log in to a node that has sbatch, or apt install slurm-client",
        ),
        Part("Chromium", _version("chromium", "--version"), "the browser tests", "apt install chromium"),
    ]


def render(parts: list[Part], console: Console) -> None:
    """A table, and the commands that would bring what is missing."""
    table = Table("", "part", "found", box=None, show_header=False)
    for part in parts:
        mark = "[green]●[/]" if part.found else "[red]●[/]" if part.needed else "[dim]○[/]"
        table.add_row(mark, part.name, part.found or f"[dim]missing: would enable {part.enables}[/]")
    console.print(table)
    missing = [part for part in parts if part.found is None and part.install]
    if missing:
        console.print("\nTo install what is missing:")
        for part in missing:
            console.print(f"  {part.name}: {part.install}", markup=False, highlight=False)


_NEEDED = {
    "torch": "everything",
    "megatron-core": "the engine",
    "transformers": "models and tokenizers",
    "peft": "LoRA",
    "dask": "the local backend",
    "distributed": "the local backend",
    "streamlit": "the app",
    "plotly": "the charts",
    "datasets": "Hugging Face dataset ids",
}


def _package(name: str, enables: str, install: str, needed: bool = False) -> Part:
    try:
        version = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        version = None
    return Part(name, version, enables, install, needed)


def _version(*command: str) -> str | None:
    """The first line that a program prints of itself, or None where there is no such program."""
    if shutil.which(command[0]) is None:
        return None
    return _output(*command)


def _gpus() -> str | None:
    names = _version("nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader")
    return names or None


def _output(*command: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"there, but does not answer ({type(error).__name__})"
    text = (done.stdout or done.stderr).strip().splitlines()
    return ("; ".join(text) if done.returncode == 0 else f"there, but failed: {(text or [''])[-1][:200]}") or "there"


def _embedded() -> str | None:
    file = embedded_model()
    return str(file) if file else None


def _existing(path: Path) -> Path:
    return path if path.exists() else _existing(path.parent)
