"""Process groups that no stranger is in.

For each group gloo listens on a port, and takes whoever connects and guesses a small number for the peer it waits for; its wheels have no TLS.
What goes through a group may be unpickled, so a stranger must be out before the first message. Once a group's peers are connected, the ports
take no more, and each end names its connections in the gang's store, to which no stranger writes. Where one is of nobody in the gang, it may
stand in a peer's place: it is cut off, and the groups are formed anew.
"""

from __future__ import annotations

import ctypes
import itertools
import os
import socket
import stat
import struct
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TypeVar

import torch.distributed as dist
from torch._C._distributed_c10d import PrefixStore, Store

SO_ATTACH_FILTER = 26
BPF_RET_K = 0x06
TRIES = 5

T = TypeVar("T")

_rounds = itertools.count()


class Intruded(RuntimeError):
    """Somebody else connects to the gang's ports each time that it forms its groups."""


def formed(make: Callable[[], T], undo: Callable[[], None], store: Store) -> T:
    """What `make` returns, which forms groups by all ranks and sends no message through them. `undo` gives them up. All ranks call it.

    Raises:
        Intruded: strangers connected each time.
    """
    for _ in range(TRIES):
        known = _descriptors().keys()
        made = make()
        with ExitStack() as duplicates:
            fresh = [
                duplicates.enter_context(each) for number, descriptor in _descriptors().items() if number not in known for each in _tcp(descriptor)
            ]
            if not _strangers(fresh, PrefixStore(f"formed/{next(_rounds)}", store)):
                return made
        undo()
    raise Intruded(
        f"somebody else connected to the gang's ports each of the {TRIES} times that it formed its groups; "
        "start again when they are gone, or on nodes that nobody else is on"
    )


def _strangers(fresh: Sequence[socket.socket], store: Store) -> int:
    """Close the ports, and cut off who is none of the gang. Returns how many were on all ranks."""
    listening = [each for each in fresh if each.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)]
    for each in listening:
        _take_no_more(each)
    ports = {each.getsockname()[:2] for each in listening}
    came: list[tuple[socket.socket, str]] = []
    for each in fresh:
        with suppress(OSError):  # it listens, or is closed already
            own, peer = each.getsockname()[:2], each.getpeername()[:2]
            if own in ports:
                came.append((each, f"{peer} to {own}"))
            else:
                store.set(f"{own} to {peer}", "")
    meet(store, "named", dist.get_world_size())
    cut_off = 0
    for each, ends in came:
        if not store.check([ends]):
            cut_off += 1
            print(f"cut off: the connection from {ends} is of nobody in this gang", file=sys.stderr, flush=True)
            with suppress(OSError):  # the stranger was quicker
                each.shutdown(socket.SHUT_RDWR)
    store.add("strangers", cut_off)
    meet(store, "counted", dist.get_world_size())
    return store.add("strangers", 0)


def meet(store: Store, name: str, ranks: int) -> None:
    """Until all ranks are here."""
    if store.add(f"{name}/ranks", 1) == ranks:
        store.set(f"{name}/all", "")
    store.wait([f"{name}/all"])


def _descriptors() -> dict[int, int]:
    """This process's sockets: a descriptor of each, by its inode."""
    descriptors = {}
    for entry in Path("/proc/self/fd").iterdir():
        with suppress(OSError):  # the descriptor of this listing, or one that was closed meanwhile
            state = os.fstat(int(entry.name))
            if stat.S_ISSOCK(state.st_mode):
                descriptors[state.st_ino] = int(entry.name)
    return descriptors


def _tcp(descriptor: int) -> list[socket.socket]:
    """The TCP socket, under another descriptor: the first is its owner's. Empty for other sockets."""
    try:
        connection = socket.socket(fileno=os.dup(descriptor))
    except OSError:  # closed meanwhile
        return []
    if connection.family in (socket.AF_INET, socket.AF_INET6) and connection.type == socket.SOCK_STREAM:
        return [connection]
    connection.close()
    return []


def _take_no_more(listening: socket.socket) -> None:
    """A packet filter that drops all: who connects gets no answer. Closing the socket is gloo's, whose loop would spin on one shut down."""
    program = ctypes.create_string_buffer(struct.pack("HBBI", BPF_RET_K, 0, 0, 0))
    listening.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, struct.pack("HP", 1, ctypes.addressof(program)))
