"""A copy of the policy's whole depth on every rank: for sampling under pipeline parallelism, where stages would wait for each other token by
token, and beside training, where the policy's own weights change.

Each tensor-parallel group gets all layers (its part of each), and so every stage samples answers of its own (NeMo-Aligner's resharding,
arXiv 2405.01481, section 4.2).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
import torch.distributed as dist
from megatron.core import parallel_state
from megatron.core.process_groups_config import ProcessGroupCollection

from workbench.engine import device, parallel
from workbench.engine.model import PackedGPT, build, named_parameters
from workbench.engine.step import Policy
from workbench.settings import Lora


class Whole:
    """A model of all layers beside the policy's own; `refill` takes over the policy's weights, adapters merged.

    `group` is what its tensor-parallel ranks meet in.
    """

    def __init__(self, policy: Policy, group: dist.ProcessGroup):
        self._policy = policy
        alone = {"pipeline_parallel": 1, "virtual_pipeline": 1, "context_parallel": 1, "sequence_parallel": False, "lora": Lora(rank=0)}
        settings = policy.settings.model_copy(update=alone)
        with _no_pipeline():
            self.model: PackedGPT = build(policy.hf_config, settings, groups=_groups(group))[0].to(device.current())
        self.model.requires_grad_(False)

    @torch.no_grad()
    def refill(self) -> None:
        """Every tensor from the stage that trains it to the others of its pipeline. All ranks call it."""
        mine = self._policy.weights()
        if parallel.pipeline_size() == 1:
            for name, parameter in named_parameters([self.model]):
                parameter.copy_(mine[name])
            return
        group = parallel.pipeline_group()
        names: list[list[str]] = [[] for _ in range(parallel.pipeline_size())]
        dist.all_gather_object(names, sorted(mine), group=group)
        owner = {name: stage for stage, owned in reversed(list(enumerate(names))) for name in owned}
        for name, parameter in named_parameters([self.model]):
            source = dist.get_global_rank(group, owner[name])
            if parallel.rank() == source:
                parameter.copy_(mine[name])
            dist.broadcast(parameter.data, src=source, group=group)


def _groups(tensor: dist.ProcessGroup) -> ProcessGroupCollection:
    groups = ProcessGroupCollection.use_mpu_process_groups()
    groups.tp = tensor
    groups.pp = parallel.context_group() if parallel.context_size() == 1 else groups.pp
    return groups


@contextlib.contextmanager
def _no_pipeline() -> Iterator[None]:
    """Within: megatron takes this rank for the only stage."""
    parallel_state.set_pipeline_model_parallel_world_size(1)
    parallel_state.set_pipeline_model_parallel_rank(0)
    try:
        yield
    finally:
        parallel_state.set_pipeline_model_parallel_world_size(None)
        parallel_state.set_pipeline_model_parallel_rank(None)
