"""Before sbatch: whether SLURM's nodes have what a batch script asks for, whether its commands know the script's options, when it would start.

What is asked for is read from the script itself: dask-jobqueue's configuration has its say there too.
"""

from __future__ import annotations

import argparse
import math
import re
import shlex
import tempfile
import uuid
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

from workbench.backends import _slurm_nodes, _slurm_queue
from workbench.backends.base import ClusterSnapshot, Finding, Node, Partition

TEST_TIMEOUT_S = 60.0
NODE_TIMEOUT_S = 600.0
NODE_MINUTES = 5
LAST_LINES = 4
HETJOB = "#SBATCH hetjob"
_UNITS = {"K": 1 / 1024, "M": 1, "G": 1024, "T": 1024**2}


@dataclass(frozen=True)
class Wanted:
    """What one component of a script asks for: nodes, and of each CPUs, MiB and GPUs; None where it leaves it to SLURM."""

    nodes: int
    cpus: int
    memory_mib: float | None
    gpus: int
    partition: str | None
    time_limit: str | None
    constraint: str
    options: tuple[str, ...]
    """The options that say where a job may run and who pays."""
    server: str = ""
    """Whose nodes they are; empty: the policy's."""
    working: int = 1
    ranks_per_node: int = 0
    """Of the policy: how many of its nodes work (the others are spares, or servers'), and with how many ranks each."""

    @property
    def title(self) -> str:
        return f"{self.server}'s nodes" if self.server else "nodes"

    def key(self, setting: str) -> str:
        """A setting of these nodes in the experiment."""
        return f"backend.{self.server}.{setting.removeprefix('num_')}" if self.server else f"backend.{setting}"

    @property
    def requested(self) -> str:
        gpus = [_plural(self.gpus, "GPU")] if self.gpus else []
        memory = [_memory(self.memory_mib)] if self.memory_mib else []
        return ", ".join([*gpus, _plural(self.cpus, "CPU"), *memory])

    def lacks(self, node: Node) -> list[str]:
        """What a node has too little of."""
        features = self.constraint.split("&") if re.fullmatch(r"[\w.&-]+", self.constraint) else []  # alternatives and counts are SLURM's to judge
        return [
            *(["GPUs"] if self.gpus > node.gpus else ()),
            *(["CPUs"] if self.cpus > node.cpus else ()),
            *(["memory"] if (self.memory_mib or 0) > node.memory_mib else ()),
            *(f"feature {name}" for name in features if name not in node.features),
        ]


def check(script: str, survey: ClusterSnapshot, working: int, ranks_per_node: int, servers: Sequence[str]) -> list[Finding]:
    """This SLURM's version and commands, then each component of the script against the nodes: the policy's `working` nodes, then the servers'."""
    try:
        problems = [_commands(script)]
    except OSError as error:
        return [Finding("SLURM", "error", str(error), "backend.name")]
    if survey.error and not survey.nodes:
        return [*problems, Finding("nodes", "warning", f"SLURM does not say what its nodes have: {survey.error}")]
    first, *others = wanted(script)
    parts = [
        replace(first, working=working, ranks_per_node=ranks_per_node),
        *(replace(part, server=name) for part, name in zip(others, servers, strict=True)),
    ]
    return [*problems, *(each for part in parts for each in fit(part, survey))]


def estimate(script: str, env: Mapping[str, str]) -> Finding:
    """What `sbatch --test-only` says of exactly this script."""
    with tempfile.NamedTemporaryFile("w", prefix="workbench-", suffix=".sh") as file:
        file.write(script)
        file.flush()
        try:
            done = _slurm_queue.command("sbatch", "--test-only", file.name, env=dict(env), timeout_s=TEST_TIMEOUT_S)
        except OSError as error:
            return Finding("start", "error", str(error))
    message = re.sub(r"^sbatch: (error: )?", "", (done.stderr or done.stdout).strip(), flags=re.MULTILINE)
    if done.returncode:
        return Finding("start", "error", f"sbatch --test-only: {message.replace(chr(10), '; ') or f'exited with {done.returncode}'}")
    start = re.search(r"to start at (\S+)", message)
    where = re.search(r" on (?:nodes? )?(\S+)(?: in partition (\S+))?$", message, re.MULTILINE)
    on = f" on {where[1]}" + (f" of {where[2]}" if where[2] else "") if where else ""
    return Finding("start", "ok", f"SLURM expects {start[1].replace('T', ' ')}{on}, if it were submitted now" if start else message)


