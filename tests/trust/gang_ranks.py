"""What the ranks of the gangs in `test_gang` do: see `tests.gang`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import psutil
import torch
import torch.distributed as dist

from workbench.engine import parallel
from workbench.engine.sealing import formed
from workbench.processes.sampling import WorkLost, in_order

STRANGER = """
import socket, struct, sys
ports, held = list(map(int, sys.argv[1].split(","))), []
for port in ports:
    for guess in (None, 0, 1, 2, 1 << 40):
        peer = socket.create_connection(("127.0.0.1", port), 10)
        held.append(peer)
        if guess is not None:
            peer.sendall(struct.pack("<q", guess) + bytes(1000))
print("connected", flush=True)
got = b""
for peer in held:
    peer.settimeout(60)
    try:
        got += peer.recv(4096)
    except ConnectionResetError:
        pass
print("got", len(got), flush=True)
for port in ports:
    try:
        socket.create_connection(("127.0.0.1", port), 0.3)
        print("still open", port, flush=True)
    except (TimeoutError, ConnectionRefusedError):
        pass
"""
PYTHON = "/usr/bin/python3" if Path("/usr/bin/python3").exists() else sys.executable


def ports() -> set[int]:
    return {entry.laddr.port for entry in psutil.Process().net_connections("tcp") if entry.status == psutil.CONN_LISTEN}


def with_a_stranger(folder: Path) -> None:
    """A group whose ports another user connects to while it is formed, with and without a guess; then what the group computes."""
    strangers: list[subprocess.Popen[str]] = []
    parallel.barrier()

    def make() -> dist.ProcessGroup:
        known = ports()
        group = cast(dist.ProcessGroup, dist.new_group([0, 1]))
        if not strangers and parallel.rank() == 0:
            words = [PYTHON, "-c", STRANGER, ",".join(map(str, ports() - known))]
            user = {"user": int((folder / "uid").read_text()), "group": 65534, "extra_groups": []}
            strangers.append(subprocess.Popen(words, stdout=subprocess.PIPE, text=True, cwd="/", **user))
            assert strangers[0].stdout and strangers[0].stdout.readline() == "connected\n"
        return group

    made: list[dist.ProcessGroup] = []
    group = formed(lambda: made.append(make()) or made[-1], lambda: None, dist.distributed_c10d._get_default_store())
    shares: list[Any] = [None, None]
    total = torch.full((3,), float(parallel.rank() + 1))
    dist.all_reduce(total, group=group)
    dist.all_gather_object(shares, parallel.rank(), group=group)
    (folder / f"result{parallel.rank()}").write_text(f"{len(made)} {total.tolist()} {shares}")
    for stranger in strangers:
        (folder / "stranger").write_text(stranger.communicate(timeout=60)[0])


def with_a_changed_queue(folder: Path) -> None:
    """Prompts from a queue whose counter somebody moved who knows its name: one of eight is left, as in the attack of the issue."""
    if parallel.rank() == 0:
        dist.distributed_c10d._get_default_store().add("prompts", 7)
    parallel.barrier()
    numbers = parallel.shared_queue(8, "prompts", parallel.tensor_group())
    mine = [SimpleNamespace(prompt_index=number, sample=sample) for number in numbers for sample in range(2)]
    try:
        in_order(parallel.gather_over_all(cast(Any, mine)), 8, 2)
    except WorkLost as error:
        (folder / f"lost{parallel.rank()}").write_text(str(error))
    mine = [SimpleNamespace(prompt_index=number, sample=0) for number in parallel.shared_queue(8, "others", parallel.tensor_group())]
    assert [each.prompt_index for each in in_order(parallel.gather_over_all(cast(Any, mine)), 8, 1)] == list(range(8))
    assert parallel.counted(3, 30, 2 - parallel.rank()) == 30
    for rows, tokens in ((4, 30), (3, 30 + parallel.rank())):
        try:
            parallel.counted(rows, tokens, 2 - parallel.rank())
        except RuntimeError as error:
            with (folder / f"lost{parallel.rank()}").open("a") as file:
                file.write(f"\n{error}")


def attacked(folder: Path) -> None:
    """Both, one after the other: a gang takes its time to start."""
    with_a_stranger(folder)
    with_a_changed_queue(folder)
