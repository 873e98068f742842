"""The policy in training: forward, backward and optimizer step over packed microbatches."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import math
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from megatron.core.distributed import DistributedDataParallel, DistributedDataParallelConfig, finalize_model_grads
from megatron.core.optimizer import OptimizerConfig, get_megatron_optimizer
from megatron.core.pipeline_parallel import get_forward_backward_func
from megatron.core.transformer.module import MegatronModule
from torch import Tensor

from workbench import metrics as M
from workbench.data.packing import BLANK, Pack, Row, Tree, deal, into_microbatches, pack, targets
from workbench.engine import columns, device, hf, lora, parallel
from workbench.engine.attention import PackedRows, spans_of, within
from workbench.engine.batch import Batch, Given, Loss, Metrics
from workbench.engine.drawn import drawn
from workbench.engine.loading import load_weights
from workbench.engine.megatron_types import gradients, put
from workbench.engine.mended import Interleaved, interleaved
from workbench.engine.model import DTYPES, build, named_parameters
from workbench.engine.snapshot import Snapshot
from workbench.rundir import beats
from workbench.settings import AlgorithmConfig, Model
from workbench.settings.outputs import Outputs

Consume = Callable[[Pack, Tensor], tuple[Tensor, Tensor, Any]]
"""A microbatch and its output, to what megatron's schedule wants: the summed loss, the number of its units, and what is reported."""


