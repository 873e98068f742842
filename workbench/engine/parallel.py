"""Process groups: who takes part, and the few collectives that the rest of the code needs."""

from __future__ import annotations

import datetime
import os
from collections.abc import Sequence
from typing import TypeVar

import torch
import torch.distributed as dist
from megatron.core import parallel_state

from workbench.engine import device

T = TypeVar("T")


def start(timeout_s: float = 600) -> None:
    """Join the gang that the node agent described in the environment; alone where it described none."""
    device.select()
    device.adopt_megatron()
    for name, value in {"RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1"}.items():
        os.environ.setdefault(name, value)
    alone = dist.HashStore() if "MASTER_PORT" not in os.environ else None
    dist.init_process_group(
        device.BACKEND,
        store=alone,
        rank=int(os.environ["RANK"]) if alone else -1,
        world_size=int(os.environ["WORLD_SIZE"]) if alone else -1,
        timeout=datetime.timedelta(seconds=timeout_s),
    )
    parallel_state.initialize_model_parallel()


def stop() -> None:
    parallel_state.destroy_model_parallel()
    dist.destroy_process_group()


def rank() -> int:
    return dist.get_rank()


def data_rank() -> int:
    return parallel_state.get_data_parallel_rank()


def data_size() -> int:
    return parallel_state.get_data_parallel_world_size()


def sum_over_data(values: Sequence[float]) -> list[float]:
    """Each value summed over the data-parallel ranks, in double precision."""
    total = torch.tensor(list(values), dtype=torch.float64, device=device.current())
    dist.all_reduce(total, group=parallel_state.get_data_parallel_group())
    return total.tolist()


def max_over_all(value: float) -> float:
    largest = torch.tensor(value, dtype=torch.float64, device=device.current())
    dist.all_reduce(largest, op=dist.ReduceOp.MAX)
    return largest.item()


def from_first(value: T) -> T:
    """Rank 0's value, on every rank."""
    box = [value]
    dist.broadcast_object_list(box, src=0)
    return box[0]


def gather_over_data(value: T) -> list[T]:
    """Every data-parallel rank's value, by rank, on each of them."""
    values: list[T | None] = [None] * data_size()
    dist.all_gather_object(values, value, group=parallel_state.get_data_parallel_group())
    return values  # type: ignore[return-value]


def barrier() -> None:
    dist.barrier()
