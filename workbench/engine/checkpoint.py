"""Sharded checkpoints through megatron-core's dist_checkpointing: saved at one layout, loaded at any other; put in place whole.

    checkpoints/<step>/  torch_dist shards of what learns (weights, fp32 masters, optimizer), meta.json, and the marker COMPLETE

The marker holds every file's size and SHA-256. A folder without it is never loaded, nor one whose files are not what it says. The data
order, the schedule and the random state are functions of the step, so a resume needs besides only the step and the run's state: which settings
had changed, and what the algorithm keeps (`state.json`, its arrays in `state.npz`). None of it depends on the layout.
"""

from __future__ import annotations

import copy
import hashlib
import json
import os
import shutil
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypedDict

import torch
from megatron.core import dist_checkpointing
from megatron.core.dist_checkpointing.strategies.torch import TorchDistSaveShardedStrategy

from workbench.engine import device, mended, parallel, shards, state, weight_files
from workbench.engine.step import Policy
from workbench.rundir.files import read_json, write_atomic
from workbench.rundir.opening import check_name
from workbench.rundir.store import COMPLETE
from workbench.settings import Checkpoint

device.adopt_megatron()

_SAME_WEIGHTS = ("source", "revision", "precision", "lora")
"""The model settings that decide what a checkpoint holds; the layout is not among them."""


MAX_MARKER_BYTES = 1 << 30
"""A marker has a line for each file of each rank."""


class File(TypedDict):
    bytes: int
    sha256: str


class Saved(TypedDict):
    """What to report of a checkpoint that is in place."""

    step: int
    seconds: float
    bytes: int


@dataclass
class _Pending:
    """A checkpoint that is being written: this rank's thread, what it gave, and what is left to do when all ranks are done."""

    step: int
    metric: float | None
    state: Mapping[str, object]
    reference: int | None
    optimizer_steps: int
    started: float
    finalize: list[Callable[[], None]]
    thread: threading.Thread | None = None
    digests: dict[str, File] = field(default_factory=dict)
    error: OSError | None = None


