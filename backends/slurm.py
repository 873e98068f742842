"""SLURM: one sbatch a run, all of its nodes or none.

The driver lives on the allocation's first node, `srun` starts a dask worker on each node, and node agents in the workers start the ranks:
nothing of a run stays alive on the login node. Before the time limit or a preemption the driver is warned, saves, and the job is queued again.
"""

from __future__ import annotations

import os
import shlex
import socket
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.backends import _jobqueue, _slurm_check, _slurm_nodes, _slurm_queue, _tls, base
from workbench.backends._slurm_settings import Config
from workbench.backends.base import ClusterSnapshot, Finding, Job, JobStatus, Task

if TYPE_CHECKING:
    from distributed import Client

SUBMIT_TIMEOUT_S = 120.0
DASK_FOLDER = "WORKBENCH_DASK"
SCHEDULER_FILE = "scheduler.json"


def script(task: Task, cwd: Path) -> str:
    """The batch script, which works in `cwd`. Depends on this and dask-jobqueue's configuration alone. Raises ValueError for what dask-jobqueue refuses."""
    config = _config(task)
    head = [*(f"module load {module}" for module in config.modules), *config.prologue]
    ours = config.num_nodes + config.spare_nodes
    if config.heterogeneous:
        groups = [(ours, {}), *((nodes.nodes, nodes.own) for nodes in config.groups.values())]
    else:
        groups = [(ours + sum(nodes.nodes for nodes in config.groups.values()), {})]
    components = [_component(task, config, nodes, own, head) for nodes, own in groups]
    return _jobqueue.render(
        _jobqueue.Request(
            system="slurm",
            components=components,
            body=_body(task, config, cwd),
            scheduler='--scheduler-file "$own/scheduler.json"',
            name='"$1-$(printf %05d "$SLURM_PROCID")"',
            first=FIRST.format(run=shlex.quote(str(task.run_dir))),
            separator="#SBATCH hetjob",
            without=("#SBATCH -n 1", *(() if config.memory else ("#SBATCH --mem=1K",))),
            fallback={"cores": _cpus(config, {}), "memory": "1 kiB"},
        )
    )


def check(task: Task) -> list[Finding]:
    """Whether this SLURM can run the task's batch script, and whether its nodes have what the script asks for."""
    try:
        text = script(task, Path.cwd())
    except ValueError as error:
        return [Finding("batch script", "error", str(error))]
    config = _config(task)
    return _slurm_check.check(text, _slurm_nodes.survey(), config.num_nodes, config.ranks_per_node, [*config.groups] if config.heterogeneous else [])


def estimate(task: Task) -> Finding:
    """When SLURM expects the task's batch script to start: sbatch --test-only, which submits nothing."""
    return _slurm_check.estimate(script(task, Path.cwd()), task.env)


def try_on_node(task: Task, command: Sequence[str]) -> str:
    """What a Python command prints on one of the task's nodes, in the environment of its ranks. Waits in the queue. Raises OSError."""
    from dask import config as dask_config

    config, configured = _config(task), dask_config.get("jobqueue.slurm", None) or {}
    python = config.python or ("python3" if config.container else configured.get("python") or shlex.quote(sys.executable))
    pyxis, inside = _container(task, config)
    head = [*(configured.get("job-script-prologue") or ()), *(f"module load {module}" for module in config.modules), *config.prologue]
    shell = "\n".join([*head, f'exec {inside}{python} "$@"'])
    return _slurm_check.try_on_node(script(task, Path.cwd()), shlex.split(pyxis), [shell, "bash", *command])


