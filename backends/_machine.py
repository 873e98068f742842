"""What this machine has and does: cores, memory, GPUs."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import threading
import time

import psutil

from workbench.backends.base import ClusterSnapshot, Device, Node

MAX_AGE_S = 1.0
FIRST_LOOK_S = 0.1
NVIDIA_SMI_TIMEOUT_S = 10.0
QUERY = ("nvidia-smi", "--query-gpu=name,memory.total,memory.used,utilization.gpu", "--format=csv,noheader,nounits")

_lock = threading.Lock()
_last: ClusterSnapshot | None = None


def survey(max_age_s: float = MAX_AGE_S) -> ClusterSnapshot:
    """This machine as a cluster of one node. Busy shares are of the time since the last survey."""
    global _last
    with _lock:
        if _last is None or _last.time < time.time() - max_age_s:
            _last = _look(None if _last else FIRST_LOOK_S)
        return _last


def devices() -> tuple[Device, ...]:
    """The GPUs that nvidia-smi lists; none where there is no such command. Raises OSError where it fails."""
    if not shutil.which(QUERY[0]):
        return ()
    try:
        done = subprocess.run(QUERY, capture_output=True, text=True, check=False, timeout=NVIDIA_SMI_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        raise OSError(f"nvidia-smi did not answer within {NVIDIA_SMI_TIMEOUT_S:g} s") from None
    if done.returncode:
        raise OSError(f"nvidia-smi: {(done.stderr or done.stdout).strip()}")
    return tuple(_device(line) for line in done.stdout.splitlines() if line.strip())


def _device(line: str) -> Device:
    name, total, used, busy = (part.strip() for part in line.rsplit(",", 3))
    known = [float(text) if text.replace(".", "", 1).isdigit() else None for text in (total, used, busy)]  # [N/A] where memory is shared, say
    return Device(name, known[0] or 0.0, known[1] or 0.0, None if known[2] is None else known[2] / 100)


def _look(interval_s: float | None) -> ClusterSnapshot:
    usable = sorted(os.sched_getaffinity(0))
    every = psutil.cpu_percent(interval=interval_s, percpu=True)
    cores = tuple(every[number] / 100 for number in usable if number < len(every))
    memory, problem = psutil.virtual_memory(), ""
    try:
        gpus = devices()
    except OSError as error:
        gpus, problem = (), str(error)
    shares = [gpu.busy for gpu in gpus if gpu.busy is not None]
    node = Node(
        name=socket.gethostname(),
        state="up",
        usable=True,
        cpus=len(cores),
        cpus_used=sum(cores),
        load=os.getloadavg()[0],
        memory_mib=memory.total / 2**20,
        memory_used_mib=(memory.total - memory.available) / 2**20,
        gpus=len(gpus),
        gpus_used=sum(shares) if shares else None,
        gpu_kind=gpus[0].name if gpus else "",
        cores=cores,
        devices=gpus,
    )
    return ClusterSnapshot("local", "This machine", time.time(), (node,), error=problem)