class Checkpoints:
    """The checkpoints of a run, and the one that is being written. Every rank has one and makes the same calls."""

    def __init__(self, policy: Policy, folder: Path, settings: Checkpoint):
        self.policy, self.folder, self.settings = policy, folder, settings
        self._weights = _first_weights(policy)
        self._pending: _Pending | None = None

    def save(self, step: int, metric: float | None = None, state: Mapping[str, object] | None = None) -> None:
        """Begin to save `step`. Writing continues in the background where the settings allow it, until `finish`.

        Args:
            metric: the value of `best_metric` at this step, where it was measured.
            state: what besides the weights a resume needs, the same on every rank: mappings of names to JSON's values and numpy arrays.
        """
        assert self._pending is None, "finish the checkpoint before first"
        partial = self._partial(step)
        if parallel.rank() == 0:
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)
        parallel.barrier()
        started = time.perf_counter()
        self.policy.settle()
        tensors = shards.own_copies(shards.of(self.policy))
        mended.checkpoint_queue()
        strategy = TorchDistSaveShardedStrategy("torch_dist", 1, thread_count=1)
        request = dist_checkpointing.save(tensors, str(partial), sharded_strategy=strategy, async_sharded_save=True)
        assert request is not None, "megatron gives what is left to write"
        steps = max((int(moments["step"]) for moments in shards.moments(self.policy)), default=0)
        version = self.policy.snapshot.version if self.policy.snapshot else None
        pending = _Pending(step, metric, copy.deepcopy(dict(state or {})), version, steps, started, request.finalize_fns)
        arguments = list(request.async_fn_args)
        if request.preload_fn:
            arguments[1] = request.preload_fn()

        def write() -> None:
            try:
                if request.async_fn:
                    request.async_fn(*arguments, **request.async_fn_kwargs)
                pending.digests = {path.name: _digest(path) for path in sorted(partial.glob(f"__{parallel.rank()}_*"))}
            except OSError as error:
                pending.error = error

        self._pending = pending
        if self.settings.asynchronous:
            pending.thread = threading.Thread(target=write, name="checkpoint")
            pending.thread.start()
        else:
            write()

    @property
    def saving(self) -> bool:
        return self._pending is not None

    def finish(self, wait: bool = True) -> Saved | None:
        """Put the pending checkpoint in place once every rank has written it; with `wait` until then.

        Returns:
            What to report of it, or None where there is none or it is not yet written.

        Raises:
            OSError: on every rank alike, where one could not write (a full disk); what was there before stays.
        """
        pending = self._pending
        if pending is None:
            return None
        busy = pending.thread is not None and pending.thread.is_alive()
        if not wait and parallel.max_over_all(busy):
            return None
        if pending.thread:
            pending.thread.join()
        self._pending = None
        errors = parallel.gather_over_all(pending.error)
        failed = next((error for error in errors if error), None)
        if failed:
            raise failed
        for finalize in pending.finalize:
            finalize()
        files = {name: digest for part in parallel.gather_over_all(pending.digests) for name, digest in part.items()}
        seconds = time.perf_counter() - pending.started
        if parallel.rank() == 0:
            self._put_in_place(pending, files)
        return {"step": pending.step, "seconds": seconds, "bytes": sum(entry["bytes"] for entry in files.values())}

    def load_newest(self, warn: Callable[[str], None]) -> int:
        """Fill the policy and its optimizer from the latest valid checkpoint. Returns its step, 0 where there is none.

        Raises:
            ValueError: the checkpoint is of another model or other adapters.
        """
        step = latest_valid(self.folder, warn)
        if step:
            load(self.policy, self.folder, step)
        return step

    def _put_in_place(self, pending: _Pending, files: dict[str, File]) -> None:
        partial, final = self._partial(pending.step), self.folder / str(pending.step)
        model = {key: value for key, value in self.policy.settings.model_dump(mode="json").items() if key in _SAME_WEIGHTS}
        kept = {name: getattr(pending, name) for name in ("step", "metric", "reference", "optimizer_steps")}
        (partial / "meta.json").write_text(json.dumps({**kept, "model": model, "weights": self._weights}))
        state.write(partial, pending.state)
        rest = [path for path in partial.rglob("*") if path.is_file() and path.name not in files]
        files |= {str(path.relative_to(partial)): _digest(path) for path in rest}
        write_atomic(partial / COMPLETE, json.dumps(files))
        _sync(partial)
        shutil.rmtree(final, ignore_errors=True)
        partial.rename(final)
        _sync(self.folder)
        for old in self._superfluous():
            (self.folder / str(old) / COMPLETE).unlink()
            shutil.rmtree(self.folder / str(old))

    def _superfluous(self) -> list[int]:
        """Complete steps that are neither among the last nor among the best."""
        steps = complete_steps(self.folder)
        sign = -1 if self.settings.best_mode == "max" else 1
        recorded = {step: _meta(self.folder / str(step))["metric"] for step in steps}
        metrics: dict[int, float] = {step: metric for step, metric in recorded.items() if metric is not None}
        ranked = sorted(metrics, key=lambda step: (sign * metrics[step], -step))
        kept = {*steps[-self.settings.keep_last :], *ranked[: self.settings.keep_best]}
        return [step for step in steps if step not in kept]

    def _partial(self, step: int) -> Path:
        return self.folder / f".{step}.partial"


def is_finite(policy: Policy) -> bool:
    """Whether what learns of the policy is finite, on all ranks alike: what is not is never saved, so that it pushes out no other checkpoint."""
    policy.settle()
    learnt = [parameter for chunk in policy.chunks for parameter in chunk.parameters() if parameter.requires_grad]
    return not parallel.max_over_all(not all(bool(torch.isfinite(parameter).all()) for parameter in learnt))


def load(policy: Policy, folder: Path, step: int) -> None:
    """Fill the policy, its optimizer and its reference from a complete checkpoint, whatever the layout that it was saved at.

    Raises:
        ValueError: the checkpoint is of another model or other adapters, or has no reference where the policy keeps one.
    """
    path = folder / str(step)
    meta = _meta(path)
    ours = policy.settings.model_dump(mode="json")
    saved = {"revision": ours["revision"], **meta["model"]}  # an older checkpoint does not tell
    different = [key for key in _SAME_WEIGHTS if saved[key] != ours[key]]
    if different:
        what = "; ".join(f"model.{key}={saved[key]} there, {ours[key]} here" for key in different)
        raise ValueError(f"{path} was saved by another model: {what}")
    _begin_reference(policy, meta, path)
    policy.settle()
    mended.optimizer()
    shards.begin_optimizer(policy)
    weights = shards.weights(policy)
    template = shards.optimizer_state(policy, weights, is_loading=True)
    with device.cuda_calls_stay_on_cpu():
        loaded = shards.read({"model": weights, "optimizer": dict(shards.leaves(template)), **shards.reference(policy)}, path)
    shards.fill(policy, loaded["model"])
    policy.optimizer.load_state_dict(shards.filled(template, loaded["optimizer"]))
    for moments in shards.moments(policy):
        moments["step"] = torch.tensor(float(meta["optimizer_steps"]))
    shards.fill_reference(policy, loaded)


