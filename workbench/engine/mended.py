"""Faults of megatron-core (0.16) that show on any device, mended."""

from __future__ import annotations

import queue
from typing import TypedDict

import torch
import torch.distributed as dist
from megatron.core import ModelParallelConfig, parallel_state
from megatron.core.dist_checkpointing.strategies import filesystem_async
from megatron.core.optimizer.distrib_optimizer import DistributedOptimizer
from megatron.core.pipeline_parallel.p2p_communication import P2PCommunicator
from megatron.core.process_groups_config import ProcessGroupCollection
from megatron.core.transformer.moe import moe_utils
from torch import Tensor

from workbench.engine import device, parallel
from workbench.engine.megatron_types import group, put

_DIMENSIONS = 3


class Communicator(P2PCommunicator):
    """Messages between the stages of an interleaved pipeline.

    Before tensors of varying length their shapes are sent. megatron waits until those that it sends have arrived, which they do not while
    the receiver waits for a tensor of this rank's; here only those to come are waited for. And in a pipeline of two ranks a rank's next and
    previous are the same rank, and its two messages to it are told apart by their order alone: what is sent to the previous rank arrives
    there from the next one. megatron receives in the order that it sends, so the two shapes are swapped; here the receives are posted the
    other way round.
    """

    def __init__(self, pp_group: dist.ProcessGroup, config: ModelParallelConfig):
        super().__init__(pp_group, config)
        self._sending: list[tuple[dist.Work, Tensor]] = []

    def _communicate_shapes(
        self, tensor_send_next: Tensor | None, tensor_send_prev: Tensor | None, recv_prev: bool, recv_next: bool
    ) -> tuple[list[int], list[int]]:
        from_prev, from_next = (torch.zeros(_DIMENSIONS, dtype=torch.int64, device=device.current()) for _ in range(2))
        self._sending = [(request, shape) for request, shape in self._sending if not request.is_completed()]
        operations = []
        for tensor, peer in ((tensor_send_prev, self.prev_rank), (tensor_send_next, self.next_rank)):
            if tensor is not None:
                operations.append(dist.P2POp(dist.isend, torch.tensor(tensor.shape, device=device.current()), peer, self.pp_group))
        sends = len(operations)
        for wanted, shape, peer in ((recv_next, from_next, self.next_rank), (recv_prev, from_prev, self.prev_rank)):
            if wanted:
                operations.append(dist.P2POp(dist.irecv, shape, peer, self.pp_group))
        requests = dist.batch_isend_irecv(operations) if operations else []
        if len(requests) == len(operations):
            self._sending += [(request, op.tensor) for request, op in zip(requests[:sends], operations[:sends], strict=True)]
            requests = requests[sends:]
        for request in requests:  # NCCL gives one for all
            request.wait()
        device.synchronize()
        return from_prev.tolist(), from_next.tolist()


class Interleaved(TypedDict, total=False):
    p2p_communicator: P2PCommunicator
    pg_collection: ProcessGroupCollection


def interleaved(config: ModelParallelConfig) -> Interleaved:
    """What the interleaved schedule takes besides: the communicator, and the groups that it then wants named."""
    groups = ProcessGroupCollection()
    groups.tp = parallel.tensor_group()
    groups.cp = parallel.context_group()
    groups.pp = parallel.pipeline_group()
    groups.embd = group(parallel_state.get_embedding_group(check_initialized=False))
    groups.pos_embd = group(parallel_state.get_position_embedding_group(check_initialized=False))
    groups.dp_cp = group(parallel_state.get_data_parallel_group(with_context_parallel=True))
    return {"p2p_communicator": Communicator(pp_group=groups.pp, config=config), "pg_collection": groups}


def checkpoint_queue() -> None:
    """megatron hands what was written from one process to another by a queue that a third keeps, which imports torch for seconds; here a thread writes."""
    if filesystem_async._results_queue is None:
        put(filesystem_async, _results_queue=queue.SimpleQueue())


def router() -> None:
    """megatron's router asks for a function of Transformer Engine by a name that it has not defined where the package is absent."""
    if not hasattr(moe_utils, "te_general_gemm"):
        put(moe_utils, te_general_gemm=None)


def optimizer() -> None:
    """Where a distributed optimizer's saved state is put back megatron wants a value for each entry, but leaves out torch's own: the step."""
    fill = DistributedOptimizer._set_main_param_and_optimizer_states
    if hasattr(fill, "mended"):
        return

    def fill_but_the_step(self: DistributedOptimizer, parameter: Tensor, tensors: dict[str, Tensor]) -> None:
        group, order = self.model_param_group_index_map[parameter]
        state = self.optimizer.state[self.optimizer.param_groups[group]["params"][order]]
        fill(self, parameter, {**({"step": state["step"]} if "step" in state else {}), **tensors})

    put(fill_but_the_step, mended=True)
    put(DistributedOptimizer, _set_main_param_and_optimizer_states=fill_but_the_step)