def launch(task: Task) -> Job:
    """Submit the job. Raises OSError in sbatch's words, and for a SLURM whose srun has no --overlap."""
    if why := _slurm_queue.too_old():
        raise OSError(why)
    try:
        text = script(task, Path.cwd())
    except ValueError as error:
        raise OSError(str(error)) from None
    path = task.run_dir / f"job.{task.attempt}.sh"
    path.touch(mode=0o600)
    path.write_text(text)
    try:
        done = _slurm_queue.command("sbatch", "--parsable", *_dependency(task), str(path), env=dict(task.env), timeout_s=SUBMIT_TIMEOUT_S)
    except TimeoutError as error:
        raise OSError(f"{error}; `squeue --me` tells whether the job is there") from None
    if done.returncode:
        raise OSError(done.stderr.strip() or f"sbatch exited with {done.returncode}")
    return Job(backend="slurm", id=done.stdout.strip().partition(";")[0], host=socket.gethostname(), started=time.time())


def _dependency(task: Task) -> list[str]:
    """Of a job that waits for others. Where one of them fails, or is cancelled, SLURM takes it out of the queue. A requeued one has not ended."""
    return [f"--dependency=afterok:{':'.join(task.after)}", "--kill-on-invalid-dep=yes"] if task.after else []


def look(job: Job) -> JobStatus:
    """What squeue, or sacct for a job that left it, says; one call serves all jobs that are looked at within a few seconds."""
    return _slurm_queue.look(job)


def launched(run_dir: Path) -> Job | None:
    """The job that a launch submitted whose caller was killed before it could note it; None where there is none. Raises OSError without an answer."""
    now = _slurm_queue.queue(max_age_s=0)
    if now.error:
        raise OSError(now.error)
    entries = [entry for entry in now.jobs.values() if entry.name == _job_name(run_dir) and (entry.waits or entry.state in _slurm_queue.RUNNING)]
    return Job("slurm", entries[-1].id.partition("+")[0], socket.gethostname(), time.time()) if entries else None


def withdraw(job: Job) -> bool:
    _slurm_queue.command("scancel", "--state=PENDING", job.id)
    return _slurm_queue.look(job, max_age_s=0).cancelled


def kill(job: Job) -> None:
    """End the job at once, the batch script included. Raises ValueError in scancel's words."""
    _slurm_queue.command("scancel", "--full", "--signal=KILL", job.id)
    done = _slurm_queue.command("scancel", job.id)
    if done.returncode and _slurm_queue.look(job, max_age_s=0).alive is not False:
        raise ValueError(done.stderr.strip())


def survey() -> ClusterSnapshot:
    """The cluster's nodes, partitions and queue; one call of each command serves all that look within some seconds."""
    return _slurm_nodes.survey()


@contextmanager
def gang(task: Task) -> Iterator[Client]:
    """Inside the allocation: a dask scheduler on this node's private address, over TLS, for the workers that srun starts."""
    from dask import config as dask_config
    from distributed import Client, SpecCluster
    from distributed.utils import get_ip, get_ip_interface

    from workbench.backends import _dask

    folder = Path(os.environ[DASK_FOLDER])
    interface = _config(task).interface or dask_config.get("jobqueue.slurm.interface", None)
    security = _tls.security(folder)
    options = {
        "host": get_ip_interface(interface) if interface else get_ip(),
        "protocol": "tls://",
        "security": security,
        "dashboard": False,
        "scheduler_file": str(folder / SCHEDULER_FILE),
    }
    settings = {
        **_dask.SETTINGS,
        "distributed.scheduler.worker-ttl": "20s",  # a node without power says nothing; the kernel tells sooner, see TCP in BODY
    }
    with (
        dask_config.set(settings),
        SpecCluster(scheduler={"cls": _dask.Scheduler, "options": options}, workers={}, security=security) as cluster,
        Client(cluster, security=security) as client,
    ):
        try:
            yield client
        finally:
            (folder / "over").touch()


def _config(task: Task) -> Config:
    assert isinstance(task.config, Config)
    return task.config


def _cpus(config: Config, own: dict[str, Any]) -> int:
    return own.get("cpus_per_node") or config.cpus_per_node or config.ranks_per_node * max(1, config.threads_per_rank)