class Policy:
    """The trained model with its optimizer: this rank's part. `directory` is the Hugging Face directory of its first weights.

    `wanted` is what it gives to the loss, and to whoever asks for no other outputs. Raises ValueError for more top-k tokens than there are.
    """

    def __init__(self, model: Model, algorithm: AlgorithmConfig, directory: Path, total_steps: int, wanted: Outputs):
        if model.precision == "auto":
            model = model.model_copy(update={"precision": device.native_precision()})
        self.settings, self.algorithm, self.directory, self.total_steps, self.wanted = model, algorithm, directory, total_steps, wanted
        self.snapshot: Snapshot | None = None
        self.hf_config = hf.config(directory)
        self._check(wanted)
        self.chunks = build(self.hf_config, model, wanted.scores)
        for chunk in self.chunks:
            if wanted.per == "token" and chunk.score_head is not None:
                torch.nn.init.zeros_(chunk.score_head.weight)  # a value function starts by expecting nothing
        load_weights(named_parameters(self.chunks), directory, wanted.scores > 0, parallel.tensor_rank(), parallel.tensor_size())
        for chunk in self.chunks:
            if model.lora.rank:
                lora.attach(chunk, model.lora, model.init_seed)
            chunk.to(device.current())
        divided = {part.name: part.dim for part in hf.mapping(self.hf_config)}
        for name, parameter in named_parameters(self.chunks):
            device.as_cuda_type(parameter)
            # megatron tells by these marks which gradients are parts of a whole; it sets them only where it draws the weights itself.
            put(parameter, tensor_model_parallel=(lora.divided_dim(name, divided) if "lora_" in name else divided[name]) is not None)
        self.config = self.chunks[0].config
        self._ddp = [DistributedDataParallel(self.config, _reductions(model), chunk, disable_bucketing=i > 0) for i, chunk in enumerate(self.chunks)]
        self.optimizer = get_megatron_optimizer(_optimizer(model, algorithm), cast(list[MegatronModule], self._ddp))
        self.config.finalize_model_grads_func = finalize_model_grads
        self.config.grad_scale_func = self.optimizer.scale_loss
        no_sync = [ddp.no_sync for ddp in self._ddp]
        put(self.config, no_sync_func=no_sync if len(no_sync) > 1 else no_sync[0])
        self._gathers_ahead = model.distributed_optimizer  # each layer's updated weights, as the next forward pass comes to it
        device.adopt_megatron()  # building the optimizer loaded more of it

    def use(self, algorithm: AlgorithmConfig) -> None:
        """Other settings of the algorithm, from the next update on."""
        self.algorithm = algorithm

    def keep_reference(self) -> None:
        """From now on the reference is the policy as it is now, and `advance_reference` moves it up. It is in the checkpoints."""
        self.settle()
        self.snapshot = Snapshot(self.chunks)

    def advance_reference(self) -> None:
        """The reference is the policy as it is now."""
        assert self.snapshot is not None, "the reference is frozen: `keep_reference` makes it one that advances"
        self.settle()
        self.snapshot.advance()

    @contextlib.contextmanager
    def as_reference(self) -> Iterator[None]:
        """Within: the reference's weights; where none is kept the base model's, without adapters."""
        self.settle()
        with self.snapshot.in_place() if self.snapshot else lora.off(self.chunks):
            yield

    def update(self, rows: Sequence[Row], loss: Loss, step: int, seed: int, part: int = 0) -> Metrics:
        """One optimizer step on a global batch, the same on every rank; each data-parallel rank computes its share.

        The state of the random generators is a function of (seed, step, part, rank), so that a resumed run draws the same dropout. `part` counts
        the updates of one step of the run.

        Returns:
            The loss's metrics averaged over the global batch, with grad_norm, lr, times in seconds and throughput. Raises as `parallel.counted` does.
        """
        started = time.perf_counter()
        torch.manual_seed(seed * 1_000_003 + step * 1009 + part * 9_176_243 + parallel.data_rank())
        mine = deal(rows, parallel.data_size(), parallel.data_rank())
        packs = self._packs(mine, least=1)
        packed = time.perf_counter()
        self._gather_ahead(True)
        for ddp in self._ddp:
            ddp.train()
            ddp.zero_grad_buffer()
        self.optimizer.zero_grad()
        metrics = self._run(packs, functools.partial(self._reduce, loss), self.wanted, forward_only=False)
        device.synchronize()
        differentiated = time.perf_counter()
        lr = learning_rate(self.algorithm, step, self.total_steps)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        succeeded, grad_norm, _ = cast(tuple[bool, float, object], self.optimizer.step())
        device.synchronize()
        ended = time.perf_counter()
        tokens, memory = parallel.counted(len(rows), sum(row.num_tokens for row in rows), len(mine)), device.peak_memory_gib()
        return {
            **self._averages(metrics),
            M.GRAD_NORM: float(grad_norm) if succeeded else math.nan,
            M.LR: lr,
            M.TOKENS_PER_S: tokens / (ended - started),
            M.SAMPLES_PER_S: len(rows) / (ended - started),
            M.STEP_TIME_S: ended - started,
            M.TIME_OF("data"): packed - started,
            M.TIME_OF("forward_backward"): differentiated - packed,
            M.TIME_OF("optimizer"): ended - differentiated,
            M.PEAK_MEMORY_GIB: parallel.max_over_all(memory),
        }

    @torch.no_grad()
    def evaluate(self, rows: Sequence[Row], loss: Loss, outputs: dict[int, Given[np.ndarray]] | None = None) -> Metrics:
        """The loss's metrics on rows, averaged over all of them, without learning from them.

        Args:
            outputs: filled with this rank's share of what the model gave, by the row's place in `rows` (on the last pipeline stage).
        """
        index = {id(row): i for i, row in enumerate(rows)}

        def consume(packed: Pack, output: Tensor) -> tuple[Tensor, Tensor, Any]:
            if outputs is not None:
                outputs.update((index[id(row)], piece) for row, piece in _by_row(packed, output, self.wanted))
            return self._reduce(loss, packed, output)

        return self._averages(self._forward_only(share(rows), consume, self.wanted))

    @torch.no_grad()
    def outputs(
        self, rows: Sequence[Row], wanted: Outputs | None = None, reference: bool = False, progress: Callable[[int, int], None] | None = None
    ) -> list[Given[np.ndarray]]:
        """What is wanted of each row (without `wanted`: what the policy gives to its loss), computed on all ranks, each its share.

        `reference` computes with the reference's weights: those that are kept, else the base model's.
        """
        wanted = self._check(wanted or self.wanted)
        mine = [dataclasses.replace(row) for row in share(rows)]  # a batch may hold the same row twice
        index = {id(row): i for i, row in enumerate(mine)}
        done = 0

        def keep(packed: Pack, output: Tensor) -> tuple[Tensor, Tensor, list[tuple[int, Given[np.ndarray]]]]:
            pieces = [(index[id(row)], piece) for row, piece in _by_row(packed, output, wanted)]
            nonlocal done
            done += len(pieces)
            if progress:
                progress(done, len(mine))
            return output.sum(), _count(0, output), pieces

        with self.as_reference() if reference else contextlib.nullcontext():
            pieces = dict(pair for pairs in self._forward_only(mine, keep, wanted) for pair in pairs)
        shares = parallel.from_last_stage(parallel.gather_over_data([pieces[i] for i in sorted(pieces)]))
        return [shares[i % len(shares)][i // len(shares)] for i in range(len(rows))]

    @torch.no_grad()
    def logits(self, tokens: Sequence[int]) -> Tensor:
        """One sequence's logits [T, V], or its scores [K] at the last token where the model has a score head. On one rank."""
        chunk = self.chunks[0].eval()
        tokens_T, positions_T = torch.tensor(tokens, device=device.current()), torch.arange(len(tokens), device=device.current())
        last = torch.tensor([len(tokens) - 1], device=device.current())
        layout = PackedRows(
            qkv_format="sbhd",
            max_seqlen_q=len(tokens),
            max_seqlen_kv=len(tokens),
            prefix_trees=(Tree(0, len(tokens), ()),),
            spans=((0, len(tokens)),),
            positions_T=positions_T,
            wanted=self.wanted if self.wanted.scores else None,
            places_N=last,
        )
        out = chunk(tokens_T[None], positions_T[None], None, packed_seq_params=layout).cpu()
        return out[0] if self.wanted.scores else out

    def _check(self, wanted: Outputs) -> Outputs:
        """The outputs, if this model can give them."""
        if wanted.top_k > self.hf_config.vocab_size:
            raise ValueError(f"top_k={wanted.top_k}, but the vocabulary of {self.directory} has {self.hf_config.vocab_size} tokens")
        if wanted.scores != self.wanted.scores:
            raise ValueError(f"asked for {wanted.scores} scores, but this model was built to give {self.wanted.scores or 'none'}")
        return wanted

    def weights(self) -> dict[str, Tensor]:
        """This rank's weights by their names in the whole model, adapters merged in."""
        self.settle()
        return lora.merged(self.chunks)

    def settle(self) -> None:
        """Wait until this rank's weights are those of the last update: before they are read by anything but the next update."""
        self._gather_ahead(False)

    def memory(self) -> tuple[list[Tensor], list[Tensor]]:
        """The tensors of this rank's part that the next call needs (weights, optimizer state), and those it fills anew (gradients)."""
        self.settle()
        self.optimizer.zero_grad()
        chained = getattr(self.optimizer, "chained_optimizers", [self.optimizer])
        inner = [each.optimizer for each in chained if each.optimizer is not None]
        updated = [parameter for each in inner for group in each.param_groups for parameter in group["params"]]
        states = [value for each in inner for state in each.state.values() for value in state.values() if isinstance(value, Tensor)]
        weights = [tensor for chunk in self.chunks for tensor in (*chunk.parameters(), *chunk.buffers())]
        return [*weights, *updated, *states], [gradient for ddp in self._ddp for gradient in gradients(ddp)]

    def _gather_ahead(self, wanted: bool) -> None:
        if self.settings.distributed_optimizer and wanted != self._gathers_ahead:
            for ddp in self._ddp:
                if wanted:
                    ddp.enable_forward_pre_hook()
                else:
                    ddp.disable_forward_pre_hook(param_sync=True)
            self._gathers_ahead = wanted

    def _packs(self, rows: Sequence[Row], least: int = 0) -> list[Pack]:
        """This rank's microbatches; more of them, of no row, where the layout wants the same number everywhere or a multiple of its own.

        `least` is 1 where gradients are summed afterwards: a rank of no row takes part.
        """
        packs = [pack(group) for group in into_microbatches(rows, self.algorithm.micro_batch_tokens)]
        wanted = max(len(packs), least)
        if self.settings.expert_parallel > 1:  # the experts' ranks exchange tokens in every microbatch
            wanted = int(parallel.max_over_all(wanted))
        if self.settings.virtual_pipeline > 1:
            wanted = -(-wanted // self.settings.pipeline_parallel) * self.settings.pipeline_parallel
        return packs + [BLANK] * (wanted - len(packs))

    def _forward(self, model: torch.nn.Module, packed: Pack, wanted: Outputs) -> Tensor:
        multiple = self.settings.tensor_parallel if self.settings.sequence_parallel else 1
        multiple *= 2 * self.settings.context_parallel if self.settings.context_parallel > 1 else 1
        length = -(-len(packed.tokens_T) // multiple) * multiple
        spans = spans_of(length, parallel.context_rank(), self.settings.context_parallel)

        def own(whole_T: np.ndarray) -> Tensor:
            padded = np.pad(whole_T, (0, length - len(whole_T)))
            return torch.from_numpy(np.concatenate([padded[slice(*span)] for span in spans])).to(device.current())

        tokens_T, positions_T = own(packed.tokens_T), own(packed.positions_T)
        read = packed.last_S if wanted.per_sequence else packed.source_N
        here, places = within(spans, read)
        layout = PackedRows(
            qkv_format="sbhd",
            max_seqlen_q=length,
            max_seqlen_kv=length,
            prefix_trees=packed.prefix_trees,
            spans=spans,
            positions_T=positions_T,
            wanted=wanted,
            places_N=torch.from_numpy(places).to(device.current()),
            target_N=None if wanted.scores else torch.from_numpy(packed.target_N[here]).to(device.current()),
            at_NK=None if wanted.at is None else torch.from_numpy(_named_tokens(packed, wanted.at)[here]).to(device.current()),
            drawn=None if wanted.scores else drawn(packed, here),
            slots_N=torch.from_numpy(here).to(device.current()) if len(spans) > 1 else None,
            total=len(read),
        )
        with device.activations_on_host(self.settings.offload_activations):
            return model(tokens_T[None], positions_T[None], None, packed_seq_params=layout)

    def _forward_only(self, rows: Sequence[Row], consume: Consume, wanted: Outputs) -> list[Any]:
        self.settle()
        for ddp in self._ddp:
            ddp.eval()
        return self._run(self._packs(rows), consume, wanted, forward_only=True)

    def _run(self, packs: Sequence[Pack], consume: Consume, wanted: Outputs, forward_only: bool) -> list[Any]:
        """Microbatches through megatron's schedule: what `consume` made of each one's output, on the last pipeline stage."""

        def forward_step(packs: Iterator[Pack], model: torch.nn.Module) -> tuple[Tensor, Any]:
            packed = next(packs)
            beats.moved()
            return self._forward(model, packed, wanted), functools.partial(consume, packed)

        if not packs:
            return []
        several = len(self._ddp) > 1
        return get_forward_backward_func()(
            forward_step_func=forward_step,
            data_iterator=[iter(packs) for _ in self._ddp] if several else iter(packs),
            model=cast(list[torch.nn.Module], self._ddp) if several else self._ddp[0],
            num_microbatches=len(packs),
            seq_length=max(len(p.tokens_T) for p in packs),
            micro_batch_size=1,
            forward_only=forward_only,
            **(interleaved(self.config) if several else Interleaved()),
        )

    def _averages(self, sums: list[dict[str, tuple[float, float]]]) -> Metrics:
        """Sums and counts of this rank's microbatches, summed over the ranks and divided once; the same on every rank."""
        names = sorted(set().union(*parallel.gather_over_data({name for each in sums for name in each})))
        totals = parallel.sum_over_data([sum(s[name][i] for s in sums if name in s) for name in names for i in (0, 1)])
        return parallel.from_last_stage({name: totals[2 * i] / totals[2 * i + 1] for i, name in enumerate(names) if totals[2 * i + 1]})

    def _reduce(self, loss: Loss, packed: Pack, output: Tensor) -> tuple[Tensor, Tensor, dict[str, tuple[float, float]]]:
        """What megatron's schedule wants of a microbatch: the summed loss, how many units it sums, and what to report."""
        if not packed.rows:
            return output.sum() * 0, _count(0, output), {}
        references = [row.reference_logprobs_N for row in packed.rows]
        known = [r for r in references if r is not None]
        assert len(known) in (0, len(references)), "all rows of a microbatch have reference log-probabilities, or none"
        batch = Batch(
            given=columns.parted(output, self.wanted),
            reference_N=torch.from_numpy(np.concatenate(known)).to(output) if known else None,
            sequence_N=torch.from_numpy(packed.sequence_N).to(output.device),
            num_sequences=packed.num_sequences,
            rows=packed.rows,
            arrays={name: torch.from_numpy(np.concatenate([row.arrays[name] for row in packed.rows])).to(output) for name in packed.rows[0].arrays},
        )
        loss_B, metrics = loss(batch, self.algorithm)
        sums = {name: (value.detach().double().sum().item(), float(value.numel())) for name, value in metrics.items()}
        # The context ranks all compute the whole loss; their gradients are parts of a sum, so its units are counted once.
        return loss_B.sum(), _count(loss_B.numel() if parallel.context_rank() == 0 else 0, output), sums


def share(rows: Sequence[Row]) -> list[Row]:
    """This data-parallel rank's rows of those to be measured."""
    return list(rows[parallel.data_rank() :: parallel.data_size()])


def _by_row(packed: Pack, output: Tensor, wanted: Outputs) -> Iterator[tuple[Row, Given[np.ndarray]]]:
    """A microbatch's output cut at its rows."""
    sizes = [max(1, len(row.branches)) if wanted.per_sequence else len(targets(row)) for row in packed.rows]
    yield from zip(packed.rows, columns.by_row(output, wanted, sizes), strict=True)


def _named_tokens(packed: Pack, name: str) -> np.ndarray:
    """The rows' array of tokens [N, K] at which log-probabilities are wanted. Raises ValueError for a row that has none."""
    missing = next((row for row in packed.rows if name not in row.arrays), None)
    if missing is not None:
        raise ValueError(f"log-probabilities are wanted at the rows' array {name!r}; a row has only: {', '.join(missing.arrays) or 'no arrays'}")
    return np.concatenate([row.arrays[name] for row in packed.rows]).astype(np.int64) if packed.rows else np.zeros((0, 1), np.int64)


def _count(units: int, like: Tensor) -> Tensor:
    return torch.tensor(units, dtype=torch.int, device=like.device)


def _reductions(model: Model) -> DistributedDataParallelConfig:
    shared = model.distributed_optimizer
    return DistributedDataParallelConfig(
        grad_reduce_in_fp32=True, use_distributed_optimizer=shared, overlap_grad_reduce=shared, overlap_param_gather=shared
    )


def _optimizer(model: Model, algorithm: AlgorithmConfig) -> OptimizerConfig:
    return OptimizerConfig(
        optimizer="adam",
        lr=algorithm.lr,
        weight_decay=algorithm.weight_decay,
        adam_beta1=algorithm.adam_beta1,
        adam_beta2=algorithm.adam_beta2,
        adam_eps=algorithm.adam_eps,
        clip_grad=algorithm.clip_norm,
        bf16=model.precision == "bf16",
        params_dtype=DTYPES[model.precision],
        use_distributed_optimizer=model.distributed_optimizer,
        overlap_param_gather=model.distributed_optimizer,
        optimizer_cpu_offload=model.offload_optimizer and device.CUDA,
        optimizer_offload_fraction=1.0 if model.offload_optimizer and device.CUDA else 0.0,
    )


def learning_rate(cfg: AlgorithmConfig, step: int, total_steps: int) -> float:
    """Of optimizer step `step` (from 0): linear warm-up to `lr`, then a cosine to `min_lr_ratio * lr` at the last step."""
    if step < cfg.warmup_steps:
        return cfg.lr * (step + 1) / cfg.warmup_steps
    progress = (step - cfg.warmup_steps) / max(1, total_steps - 1 - cfg.warmup_steps)
    return cfg.lr * (cfg.min_lr_ratio + (1 - cfg.min_lr_ratio) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress))))
