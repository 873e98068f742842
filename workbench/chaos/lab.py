"""A real SLURM cluster on this machine: Debian's slurm-wlm, each node in network and UTS namespaces of its own on a private bridge.

Needs root. `Lab.up` installs what is missing and takes seconds after that; `down` leaves nothing behind but the packages. One lab at a
time: a second waits for the first. Nothing of the machine's own configuration is touched: hosts file, munge key and SLURM_CONF are the lab's.
"""

from __future__ import annotations

import ctypes
import fcntl
import functools
import os
import secrets
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from workbench.chaos import releases

PACKAGES = ("munge", "iproute2")
ACCOUNTING_PACKAGES = ("slurmdbd", "mariadb-server")
NETWORK = "10.77.0"
BRIDGE = "wblab0"
PR_SET_PDEATHSIG = 1
SMALL_MIB = 64
LAST_LINES = 5
LOCK_TIMEOUT_S = 240
LOCK = Path("/tmp/workbench-lab.lock")
MAIN, URGENT = "main", "urgent"
"""The partitions: jobs of the second preempt those of the first, after a grace of 30 s."""


class NoLab(RuntimeError):
    """Why no lab can be had here."""


def missing() -> str:
    """Why this machine cannot have a lab; empty where it can."""
    if os.geteuid() != 0:
        return "a SLURM lab needs root, for network namespaces"
    if not shutil.which("apt-get") and not shutil.which("slurmctld"):
        return "a SLURM lab needs slurm-wlm, which is installed with apt-get: there is none here"
    probe = subprocess.run(["unshare", "--net", "--uts", "--mount", "true"], capture_output=True, text=True, check=False)
    return f"no namespaces may be made here: {probe.stderr.strip()}" if probe.returncode else ""


