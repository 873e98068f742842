"""What a forked process shows of itself: its own command and environment in /proc, where `ps`, and whoever looks for a rank, would find the server's.

Linux lets a process say where in its memory they are (prctl(2), PR_SET_MM_MAP), if the kernel was built with CONFIG_CHECKPOINT_RESTORE.
"""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence
from pathlib import Path

PR_SET_MM, PR_SET_MM_MAP = 35, 14
NO_FILE = 0xFFFFFFFF

_libc = ctypes.CDLL(None)
_libc.sbrk.restype, _libc.sbrk.argtypes = ctypes.c_void_p, [ctypes.c_long]
_kept: list[ctypes.Array[ctypes.c_char]] = []


class _Map(ctypes.Structure):
    """`struct prctl_mm_map`."""

    _fields_ = [
        *((name, ctypes.c_uint64) for name in ("start_code", "end_code", "start_data", "end_data", "start_brk", "brk", "start_stack")),
        *((name, ctypes.c_uint64) for name in ("arg_start", "arg_end", "env_start", "env_end", "auxv")),
        *((name, ctypes.c_uint32) for name in ("auxv_size", "exe_fd")),
    ]


def show(command: Sequence[str], environment: Mapping[str, str]) -> bool:
    """Show these as this process's command and environment. Returns whether the kernel took them."""
    cmdline = b"".join(word.encode(errors="surrogateescape") + b"\0" for word in command)
    variables = b"".join(f"{name}={value}".encode(errors="surrogateescape") + b"\0" for name, value in environment.items())
    text = ctypes.create_string_buffer(cmdline + variables, len(cmdline) + len(variables))
    first = ctypes.addressof(text)
    middle, last = first + len(cmdline), first + len(text)
    stat = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    code, data, stack = ([int(stat[field - 3]) for field in fields] for fields in ((26, 27), (45, 46, 47), (28,)))  # proc(5) counts from 1
    places = _Map(*code, *data, _libc.sbrk(0), *stack, first, middle, middle, last, 0, 0, NO_FILE)
    taken = _libc.prctl(PR_SET_MM, PR_SET_MM_MAP, ctypes.byref(places), ctypes.c_ulong(ctypes.sizeof(places)), 0) == 0
    if taken:
        _kept[:] = [text]
    return taken
