"""The one way to the files of a run folder, for readers and writers: no link is followed, and a file counts only where the run's owner made it.

A folder of runs may be shared, and whoever may write in it can put anything there: links to the reader's own files, FIFOs that block whoever
opens them, files in the name of a run that is another's. So each file is opened from its run's folder downwards, one name at a time:

- a symbolic link, in the last place or on the way, is refused, and so is what is no regular file; nothing is truncated before that is known;
- the file and the folders on the way belong to the owner of the run's folder, or to root;
- a file with a second name (a hard link) is not changed in place;
- only the owner of a run's folder changes it: for all others it is read-only.
"""

from __future__ import annotations

import errno
import os
import pwd
import re
import stat as modes
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

FOLDERS = frozenset({"events", "beats", "rollouts", "checkpoints", "critic", "journal", "endpoints", "health", "logs", "dask"})
"""The folders within a run's; below checkpoints there is one a step."""
MOST_BYTES = 1 << 26
"""Of a file that is read at once: every such file of a run is far smaller."""
_STEP = re.compile(r"\.?\d+(\.\w+)?")
_SAFE = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_ON_THE_WAY = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_KINDS = ((modes.S_ISLNK, "a symbolic link"), (modes.S_ISFIFO, "a FIFO"), (modes.S_ISDIR, "a folder"), (modes.S_ISSOCK, "a socket"))


class Unreadable(ValueError):
    """A file of a run folder is not read. `path` is the file, `reason` the cause; the message names both."""

    def __init__(self, path: Path, reason: str):
        self.path, self.reason = path, reason
        super().__init__(f"{path}: {reason}")


class ReadOnly(ValueError):
    """A run folder that this user does not change: another's, or one that cannot be written. `reason` says which."""

    def __init__(self, folder: Path, reason: str):
        self.reason = reason
        super().__init__(f"run {folder.name} is read-only: {reason}")


def opener(path: str, flags: int) -> int:
    """An opener for `open`, and the only way in which a file of a run is opened. A new file is its owner's alone, mode 0600.

    Raises:
        Unreadable: a link, no regular file, or one that somebody else made; ReadOnly: to be changed, in another's folder.
        FileNotFoundError, and other OSErrors of the system: a full disk, no rights.
    """
    file, writing = Path(path), bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))
    with _parent(file, writing) as (folder, owner):
        try:
            handle = os.open(file.name, (flags & ~os.O_TRUNC) | _SAFE, 0o600, dir_fd=folder)
        except OSError as error:
            raise _explained(error, file, file.name, folder) from None
    status = os.fstat(handle)
    if cause := _distrusted(status, owner) or (_SECOND_NAME if writing and status.st_nlink > 1 else ""):
        os.close(handle)
        raise Unreadable(file, cause)
    if flags & os.O_TRUNC:
        os.ftruncate(handle, 0)
    return handle


_SECOND_NAME = "has another name elsewhere (a hard link), which a change would reach too; not changed"


def read_bytes(path: Path, limit: int = MOST_BYTES) -> bytes:
    """A small file's content. Raises as `opener`, and Unreadable for one of more bytes than `limit`."""
    with open(path, "rb", opener=opener) as file:
        content = file.read(limit + 1)
    if len(content) > limit:
        raise Unreadable(path, f"larger than {limit >> 20} MiB, which no such file of a run is")
    return content


def read_text(path: Path, limit: int = MOST_BYTES) -> str:
    """A small file's text. Raises as `read_bytes`, and Unreadable for what is no UTF-8."""
    try:
        return read_bytes(path, limit).decode()
    except UnicodeDecodeError as error:
        raise Unreadable(path, f"no text: byte {error.start} is not UTF-8") from None


def stat(path: Path) -> os.stat_result:
    """A file's size and times. Raises as `opener`."""
    with _parent(path, writing=False) as (folder, owner):
        try:
            status = os.stat(path.name, dir_fd=folder, follow_symlinks=False)
        except OSError as error:
            raise _explained(error, path, path.name, folder) from None
    if cause := _distrusted(status, owner):
        raise Unreadable(path, cause)
    return status


def is_file(path: Path) -> bool:
    """Whether there is such a file. Raises Unreadable for one that is not to be trusted."""
    try:
        stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def names(folder: Path) -> list[str]:
    """The names in a run's folder, or in one within it, sorted; none where it is not there. Raises Unreadable as `opener`."""
    try:
        with _listed(folder) as handle:
            return sorted(entry.name for entry in os.scandir(handle))
    except FileNotFoundError:
        return []


def total_bytes(folder: Path) -> int:
    """Of all files below a folder of a run, links left out. Raises FileNotFoundError, and Unreadable as `opener`."""
    with _listed(folder) as handle:
        sizes = (os.stat(name, dir_fd=at, follow_symlinks=False) for _, _, files, at in os.fwalk(".", dir_fd=handle) for name in files)
        return sum(each.st_size for each in sizes if modes.S_ISREG(each.st_mode))


