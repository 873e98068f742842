"""The policy in training: forward, backward and optimizer step over packed microbatches."""

from __future__ import annotations

import contextlib
import functools
import math
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from megatron.core.distributed import DistributedDataParallel, DistributedDataParallelConfig, finalize_model_grads
from megatron.core.optimizer import OptimizerConfig, get_megatron_optimizer
from megatron.core.pipeline_parallel import get_forward_backward_func
from torch import Tensor

from workbench.data.packing import Pack, Row, deal, into_microbatches, pack, targets
from workbench.engine import device, hf, lora, parallel
from workbench.engine.attention import PackedRows
from workbench.engine.model import build
from workbench.runtime import Batch, Loss, Metrics
from workbench.spec import AlgorithmConfig, Model

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


class Policy:
    """The trained model with its optimizer, one per rank. `directory` is the Hugging Face directory of its first weights."""

    def __init__(self, model: Model, algorithm: AlgorithmConfig, directory: Path, total_steps: int):
        self.settings, self.algorithm, self.directory, self.total_steps = model, algorithm, directory, total_steps
        self.hf_config = hf.config(directory)
        self.model = build(self.hf_config, DTYPES[model.precision], model.recompute, num_scores=algorithm.num_scores, seed=model.init_seed)
        hf.load_weights(self.model, directory)
        if model.lora.rank:
            lora.attach(self.model, model.lora, model.init_seed)
        self.model.to(device.current())
        for parameter in self.model.parameters():
            device.as_cuda_type(parameter)
        config = DistributedDataParallelConfig(grad_reduce_in_fp32=True)
        self._ddp = DistributedDataParallel(self.model.config, config, self.model)
        self.optimizer = get_megatron_optimizer(
            OptimizerConfig(
                optimizer="adam",
                lr=algorithm.lr,
                weight_decay=algorithm.weight_decay,
                adam_beta1=algorithm.adam_beta1,
                adam_beta2=algorithm.adam_beta2,
                clip_grad=algorithm.clip_norm,
                bf16=model.precision == "bf16",
                params_dtype=DTYPES[model.precision],
            ),
            [self._ddp],
        )
        self.model.config.finalize_model_grads_func = finalize_model_grads
        self.model.config.grad_scale_func = self.optimizer.scale_loss
        self.model.config.no_sync_func = self._ddp.no_sync
        device.adopt_megatron()  # building the optimizer loaded more of it

    def update(self, rows: Sequence[Row], loss: Loss, step: int, seed: int) -> Metrics:
        """One optimizer step on a global batch, of which this rank computes its share.

        The state of the random generators is a function of (seed, step, rank), so that a resumed run draws the same dropout.

        Returns:
            The loss's metrics averaged over the global batch, with grad_norm, lr, times in seconds and throughput.
        """
        started = time.perf_counter()
        torch.manual_seed(seed * 1_000_003 + step * 1009 + parallel.rank())
        packs = self._packs(deal(rows, parallel.data_size(), parallel.data_rank()))
        packed = time.perf_counter()
        self.model.train()
        self._ddp.zero_grad_buffer()
        self.optimizer.zero_grad()
        metrics = self._run(packs, loss, forward_only=False)
        device.synchronize()
        differentiated = time.perf_counter()
        lr = learning_rate(self.algorithm, step, self.total_steps)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        succeeded, grad_norm, _ = self.optimizer.step()
        device.synchronize()
        ended = time.perf_counter()
        tokens, memory = parallel.sum_over_data([sum(len(p.tokens_T) for p in packs), 0])[0], parallel.max_over_all(device.peak_memory_gib())
        return {
            **metrics,
            "grad_norm": float(grad_norm) if succeeded else math.nan,
            "lr": lr,
            "tokens_per_s": tokens / (ended - started),
            "samples_per_s": len(rows) / (ended - started),
            "step_time_s": ended - started,
            "time_data_s": packed - started,
            "time_forward_backward_s": differentiated - packed,
            "time_optimizer_s": ended - differentiated,
            "peak_memory_gib": memory,
        }

    @torch.no_grad()
    def evaluate(self, rows: Sequence[Row], loss: Loss) -> Metrics:
        """The loss's metrics on rows, averaged over all of them, without learning from them."""
        self.model.eval()
        share = list(rows[parallel.data_rank() :: parallel.data_size()])
        return self._run(self._packs(share), loss, forward_only=True)

    @torch.no_grad()
    def logprobs(self, rows: Sequence[Row], reference: bool = False) -> Iterator[tuple[int, np.ndarray]]:
        """(row index, logprobs_N of its targets) for each row, in the order computed, on this rank alone; `reference` uses the base model."""
        self.model.eval()
        index = {id(row): i for i, row in enumerate(rows)}
        with lora.off(self.model) if reference else contextlib.nullcontext():
            for packed in self._packs(rows):
                logprobs_N = self._forward(self.model, packed).cpu().numpy()
                ends = np.cumsum([len(targets(row)) for row in packed.rows])[:-1]
                yield from zip((index[id(row)] for row in packed.rows), np.split(logprobs_N, ends), strict=True)

    def weights(self) -> dict[str, Tensor]:
        """The full weights by megatron's names, adapters merged in."""
        return lora.merged(self.model)

    def _packs(self, rows: Sequence[Row]) -> list[Pack]:
        return [pack(group) for group in into_microbatches(rows, self.algorithm.micro_batch_tokens)]

    def _forward(self, model: torch.nn.Module, packed: Pack) -> Tensor:
        def put(array: np.ndarray) -> Tensor:
            return torch.from_numpy(array).to(device.current())

        tokens_T, positions_T = put(packed.tokens_T), put(packed.positions_T)
        longest = int(packed.positions_T.max()) + 1
        layout = PackedRows(
            qkv_format="sbhd",
            max_seqlen_q=longest,
            max_seqlen_kv=longest,
            trees=packed.trees,
            positions_T=positions_T,
            source_N=put(packed.source_N),
            target_N=put(packed.target_N),
            last_S=put(packed.last_S),
        )
        return model(tokens_T[None], positions_T[None], None, packed_seq_params=layout)

    def _run(self, packs: Sequence[Pack], loss: Loss, forward_only: bool) -> Metrics:
        """Microbatches through megatron's schedule; metrics summed here, over the ranks, and divided once."""

        def forward_step(packs: Iterator[Pack], model: torch.nn.Module) -> tuple[Tensor, Any]:
            packed = next(packs)
            return self._forward(model, packed), functools.partial(self._reduce, packed, loss)

        sums: list[dict[str, tuple[float, float]]] = []
        if packs:
            sums = get_forward_backward_func()(
                forward_step_func=forward_step,
                data_iterator=iter(packs),
                model=self._ddp,
                num_microbatches=len(packs),
                seq_length=max(len(p.tokens_T) for p in packs),
                micro_batch_size=1,
                forward_only=forward_only,
            )
        names = sorted(set().union(*(s.keys() for s in parallel.gather_over_data(sums[0] if sums else {}))))
        totals = parallel.sum_over_data([sum(s[name][i] for s in sums) for name in names for i in (0, 1)])
        return {name: totals[2 * i] / totals[2 * i + 1] for i, name in enumerate(names)}

    def _reduce(self, packed: Pack, loss: Loss, output: Tensor) -> tuple[Tensor, Tensor, dict[str, tuple[float, float]]]:
        """What megatron's schedule wants of a microbatch: the summed loss, how many units it sums, and what to report."""
        scores_SK = output if self.algorithm.num_scores else None
        logprobs_N = output if scores_SK is None else output.new_zeros(0)
        references = [row.reference_logprobs_N for row in packed.rows]
        known = [r for r in references if r is not None]
        assert len(known) in (0, len(references)), "all rows of a microbatch have reference log-probabilities, or none"
        reference_N = torch.from_numpy(np.concatenate(known)).to(logprobs_N) if known else torch.zeros_like(logprobs_N)
        batch = Batch(
            logprobs_N=logprobs_N,
            reference_logprobs_N=reference_N,
            sequence_N=torch.from_numpy(packed.sequence_N).to(logprobs_N.device),
            num_sequences=packed.num_sequences,
            rows=packed.rows,
            scores_SK=scores_SK,
        )
        loss_B, metrics = loss(batch, self.algorithm)
        sums = {name: (value.detach().double().sum().item(), float(value.numel())) for name, value in metrics.items()}
        return loss_B.sum(), torch.tensor(loss_B.numel(), dtype=torch.int, device=loss_B.device), sums


def learning_rate(cfg: AlgorithmConfig, step: int, total_steps: int) -> float:
    """Of optimizer step `step` (from 0): linear warm-up to `lr`, then a cosine to `min_lr_ratio * lr` at the last step."""
    if step < cfg.warmup_steps:
        return cfg.lr * (step + 1) / cfg.warmup_steps
    progress = (step - cfg.warmup_steps) / max(1, total_steps - 1 - cfg.warmup_steps)
    return cfg.lr * (cfg.min_lr_ratio + (1 - cfg.min_lr_ratio) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress))))
