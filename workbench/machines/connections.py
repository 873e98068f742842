"""Whose a connection is. Every user of a machine can reach its loopback ports, and an app that starts runs runs what its user names."""

from __future__ import annotations

import os
import socket
import struct

SOCK_DIAG, SOCK_DIAG_BY_FAMILY, ANY = 4, 20, 0xFFFFFFFF
UID_AT = 80
"""Where the user's id stands in the kernel's answer: after its header and inet_diag_msg's first 64 bytes."""


def is_ours(client: tuple[str, int], server: tuple[str, int]) -> bool:
    """Whether the client's end of a connection of this machine is this user's, or root's."""
    return user_of(client, server) in (0, os.getuid())


def user_of(client: tuple[str, int], server: tuple[str, int]) -> int | None:
    """Whose the client's end of a connection of this machine is; None where the kernel knows no such connection. Raises OSError where it cannot be asked.

    Asked by netlink (sock_diag(7)), for exactly this one: /proc/net/tcp lists all, which takes tens of milliseconds on a busy machine.
    """
    family = socket.AF_INET6 if ":" in client[0] else socket.AF_INET
    addresses = [socket.inet_pton(family, host).ljust(16, b"\0") for host in (client[0], server[0])]
    ends = struct.pack("!HH", client[1], server[1]) + b"".join(addresses)
    request = struct.pack("=BBBxI", family, socket.IPPROTO_TCP, 0, ANY) + ends + struct.pack("=III", 0, ANY, ANY)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, SOCK_DIAG) as kernel:
        kernel.send(struct.pack("=IHHII", 16 + len(request), SOCK_DIAG_BY_FAMILY, 1, 0, 0) + request)
        answer = kernel.recv(4096)
    (kind,) = struct.unpack_from("=H", answer, 4)
    return struct.unpack_from("=I", answer, UID_AT)[0] if kind == SOCK_DIAG_BY_FAMILY else None


def kernel_tells() -> bool:
    """Whether the kernel can be asked (Linux's can): tried on a connection of our own."""
    with socket.create_server(("127.0.0.1", 0)) as there, socket.create_connection(there.getsockname()) as here:
        try:
            return user_of(here.getsockname(), there.getsockname()) == os.getuid()
        except (AttributeError, OSError):  # other systems have no netlink
            return False
