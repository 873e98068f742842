"""What of this user's workbench others could reach: `workbench doctor --security`. It looks, and connects to nothing.

Read from the kernel: the sockets of this user's processes, the rights of files and folders, and what killed processes left.
"""

from __future__ import annotations

import ipaddress
import os
import pwd
import stat
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import psutil
from rich.console import Console
from rich.table import Table
from rich.text import Text

from workbench.backends import scratch

Level = Literal["ok", "warning", "error"]
TONES: dict[Level, str] = {"ok": "green", "warning": "yellow", "error": "red"}
NOBODY = 65534
OPEN_TO_GROUP, OPEN_TO_ALL = stat.S_IRWXG, stat.S_IRWXO


@dataclass(frozen=True)
class Exposure:
    """One thing that others may reach: what it is and where, what they could do with it, and how to close it where that is too much."""

    level: Level
    what: str
    others: str
    remedy: str = ""


@dataclass(frozen=True)
class Kind:
    """Processes of one kind: by a word of their command, and what another user of the machine gets from their ports."""

    word: str
    title: str
    level: Level
    others: str


APP = Kind("streamlit", "the app", "ok", "get a page that asks for the login; the kernel tells whose a connection is, and others' are refused")
GANG = "connect to gloo or NCCL while a gang forms, which ask nobody who they are, or to a server's TLS port, which does; see SECURITY.md"
KINDS = (
    Kind("workbench.processes.driver", "the driver of", "ok", "get no further than a TLS handshake without the run's certificate"),
    Kind("workbench.processes.worker", "a rank of", "warning", GANG),
    Kind("workbench.processes.server", "a server of", "warning", GANG),
    Kind("workbench.backends.fork_server", "a fork server", "ok", "get nothing: its socket's folder is closed to them"),
    Kind("tritonserver", "Triton", "error", "ask Triton, which should have a UNIX socket alone"),
    Kind("jupyter", "JupyterLab", "ok", "get a page that asks for Jupyter's own token"),
    APP,
)


def examine(runs: Path, cache: Path) -> list[Exposure]:
    """Everything found, the worst first. `runs` is the folder of runs, `cache` that of what was computed once."""
    exposures = [*_sockets(), *_folder(runs, "the runs"), *_runs(runs), *_folder(cache, "the cache"), *_leftovers(), *_machine()]
    return sorted(exposures, key=lambda exposure: [*TONES][::-1].index(exposure.level))


def render(exposures: Sequence[Exposure], console: Console) -> None:
    table = Table("", "what", "what others could do", box=None, padding=(0, 1), title_justify="left")
    for exposure in exposures:
        others = Text(exposure.others)
        if exposure.remedy:
            others.append(f"\n{exposure.remedy}", style="bold")
        table.add_row(Text("●", style=TONES[exposure.level]), Text(exposure.what), others)
    console.print(table)
    worst = [sum(exposure.level == level for exposure in exposures) for level in ("error", "warning")]
    console.print(f"\n{worst[0]} to close now, {worst[1]} to know of. What each socket and file is: SECURITY.md", markup=False, highlight=False)


def _sockets() -> Iterator[Exposure]:
    """What this user's workbench processes listen on. Of others' processes the kernel does not tell."""
    for process, kind, title in _processes():
        ports: dict[str, list[int]] = defaultdict(list)
        paths: dict[Path, set[str]] = defaultdict(set)
        try:
            for connection in process.net_connections("all"):
                if connection.status == psutil.CONN_LISTEN and connection.laddr:
                    ports[connection.laddr.ip].append(connection.laddr.port)
                elif isinstance(connection.laddr, str) and connection.laddr.startswith("/"):
                    paths[Path(connection.laddr).parent].add(Path(connection.laddr).name)
        except (psutil.AccessDenied, psutil.NoSuchProcess):
            continue
        whose = f"{title} (process {process.pid})"
        yield from (_port(address, sorted(numbers), kind, whose) for address, numbers in ports.items())
        yield from (_unix_sockets(folder, sorted(names), whose) for folder, names in paths.items())


def _processes() -> Iterator[tuple[psutil.Process, Kind, str]]:
    """This user's processes of the workbench and those that they started, with their kind and what they are."""
    known: dict[int, tuple[Kind, str]] = {}
    mine = [p for p in psutil.process_iter(["pid", "ppid", "uids", "cmdline"]) if p.info["uids"] and p.info["uids"].real == os.getuid()]
    for process in sorted(mine, key=lambda process: process.info["pid"]):
        command = process.info["cmdline"] or []
        kind = next((kind for kind in KINDS if any(kind.word in word for word in command[:5])), None)
        if kind:
            run = next((Path(word).name for word in command if word.startswith("/") and (Path(word) / "status.json").exists()), "a run")
            known[process.info["pid"]] = kind, f"{kind.title} {run}" if kind.title.endswith(" of") else kind.title
        elif process.info["ppid"] in known:
            known[process.info["pid"]] = known[process.info["ppid"]]
        if match := known.get(process.info["pid"]):
            yield process, *match