def try_on_node(script: str, options: Sequence[str], command: Sequence[str]) -> str:
    """What a bash command prints on one node of the kind that the script's first component asks for. Raises OSError in srun's words."""
    part = wanted(script)[0]
    allocation = [*part.options, *(["--gres=gpu:1"] if part.gpus else ())]
    name = f"workbench-preflight-{uuid.uuid4().hex[:8]}"
    arguments = [
        "srun",
        "--nodes=1",
        "--ntasks=1",
        f"--time={NODE_MINUTES}",
        f"--job-name={name}",
        "--mpi=none",
        *allocation,
        *options,
        "bash",
        "-c",
    ]
    try:
        done = _slurm_queue.command(*arguments, *command, timeout_s=NODE_TIMEOUT_S)
    except TimeoutError:
        _slurm_queue.command("scancel", f"--name={name}")  # killed srun leaves its request in the queue
        raise OSError(f"no node was free for a try within {NODE_TIMEOUT_S / 60:g} min") from None
    if done.returncode:
        raise OSError("; ".join(done.stderr.strip().splitlines()[-LAST_LINES:]) or f"srun exited with {done.returncode}")
    return done.stdout


def wanted(script: str) -> list[Wanted]:
    """What each component of a batch script asks for."""
    lines = [line for line in script.splitlines() if line.startswith("#SBATCH")]
    components = [list(lines) for apart, lines in groupby(lines, lambda line: line == HETJOB) if not apart]
    return [_wanted([word for line in each for word in shlex.split(line.removeprefix("#SBATCH"))]) for each in components]


_PLACE = (("-p", "--partition"), ("-A", "--account"), ("-q", "--qos"), ("-C", "--constraint"), ("--reservation",))
_SIZE = (("-N", "--nodes"), ("-c", "--cpus-per-task"), ("--mem",), ("--gres",), ("-t", "--time"))


def _wanted(arguments: Sequence[str]) -> Wanted:
    options = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    for names in (*_PLACE, *_SIZE):
        options.add_argument(*names)
    given, _ = options.parse_known_args(arguments)
    partition_options = {names[-1]: getattr(given, names[-1].strip("-")) for names in _PLACE}
    return Wanted(
        nodes=_number(given.nodes or "1"),
        cpus=int(given.cpus_per_task or 1),
        memory_mib=_mib(given.mem) if given.mem else None,
        gpus=_slurm_nodes.count_gpus(given.gres or "")[0],
        partition=given.partition,
        time_limit=given.time,
        constraint=given.constraint or "",
        options=tuple(f"{name}={value}" for name, value in partition_options.items() if value),
    )


def _commands(script: str) -> Finding:
    """The version, and whether srun has the options that the script's steps use: a cluster may lack a plugin."""
    have = _slurm_queue.named(_slurm_queue.version()) or "of an unknown version"
    if why := _slurm_queue.too_old():
        return Finding("SLURM", "error", why, "backend.name")
    used = [name for name in ("--overlap", "--het-group", "--container-image") if re.search(rf"^\s*srun .*{name}\b", script, re.MULTILINE)]
    known = _slurm_queue.command("srun", "--help").stdout
    if unknown := [name for name in used if name not in known]:
        pyxis = "; it comes with Pyxis, which is not installed here (backend.container_runtime=apptainer needs no plugin)"
        message = f"srun of SLURM {have} has no {', '.join(unknown)}{pyxis if '--container-image' in unknown else ''}"
        return Finding("SLURM", "error", message, "backend.container_runtime" if "--container-image" in unknown else "backend.name")
    return Finding("SLURM", "ok", f"{have}; srun has {', '.join(used)}")


def fit(part: Wanted, survey: ClusterSnapshot) -> list[Finding]:
    """One component of a script against its partition."""
    known = {each.name: each for each in survey.partitions}
    names = part.partition.split(",") if part.partition else [each.name for each in survey.partitions if each.default]
    if unknown := [name for name in names if name not in known]:
        return [Finding("partition", "error", f"there is no partition {', '.join(unknown)}; there are: {', '.join(known)}", part.key("partition"))]
    where = f"partition {' or '.join(names)}" if names else "the cluster"
    members = [node for node in survey.nodes if not names or set(names) & set(node.partitions)]
    fitting = [node for node in members if not part.lacks(node)]
    problems = _time_limit(part, [known[name] for name in names])
    if len(fitting) < part.nodes:
        key, reason = _too_much(part, members, fitting, where)
        others = [each.name for each in survey.partitions if each.name not in names and _holds(part, survey, each.name)]
        fits = [*(f"{part.key('partition')}={name}" for name in others), *_smaller(part, members)]
        return [*problems, Finding(part.title, "error", reason + (f"; what fits: {'; or '.join(fits)}" if fits else ""), key)]
    usable = [node for node in fitting if node.usable]
    message = f"{_plural(part.nodes, 'node')} of {where} with {part.requested}{' each' if part.nodes > 1 else ''}"
    if len(usable) < part.nodes:
        down = ", ".join(f"{node.name} ({node.state}{f': {node.reason}' if node.reason else ''})" for node in fitting if not node.usable)
        return [*problems, Finding(part.title, "warning", f"{message}: only {len(usable)} of those that fit take jobs now; not {down}")]
    if closed := [name for name in names if not known[name].up]:
        return [*problems, Finding(part.title, "warning", f"partition {', '.join(closed)} starts no jobs now")]
    idle = sum(node.state.startswith("idle") for node in usable)
    return [*problems, Finding(part.title, "ok", f"{message}: {len(usable)} fit, {idle} of them idle")]