def make_folder(folder: Path) -> None:
    """A folder of a run, for its owner alone, where it is not there yet. Raises as `opener`."""
    with _parent(folder, writing=True) as (parent, _), suppress(FileExistsError):
        os.mkdir(folder.name, 0o700, dir_fd=parent)
    names(folder)


def rename(path: Path, name: str) -> None:
    """Give a file another name in its folder, in place of what has it. Raises as `opener`."""
    with _parent(path, writing=True) as (folder, _):
        os.rename(path.name, name, src_dir_fd=folder, dst_dir_fd=folder)


def unlink(path: Path) -> None:
    """Take a file away, if it is there; of a link only the link. Raises as `opener`."""
    with _parent(path, writing=True) as (folder, _), suppress(FileNotFoundError):
        os.unlink(path.name, dir_fd=folder)


def sync_folder(folder: Path) -> None:
    """Make what was renamed in a folder durable."""
    with _listed(folder) as handle:
        os.fsync(handle)


def check_name(name: str, where: Path) -> str:
    """A file's name that a file gives, as it is: a name alone, which leads nowhere else.

    Raises:
        ValueError: it has a folder in it, or is no name.
    """
    if name in ("", ".", "..") or "/" in name or "\\" in name or "\0" in name:
        raise ValueError(f"{where} names the file {name!r}; expected a plain name, of a file beside it")
    return name


def owner_of(folder: Path) -> int:
    """The number of the user whose run this is. Raises OSError."""
    return folder.lstat().st_uid


def why_read_only(folder: Path) -> str:
    """Why this user does not change a run; empty where they may."""
    if (owner := owner_of(folder)) != os.geteuid():
        return f"it belongs to {user(owner)}"
    if os.access(folder, os.W_OK):
        return ""
    mounted = os.statvfs(folder).f_flag & os.ST_RDONLY
    return "its file system is mounted read-only" if mounted else "its owner may not write in its folder: chmod u+w"


def user(uid: int) -> str:
    """A user's name; in a container one may be a number alone."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"


@contextmanager
def _parent(path: Path, writing: bool) -> Iterator[tuple[int, int]]:
    """A handle on the folder that a file lies in, and the run's owner. The folders above the run's are whoever's chose them to be."""
    run, way = _way(path)
    if writing and (cause := why_read_only(run)):
        raise ReadOnly(run, cause)
    handle = _enter(run, run, None)
    try:
        owner, folder = os.fstat(handle).st_uid, run
        for name in way:
            folder = folder / name
            inner = _enter(folder, name, handle)
            os.close(handle)
            handle = inner
            if (owner_of_part := os.fstat(handle).st_uid) not in (owner, 0):
                raise Unreadable(folder, _foreign(owner_of_part, owner))
        yield handle, owner
    finally:
        os.close(handle)


@contextmanager
def _listed(folder: Path) -> Iterator[int]:
    """A handle through which a folder can be listed."""
    with _parent(folder / "_", writing=False) as (way, _):
        try:
            handle = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=way)
        except OSError as error:
            raise _explained(error, folder, ".", way) from None
    try:
        yield handle
    finally:
        os.close(handle)


def _way(path: Path) -> tuple[Path, list[str]]:
    """The run's folder that a file lies in, by the names of the layout, and the folders between the two."""
    if path.name in ("", "..") or ".." in path.parts:
        raise Unreadable(path, "no name of a file")
    run, way = path.parent, []
    while run.name in FOLDERS or (run.parent.name == "checkpoints" and _STEP.fullmatch(run.name)):
        way.insert(0, run.name)
        run = run.parent
    return run, way


def _enter(path: Path, name: str | Path, within: int | None) -> int:
    try:
        return os.open(name, _ON_THE_WAY, dir_fd=within)
    except OSError as error:
        raise _explained(error, path, name, within) from None


def _explained(error: OSError, path: Path, name: str | Path, within: int | None) -> Exception:
    """The error with the file's whole path; one that says what the file is, where that is the cause."""
    if error.errno in (errno.ELOOP, errno.ENOTDIR, errno.ENXIO, errno.EISDIR, errno.ENODEV):
        try:
            mode = os.stat(name, dir_fd=within, follow_symlinks=False).st_mode
        except OSError:
            return type(error)(error.errno, error.strerror, str(path))
        return Unreadable(path, f"{_kind(mode)}, not {'a folder' if error.errno == errno.ENOTDIR else 'a file'}; not followed or opened")
    if isinstance(error, PermissionError):
        return Unreadable(path, "this user may not open it")
    return type(error)(error.errno, error.strerror, str(path))


def _distrusted(status: os.stat_result, owner: int) -> str:
    """Why a file is not to be trusted; empty where it is."""
    if not modes.S_ISREG(status.st_mode):
        return f"{_kind(status.st_mode)}, not a file; not followed or opened"
    return "" if status.st_uid in (owner, 0) else _foreign(status.st_uid, owner)


def _kind(mode: int) -> str:
    return next((label for test, label in _KINDS if test(mode)), "a file" if modes.S_ISREG(mode) else "a device")


def _foreign(uid: int, owner: int) -> str:
    return f"belongs to {user(uid)}, the run to {user(owner)}; not read"