def _port(address: str, ports: Sequence[int], kind: Kind, whose: str) -> Exposure:
    shown = ", ".join(map(str, ports[:4])) + (f" and {len(ports) - 4} more ports" if len(ports) > 4 else "")
    what = f"{address}:{shown}, {whose}"
    loopback = ipaddress.ip_address(address).is_loopback
    who = "Users of this machine could" if loopback else "Whoever reaches this machine could"
    if kind is APP and not loopback:
        return Exposure("warning", what, f"{who} see the login page.", "start it on 127.0.0.1, or in team mode behind a proxy: see SECURITY.md")
    return Exposure(kind.level, what, f"{who} {kind.others}.")


def _unix_sockets(folder: Path, names: Sequence[str], whose: str) -> Exposure:
    what = f"{folder}/{names[0] if len(names) == 1 else f'({len(names)} sockets)'}, {whose}"
    modes = {part: info.st_mode for part in (folder, *folder.parents) if (info := _stat(part))}
    if folder not in modes:
        return Exposure("ok", what, "Nothing: it is gone.")
    closed = next((part for part, mode in modes.items() if not mode & (OPEN_TO_GROUP | OPEN_TO_ALL)), None)
    if closed:
        return Exposure("ok", what, f"Nothing: {closed} is closed to them.")
    return Exposure("error", what, "Other users of this machine could connect to it.", f"chmod 700 {folder}")


def _folder(path: Path, title: str) -> Iterator[Exposure]:
    what = f"{path}, {title}"
    info = _stat(path.resolve())
    if info is None:
        yield Exposure("ok", what, "Nothing: there is no such folder yet.")
        return
    if info.st_uid not in (os.getuid(), 0):
        yield Exposure(
            "warning", what, f"It belongs to {_user(info.st_uid)}, who can rename and remove what is in it.", "export WORKBENCH_RUNS=~/runs"
        )
    if info.st_mode & stat.S_IWOTH and not info.st_mode & stat.S_ISVTX:
        yield Exposure("error", what, "Every user of this machine can rename and remove what is in it.", f"chmod o-w {path}, or chmod +t {path}")
    elif info.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        yield Exposure("warning", what, "Others can put runs of theirs in it; they are shown as theirs, read-only.")
    elif info.st_mode & (OPEN_TO_GROUP | OPEN_TO_ALL):
        yield Exposure("ok", what, "Others can list the names in it; each run's own folder is closed to them.")
    else:
        yield Exposure("ok", what, "Nothing: it is closed to them.")


def _runs(runs: Path) -> Iterator[Exposure]:
    """Folders of runs of this user's that others may look into: someone has opened them, a new run's are closed."""
    for path in sorted(runs.iterdir()) if runs.is_dir() else ():
        info = _stat(path)
        if info is None or not stat.S_ISDIR(info.st_mode) or info.st_uid != os.getuid() or not (path / "status.json").is_file():
            continue
        if info.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            yield Exposure("error", str(path), "Others can change this run's files, and so what it does.", f"chmod go-w {path}")
        elif info.st_mode & (OPEN_TO_GROUP | OPEN_TO_ALL):
            yield Exposure("warning", str(path), "Others can read this run's prompts, rollouts and weights.", f"chmod 700 {path}, unless they should")
        for secret in [*path.glob("endpoints/*.key"), *path.glob("dask/*.key"), *path.glob("endpoints/*.tls/*.key")]:
            if (of_secret := _stat(secret)) and of_secret.st_mode & (OPEN_TO_GROUP | OPEN_TO_ALL):
                yield Exposure(
                    "error", str(secret), "Others can read this key, and ask the run's servers with it.", f"chmod 600 {secret}; resume the run"
                )


def _leftovers() -> Iterator[Exposure]:
    for path in scratch.stale():
        yield Exposure("warning", str(path), "Nothing: it is closed to them. A killed process left it.", "the next run removes it")


def _machine() -> Iterator[Exposure]:
    """What the kernel and the shell let others see."""
    options = next((part.opts for part in psutil.disk_partitions(all=True) if part.mountpoint == "/proc"), "")
    hidden = any(f"hidepid={value}" in options for value in ("1", "2", "invisible", "noaccess"))
    arguments = "Nothing of each other's processes." if hidden else "See every process's arguments; the workbench puts no secret there."
    yield Exposure("ok", "/proc, the list of processes", arguments)
    mask = os.umask(0o077)
    os.umask(mask)
    if mask & stat.S_IWOTH == 0:
        yield Exposure("warning", f"the umask {mask:03o}", "Write to new files of yours outside of the workbench's own folders.", "umask 077")
    others = sorted({_user(uid) for uid in _others()})
    yield Exposure(
        "ok", "other people on this machine", f"{', '.join(others)} run processes here now." if others else "None runs a process here now."
    )


def _others() -> set[int]:
    """People, by the ids that distributions give them (login.defs(5)), who run processes."""
    uids = {process.info["uids"].real for process in psutil.process_iter(["uids"]) if process.info["uids"]}
    return {uid for uid in uids if 1000 <= uid < NOBODY and uid != os.getuid()}


def _stat(path: Path) -> os.stat_result | None:
    """Of the path itself, not of what a link points to; None where it is gone, or closed to this user."""
    try:
        return path.lstat()
    except (FileNotFoundError, PermissionError, NotADirectoryError):
        return None


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"
