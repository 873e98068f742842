"""Whatever the layout, the same numbers: the first steps of each algorithm under every layout against one rank.

The gangs are processes of this machine, on gloo without a GPU and on NCCL with enough of them. `python -m workbench.bench.parity FOLDER`
is one rank: it runs the cases in FOLDER/cases.json and rank 0 leaves what it measured.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from workbench import metrics as M
from workbench.backends._store import FILE, STORE
from workbench.backends.starting import run_together
from workbench.processes import PRELOAD
from workbench.settings import Lora, Model

STEPS = 3
ALGORITHMS = ("sft", "dpo", "reward_model")
MORE = ("ordinal", "steerlm2", "simpo", "cpo", "spin")
"""Looked at in fewer layouts: an attribute model's likelihood, a loss over groups of answers, and DPO's relatives."""
SETTINGS: dict[str, dict[str, Any]] = {"ordinal": {"objective": "ordinal", "attributes": ("verbosity", "humor")}}
PACKINGS = {"packed": 256, "padded": 16}
"""Tokens a microbatch: many rows end to end, or one row a microbatch, filled up to what the layout wants."""

OPTIMIZER = {"lr": 1e-3, "warmup_steps": 0, "weight_decay": 0.01, "adam_eps": 1e-4, "global_batch_size": 8}
"""AdamW divides each gradient by its own size: one that is zero but for rounding becomes a full step in a random direction, and the weights
would measure the rounding. The large epsilon keeps such steps small; the others are hardly changed."""

LIMIT = 1e-5


@dataclass(frozen=True)
class Case:
    """A layout: its name, how many ranks it takes, the model settings that differ from one rank's, and what it is compared on: a mixture of
    experts instead of a dense model, adapters instead of all weights."""

    name: str
    ranks: int
    settings: dict[str, Any] = field(default_factory=dict)
    experts: bool = False
    adapters: bool = False
    nccl: bool = False
    """megatron's dispatcher exchanges unequal parts here, which gloo does not."""
    more: bool = False

    @property
    def algorithms(self) -> tuple[str, ...]:
        return ALGORITHMS + (MORE if self.more else ())

    @property
    def reference(self) -> Case:
        """One rank, on the same."""
        kind = " experts" * self.experts + " LoRA" * self.adapters
        return Case(f"one rank{kind}", 1, {}, self.experts, self.adapters, more=not kind)

    @property
    def model(self) -> Model:
        return Model(**{"lora": Lora(rank=8 if self.adapters else 0), **self.settings})


@dataclass(frozen=True)
class Difference:
    """How far a layout is from one rank, at most: of the losses and gradient norms relative, of the weights relative to the largest one."""

    case: str
    algorithm: str
    packing: str
    loss: float
    grad_norm: float
    weights: float

    @property
    def worst(self) -> float:
        return max(self.loss, self.grad_norm, self.weights)


CASES = (
    Case("DP2", 2),
    Case("DP2 ZeRO-1 overlapped", 2, {"distributed_optimizer": True}),
    Case("TP2", 2, {"tensor_parallel": 2}),
    Case("TP2 SP", 2, {"tensor_parallel": 2, "sequence_parallel": True}),
    Case("PP2", 2, {"pipeline_parallel": 2}),
    Case("PP2 VPP2", 2, {"pipeline_parallel": 2, "virtual_pipeline": 2}),
    Case("CP2", 2, {"context_parallel": 2}),
    Case("EP2", 2, {"expert_parallel": 2}, experts=True),
    Case("TP2 SP LoRA", 2, {"tensor_parallel": 2, "sequence_parallel": True}, adapters=True),
    Case("DP4", 4),
    Case("TP2 PP2", 4, {"tensor_parallel": 2, "pipeline_parallel": 2}, more=True),
    Case("TP2 CP2 SP", 4, {"tensor_parallel": 2, "context_parallel": 2, "sequence_parallel": True}),
    Case("TP2 EP2 SP", 4, {"tensor_parallel": 2, "expert_parallel": 2, "sequence_parallel": True}, experts=True, nccl=True),
    Case(
        "TP2 PP2 SP ZeRO-1 recompute",
        4,
        {"tensor_parallel": 2, "pipeline_parallel": 2, "sequence_parallel": True, "distributed_optimizer": True, "recompute": "full"},
    ),
)


