"""gloo's sockets, closed to all but the gang.

For each process group gloo listens on a port, and takes whoever connects and guesses a small number for the peer it waits for, also later;
its wheels have no TLS. What goes through a group may be unpickled, so a stranger must be out before the first message. Once a group's peers
are connected, each end names its connections in the gang's store, to which no stranger writes: what nobody of the gang made is cut off, and the
port takes no further connections.
"""

from __future__ import annotations

import ctypes
import itertools
import os
import socket
import stat
import struct
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress

import torch.distributed as dist

SO_ATTACH_FILTER = 26
BPF_RET_K = 0x06

_rounds = itertools.count()


@contextmanager
def sealed() -> Iterator[None]:
    """Within, groups are formed: by all ranks, and with no message through them yet. Afterwards they are this gang's alone."""
    if dist.is_initialized() and dist.get_world_size() == 1:
        yield
        return
    known = _descriptors().keys()
    yield
    if dist.get_world_size() > 1:
        with ExitStack() as duplicates:
            _seal([duplicates.enter_context(each) for number, descriptor in _descriptors().items() if number not in known for each in _tcp(descriptor)])


def _seal(fresh: Sequence[socket.socket]) -> None:
    listening = [each for each in fresh if each.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)]
    for each in listening:
        _take_no_more(each)
    ports = {each.getsockname()[:2] for each in listening}
    store, prefix = dist.distributed_c10d._get_default_store(), f"sealed/{next(_rounds)}"
    came: list[tuple[socket.socket, str]] = []
    for each in fresh:
        with suppress(OSError):  # it listens, or is closed already
            own, peer = each.getsockname()[:2], each.getpeername()[:2]
            if own in ports:
                came.append((each, f"{prefix}/{peer}>{own}"))
            else:
                store.set(f"{prefix}/{own}>{peer}", "")
    if store.add(f"{prefix}/ranks", 1) == dist.get_world_size():
        store.set(f"{prefix}/all", "")
    store.wait([f"{prefix}/all"])
    for each, key in came:
        if not store.check([key]):
            print(f"cut off: {key.partition('/')[2]} is no connection of this gang", file=sys.stderr, flush=True)
            with suppress(OSError):  # the stranger was quicker
                each.shutdown(socket.SHUT_RDWR)


def _descriptors() -> dict[int, int]:
    """This process's sockets: a descriptor of each, by its inode."""
    found = {}
    for name in os.listdir("/proc/self/fd"):
        with suppress(OSError):  # the descriptor of this listing, or one that was closed meanwhile
            state = os.fstat(int(name))
            if stat.S_ISSOCK(state.st_mode):
                found[state.st_ino] = int(name)
    return found


def _tcp(descriptor: int) -> list[socket.socket]:
    """The TCP socket, under another descriptor: the first is its owner's. Empty for other sockets."""
    try:
        found = socket.socket(fileno=os.dup(descriptor))
    except OSError:  # closed meanwhile
        return []
    if found.family in (socket.AF_INET, socket.AF_INET6) and found.type == socket.SOCK_STREAM:
        return [found]
    found.close()
    return []


def _take_no_more(listening: socket.socket) -> None:
    """A packet filter that drops all: who connects gets no answer. Closing the socket is gloo's, whose loop would spin on one shut down."""
    program = ctypes.create_string_buffer(struct.pack("HBBI", BPF_RET_K, 0, 0, 0))
    listening.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, struct.pack("HP", 1, ctypes.addressof(program)))