def _holds(part: Wanted, survey: ClusterSnapshot, partition: str) -> bool:
    return sum(node.usable and partition in node.partitions and not part.lacks(node) for node in survey.nodes) >= part.nodes


def _too_much(part: Wanted, members: Sequence[Node], fitting: Sequence[Node], where: str) -> tuple[str, str]:
    """The setting at fault, and what is wrong with it."""
    if fitting or not members:
        return part.key("num_nodes"), f"{_plural(part.nodes, 'node')} with {part.requested} are asked for; {where} has {len(fitting)} such"
    lacking = Counter(what for node in members for what in part.lacks(node))
    worst = next(what for what in ("GPUs", "CPUs", "memory", *lacking) if lacking[what])
    setting, why = {
        "GPUs": ("gpus_per_node", "too few GPUs"),
        "CPUs": ("cpus_per_node", "too few CPUs"),
        "memory": ("memory", "too little memory"),
    }.get(worst, ("constraint", f"none has the {worst}"))
    asked = f"{part.requested}{f', {part.constraint}' if part.constraint else ''}"
    return part.key(setting), f"no node of {where} has {asked}: {why}"


def _smaller(part: Wanted, members: Sequence[Node]) -> list[str]:
    """The settings that fit the most common node of the partition: as many ranks on more nodes, or as many as there is room for."""
    usable = [node for node in members if node.usable] or list(members)
    if not usable:
        return []
    if not any(what in ("GPUs", "CPUs", "memory") for node in usable for what in part.lacks(node)) and len(usable) >= part.nodes:
        return [f"the features there are {', '.join(sorted({name for node in usable for name in node.features})) or 'none'}"]
    shape, count = Counter((node.gpus, node.cpus, node.memory_mib) for node in usable).most_common(1)[0]
    gpus, cpus, memory = shape
    count -= part.nodes - part.working
    if part.server or (part.gpus and not gpus) or count < 1:
        return [f"a node there has {_has(usable[0])}"]
    each = max(1, part.cpus / part.ranks_per_node)  # CPUs of a rank
    room = int(cpus // each) or 1
    mine = min(part.ranks_per_node, room, gpus if part.gpus else room)
    ranks = part.working * part.ranks_per_node
    nodes = min(math.ceil(ranks / mine), count)
    settings = {
        "num_nodes": nodes,
        "ranks_per_node": mine,
        **({"gpus_per_node": mine} if part.gpus else {}),
        "cpus_per_node": min(math.ceil(each * mine), cpus),
        **({"memory": f"{min(part.memory_mib, memory) // 1024:.0f}GiB"} if part.memory_mib else {}),
    }
    overrides = " ".join(f"backend.{key}={value}" for key, value in settings.items())
    return [overrides if nodes * mine >= ranks else f"{overrides} ({nodes * mine} ranks in place of {ranks})"]


def _time_limit(part: Wanted, partitions: Sequence[Partition]) -> list[Finding]:
    wanted_min = minutes(part.time_limit) if part.time_limit else None
    limits = {each.time_limit: minutes(each.time_limit) for each in partitions}
    if wanted_min is None or not limits or any(limit is None or limit >= wanted_min for limit in limits.values()):
        return []
    longest = max(limits, key=lambda message: limits[message] or 0)
    message = f"{part.time_limit} is longer than the partition allows; what fits: backend.time_limit={longest} (the run is requeued after it)"
    return [Finding("time limit", "error", message, "backend.time_limit")]


def minutes(limit: str) -> float | None:
    """A time in SLURM's words (30, 4:00:00, 2-12, 1-00:00:00); None for no limit."""
    if not re.fullmatch(r"(\d+-)?\d+(:\d+){0,2}", limit):
        return None
    days, dash, rest = limit.rpartition("-")
    parts = [int(part) for part in rest.split(":")]
    if dash:  # days-hours[:minutes[:seconds]]
        hours, mins, secs = (*parts, 0, 0)[:3]
        return int(days) * 1440 + hours * 60 + mins + secs / 60
    if len(parts) == 3:
        return parts[0] * 60 + parts[1] + parts[2] / 60
    return parts[0] + (parts[1] / 60 if len(parts) == 2 else 0)


def _number(text: str) -> int:
    """The number that a text such as 2-4 begins with."""
    match = re.match(r"\d+", text)
    assert match, f"sbatch takes no number of nodes such as {text!r}"
    return int(match[0])


def _mib(text: str) -> float:
    match = re.match(r"([\d.]+)([KMGT]?)", text.upper())
    assert match, f"sbatch takes no memory such as {text!r}"
    return float(match[1]) * _UNITS[match[2] or "M"]


def _has(node: Node) -> str:
    return ", ".join([*([_plural(node.gpus, "GPU")] if node.gpus else ()), _plural(node.cpus, "CPU"), _memory(node.memory_mib)])


def _memory(mib: float) -> str:
    return f"{mib / 1024:.1f} GiB"


def _plural(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"
