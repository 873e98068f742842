"""A cluster, or this machine, for people: headline numbers and the rows of its tables. The app and the terminal draw the same ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from workbench.backends.base import Entry, Node
from workbench.machines.usage import Allocation, Cluster, Use
from workbench.rundir.store import State
from workbench.views import text
from workbench.views.text import Figure


@dataclass(frozen=True)
class Gauge:
    """A bar: how much of what is taken, in words and in few."""

    label: str
    share: float
    caption: str
    brief: str = ""


def headline(cluster: Cluster) -> list[Figure]:
    """What is in use of what there is, and who waits."""
    nodes = cluster.survey.nodes
    usable = [node for node in nodes if node.usable]
    gpus = sum(node.gpus for node in usable)
    used = [node.gpus_used for node in usable if node.gpus and node.gpus_used is not None]
    here = cluster.survey.backend == "local"
    figures = []
    if not here:
        idle = sum(node.state.startswith("idle") for node in usable)
        figures.append(Figure("Nodes", f"{len(usable)}", f"of {len(nodes)} · {idle} idle", "Nodes that take jobs, of all that there are."))
    cpus = sum(node.cpus for node in usable)
    busy = sum(node.cpus_used for node in usable)
    load = [node.load for node in usable if node.load is not None]
    caption = f"of {cpus:,}" + (f" · load {sum(load):,.1f}" if load else "")
    figures.append(Figure("CPUs busy" if here else "CPUs given", f"{busy:.1f}" if here else f"{busy:,.0f}", caption, _CPUS[here]))
    if gpus:
        value = "–" if not used else f"{sum(used):.1f}" if here else f"{sum(used):,.0f}"
        kinds = dict.fromkeys(node.gpu_kind for node in usable if node.gpu_kind)
        figures.append(Figure("GPUs busy" if here else "GPUs given", value, f"of {gpus:,} {', '.join(kinds)}".strip(), _GPUS[here]))
    memory = sum(node.memory_mib for node in usable)
    given = [node.memory_used_mib for node in usable if node.memory_used_mib is not None]
    caption = f"of {mib(memory)} · {sum(given) / memory:.0%}" if given and memory else f"of {mib(memory)}"
    figures.append(Figure("Memory busy" if here else "Memory given", mib(sum(given)) if given else "–", caption, _MEMORY[here]))
    if not here:
        running, waiting = (sum(entry.waits is each for entry in cluster.survey.queue) for each in (False, True))
        figures.append(Figure("Jobs running", f"{running:,}", f"{waiting:,} waiting", "Of everyone, as far as SLURM shows them."))
    going = [each for each in cluster.allocations if each.state != State.QUEUED]
    ranks = sum(len(each.ranks) for each in cluster.allocations)
    caption = f"{ranks} {'rank' if ranks == 1 else 'ranks'}"
    if queued := len(cluster.allocations) - len(going):
        caption += f" · {queued} queued"
    figures.append(Figure("My runs", f"{len(going)}", caption, "Runs of this folder that have not ended."))
    return figures


_CPUS = {True: "Cores that work, of those that this process may use.", False: "CPUs that SLURM gave to jobs; the load is what they do."}
_GPUS = {True: "Sum of the busy shares that nvidia-smi tells.", False: "GPUs that SLURM gave to jobs."}
_MEMORY = {True: "Taken by processes, without caches.", False: "What SLURM gave to jobs."}


def gauges(node: Node) -> list[Gauge]:
    """CPUs, GPUs and memory of one node."""
    cpus = f"{node.cpus_used:.3g}"
    result = [Gauge("CPU", _share(node.cpus_used, node.cpus), f"{cpus} of {node.cpus} CPUs" + _load(node), f"{cpus} / {node.cpus}")]
    if node.gpus:
        given = "" if node.gpus_used is None else f"{node.gpus_used:.3g}"
        caption = f"{given} of {node.gpus} GPUs {node.gpu_kind}" if given else f"{node.gpus} GPUs {node.gpu_kind}"
        result.append(Gauge("GPU", _share(node.gpus_used or 0, node.gpus), caption.strip(), f"{given or '–'} / {node.gpus}"))
    used = node.memory_used_mib
    caption = mib(node.memory_mib) if used is None else f"{mib(used)} of {mib(node.memory_mib)}"
    return [*result, Gauge("Mem", _share(used or 0, node.memory_mib), caption, f"{_share(used or 0, node.memory_mib):.0%}")]


def devices(node: Node) -> list[Gauge]:
    """This machine's GPUs, each with its busy share and memory; named where they differ."""
    mixed = len({device.name for device in node.devices}) > 1
    return [
        Gauge(
            f"GPU {number}" + f" {device.name}" * mixed,
            device.busy or 0.0,
            f"{'–' if device.busy is None else f'{device.busy:.0%}'} busy · {mib(device.memory_used_mib)} of {mib(device.memory_mib)}",
        )
        for number, device in enumerate(node.devices)
    ]


def kind(node: Node) -> str:
    """One of idle, part, full, down: what a node's colour says."""
    if not node.usable:
        return "down"
    full = node.cpus_used >= node.cpus or (node.gpus and node.gpus_used == node.gpus)
    return "full" if full else "part" if node.cpus_used else "idle"


def mine(cluster: Cluster) -> dict[str, list[str]]:
    """The names of my runs by node."""
    by_node: dict[str, list[str]] = {}
    for allocation in cluster.allocations:
        for host in allocation.hosts:
            by_node.setdefault(host, []).append(allocation.name)
    return by_node