@dataclass
class Lab:
    """The cluster's `nodes` machines of `cpus` CPUs and two pretended GPUs each. Its commands find it through `env`."""

    folder: Path = field(default_factory=lambda: Path(f"/tmp/wblab-{secrets.token_hex(3)}"))
    nodes: int = 4
    cpus: int = 4
    accounting: bool = False
    release: str = ""
    """The Debian release whose SLURM it is, see `releases`; empty: the machine's own."""
    failed: list[str] = field(default_factory=list)
    _lock: int = -1
    _pids: list[int] = field(default_factory=list)

    def __enter__(self) -> Lab:
        self.up()
        return self

    def __exit__(self, *_: object) -> None:
        self.down()

    @functools.cached_property
    def env(self) -> dict[str, str]:
        conf = {"SLURM_CONF": str(self.folder / "slurm.conf")}
        return {**conf, "PATH": f"{releases.unpack(self.release)}/bin:{os.environ['PATH']}"} if self.release else conf

    @property
    def _everything(self) -> dict[str, str]:
        return {**os.environ, **self.env}

    @property
    def _plugins(self) -> str:
        return f"PluginDir={releases.unpack(self.release) / releases.PLUGINS}\n" if self.release else ""

    @property
    def names(self) -> list[str]:
        return [f"node{i}" for i in range(1, self.nodes + 1)]

    @property
    def small(self) -> Path:
        """A shared folder on a file system that is soon full."""
        return self.folder / "small"

    def up(self) -> None:
        """Install, configure and start; return when every node is idle. Raises NoLab."""
        if why := missing():
            raise NoLab(why)
        self._lock = os.open(LOCK, os.O_CREAT | os.O_RDWR, 0o600)
        _until(self._locked, LOCK_TIMEOUT_S, f"another SLURM lab of this machine has been up for {LOCK_TIMEOUT_S} s; see who has {LOCK} open")
        install((*PACKAGES, *(releases.NEEDS if self.release else ("slurm-wlm",)), *(ACCOUNTING_PACKAGES if self.accounting else ())))
        self._clear()
        for name in ("state", "spool", "log", "munge", "small"):
            (self.folder / name).mkdir(parents=True)
        _sh("mount", "-t", "tmpfs", "-o", f"size={SMALL_MIB}m", "tmpfs", str(self.small))  # before the nodes have mounts of their own
        self.folder.chmod(0o755)
        try:
            self._network()
            self._munge()
            self._configure()
            if self.accounting:
                self._database()
            self._start(["slurmctld", "-D", "-f", self.env["SLURM_CONF"]], "slurmctld")
            for name in self.names:
                self.start_node(name)
            _until(self._all_idle, 30, "the lab's nodes did not come up")
        except BaseException as error:
            for log in sorted((self.folder / "log").glob("*.out")):  # they go with the folder
                error.add_note(f"{log.name}: {' | '.join(log.read_text(errors='replace').splitlines()[-LAST_LINES:])}")
            self.down()
            raise

    def down(self) -> None:
        """End the jobs and daemons, remove namespaces, bridge and files."""
        for pid in reversed(self._pids):
            with suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)
        for pid in self._pids:
            with suppress(ChildProcessError):
                os.waitpid(pid, 0)
        self._pids.clear()
        self._clear()
        if self.small.is_mount():
            _sh("umount", "--lazy", str(self.small))
        shutil.rmtree(self.folder, ignore_errors=True)
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def run(self, *command: str, timeout_s: float = 30) -> str:
        """A SLURM command's output. Raises subprocess.CalledProcessError."""
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=timeout_s, env=self._everything).stdout.strip()

    def start_node(self, name: str) -> None:
        """Boot one node: slurmd in its namespaces."""
        (self.folder / "spool" / name).mkdir(exist_ok=True)
        # Not `ip netns exec`, which mounts another /sys. The name server is a closed port: torch's store looks every peer up, and
        # would wait 10 s each time for a server that the namespace does not reach.
        files = f"mount --bind {self.folder}/hosts /etc/hosts; mount --bind {self.folder}/resolv.conf /etc/resolv.conf"
        stepd = f" -d {releases.unpack(self.release)}/bin/slurmstepd" if self.release else ""
        inside = f"hostname {name}; {files}; exec slurmd -D -N {name} -f {self.env['SLURM_CONF']}{stepd}"
        command = ["nsenter", f"--net=/run/netns/{_namespace(name)}", "unshare", "--uts", "--mount", "sh", "-c", inside]
        self._start(command, f"slurmd-{name}")

    def fail_node(self, name: str) -> None:
        """Pull a node's plug: its link goes down, and all of its processes die at once."""
        self.failed.append(name)
        _sh("ip", "link", "set", f"wb{name}", "down")
        for pid in _sh("ip", "netns", "pids", _namespace(name)).split():
            with suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)

    def repair_node(self, name: str) -> None:
        """Plug the node in again, and wait until SLURM has it back."""
        self.failed = [other for other in self.failed if other != name]
        _sh("ip", "link", "set", f"wb{name}", "up")
        self.start_node(name)
        with suppress(subprocess.CalledProcessError):
            self.run("scontrol", "update", f"nodename={name}", "state=resume")
        _until(lambda: self.run("sinfo", "-h", "-n", name, "-o", "%T").split()[0] in ("idle", "mixed", "allocated"), 30, f"{name} does not come back")

    def notice_failed_node(self, name: str) -> None:
        """What an administrator, or SlurmdTimeout after a while, does: tell SLURM that the node is down."""
        self.run("scontrol", "update", f"nodename={name}", "state=down", "reason=failed")

    def _locked(self) -> bool:
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def _all_idle(self) -> bool:
        try:
            return self.run("sinfo", "-h", "-p", MAIN, "-t", "idle", "-o", "%D", timeout_s=10) == str(self.nodes)
        except (subprocess.CalledProcessError, subprocess.TimeoutExpired):
            return False

    def _start(self, command: list[str], name: str) -> int:
        with (self.folder / "log" / f"{name}.out").open("ab") as log:
            process = subprocess.Popen(
                command,
                env=self._everything,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=_die_with_parent,  # noqa: PLW1509  one system call: it takes no lock
            )
        self._pids.append(process.pid)
        return process.pid

    def _clear(self) -> None:
        """What an earlier lab may have left: this one has the lock, so no lab is up."""
        if shutil.which("ip"):
            for line in _sh("ip", "netns", "list").splitlines():
                name = line.split()[0]
                if name.startswith("wblab-"):
                    for pid in _sh("ip", "netns", "pids", name).split():
                        with suppress(ProcessLookupError):
                            os.kill(int(pid), signal.SIGKILL)
                    _sh("ip", "netns", "del", name)
            for link in (*Path("/sys/class/net").glob("wbnode*"), *Path("/sys/class/net").glob(BRIDGE)):  # a namespace's links go a little later
                _works("ip", "link", "del", link.name)

    def _network(self) -> None:
        _sh("ip", "link", "add", BRIDGE, "type", "bridge")
        _quiet(BRIDGE)
        _sh("ip", "addr", "add", f"{NETWORK}.1/24", "dev", BRIDGE)
        _sh("ip", "link", "set", BRIDGE, "up")
        hosts = ["127.0.0.1 localhost", f"{NETWORK}.1 {os.uname().nodename}"]
        for number, name in enumerate(self.names, 11):
            space = _namespace(name)
            _sh("ip", "netns", "add", space)
            _sh("ip", "link", "add", f"wb{name}", "type", "veth", "peer", "name", "eth0", "netns", space)
            _quiet(f"wb{name}")
            _sh("ip", "link", "set", f"wb{name}", "master", BRIDGE, "up")
            _sh("ip", "-n", space, "addr", "add", f"{NETWORK}.{number}/24", "dev", "eth0")
            _sh("ip", "-n", space, "link", "set", "eth0", "up")
            _sh("ip", "-n", space, "link", "set", "lo", "up")
            _sh("ip", "-n", space, "route", "add", "default", "via", f"{NETWORK}.1")
            hosts.append(f"{NETWORK}.{number} {name}")
        (self.folder / "hosts").write_text("\n".join(hosts) + "\n")
        (self.folder / "resolv.conf").write_text("nameserver 127.0.0.1\noptions timeout:1 attempts:1\n")

    def _munge(self) -> None:
        folder = self.folder / "munge"
        (folder / "key").write_bytes(secrets.token_bytes(1024))
        (folder / "key").chmod(0o400)
        options = (f"--key-file={folder}/key", f"--pid-file={folder}/pid", f"--log-file={folder}/log", f"--seed-file={folder}/seed")
        self._start(["munged", "--foreground", "--force", f"--socket={folder}/sock", *options], "munged")
        _until((folder / "sock").exists, 10, "munged did not start")

    def _configure(self) -> None:
        (self.folder / "gres.conf").write_text(f"AutoDetect=off\nNodeName={','.join(self.names)} Name=gpu File=/dev/tty[0-1]\n")
        (self.folder / "cgroup.conf").write_text(releases.CGROUP_CONF[self.release])
        lines = [CONF.format(folder=self.folder, host=os.uname().nodename, address=f"{NETWORK}.1")]
        lines.append(self._plugins)
        lines += [ACCOUNTING.format(folder=self.folder, host=os.uname().nodename)] if self.accounting else []
        shape = f"CPUs={self.cpus} Boards=1 SocketsPerBoard=1 CoresPerSocket={self.cpus} ThreadsPerCore=1 RealMemory=8000 Gres=gpu:2"
        for number, name in enumerate(self.names, 11):
            lines.append(f"NodeName={name} NodeHostname={name} NodeAddr={NETWORK}.{number} {shape} State=UNKNOWN")
        every = ",".join(self.names)
        lines.append(f"PartitionName={MAIN} Nodes={every} Default=YES MaxTime=1-0 DefaultTime=30 PriorityTier=1 PreemptMode=REQUEUE GraceTime=30")
        lines.append(f"PartitionName={URGENT} Nodes={every} MaxTime=1-0 DefaultTime=30 PriorityTier=10 PreemptMode=OFF")
        (self.folder / "slurm.conf").write_text("\n".join(lines) + "\n")

    def _database(self) -> None:
        """slurmdbd over a MariaDB of the lab's own, for sacct."""
        data = self.folder / "mysql"
        data.mkdir()
        shutil.chown(data, "mysql", "mysql")
        quick = ("--innodb-buffer-pool-size=64M", "--innodb-log-file-size=32M", "--innodb-lock-wait-timeout=900", "--skip-log-bin")
        _sh("mariadb-install-db", "--no-defaults", "--user=mysql", f"--datadir={data}", "--auth-root-authentication-method=normal", "--skip-test-db")
        where = (f"--datadir={data}", f"--socket={data}/sock", "--port=13306", "--bind-address=127.0.0.1")
        self._start(["mariadbd", "--no-defaults", "--user=mysql", *where, *quick], "mariadbd")
        sql = (
            "create database slurm_acct_db; create user 'slurm'@'127.0.0.1' identified by 'lab'; grant all on slurm_acct_db.* to 'slurm'@'127.0.0.1';"
        )
        _until(lambda: _works("mariadb", "-S", f"{data}/sock", "-uroot", "-e", sql), 30, "MariaDB did not start")
        conf = self.folder / "slurmdbd.conf"
        conf.write_text(SLURMDBD.format(folder=self.folder, host=os.uname().nodename) + self._plugins)
        conf.chmod(0o600)
        self._start(["slurmdbd", "-D"], "slurmdbd")
        _until(lambda: _works("sacctmgr", "-i", "add", "cluster", "lab", env=self._everything), 30, "slurmdbd did not start")
        self.run("sacctmgr", "-i", "add", "account", "research", "Cluster=lab")
        self.run("sacctmgr", "-i", "add", "user", "root", "Account=research")


