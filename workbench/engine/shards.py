"""What a checkpoint holds of a policy, as megatron's sharded tensors: each rank's parts of the whole model's, whatever the layout."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Protocol, TypeAlias, cast

import torch
from megatron.core import dist_checkpointing, parallel_state
from megatron.core.dist_checkpointing.mapping import LocalNonpersistentObject, ShardedBase, ShardedTensor
from megatron.core.transformer.mlp import apply_swiglu_sharded_factory
from transformers import PretrainedConfig

from workbench.engine import checkpoint_files, device, hf, lora, parallel
from workbench.engine.model import PackedGPT, named_parameters
from workbench.engine.snapshot import Snapshot
from workbench.engine.step import Policy
from workbench.settings import Model
from workbench.settings.outputs import Outputs

State: TypeAlias = dict[str, dict[str, ShardedBase]]
"""The parts of a checkpoint (model, optimizer, reference) by the names of their tensors."""

_RESHARDABLE = {"distrib_optim_sharding_type": "fully_reshardable", "chained_optim_avoid_prefix": True}


class Weights(Protocol):
    """A model whose weights a checkpoint may have: one in training (`Policy`), or one that only reads."""

    settings: Model
    directory: Path
    hf_config: PretrainedConfig
    wanted: Outputs
    chunks: list[PackedGPT]
    snapshot: Snapshot | None


def read(state: State, path: Path) -> dict[str, dict[str, torch.Tensor]]:
    """The tensors that lie in a checkpoint in the places of the state's.

    Raises:
        ValueError: a file has what a checkpoint of tensors has not, see `workbench.engine.checkpoint_files`.
    """
    sharded, common = checkpoint_files.strategies(path)
    return cast(dict[str, dict[str, torch.Tensor]], dist_checkpointing.load(state, str(path), sharded, common))


def of(policy: Policy) -> State:
    """What is saved: tensors only. What else an optimizer's state has depends on the layout, and a policy of another layout has its own."""
    learning = weights(policy)
    return {"model": learning, "optimizer": dict(leaves(optimizer_state(policy, learning, is_loading=False))), **reference(policy)}


def optimizer_state(policy: Policy, learning: dict[str, ShardedBase], is_loading: bool) -> object:
    """The optimizer's nested state with sharded tensors, those of the weights that learn."""
    with device.cuda_calls_stay_on_cpu():
        return policy.optimizer.sharded_state_dict(learning, is_loading=is_loading, metadata=_RESHARDABLE)


def begin_optimizer(policy: Policy) -> None:
    """Give the optimizer the state that its first step would: megatron loads into what is there."""
    for inner in _inner_optimizers(policy):
        for parameter in (parameter for group in inner.param_groups for parameter in group["params"]):
            if not inner.state[parameter]:
                first, second = torch.zeros_like(parameter), torch.zeros_like(parameter)
                inner.state[parameter] = {"step": torch.tensor(1.0), "exp_avg": first, "exp_avg_sq": second}


def moments(policy: Policy) -> Iterator[dict[str, torch.Tensor]]:
    """The optimizer's state of each parameter."""
    return (state for inner in _inner_optimizers(policy) for state in inner.state.values())


def _inner_optimizers(policy: Policy) -> list[torch.optim.Optimizer]:
    chained = getattr(policy.optimizer, "chained_optimizers", [policy.optimizer])
    return [each.optimizer for each in chained if each.optimizer is not None]


def leaves(tree: object, path: str = "") -> Iterator[tuple[str, ShardedBase]]:
    """The sharded tensors of a nested state, by their paths in it."""
    if isinstance(tree, ShardedBase):
        yield path, tree
    elif isinstance(tree, dict | list | tuple):
        for key, item in tree.items() if isinstance(tree, dict) else enumerate(tree):
            yield from leaves(item, f"{path}/{key}")


def filled(tree: object, loaded: Mapping[str, torch.Tensor], path: str = "") -> object:
    """The nested state with what was loaded in the places of its sharded tensors."""
    if isinstance(tree, ShardedBase):
        return loaded[path]
    if isinstance(tree, LocalNonpersistentObject):
        return tree.unwrap()
    if isinstance(tree, dict):
        return {key: filled(item, loaded, f"{path}/{key}") for key, item in tree.items()}
    if isinstance(tree, list | tuple):
        return [filled(item, loaded, f"{path}/{i}") for i, item in enumerate(tree)]
    return tree


def weights(policy: Weights) -> dict[str, ShardedBase]:
    """What learns. Frozen base weights come from the model's source again, and are not saved with every checkpoint."""
    return _sharded_weights(policy, {name: parameter for name, parameter in named_parameters(policy.chunks) if parameter.requires_grad})


def reference(policy: Weights) -> dict[str, dict[str, ShardedBase]]:
    """A reference that advances lies in the checkpoint as the weights do, under names of its own."""
    return {"reference": _sharded_weights(policy, policy.snapshot.tensors, "reference.")} if policy.snapshot else {}


def _sharded_weights(policy: Weights, tensors: Mapping[str, torch.Tensor], prefix: str = "") -> dict[str, ShardedBase]:
    """Tensors of this rank by their names in the whole model, as parts of the whole's."""
    divided = {part.name: part.dim for part in hf.mapping(policy.hf_config)}
    tied = policy.hf_config.tie_word_embeddings and not policy.wanted.scores
    weights = {}
    for name, tensor in tensors.items():
        dim = lora.divided_dim(name, divided) if "lora_" in name else divided[name]
        copied = tied and name == "output_layer.weight"  # the last stage's copy of the embedding
        key = "embedding.word_embeddings.weight" if copied else name
        weights[name] = _sharded(name, tensor, dim, key, int(copied), prefix)
    return weights


def _sharded(name: str, part: torch.Tensor, dim: int | None, key: str, copied: int, prefix: str) -> ShardedBase:
    rank, ranks = parallel.tensor_rank(), parallel.tensor_size()
    if ".local_experts." in name:
        replica = parallel_state.get_expert_data_parallel_rank()
    else:
        replica = parallel_state.get_data_parallel_rank(with_context_parallel=True)
    offsets = [] if dim is None or ranks == 1 else [(dim, rank, ranks)]
    tensor = ShardedTensor.from_rank_offsets(
        prefix + key, part, *offsets, replica_id=(copied, rank if dim is None else 0, replica), allow_shape_mismatch=key in hf.PADDED
    )
    if dim == 0 and ".linear_fc1." in name:  # gate and up lie one after the other in each rank's part: they are saved as two
        return apply_swiglu_sharded_factory(tensor, ())
    return tensor


def fill(policy: Weights, loaded: Mapping[str, torch.Tensor]) -> None:
    """Copy what was loaded into this rank's weights."""
    with torch.no_grad():
        for name, parameter in named_parameters(policy.chunks):
            if name in loaded and loaded[name].data_ptr() != parameter.data_ptr():
                parameter.copy_(loaded[name])


def own_copies(state: State) -> State:
    """The state with tensors of its own, so that the next steps do not change what is being written. On a GPU the copy to the host is one."""
    if not device.CUDA:
        for _, tensor in leaves(state):
            tensor.data = cast(torch.Tensor, tensor.data).detach().clone()
    return state


def fill_reference(policy: Weights, loaded: Mapping[str, Mapping[str, torch.Tensor]]) -> None:
    """Fill the reference that the policy keeps, if it keeps one."""
    if policy.snapshot:
        for name, tensor in policy.snapshot.tensors.items():
            tensor.copy_(loaded["reference"][name])