def possible(case: Case) -> str:
    """Why a case cannot run here, or nothing."""
    import torch

    gpus = torch.cuda.device_count()
    if case.nccl and not gpus:
        return "needs NCCL: its expert dispatcher exchanges unequal parts, which gloo does not"
    return f"needs {case.ranks} GPUs; here are {gpus}" if gpus and gpus < case.ranks else ""


def run(cases: Sequence[Case] = CASES, progress: Callable[[str], None] = lambda name: None) -> list[Difference]:
    """Every case's differences from one rank.

    Raises:
        RuntimeError: a rank failed; the message has the end of what it said.
    """
    references = {case.reference.name: case.reference for case in cases}
    measured = measure([*references.values(), *cases], progress)
    return [
        Difference(case.name, algorithm, packing, *_apart(measured[case.name][key], measured[case.reference.name][key]))
        for case in cases
        for algorithm in case.algorithms
        for packing in PACKINGS
        for key in [f"{algorithm} {packing}"]
    ]


def measure(cases: Sequence[Case], progress: Callable[[str], None] = lambda name: None) -> dict[str, Any]:
    """What each case gives, by its name: losses, gradient norms and weights of every algorithm and packing. Raises RuntimeError as `run`."""
    measured: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        _save_models(Path(folder), any(case.experts for case in cases))
        for ranks in sorted({case.ranks for case in cases}):
            chosen = [case for case in cases if case.ranks == ranks]
            progress(", ".join(case.name for case in chosen))
            measured |= _gang(Path(folder), chosen, ranks)
    return measured


def _apart(here: dict[str, Any], there: dict[str, Any]) -> tuple[float, float, float]:
    """The largest relative differences of losses, gradient norms and weights."""
    numbers = [max(abs(a - b) / abs(b) for a, b in zip(here[key], there[key], strict=True)) for key in (M.LOSS, M.GRAD_NORM)]
    assert here["weights"].keys() == there["weights"].keys(), here["weights"].keys() ^ there["weights"].keys()
    weights = max(float(np.abs(here["weights"][name] - w).max() / np.abs(w).max()) for name, w in there["weights"].items())
    return numbers[0], numbers[1], weights


