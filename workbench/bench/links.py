"""Slow links to measure over: between two network namespaces of this host, shaped by its kernel (root, `ip` and `tc`)."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

HERE, THERE = "10.231.77.1", "10.231.77.2"


@dataclass(frozen=True)
class Link:
    """`qdiscs` are alternatives, the first that this kernel knows is taken; it stands at both ends. A link that only delays has `one_way_s`."""

    name: str
    qdiscs: tuple[str, ...] = ()
    one_way_s: float = 0.0


LINKS = (
    Link("veth, unshaped"),
    Link("10 Gbit/s", ("netem rate 10gbit limit 100000", "tbf rate 10gbit burst 256kb latency 100ms")),
    Link("1 Gbit/s", ("netem rate 1gbit limit 100000", "tbf rate 1gbit burst 128kb latency 100ms")),
    Link("RTT + 0.1 ms", ("netem delay 50us limit 100000",), 0.00005),
    Link("RTT + 1 ms", ("netem delay 500us limit 100000",), 0.0005),
    Link("RTT + 10 ms", ("netem delay 5ms limit 100000",), 0.005),
)


def impossible() -> str:
    """Why this host can make no links; empty where it can."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    missing = [tool for tool in ("ip", "tc") if shutil.which(tool) is None]
    return f"no {' nor '.join(missing)} here (package iproute2)" if missing else ""


@contextmanager
def namespace() -> Iterator[tuple[str, str, str]]:
    """(a namespace, this host's end, its end): joined by a pair of interfaces. It is gone afterwards, after SIGTERM too."""
    namespace = f"workbench-{os.getpid()}"
    ours, theirs = f"wb{os.getpid()}a", f"wb{os.getpid()}b"
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        inside = f"ip -n {namespace}"
        for command in (
            f"ip netns add {namespace}",
            f"ip link add {ours} type veth peer name {theirs} netns {namespace}",
            f"ip address add {HERE}/30 dev {ours}",
            f"ip link set {ours} up",
            f"{inside} address add {THERE}/30 dev {theirs}",
            f"{inside} link set {theirs} up",
            f"{inside} link set lo up",
        ):
            if failed := tool(command):
                raise ValueError(f"{command}: {failed}")
        yield namespace, ours, theirs
    finally:
        tool(f"ip link del {ours}")
        tool(f"ip netns del {namespace}")
        signal.signal(signal.SIGTERM, before)


def shape(link: Link, namespace: str, ours: str, theirs: str) -> str:
    """Shape both ends like this. Returns why it is not possible, or nothing."""
    ends = (f"tc qdisc %s dev {ours} root", f"tc -n {namespace} qdisc %s dev {theirs} root")
    reasons = []
    for qdisc in link.qdiscs or ("",):
        for end in ends:
            tool(end % "del")
        failed = next((failed for end in ends if qdisc and (failed := tool(f"{end % 'add'} {qdisc}"))), "")
        if not failed:
            return ""
        reasons.append(f"{qdisc.split()[0]}: {failed}")
    return "; ".join(reasons)


def tool(command: str) -> str:
    """Run it. Returns what it complained of, or nothing."""
    done = subprocess.run(command.split(), capture_output=True, text=True, check=False)
    return "" if done.returncode == 0 else done.stderr.strip().replace("\n", "; ") or f"exit code {done.returncode}"
