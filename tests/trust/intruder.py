"""Another user of this machine: made for the tests, taken away after them."""

from __future__ import annotations

import pwd
import secrets
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

PYTHON = shutil.which("python3", path="/usr/bin:/usr/local/bin")
"""An interpreter that every user may run: the tests' own may lie in a home that is closed to others."""

SEARCH = """
import os, sys
found = read = 0
for name in os.listdir("/dev/shm"):
    try:
        with open(f"/dev/shm/{name}", "rb") as file:
            content = file.read()
    except PermissionError:
        continue
    read += name.startswith(sys.argv[1])
    found += sys.argv[2].encode() in content
print(read, found)
"""


@dataclass(frozen=True)
class Intruder:
    """A UNIX user with no rights of their own."""

    name: str
    uid: int
    gid: int

    def run(self, *command: str, input: str | None = None, timeout_s: float = 60.0) -> subprocess.CompletedProcess[str]:
        """What a command does as this user, from the root folder, with an environment of its own. It may fail: the caller looks at it."""
        return subprocess.run(
            command, input=input, capture_output=True, text=True, timeout=timeout_s, check=False, cwd="/", env=self._environment(), **self._as_user()
        )

    def python(self, code: str, *arguments: str, timeout_s: float = 60.0) -> subprocess.CompletedProcess[str]:
        """A Python program, of the standard library alone, as this user."""
        assert PYTHON is not None, "no python3 that every user may run"
        return self.run(PYTHON, "-c", code, *arguments, timeout_s=timeout_s)

    def start(self, code: str, *arguments: str) -> subprocess.Popen[str]:
        """As `python`, in the background. The caller ends it."""
        assert PYTHON is not None, "no python3 that every user may run"
        return subprocess.Popen(
            [PYTHON, "-c", code, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd="/",
            env=self._environment(),
            **self._as_user(),
        )

    def reads(self, path: Path) -> bool:
        """Whether this user can read the file, or list the folder."""
        return self.run("ls" if path.is_dir() else "cat", str(path)).returncode == 0

    def _as_user(self) -> dict[str, object]:
        return {"user": self.uid, "group": self.gid, "extra_groups": [], "start_new_session": True}

    def _environment(self) -> dict[str, str]:
        return {"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": "/nonexistent", "LANG": "C.UTF-8"}


@contextmanager
def made() -> Iterator[Intruder]:
    """A new user, who is gone afterwards with all their processes. It takes root."""
    name = f"intruder-{secrets.token_hex(3)}"
    subprocess.run(["useradd", "--no-create-home", "--home-dir", "/nonexistent", "--shell", "/usr/sbin/nologin", name], check=True)
    try:
        entry = pwd.getpwnam(name)
        yield Intruder(name, entry.pw_uid, entry.pw_gid)
    finally:
        subprocess.run(["pkill", "-KILL", "-u", name], check=False)
        subprocess.run(["userdel", "--force", name], check=True, capture_output=True)