def install(packages: tuple[str, ...]) -> None:
    """Have these Debian packages; a second call does nothing."""
    known = [subprocess.run(["dpkg", "-s", name], capture_output=True, text=True, check=False).stdout for name in packages]
    absent = [name for name, status in zip(packages, known, strict=True) if "\nStatus: install ok installed" not in status]
    if absent:
        env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        subprocess.run(["apt-get", "update", "-qq"], check=True, capture_output=True)
        subprocess.run(["apt-get", "install", "-y", "-qq", "--no-install-recommends", *absent], check=True, capture_output=True, env=env)


_prctl = ctypes.CDLL(None).prctl


def _die_with_parent() -> None:
    """In a daemon before its exec: it ends with the lab's process, however that ends."""
    _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def _namespace(node: str) -> str:
    return f"wblab-{node}"


def _quiet(link: str) -> None:
    """Without an address of its own, which it would get a while after it is up: a browser on this machine drops its requests when addresses change."""
    _works("ip", "link", "set", link, "addrgenmode", "none")  # refused where the kernel has no IPv6: then there is no such address


def _sh(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise NoLab(f"{' '.join(command)}: {done.stderr.strip()}")
    return done.stdout


def _works(*command: str, env: dict[str, str] | None = None) -> bool:
    return subprocess.run(command, capture_output=True, check=False, env=env).returncode == 0


def _until(ready: Callable[[], bool], timeout_s: float, otherwise: str) -> None:
    deadline = time.monotonic() + timeout_s
    while not ready():
        if time.monotonic() > deadline:
            raise NoLab(otherwise)
        time.sleep(0.1)


CONF = """\
ClusterName=lab
SlurmctldHost={host}({address})
SlurmctldPort=16817
SlurmdPort=16818
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
# a requeued job waits for cred_expire, 120 s unless told, before it may start again
AuthInfo=socket={folder}/munge/sock,cred_expire=5
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool/%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/log/slurmctld.log
SlurmdLogFile={folder}/log/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SwitchType=switch/none
# the nodes claim more than the machine has
SlurmdParameters=config_overrides
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
DefMemPerCPU=256
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=1,bf_interval=1,batch_sched_delay=0
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SlurmctldParameters=preempt_send_user_signal
JobRequeue=1
EnforcePartLimits=ALL
ReturnToService=2
SlurmdTimeout=20
SlurmctldTimeout=20
KillWait=5
MinJobAge=600
Waittime=0
InactiveLimit=0
RebootProgram=/bin/true
GresTypes=gpu
SlurmctldDebug=info
SlurmdDebug=info
"""

ACCOUNTING = """\
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost={host}
AccountingStoragePort=16819
AccountingStoragePass={folder}/munge/sock
JobAcctGatherType=jobacct_gather/linux
"""

SLURMDBD = """\
AuthType=auth/munge
AuthInfo=socket={folder}/munge/sock
DbdHost={host}
DbdPort=16819
SlurmUser=root
PidFile={folder}/slurmdbd.pid
LogFile={folder}/log/slurmdbd.log
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StoragePort=13306
StorageUser=slurm
StoragePass=lab
StorageLoc=slurm_acct_db
"""
