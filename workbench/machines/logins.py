"""Who may open this user's app: the login token of each app, and the members of the owner's team. All in files that only the owner can read.

The browser gets neither token nor hash: its cookie is a session that is computed from the token.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import json
import os
import re
import secrets
import socket
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from workbench.rundir.files import lock, write_atomic

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")
STARTED_WITHIN_S = 1.0
TEAM = "team.json"


@dataclass(frozen=True)
class AppLogin:
    """An app that this user started. `origin` is where browsers find it; `token` is empty in team mode, where each member has their own.

    `started` is when the process began, in seconds since the epoch: it tells a process from a later one with the same id.
    """

    port: int
    origin: str
    token: str
    pid: int
    started: float

    @property
    def url(self) -> str:
        """The link that logs a browser in."""
        return f"{self.origin}/?token={self.token}" if self.token else self.origin


@dataclass(frozen=True)
class Member:
    """Somebody whom the owner lets read. `digest` is the SHA-256 of the session in hexadecimal; `added` is in seconds since the epoch."""

    name: str
    digest: str
    added: float


def state_folder() -> Path:
    """$WORKBENCH_STATE, or alignment-workbench in $XDG_STATE_HOME (~/.local/state): made where it is missing, with mode 0700.

    Raises PermissionError where others can read or write there, or where it is another user's.
    """
    state_home = os.environ.get("XDG_STATE_HOME") or "~/.local/state"
    folder = Path(os.environ.get("WORKBENCH_STATE") or f"{state_home}/alignment-workbench").expanduser()
    folder.parent.mkdir(parents=True, exist_ok=True)
    folder.mkdir(mode=0o700, exist_ok=True)
    _check_private(folder, folder.lstat())
    return folder


def session_of(token: str) -> str:
    """What the cookie of a browser holds that logged in with this token."""
    return hmac.new(token.encode(), b"alignment-workbench session", hashlib.sha256).hexdigest()


def register_app(port: int, origin: str, with_token: bool) -> AppLogin:
    """Note that this process serves the app on this port. The token is the one of the app that was there before: open pages stay logged in."""
    path = _app_file(port)
    with _alone():
        before = _read(path)
        token = (str(before["token"]) if before else "") or secrets.token_urlsafe(32)
        login = AppLogin(port, origin, token if with_token else "", os.getpid(), psutil.Process().create_time())
        write_atomic(path, json.dumps(asdict(login)))
    return login


def running_apps(folder: Path | None = None) -> list[AppLogin]:
    """The apps of this user on this host whose process is there, by port; those that keep their logins in another folder where one is named."""
    logins = [AppLogin(**record) for path in (folder or state_folder()).glob(f"app-{socket.gethostname()}-*.json") if (record := _read(path))]
    return sorted((app for app in logins if _runs(app)), key=lambda app: app.port)


def members() -> list[Member]:
    """The team, by name."""
    record = _read(state_folder() / TEAM) or {}
    return [Member(name, **fields) for name, fields in sorted(record.items())]


def add_member(name: str) -> str:
    """Let somebody read; their login token, which is kept nowhere. Raises ValueError for a name that is taken or malformed."""
    if not NAME.fullmatch(name):
        raise ValueError(f"{name!r} is not a member's name: letters, digits and . _ @ - only, at most 64, a letter or digit first")
    token = secrets.token_urlsafe(32)
    with _alone():
        known = members()
        if name in {member.name for member in known}:
            raise ValueError(f"{name} is in the team already; for a new link: workbench team remove {name}, then add again")
        _write_team([*known, Member(name, digest_of(session_of(token)), time.time())])
    return token


def remove_member(name: str) -> None:
    """End somebody's sessions and their token. Raises ValueError where nobody has that name."""
    with _alone():
        known = members()
        if name not in {member.name for member in known}:
            raise ValueError(f"nobody in the team is called {name!r}; the team: {', '.join(member.name for member in known) or 'nobody yet'}")
        _write_team([member for member in known if member.name != name])


def digest_of(session: str) -> str:
    return hashlib.sha256(session.encode()).hexdigest()


def team_version() -> tuple[int, int, int] | None:
    """Changes when the team does; None where there is no team."""
    try:
        info = (state_folder() / TEAM).lstat()
    except FileNotFoundError:
        return None
    return info.st_ino, info.st_mtime_ns, info.st_size


def _app_file(port: int) -> Path:
    return state_folder() / f"app-{socket.gethostname()}-{port}.json"


def _write_team(team: list[Member]) -> None:
    write_atomic(state_folder() / TEAM, json.dumps({member.name: {"digest": member.digest, "added": member.added} for member in team}))


def _read(path: Path) -> dict | None:
    """A file of the state folder; None where it is missing. No link is followed. Raises PermissionError for one that is not the owner's alone."""
    with contextlib.suppress(FileNotFoundError), open(path, opener=lambda name, flags: os.open(name, flags | os.O_NOFOLLOW)) as file:
        _check_private(path, os.fstat(file.fileno()))
        return json.load(file)
    return None


def _check_private(path: Path, info: os.stat_result) -> None:
    if stat.S_ISLNK(info.st_mode):
        raise PermissionError(f"{path} is a link; logins are kept in a folder of the user's own")
    if info.st_uid != os.getuid():
        raise PermissionError(f"{path} belongs to user {info.st_uid}, not to {os.getuid()}; name another folder in WORKBENCH_STATE")
    if info.st_mode & 0o077:
        raise PermissionError(f"{path} is open to other users (mode {stat.S_IMODE(info.st_mode):04o}); close it: chmod go= {path}")


@contextmanager
def _alone() -> Iterator[None]:
    with lock(state_folder() / ".lock"):
        yield


def _runs(app: AppLogin) -> bool:
    try:
        return abs(psutil.Process(app.pid).create_time() - app.started) < STARTED_WITHIN_S
    except psutil.NoSuchProcess:
        return False