def _component(task: Task, config: Config, nodes: int, own: dict[str, Any], head: list[str]) -> dict[str, Any]:
    """What dask-jobqueue's job class is given for one group of nodes."""
    values = {**{key: getattr(config, key) for key in ("partition", "gpus_per_node", "cpus_per_node", "memory", "constraint")}, **own}
    directives = [
        f"--nodes={nodes}",
        "--ntasks-per-node=1",
        *([f"--gres=gpu:{values['gpus_per_node']}"] if values["gpus_per_node"] else ()),
        *([f"--qos={config.qos}"] if config.qos else ()),
        *([f"--constraint={shlex.quote(values['constraint'])}"] if values["constraint"] else ()),
        *(["--exclusive"] if config.exclusive else ()),
        *(["--no-kill"] if config.spare_nodes else ()),  # without it SLURM itself queues a job again that loses a node
        "--requeue" if config.requeue else "--no-requeue",
        "--output=/dev/null",  # SLURM would replace a % in the folder's name, and drop a backslash
        *([f"--signal=B:USR1@{config.warn_s}"] if config.warn_s and config.requeue else ()),
        *config.directives,
    ]
    return {
        "queue": values["partition"],
        "account": config.account,
        "walltime": config.time_limit,
        "cores": values["cpus_per_node"],
        "memory": values["memory"],
        "processes": 1,
        "nanny": False,
        "interface": config.interface,
        "job_name": _job_name(task.run_dir),
        "job_extra_directives": directives,
        "job_script_prologue": head,
        "worker_extra_args": _worker_arguments(task),
        "python": config.python or ("python3" if config.container else None),
    }


def _job_name(run_dir: Path) -> str:
    return "".join(c for c in run_dir.name if c.isascii() and (c.isalnum() or c in "-_.")) or "run"


def _worker_arguments(task: Task) -> list[str]:
    """After dask-jobqueue's own: the last of an option counts. One thread for each gang's agent."""
    certificate, key = (f'"$own/{name}"' for name in (_tls.CERTIFICATE, _tls.KEY))
    return [
        *(
            "--nthreads",
            str(1 + len(task.servers)),
            "--memory-limit",
            "0",
            "--no-dashboard",
            "--worker-class",
            "workbench.backends._dask.Worker",
            "--local-directory",
            '"$own"',
        ),
        *("--protocol", "tls", "--tls-ca-file", certificate, "--tls-cert", certificate, "--tls-key", key),
    ]


def _body(task: Task, config: Config, cwd: Path) -> str:
    """What the first node runs."""
    steps, first = [], 0
    groups = {"actor": config.num_nodes + config.spare_nodes, **{name: nodes.nodes for name, nodes in config.groups.items()}}
    pyxis, inside = _container(task, config)
    for number, (name, nodes) in enumerate(groups.items()):
        option = f"--het-group={number}" if config.heterogeneous else f"--relative={first}"
        option += f' --cpus-per-task="${{SLURM_CPUS_PER_TASK{f"_HET_GROUP_{number}" * config.heterogeneous}:-1}}"'  # not inherited since 22.05
        options = f"--nodes={nodes} --ntasks={nodes} {option} {STEP}{pyxis}"
        steps.append(f"srun {options} bash -c 'node \"$@\"' node {name} &")
        first += nodes
    driver = " ".join([_jobqueue.PYTHON, *map(shlex.quote, task.driver[1:])])
    if pyxis:
        driver = f'srun --nodes=1 --ntasks=1 --nodelist="$SLURMD_NODENAME" --gres=none --overlap --mpi=none{pyxis} {driver}'
    return BODY.format(
        cwd=shlex.quote(str(cwd)),
        env="".join(f"export {key}={shlex.quote(value)}\n" for key, value in task.env.items()),
        worker=f"{inside}{_jobqueue.WORKER}",
        steps="\n".join(steps),
        driver=f"{inside}{driver}",
        orphaned=ORPHANED.format(leave="scontrol requeue" if config.requeue else "scancel") if config.spare_nodes else "",
        restarts=config.max_restarts,
        again=base.AGAIN,
    )