def _begin_reference(policy: shards.Weights, meta: Mapping[str, Any], path: Path) -> None:
    """The reference that the policy keeps was moved up as often as the checkpoint's. Raises ValueError where that has none."""
    if policy.snapshot:
        if meta.get("reference") is None:
            raise ValueError(f"{path} has no reference that advances: it was saved by an algorithm whose reference is frozen")
        policy.snapshot.version = meta["reference"]


def state_of(folder: Path, step: int) -> dict[str, Any]:
    """What `save` was given as the run's state; empty where there is none. A checkpoint of format 1 has two parts of it in meta.json."""
    if not step:
        return {}
    path = folder / str(step)
    if (path / state.FILE).is_file():
        return state.read(path)
    meta = _meta(path)
    return {"settings": meta.get("changes", {}), "obeyed": meta.get("obeyed", 0.0)}


def load_weights(policy: shards.Weights, folder: Path, step: int) -> None:
    """Fill the policy, and the reference that it keeps, in whichever precision it computes: what a job needs that does not train.

    Raises:
        ValueError: the checkpoint has adapters, and was saved on other weights than the policy has; or it has no reference where the policy keeps one.
    """
    path = folder / str(step)
    meta = _meta(path)
    known = meta.get("weights")  # an older checkpoint does not tell
    if policy.settings.lora.rank and known and known != _first_weights(policy):
        raise ValueError(
            f"{path} has adapters on other weights than {policy.directory} has now: the files of model.source were replaced since; put them back, or name"
            " the model that the run was trained on"
        )
    _begin_reference(policy, meta, path)
    loaded = shards.read({"model": shards.weights(policy), **shards.reference(policy)}, path)
    shards.fill(policy, loaded["model"])
    shards.fill_reference(policy, loaded)


def _first_weights(policy: shards.Weights) -> str:
    """The fingerprint of the weights that the policy began with. Every rank calls it."""
    return parallel.from_first(weight_files.fingerprint(policy.directory) if parallel.rank() == 0 else "")


def complete_steps(folder: Path) -> list[int]:
    """The steps whose checkpoints are complete, ascending."""
    if not folder.is_dir():
        return []
    return sorted(int(path.name) for path in folder.iterdir() if path.name.isdigit() and (path / COMPLETE).is_file())


def latest_valid(folder: Path, warn: Callable[[str], None]) -> int:
    """The newest step whose files are what its marker says; 0 without one. The ranks share the reading.

    A damaged one is warned of and set aside: it is no step that the run has, and would be kept in place of valid ones.
    """
    damaged: list[tuple[int, str]] = []
    valid = 0
    for step in reversed(parallel.from_first(complete_steps(folder))):
        what = _damage(folder / str(step))
        if not what:
            valid = step
            break
        damaged.append((step, what))
    for step, what in damaged:
        instead = f"continues from {folder / str(valid)}" if valid else "starts from the beginning: there is no other"
        warn(f"checkpoint {folder / str(step)} is damaged ({what}) and set aside as {step}.damaged; the run {instead}")
        if parallel.rank() == 0:
            shutil.rmtree(folder / f"{step}.damaged", ignore_errors=True)
            (folder / str(step)).rename(folder / f"{step}.damaged")
    return valid


def _damage(path: Path) -> str:
    """What is wrong with a checkpoint's files, the same on every rank; empty where nothing is."""
    try:
        files = sorted(read_json(path / COMPLETE, MAX_MARKER_BYTES).items())
        for name, expected in files:
            check_name(name, path / COMPLETE)
            if not isinstance(expected, dict) or set(expected) != {"bytes", "sha256"}:
                raise ValueError(f"{path / COMPLETE} does not tell the size and the checksum of {name}")
    except ValueError as error:
        return str(error)
    mine = files[parallel.rank() :: parallel.world_size()]
    wrong = []
    for name, expected in mine:
        if (path / name).is_symlink():
            wrong.append(f"{name} is a symbolic link")
        elif not (path / name).is_file():
            wrong.append(f"{name} is missing")
        elif (path / name).stat().st_size != expected["bytes"]:
            wrong.append(f"{name} has {(path / name).stat().st_size:,} of {expected['bytes']:,} bytes")
        elif _digest(path / name, sync=False) != expected:
            wrong.append(f"{name} does not have its checksum")
    return "; ".join(problem for part in parallel.gather_over_all(wrong) for problem in part)


def _meta(path: Path) -> dict[str, Any]:
    return read_json(path / "meta.json")


def _digest(path: Path, sync: bool = True) -> File:
    """A file's size and checksum; with `sync` it is on the disk afterwards."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if sync:
        _sync(path)
    return {"bytes": path.stat().st_size, "sha256": digest}


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
