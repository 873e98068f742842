"""Process groups: who takes part, and the few collectives that the rest of the code needs."""

from __future__ import annotations

import datetime
import itertools
import os
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar, cast

import torch
import torch.distributed as dist
from megatron.core import parallel_state
from torch import Tensor
from torch._C._distributed_c10d import PrefixStore, Store

from workbench.engine import device, gang_store
from workbench.engine.megatron_types import Context, group
from workbench.engine.sealing import formed, meet
from workbench.settings.layout import Layout

T = TypeVar("T")


def start(layout: Layout | None = None, timeout_s: float = 600) -> None:
    """Join the gang that the node agent described in the environment; alone where it described none. Raises as `gang_store.find` and `formed` do."""
    device.select()
    device.adopt_megatron()
    rank, world_size = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    os.environ["TORCH_GLOO_LAZY_INIT"] = "0"  # peers connect before the group is sealed, not with its first message
    store, timeout, tries = gang_store.find(world_size), datetime.timedelta(seconds=timeout_s), itertools.count()
    store.set_timeout(timeout)
    meet(store, "arrived", world_size)  # no port is open while a rank waits for others to start

    def join() -> None:
        fresh = PrefixStore(f"try/{next(tries)}", store)  # what another try left says nothing
        dist.init_process_group(device.BACKEND, store=fresh, rank=rank, world_size=world_size, timeout=timeout)

    formed(join, dist.destroy_process_group, store)
    arrange(layout or Layout())


def arrange(layout: Layout) -> None:
    """Form the groups of a layout, in place of those there were."""
    if parallel_state.model_parallel_is_initialized():
        parallel_state.destroy_model_parallel()

    def make() -> None:
        parallel_state.initialize_model_parallel(
            tensor_model_parallel_size=layout.tensor,
            pipeline_model_parallel_size=layout.pipeline,
            virtual_pipeline_model_parallel_size=layout.virtual if layout.virtual > 1 else None,
            context_parallel_size=layout.context,
            expert_model_parallel_size=layout.expert,
            order="tp-cp-ep-dp-pp",
        )

    formed(make, parallel_state.destroy_model_parallel, _store())


def _store() -> Store:
    return dist.distributed_c10d._get_default_store()


def stop() -> None:
    parallel_state.destroy_model_parallel()
    dist.destroy_process_group()


def rank() -> int:
    return dist.get_rank()


def world_size() -> int:
    return dist.get_world_size()


def data_rank() -> int:
    return parallel_state.get_data_parallel_rank()


def data_size() -> int:
    return parallel_state.get_data_parallel_world_size()


def tensor_rank() -> int:
    return parallel_state.get_tensor_model_parallel_rank()


def tensor_size() -> int:
    return parallel_state.get_tensor_model_parallel_world_size()


def tensor_group() -> dist.ProcessGroup:
    return group(parallel_state.get_tensor_model_parallel_group())


def context_rank() -> int:
    return parallel_state.get_context_parallel_rank()


def context_size() -> int:
    return parallel_state.get_context_parallel_world_size()


def context_group() -> dist.ProcessGroup:
    return group(parallel_state.get_context_parallel_group())


def expert_rank() -> int:
    return parallel_state.get_expert_model_parallel_rank()


def expert_size() -> int:
    return parallel_state.get_expert_model_parallel_world_size()


def pipeline_group() -> dist.ProcessGroup:
    return group(parallel_state.get_pipeline_model_parallel_group())


def pipeline_rank() -> int:
    return parallel_state.get_pipeline_model_parallel_rank()


def pipeline_size() -> int:
    return parallel_state.get_pipeline_model_parallel_world_size()


def is_last_stage() -> bool:
    return pipeline_rank() == pipeline_size() - 1


def sum_over_data(values: Sequence[float]) -> list[float]:
    """Each value summed over the data-parallel ranks, in double precision."""
    total = torch.tensor(list(values), dtype=torch.float64, device=device.current())
    dist.all_reduce(total, group=parallel_state.get_data_parallel_group())
    return total.tolist()


