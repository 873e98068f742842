"""Both halves in turn, A B A B …, and what they say side by side.

Where the engine's matrix products are not those that torch calls (`workbench.engine.products`), it is measured with torch's own as well: TRL over
that is work that is not done, and the rest is kernels, which is the processor's matter.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from transformers import PreTrainedTokenizerBase

from workbench import metrics as M
from workbench.bench import processor
from workbench.data.chat import Chat
from workbench.data.readers import read
from workbench.data.rows import Conversation, Message, Preference
from workbench.engine import hf
from workbench.settings import sources

TRL = "1.16.0"
STEPS = 3
"""Of each measurement; the first one warms up and is not timed."""
Results = Sequence[dict[str, Any]]
"""What one side said, round by round."""


def compare(kind: str, rounds: int, data: str, batch_size: int, precision: str, max_tokens: int, as_json: bool, console: Console) -> None:
    """Measure both on the first pairs whose longer side has at most `max_tokens` tokens, and print a table.

    Raises:
        DataError: `data` cannot be read.
        RuntimeError: a half failed; the message is the end of what it printed.
    """
    python = trl_python(console)
    threads = len(os.sched_getaffinity(0))
    with console.status("measuring the processor"):
        machine = processor.examine(threads)
    model = hf.local_directory(hf.EMBEDDED)
    tokenizer = hf.tokenizer(model)
    pairs, tokens = _short(data, tokenizer, batch_size, max_tokens)
    with tempfile.TemporaryDirectory() as scratch:
        settings = {
            "kind": kind,
            "model": str(model),
            "rows": [_row(pair, kind, tokenizer) for pair in pairs],
            "batch_size": len(pairs),
            "steps": STEPS,
            "lr": 1e-5,
            "beta": 0.1,
            "rank": 16,
            "alpha": 32,
            "precision": precision,
            "max_length": 1024,
            "threads": threads,
            "scratch": scratch,
        }
        results = _in_turn(settings, python, Path(scratch), rounds, machine.exchanged and precision == "fp32", console)
    summary = {name: _summary(runs, len(pairs)) for name, runs in results.items()}
    if as_json:
        print(
            json.dumps({**summary, **{name: statistics.median(values) for name, values in _speedups(results).items()}, "processor": asdict(machine)})
        )
    else:
        for line in machine.lines():
            console.print(line, highlight=False, soft_wrap=True)
        console.print(f"{kind}: {len(pairs)} rows of {tokens:.0f} tokens a side, SmolLM2-135M-Instruct, LoRA 16 on all linear layers, {precision}")
        _render(summary, results, console)


def _in_turn(settings: dict[str, Any], python: Path, folder: Path, rounds: int, exchanged: bool, console: Console) -> Mapping[str, Results]:
    """Each side's results; `same_kernels` is this engine with torch's own products, where it would use others."""
    own = [sys.executable, "-m", "workbench.bench.our_side"]
    sides = {"trl": ([str(python), str(Path(__file__).with_name("trl_side.py"))], False), "ours": (own, False)}
    sides |= {"same_kernels": (own, True)} if exchanged else {}
    results: dict[str, list[dict[str, Any]]] = {name: [] for name in sides}
    for i in range(rounds):
        for name, (command, same_kernels) in sides.items():
            path = folder / f"{name}.json"
            path.write_text(json.dumps({**settings, "same_kernels": same_kernels}))
            with console.status(f"round {i + 1} of {rounds}: {name}"):
                results[name].append(_run([*command, str(path)]))
    return results


def trl_python(console: Console) -> Path:
    """The interpreter of TRL's own environment, which is made once in the cache, with this environment's torch and transformers."""
    folder = sources.cache_root() / f"trl-{TRL}"
    python = folder / "bin" / "python"
    if not (folder / "READY").exists():
        pins = [f"{name}=={importlib.metadata.version(name).partition('+')[0]}" for name in ("torch", "transformers", "peft", "datasets")]
        with console.status(f"making TRL's own environment in {folder} (once, a few minutes)"):
            subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
            subprocess.run([str(python), "-m", "pip", "install", "-q", f"trl=={TRL}", *pins], check=True)
        (folder / "READY").touch()
    return python


def _short(data: str, tokenizer: PreTrainedTokenizerBase, count: int, max_tokens: int) -> tuple[list[Preference], float]:
    """The first pairs within `max_tokens`, and their mean tokens a side."""
    pairs, lengths, chat = [], [], Chat(tokenizer)
    for row in read(data, "preference", on_bad_row="skip").rows:
        assert isinstance(row, Preference)
        if row.turns:
            raise ValueError(f"{row.where}: its conversations part before the last answer; the comparison takes pairs of answers to one prompt")
        encoded = chat.one(row)
        sides = [len(encoded.prefix) + len(branch) for branch in encoded.branches]
        if max(sides) <= max_tokens and len(pairs) < count:
            pairs.append(row)
            lengths += sides
    if len(pairs) < count:
        raise ValueError(f"{data}: only {len(pairs)} rows have at most {max_tokens} tokens a side; raise --max-tokens")
    return pairs, statistics.mean(lengths)


def _row(pair: Preference, kind: str, tokenizer: PreTrainedTokenizerBase) -> dict[str, object]:
    """What both sides get: messages for DPO; for SFT tokens and mask, since TRL's own mask also learns the line end after each answer."""

    def answer(text: str) -> list[dict[str, str]]:
        return [{"role": "assistant", "content": text}]

    prompt = [{"role": message.role, "content": message.content} for message in pair.prompt]
    if kind == "dpo":
        return {"prompt": prompt, "chosen": answer(pair.chosen), "rejected": answer(pair.rejected)}
    turns = (*(Message(m.role, m.content, learn=False) for m in pair.prompt), Message("assistant", pair.chosen))
    row = Chat(tokenizer).one(Conversation(turns))
    first = list(row.learn).index(True)
    return {"input_ids": list(row.prefix), "completion_mask": [int(i >= first) for i in range(len(row.prefix))]}


