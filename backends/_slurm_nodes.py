"""What SLURM's nodes and partitions are: one scontrol call each, kept for some seconds.

`scontrol show` is used, not sinfo's --json: it says the same in the same words since long before 20.11.
"""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Iterator

from workbench.backends import _slurm_queue
from workbench.backends.base import ClusterSnapshot, Node, Partition

MAX_AGE_S = 10.0
OUT_OF_USE = frozenset({"DOWN", "DRAIN", "DRAINED", "DRAINING", "FAIL", "FAILING", "ERROR", "UNKNOWN", "FUTURE", "INVAL", "INVALID_REG"})
_lock = threading.Lock()
_last: dict[str, ClusterSnapshot] = {}


def survey(max_age_s: float = MAX_AGE_S) -> ClusterSnapshot:
    """Nodes, partitions and everyone's jobs. Where SLURM does not answer the survey holds its words."""
    key, oldest = os.environ.get("SLURM_CONF", ""), time.time() - max_age_s
    with _lock:
        known = _last.get(key)
        if known is None or known.time < oldest:
            _last[key] = known = _ask()
        return known


def nodes(text: str) -> tuple[Node, ...]:
    """The nodes in what `scontrol --details --oneliner show node` prints."""
    return tuple(_node(record) for record in _records(text, "NodeName"))


def partitions(text: str) -> tuple[Partition, ...]:
    """The partitions in what `scontrol --oneliner show partition` prints."""
    return tuple(
        Partition(
            name=record["PartitionName"], up=record.get("State", "UP") == "UP", default=record.get("Default") == "YES", time_limit=record["MaxTime"]
        )
        for record in _records(text, "PartitionName")
    )


def count_gpus(gres: str) -> tuple[int, str]:
    """How many GPUs a gres string names, and their kind: `gpu:h100:8(S:0-1)` has 8 of h100."""
    count, kind = 0, ""
    for part in re.sub(r"\([^)]*\)", "", gres).split(","):
        name, *rest = re.sub(r"^gres[:/]", "", part.strip()).split(":")
        if name == "gpu":
            number = rest.pop() if rest and rest[-1].isdigit() else "1"
            count, kind = count + int(number), kind or "".join(rest)
    return count, kind


def _ask() -> ClusterSnapshot:
    began = time.time()
    try:
        title = f"SLURM {_slurm_queue.named(_slurm_queue.version())}"
        shown = nodes(_show("--details", "node"))
        queues = partitions(_show("partition"))
    except OSError as error:
        return ClusterSnapshot("slurm", "SLURM", time.time(), error=str(error))
    jobs = _slurm_queue.queue(everyone=True)
    return ClusterSnapshot("slurm", title, began, shown, queues, tuple(jobs.jobs.values()), jobs.error)


def _show(*arguments: str) -> str:
    *options, what = arguments
    done = _slurm_queue.command("scontrol", "--oneliner", *options, "show", what)
    if done.returncode:
        said = re.sub(r"^\w+: (error|fatal): ", "", (done.stderr or done.stdout).strip().rpartition("\n")[2])
        raise OSError(f"SLURM's commands are here, but nothing answers them: {said or f'scontrol exited with {done.returncode}'}")
    return done.stdout


def _records(text: str, first: str) -> Iterator[dict[str, str]]:
    """Each line as its keys and values. A value may have blanks (a reason, an operating system). In a reason, which comes late, ` Key=` is no key."""
    for line in text.splitlines():
        if line.startswith(f"{first}="):
            yield {key: value.strip() for key, value in reversed(re.findall(r"(\w+)=(.*?)(?=\s+\w+=|\s*$)", line))}


def _node(record: dict[str, str]) -> Node:
    node_state = record["State"]
    flags = set(re.findall(r"[A-Z_]+", node_state.upper()))
    gpus, kind = count_gpus(record.get("Gres", ""))
    return Node(
        name=record["NodeName"],
        state=node_state.lower().replace("+", ", "),
        usable=not flags & OUT_OF_USE and "*" not in node_state,
        cpus=int(record["CPUTot"]),
        cpus_used=int(record["CPUAlloc"]),
        load=_number(record.get("CPULoad", "")),
        memory_mib=float(record["RealMemory"]),
        memory_used_mib=_number(record.get("AllocMem", "")),
        gpus=gpus,
        gpus_used=count_gpus(record["GresUsed"])[0] if gpus and "GresUsed" in record else None,
        gpu_kind=kind,
        partitions=tuple(filter(None, record.get("Partitions", "").split(","))),
        features=tuple(name for name in record.get("AvailableFeatures", "").split(",") if name not in ("", "(null)")),
        reason=record.get("Reason", "").partition(" [")[0],
    )


def _number(word: str) -> float | None:
    return float(word) if re.fullmatch(r"\d+(\.\d+)?", word) else None