def _container(task: Task, config: Config) -> tuple[str, str]:
    """The options of srun for Pyxis (with a leading blank), and what stands before a command for Apptainer."""
    if not config.container:
        return "", ""
    mounts = [f"{task.run_dir.parent}:{task.run_dir.parent}", *(mount if ":" in mount else f"{mount}:{mount}" for mount in config.container_mounts)]
    if config.container_runtime == "pyxis":
        return f" --container-image={shlex.quote(config.container)} --container-mounts={shlex.quote(','.join(mounts))}", ""
    binds = " ".join(f"--bind {shlex.quote(mount)}" for mount in mounts)
    return "", f"apptainer exec{' --nv' * bool(config.gpus_per_node)} {binds} {shlex.quote(config.container)} "


STEP = "--ntasks-per-node=1 --no-kill --kill-on-bad-exit=0 --wait=0 --overlap --mpi=none --export=ALL"

FIRST = """
umask 077
run={run}
exec >> "$run/logs/slurm.$SLURM_JOB_ID.${{SLURM_RESTART_COUNT:-0}}.log" 2>&1"""

ORPHANED = """
      # With spare nodes the job outlives any of its nodes, the driver's too.
      case "$(sinfo --noheader --nodes="$WORKBENCH_FIRST" --format=%T)" in
        down*) {leave} "$SLURM_JOB_ID" ;;
      esac"""

BODY = """
cd {cwd}
{env}export WORKBENCH_DASK="$run/dask/$SLURM_JOB_ID.${{SLURM_RESTART_COUNT:-0}}"
export WORKBENCH_WARNED="$WORKBENCH_DASK/warned"
export WORKBENCH_FIRST="$SLURMD_NODENAME"
export DASK_LOGGING__DISTRIBUTED=error DASK_DISTRIBUTED__COMM__TIMEOUTS__TCP=15s
mkdir -p "$WORKBENCH_DASK"

# On each node a dask worker, started again when it dies. SIGTERM to a job's steps is the warning of a preemption.
node() {{
  trap ': > "$WORKBENCH_WARNED"' TERM
  own=$(mktemp -d)
  while [ ! -e "$WORKBENCH_DASK/over" ]; do
    if [ -s "$WORKBENCH_DASK/scheduler.json" ]; then
      cp "$WORKBENCH_DASK"/* "$own"  # dask takes a path with a line break for the certificate itself
      setsid {worker} &
      while kill -0 $! 2> /dev/null; do wait $!; done{orphaned}
    fi
    sleep 0.3
  done
  rm -rf "$own"
}}
export -f node
{steps}

# The driver: a scheduler for the workers, and the run's supervisor. One that is killed is started again.
trap ': > "$WORKBENCH_WARNED"' USR1 TERM
died=0
while :; do
  rm -f "$WORKBENCH_DASK/scheduler.json"
  WORKBENCH_RESTARTS=$((${{SLURM_RESTART_COUNT:-0}} + died)) {driver} &
  driver=$!
  while kill -0 $driver 2> /dev/null; do wait $driver; code=$?; done
  if [ $code -le 128 ] || [ $died -ge {restarts} ]; then break; fi
  died=$((died + 1))
done
: > "$WORKBENCH_DASK/over"
if [ $code = {again} ]; then
  # A job that was cancelled, or that SLURM is taking off its nodes, is SLURM's to end. Of a heterogeneous job each component is listed.
  if [ "$(squeue --noheader --jobs=$SLURM_JOB_ID --format=%T | sort -u)" = RUNNING ]; then scontrol requeue $SLURM_JOB_ID; else sleep 120; fi
fi
exit $code
"""