def counted(rows: int, tokens: int, mine: int) -> float:
    """The tokens of a batch of so many rows, as the data-parallel ranks count them; `mine` rows of it were dealt to this one.

    Raises:
        RuntimeError: the ranks' shares are not the whole batch, or their batches differ.
    """
    counted, dealt, all_tokens = sum_over_data([tokens / data_size(), mine, tokens])
    if (dealt, all_tokens) != (rows, tokens * data_size()):
        raise RuntimeError(
            f"the {data_size()} data-parallel ranks learnt from {dealt:.0f} rows of a batch of {rows}, and count {all_tokens:.0f} tokens together "
            f"where {tokens * data_size()} were expected: they do not hold the same batch; resume from the last checkpoint"
        )
    return counted


def max_over_all(value: float) -> float:
    largest = torch.tensor(value, dtype=torch.float64, device=device.current())
    dist.all_reduce(largest, op=dist.ReduceOp.MAX)
    return largest.item()


def from_first(value: T) -> T:
    """Rank 0's value, on every rank."""
    return from_rank(value, 0)


def from_rank(value: T, source: int) -> T:
    """One rank's value, on every rank."""
    box = [value]
    dist.broadcast_object_list(box, src=source)
    return box[0]


def from_last_stage(value: T) -> T:
    """The last pipeline stage's value, on its whole pipeline."""
    if pipeline_size() == 1:
        return value
    box = [value]
    source = parallel_state.get_pipeline_model_parallel_last_rank()
    dist.broadcast_object_list(box, src=source, group=pipeline_group())
    return box[0]


def from_context(own: Tensor, slots_N: Tensor, total: int) -> Tensor:
    """Each context rank's results in their slots of the whole's `total`, on all of them. Every rank computes the same loss of the whole, so
    the gradient of a rank's own results is theirs alone."""
    return _FromContext.apply(own, slots_N, total)


def gather_over_data(value: T) -> list[T]:
    """Every data-parallel rank's value, by rank, on each of them."""
    values: list[T | None] = [None] * data_size()
    dist.all_gather_object(values, value, group=parallel_state.get_data_parallel_group())
    return cast(list[T], values)


def gather_over_all(value: T) -> list[T]:
    """Every rank's value, by rank, on every rank."""
    values: list[T | None] = [None] * world_size()
    dist.all_gather_object(values, value)
    return cast(list[T], values)


def twin_tensor_group() -> dist.ProcessGroup:
    """The tensor-parallel group's ranks as a group of their own: two threads must not meet in one. All ranks call it."""
    groups = {tuple(members) for members in gather_over_all(dist.get_process_group_ranks(tensor_group()))}

    def make() -> dist.ProcessGroup:
        return cast(dist.ProcessGroup, dist.new_subgroups_by_enumeration([list(members) for members in sorted(groups)])[0])

    return formed(make, lambda: None, _store())


def shared_queue(total: int, name: str, group: dist.ProcessGroup, over: Callable[[], bool] = lambda: False) -> Iterator[int]:
    """The numbers below `total`, each given to one tensor-parallel `group` only, to whichever asks first; none any more once `over()`.

    `name` is used once in a gang's life.
    """
    alone = itertools.count() if world_size() == tensor_size() else None
    store = _store()
    while True:
        number = total
        if tensor_rank() == 0 and not over():
            number = store.add(name, 1) - 1 if alone is None else next(alone)
        if tensor_size() > 1:
            box = [number]
            dist.broadcast_object_list(box, src=parallel_state.get_tensor_model_parallel_src_rank(), group=group)
            number = box[0]
        if number >= total:
            return
        yield number


def barrier() -> None:
    dist.barrier()


class _FromContext(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Context, own: Tensor, slots_N: Tensor, total: int) -> Tensor:
        ctx.save_for_backward(slots_N)
        whole = own.new_zeros(total, *own.shape[1:])
        whole[slots_N] = own
        dist.all_reduce(whole, group=context_group())
        return whole

    @staticmethod
    def backward(ctx: Context, *grads: Tensor) -> tuple[Tensor, None, None]:
        (grad,) = grads
        (slots_N,) = ctx.saved_tensors
        return grad[slots_N], None, None