def _run(command: list[str]) -> dict[str, Any]:
    env = {**os.environ, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "OMP_NUM_THREADS": str(len(os.sched_getaffinity(0)))}
    done = subprocess.run(command, capture_output=True, text=True, env=env, check=False)
    lines = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    if done.returncode or not lines:
        raise RuntimeError(f"{' '.join(command)} exited with {done.returncode}:\n{(done.stderr or done.stdout)[-2000:]}")
    return json.loads(lines[-1].removeprefix("RESULT "))


def _summary(runs: Results, batch: int) -> dict[str, Any]:
    step = _step_s(runs)
    first = {name: runs[0][name] for name in (M.LOSS, M.LOGPROBS_CHOSEN, M.LOGPROBS_REJECTED)}
    return {**first, "step_s": step, M.SAMPLES_PER_S: batch / step, M.PEAK_MEMORY_GIB: max(run[M.PEAK_MEMORY_GIB] for run in runs)}


def _speedups(results: Mapping[str, Results]) -> dict[str, list[float]]:
    """TRL's step over this engine's, round by round; with the same kernels on both sides, which are the same numbers where it has no others."""

    def over(side: str) -> list[float]:
        return [_step_s([t]) / _step_s([o]) for t, o in zip(results["trl"], results[side], strict=True)]

    return {"speedup": over("ours"), "speedup_same_kernels": over("same_kernels" if "same_kernels" in results else "ours")}


def _step_s(runs: Results) -> float:
    return statistics.median(second for run in runs for second in run["seconds"][1:])


def _render(summary: dict[str, Any], results: Mapping[str, Results], console: Console) -> None:
    labels = {"trl": f"TRL {TRL}", "ours": "Alignment Workbench", "same_kernels": "the same, with torch's products"}
    trl, ours = summary["trl"], summary["ours"]
    table = Table("", *(labels[name] for name in summary), "ratio", box=None)
    for name, label, better in (
        (M.LOSS, "first step's loss", None),
        (M.LOGPROBS_CHOSEN, "its log-prob, chosen", None),
        (M.LOGPROBS_REJECTED, "its log-prob, rejected", None),
        ("step_s", "step, seconds (median)", False),
        (M.SAMPLES_PER_S, "samples / s", True),
        (M.PEAK_MEMORY_GIB, "peak memory, GiB", False),
    ):
        if trl[name] is not None:
            ratio = "" if better is None else f"{ours[name] / trl[name]:.2f}"
            table.add_row(label, *(f"{side[name]:.6g}" for side in summary.values()), ratio)
    console.print(table)
    titles = {"speedup": "speed-up, all of it", "speedup_same_kernels": "speed-up with the same kernels (work that is not done)"}
    for name, values in _speedups(results).items():
        console.print(
            f"{titles[name]}: {statistics.median(values):.2f} (round by round: {', '.join(f'{ratio:.2f}' for ratio in values)})", highlight=False
        )
