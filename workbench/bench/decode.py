"""Tokens a second of the embedded decoder and of transformers' generate, on the same weights and prompts, in turn.

Each answer has a length of its own, as in training with rollouts: a static batch lasts as long as its longest answer, a continuous one fills
the places that become free. All sides count the same tokens: the answers', not what a static batch computes beyond their ends. The embedded
decoder also gives log-probabilities; transformers is not asked for them. Where a third side is measured it tells what of the difference is the
engine's products or its recording: transformers with the engine's products on a CPU, the embedded decoder without CUDA graphs on a GPU.
"""

from __future__ import annotations

import contextlib
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from transformers import AutoModelForCausalLM, GenerationConfig, LlamaConfig

from workbench.bench import processor
from workbench.engine import device, graphs, hf, parallel, products
from workbench.engine.model import DTYPES
from workbench.engine.model_files import NO_CODE
from workbench.rollout.base import Prompt, Sampling

TINY = "tiny"
"""A random Llama of 1.3M parameters, made on the spot."""
MODELS = (hf.EMBEDDED, TINY)
BATCH, PROMPTS = 32, 64
SHORTEST, LONGEST = 8, 128
"""Answers' lengths are uniform between them."""
LABELS = {
    "transformers": "transformers, tokens/s",
    "exchanged": "transformers with oneDNN's products, tokens/s",
    "embedded": "embedded, tokens/s",
    "unrecorded": "embedded without CUDA graphs, tokens/s",
    "ratio": "embedded over transformers, all of it",
    "ratio_same_kernels": "embedded over transformers, the same kernels",
}
Precision = Literal["fp32", "bf16"]


def compare(models: Sequence[str], rounds: int, precision: Precision, as_json: bool, console: Console) -> None:
    """Measure all sides on each model, and print a table or JSON.

    Raises:
        ValueError: there is no such model, or the embedded decoder does not know its architecture.
    """
    results = {}
    with _alone():
        machine = processor.examine()
        for model in models:
            with console.status(f"{model}: loading") as status, _directory(model) as directory:
                results[model] = measure(directory, rounds, precision, lambda said, name=model: status.update(f"{name}: {said}"))
    if as_json:
        print(json.dumps({**results, "processor": asdict(machine)}))
        return
    for line in machine.lines():
        console.print(line, highlight=False, soft_wrap=True)
    asked = f"{PROMPTS} prompts, batch {BATCH}, answers of {SHORTEST} to {LONGEST} tokens"
    console.print(f"{asked}, {precision}, {rounds} rounds", highlight=False)
    _render(results, console)


def measure(directory: Path, rounds: int, precision: Precision, progress: Callable[[str], None] = lambda said: None) -> dict[str, Any]:
    """Tokens a second of each side and a ratio, round by round, after one that is not timed. In a gang of one rank."""
    prompts = questions(hf.config(directory).vocab_size)
    tokens = sum(prompt.max_tokens or 0 for prompt in prompts)
    transformers = _transformers(directory, prompts, precision)
    runs = {"transformers": products.stock()(transformers), "embedded": _embedded(directory, prompts, precision)}
    if graphs.POSSIBLE:
        runs["unrecorded"] = _embedded(directory, prompts, precision, record=False)
    elif products.slow() and precision == "fp32":
        runs["exchanged"] = transformers
    rates: dict[str, list[float]] = {name: [] for name in runs}
    for i in range(rounds + 1):
        for name in runs if i % 2 == 0 else reversed(runs):  # neither side always has the cooler or the busier machine
            progress(f"round {i} of {rounds}, {name}" if i else f"warming up, {name}")
            seconds, sizes = _timed(runs[name], i)
            assert sizes == tokens, f"{name} gave {sizes} tokens of {tokens}"
            if i:
                rates[name].append(tokens / seconds)

    def ratios(side: str) -> list[float]:
        return [ours / theirs for ours, theirs in zip(rates["embedded"], rates[side], strict=True)]

    compared = {"ratio": ratios("transformers")}
    if not device.CUDA:
        compared["ratio_same_kernels"] = ratios("exchanged" if "exchanged" in runs else "transformers")
    return {"tokens": tokens, **{name: _spread(values) for name, values in (rates | compared).items()}}