def _gang(folder: Path, cases: Sequence[Case], ranks: int) -> dict[str, Any]:
    (folder / "cases.json").write_text(json.dumps([asdict(case) for case in cases]))
    store = folder / f"store{ranks}"
    logs = [folder / f"rank{rank}.log" for rank in range(ranks)]
    # megatron wants one connection for sequence parallelism
    same = {"WORLD_SIZE": str(ranks), "GLOO_SOCKET_IFNAME": "lo", STORE: f"{FILE}{store}", "OMP_NUM_THREADS": "1", "CUDA_DEVICE_MAX_CONNECTIONS": "1"}
    environments = [{**same, "RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(ranks)]
    failed = run_together((sys.executable, "-m", "workbench.bench.parity", str(folder)), environments, logs, PRELOAD)
    if failed is not None:
        raise RuntimeError(f"rank {failed} of {ranks} failed:\n{logs[failed].read_text()[-4000:]}")
    return {case.name: _read(folder / f"{case.name}.npz") for case in cases}


def _read(path: Path) -> dict[str, Any]:
    values: dict[str, Any] = {}
    with np.load(path, allow_pickle=False) as arrays:
        for key in arrays.files:
            run, kind, *name = key.split("|")
            entry = values.setdefault(run, {"weights": {}})
            if kind == "weights":
                entry["weights"][name[0]] = arrays[key]
            else:
                entry[kind] = arrays[key].tolist()
    return values


def _save_models(folder: Path, experts: bool) -> None:
    """A random Llama of 1.1M parameters, whose vocabulary no layout divides, and a Mixtral of the same shape with four experts."""
    import torch
    from transformers import AutoModelForCausalLM, LlamaConfig, MixtralConfig

    shape: dict[str, Any] = {
        "vocab_size": 1001,
        "hidden_size": 128,
        "intermediate_size": 352,
        "num_hidden_layers": 4,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "max_position_embeddings": 512,
    }
    configs: dict[str, Any] = {"dense": LlamaConfig(**shape, tie_word_embeddings=True)}
    if experts:
        configs["experts"] = MixtralConfig(**shape, num_local_experts=4, num_experts_per_tok=2, tie_word_embeddings=False, sliding_window=None)
    for name, config in configs.items():
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(2.0 if parameter.dim() > 1 else 1.0)
        model.save_pretrained(folder / name)


def _rows(algorithm: str) -> list[Any]:
    """Eight rows of unequal lengths."""
    from workbench.data.packing import Row

    rng = np.random.default_rng(7)

    def token_range(low: int, high: int) -> list[int]:
        return rng.integers(0, 1001, rng.integers(low, high)).tolist()

    if algorithm == "ordinal":
        ratings = [{"verbosity": float(rng.integers(0, 5)), **({"humor": 1.5} if i % 2 else {})} for i in range(8)]
        return [Row(token_range(3, 40), (token_range(2, 30),), values=each) for each in ratings]
    if algorithm == "steerlm2":
        sizes = [2, 3, 2, 4, 2, 2, 3, 2]
        scores = {name: [(4 * rng.normal(size=size)).tolist() for size in sizes] for name in ("attribute_logprobs", "base_logprobs")}
        return [
            Row(token_range(3, 20), tuple(token_range(2, 15) for _ in range(size)), branch_values={name: each[i] for name, each in scores.items()})
            for i, size in enumerate(sizes)
        ]
    if algorithm == "sft":
        texts = [token_range(6, 60) for _ in range(8)]
        return [Row(text, learn=[*(rng.random(len(text)) < 0.7).tolist()[:-1], True]) for text in texts]
    return [Row(token_range(3, 40), (token_range(2, 30), token_range(2, 30)), values={"beta": 0.1 * (1 + i)}) for i in range(8)]


def _measure(case: Case, folder: Path) -> Iterator[tuple[str, np.ndarray]]:
    """What one case gives, as named arrays; the same calls on every rank."""
    import dataclasses
    import functools

    from workbench import algorithms
    from workbench.algorithms import cpo
    from workbench.engine.batch import Loss
    from workbench.engine.gather import gathered
    from workbench.engine.step import Policy
    from workbench.settings.modules import outputs_of

    for name in case.algorithms:
        algorithm = algorithms.find("reward_model" if name == "ordinal" else name)
        for packing, tokens in PACKINGS.items():
            cfg = algorithm.Config(**OPTIMIZER, **SETTINGS.get(name, {}), micro_batch_tokens=tokens)
            policy = Policy(case.model, cfg, folder / ("experts" if case.experts else "dense"), 10, outputs_of(cfg))
            rows = _rows(name)
            if "reference" in algorithm.ROLES:
                known = policy.outputs(rows)
                rows = [dataclasses.replace(row, reference_logprobs_N=given.of("logprobs_N")) for row, given in zip(rows, known, strict=True)]
            loss: Loss = algorithm.loss
            if name == "cpo":  # a token of the global batch's chosen answers weighs the same on every rank
                loss = functools.partial(cpo.loss, chosen_tokens=sum(len(row.branches[0]) for row in rows) / len(rows))
            steps = [policy.update(rows, loss, step, 0) for step in range(STEPS)]
            for key in (M.LOSS, M.GRAD_NORM):
                yield f"{name} {packing}|{key}", np.array([step[key] for step in steps])
            for weight, tensor in gathered(policy.weights(), policy.hf_config):
                yield f"{name} {packing}|weights|{weight}", tensor.float().cpu().numpy().copy()


def main() -> int:
    """One rank."""
    from workbench.engine import parallel

    folder = Path(sys.argv[1])
    parallel.start()
    for fields in json.loads((folder / "cases.json").read_text()):
        case = Case(**fields)
        parallel.arrange(case.model.layout)
        arrays = dict(_measure(case, folder))
        if parallel.rank() == 0:
            np.savez(folder / f"{case.name}.npz", **arrays)
        parallel.barrier()
    parallel.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())
