"""Sharded checkpoints through megatron-core's dist_checkpointing: written beside, then put in place whole.

    checkpoints/<step>/  torch_dist shards of what learns (weights, fp32 masters, optimizer), meta.json, and the marker COMPLETE

A folder without its marker is never loaded. The data order, the schedule and the random state are functions of the step, so the step is
all that a resume needs besides.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

from megatron.core import dist_checkpointing
from megatron.core.dist_checkpointing.mapping import ShardedTensor
from megatron.core.dist_checkpointing.strategies.torch import TorchDistSaveShardedStrategy

from workbench.engine import device, parallel
from workbench.engine.step import Policy
from workbench.store import COMPLETE, write_atomic

device.adopt_megatron()


def save(policy: Policy, folder: Path, step: int, keep_last: int) -> int:
    """Save step `step` under `folder`, drop all but the newest `keep_last`, and return the bytes written.

    Raises OSError (on every rank alike) when the disk is full; what was there before stays.
    """
    final, partial = folder / str(step), folder / f".{step}.partial"
    if parallel.rank() == 0:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
    parallel.barrier()
    dist_checkpointing.save(_state(policy), str(partial), sharded_strategy=TorchDistSaveShardedStrategy("torch_dist", 1, thread_count=1))
    size = 0
    if parallel.rank() == 0:
        (partial / "meta.json").write_text(json.dumps({"step": step, "model": policy.settings.model_dump(mode="json")}))
        for path in partial.rglob("*"):
            if path.is_file():
                size += path.stat().st_size
                _sync(path)
        write_atomic(partial / COMPLETE, str(step))
        _sync(partial)
        shutil.rmtree(final, ignore_errors=True)
        partial.rename(final)
        _sync(folder)
        for old in complete_steps(folder)[:-keep_last]:
            (folder / str(old) / COMPLETE).unlink()
            shutil.rmtree(folder / str(old))
    return parallel.from_first(size)


def load(policy: Policy, folder: Path, step: int) -> None:
    """Fill the policy and its optimizer from a complete checkpoint.

    Raises:
        ValueError: the checkpoint is of another model or other adapters.
    """
    path = folder / str(step)
    meta = json.loads((path / "meta.json").read_text())
    if meta["model"] != policy.settings.model_dump(mode="json"):
        raise ValueError(f"{path} was saved with model settings {meta['model']}; this run has {policy.settings.model_dump(mode='json')}")
    with device.cuda_calls_stay_on_cpu():
        state = dist_checkpointing.load(_state(policy, is_loading=True), str(path))
    policy.model.load_state_dict(state["model"], strict=False)
    policy.optimizer.load_state_dict(state["optimizer"])


def load_weights(policy: Policy, folder: Path, step: int) -> None:
    """Fill the policy alone, in whichever precision it computes: what an export needs."""
    weights = dist_checkpointing.load({"model": _weights(policy)}, str(folder / str(step)))["model"]
    policy.model.load_state_dict(weights, strict=False)


def complete_steps(folder: Path) -> list[int]:
    """The steps whose checkpoints are complete, ascending."""
    if not folder.is_dir():
        return []
    return sorted(int(path.name) for path in folder.iterdir() if path.name.isdigit() and (path / COMPLETE).is_file())


def _state(policy: Policy, is_loading: bool = False) -> dict[str, Any]:
    weights = _weights(policy)
    return {"model": weights, "optimizer": policy.optimizer.sharded_state_dict(weights, is_loading=is_loading)}


def _weights(policy: Policy) -> dict[str, ShardedTensor]:
    """What learns. Frozen base weights come from the model's source again, and are not saved with every checkpoint."""
    return {
        name: ShardedTensor.from_rank_offsets(name, parameter, replica_id=(0, 0, parallel.data_rank()))
        for name, parameter in policy.model.named_parameters()
        if parameter.requires_grad
    }


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