def nodes(cluster: Cluster) -> list[dict[str, object]]:
    """One row a node."""
    theirs = mine(cluster)
    return [
        {
            "Node": node.name,
            "State": node.state + (f": {node.reason}" if node.reason else ""),
            "Partitions": ", ".join(node.partitions),
            **{"CPU": "", "GPU": "", "Mem": "", **{gauge.label: gauge.caption for gauge in gauges(node)}},
            "My runs": ", ".join(theirs.get(node.name, ())),
        }
        for node in cluster.survey.nodes
    ]


def partitions(cluster: Cluster) -> list[dict[str, object]]:
    """One row a partition: its nodes by what they do, and what one node of it has."""
    rows = []
    for partition in cluster.survey.partitions:
        members = [node for node in cluster.survey.nodes if partition.name in node.partitions]
        usable = [node for node in members if node.usable]
        waits = sum(entry.waits and partition.name in entry.partition.split(",") for entry in cluster.survey.queue)
        rows.append(
            {
                "Partition": partition.name + (" *" if partition.default else ""),
                "Nodes": f"{len(usable)} of {len(members)}" + ("" if partition.up else ", closed"),
                "Idle": str(sum(node.state.startswith("idle") for node in usable)),
                "A node has": each_has(usable or members),
                "Time limit": partition.time_limit.lower(),
                "Waiting jobs": str(waits),
            }
        )
    return rows


def each_has(nodes: Sequence[Node]) -> str:
    """What one of these nodes has; a range where they differ."""
    if not nodes:
        return "–"
    parts = [_range([node.cpus for node in nodes], "CPU")]
    if any(node.gpus for node in nodes):
        parts.append(_range([node.gpus for node in nodes], " ".join(filter(None, [nodes[0].gpu_kind, "GPU"]))))
    small, large = min(node.memory_mib for node in nodes), max(node.memory_mib for node in nodes)
    return ", ".join([*parts, mib(small) if small == large else f"{mib(small)} to {mib(large)}"])


def queue(cluster: Cluster) -> list[dict[str, object]]:
    """One row a job: mine first, then those that wait, then the rest, in SLURM's order."""
    runs = {each.job_id: each for each in cluster.allocations if each.backend == "slurm"}
    ordered = sorted(cluster.survey.queue, key=lambda entry: (entry.user != cluster.user, not entry.waits))
    return [_job(entry, runs.get(entry.id)) for entry in ordered]


def _job(entry: Entry, run: Allocation | None) -> dict[str, object]:
    start = "" if entry.start in ("N/A", "") else entry.start.replace("T", " ")
    when = (f"expected {start}" if start else "–") if entry.waits else f"for {entry.elapsed}"
    reason = "" if entry.reason in ("None", "") else entry.reason
    return {
        "Job": entry.id,
        "Name": run.name if run else entry.name,
        "User": entry.user,
        "State": entry.state.replace("_", " ").capitalize(),
        "Partition": entry.partition,
        "Nodes": entry.nodes or f"{entry.num_nodes}",
        "Start": when,
        "Time limit": entry.time_limit.lower(),
        "Reason": reason,
    }


def ranks(allocation: Allocation) -> list[dict[str, object]]:
    """One row a process: ranks with their step and phase, then the driver and what it started."""
    return [_use(use) for use in allocation.uses]


def _use(use: Use) -> dict[str, object]:
    silent = f"silent for {text.duration(use.age_s)}; " if use.silent else ""
    return {
        "Process": use.role if use.rank is None else f"{use.role} {use.rank}",
        "Node": use.host,
        "CPUs": round(use.cpus, 2),
        "Memory": round(use.memory_mib / 1024, 2),
        "GPU": None if use.gpu_busy is None else round(100 * use.gpu_busy),
        "GPU memory": None if use.gpu_memory_mib is None else round(use.gpu_memory_mib / 1024, 2),
        "Step": "" if use.step is None else f"{use.step:,}",
        "Doing": silent + use.phase.replace("_", " "),
    }


def totals(allocation: Allocation) -> str:
    """One line: how many ranks on which nodes, and what they use together."""
    if not allocation.uses:
        return allocation.message.partition("\n")[0] or "no process has told of itself yet"
    ranks, hosts = len(allocation.ranks), allocation.hosts
    where = hosts[0] if len(hosts) == 1 else f"{len(hosts)} nodes ({hosts[0]} … {hosts[-1]})"
    gpus = [use.gpu_memory_mib for use in allocation.uses if use.gpu_memory_mib is not None]
    parts = [
        f"{ranks} {'rank' if ranks == 1 else 'ranks'} on {where}",
        f"{sum(use.cpus for use in allocation.uses):.1f} CPUs",
        mib(sum(use.memory_mib for use in allocation.uses)),
        *([f"{mib(sum(gpus))} of GPU memory"] if gpus else ()),
    ]
    return " · ".join(parts)


def mib(value: float) -> str:
    """MiB as people read them: `512 MiB`, `3.9 GiB`, `1.5 TiB`."""
    for unit in ("MiB", "GiB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "MiB" or value >= 100 else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} TiB"


def _share(used: float, total: float) -> float:
    return min(1.0, used / total) if total else 0.0


def _load(node: Node) -> str:
    return "" if node.load is None else f" · load {node.load:.1f}"


def _range(counts: Sequence[int], what: str) -> str:
    low, high = min(counts), max(counts)
    return f"{high} {what}{'s' if high != 1 else ''}" if low == high else f"{low} to {high} {what}s"