def questions(vocabulary: int) -> list[Prompt]:
    """The same random prompts of 8 to 64 tokens, with the same limits, each time."""
    rng = np.random.default_rng(11)
    lengths, limits = rng.integers(8, 65, PROMPTS), rng.integers(SHORTEST, LONGEST + 1, PROMPTS)
    return [Prompt(rng.integers(0, vocabulary, n).tolist(), key, max_tokens=int(limits[key])) for key, n in enumerate(lengths)]


def _timed(run: Callable[[int], int], seed: int) -> tuple[float, int]:
    device.synchronize()
    started = time.perf_counter()
    tokens = run(seed)
    device.synchronize()
    return time.perf_counter() - started, tokens


def _embedded(directory: Path, prompts: Sequence[Prompt], precision: Precision, record: bool = graphs.POSSIBLE) -> Callable[[int], int]:
    from workbench.engine.step import Policy
    from workbench.rollout.engines.megatron import Engine
    from workbench.settings import AlgorithmConfig, Lora, Model
    from workbench.settings.outputs import Outputs

    model = Model(source=str(directory), precision=precision, lora=Lora(rank=0))
    policy = Policy(model, AlgorithmConfig(name="none"), directory, 1, Outputs(logprobs=True))
    engine = Engine(policy.chunks[0], tokenizer=None, slots=BATCH, record=record)

    def run(seed: int) -> int:
        return sum(len(rollout.tokens) for rollout in engine.generate(iter(prompts), Sampling(LONGEST), seed))

    return run


def _transformers(directory: Path, prompts: Sequence[Prompt], precision: Precision) -> Callable[[int], int]:
    """`generate` by batches of neighbours, each to its longest answer."""
    model: Any = AutoModelForCausalLM.from_pretrained(directory, dtype=DTYPES[precision], use_safetensors=True, **NO_CODE)
    model.to(device.current()).eval()
    model.generation_config = GenerationConfig()  # its own would add an end token or a penalty
    batches = [prompts[i : i + BATCH] for i in range(0, len(prompts), BATCH)]

    def run(seed: int) -> int:
        torch.manual_seed(seed)
        total = 0
        for batch in batches:
            longest = max(len(prompt.tokens) for prompt in batch)
            tokens = torch.tensor([[*[0] * (longest - len(prompt.tokens)), *prompt.tokens] for prompt in batch], device=device.current())
            mask = torch.tensor([[int(i >= longest - len(prompt.tokens)) for i in range(longest)] for prompt in batch], device=device.current())
            limits = [prompt.max_tokens or LONGEST for prompt in batch]
            sampling = GenerationConfig(max_new_tokens=max(limits), do_sample=True, temperature=1.0, top_k=0, top_p=1.0, pad_token_id=0)
            answers = model.generate(tokens, attention_mask=mask, generation_config=sampling)[:, longest:]
            total += sum(len(row[:limit]) for row, limit in zip(answers.tolist(), limits, strict=True))
        return total

    return run


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    """This process as a gang of one rank, with all its cores."""
    os.environ.setdefault("OMP_NUM_THREADS", str(len(os.sched_getaffinity(0))))
    parallel.start()
    try:
        yield
    finally:
        parallel.stop()


@contextlib.contextmanager
def _directory(model: str) -> Iterator[Path]:
    if model != TINY:
        yield hf.local_directory(model)
        return
    shape: dict[str, Any] = {"hidden_size": 128, "intermediate_size": 352, "num_hidden_layers": 4, "num_attention_heads": 4, "num_key_value_heads": 2}
    config = LlamaConfig(**shape, vocab_size=4096, max_position_embeddings=512, tie_word_embeddings=True)
    with tempfile.TemporaryDirectory() as folder:
        torch.manual_seed(0)
        AutoModelForCausalLM.from_config(config, dtype=torch.float32).save_pretrained(folder)
        yield Path(folder)


def _spread(values: Sequence[float]) -> dict[str, Any]:
    return {"min": min(values), "median": statistics.median(values), "max": max(values), "rounds": list(values)}


def _render(results: dict[str, dict[str, Any]], console: Console) -> None:
    table = Table("model", "", "min", "median", "max", box=None)
    for model, result in results.items():
        for name, label in LABELS.items():
            if name not in result:
                continue
            row = [
                f"{result[name][column]:,.2f}" if name.startswith("ratio") else f"{result[name][column]:,.0f}" for column in ("min", "median", "max")
            ]
            table.add_row(model if name == "transformers" else "", label, *row)
    console.print(table)
