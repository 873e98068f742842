"""A reward model against what needs no model: are its held-out pairs ordered better than by words or by length?

Each seed has a split of its own (by a hash of the prompt, 80/20) and an initialisation of its own. Completed runs are found again by their settings.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import statistics
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from rich.console import Console
from rich.table import Table

from workbench import api
from workbench import metrics as M
from workbench.data.chat import Chat
from workbench.data.dataset import prompt_text
from workbench.data.readers import read
from workbench.data.rows import Preference
from workbench.engine import hf
from workbench.rundir.store import State
from workbench.settings import sources
from workbench.settings.spec import Experiment

HELD_OUT = 0.2
MAX_LENGTH = 1024
PENALTIES = (0.01, 0.03, 0.1, 0.3)
T95 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)
"""Student's t at 97.5 % for 1, 2, … degrees of freedom."""
NAMES = {"longer": "longer answer", "words": "bag of words", "model": "reward model"}

Pairs = Sequence[Preference]


def compare(data: str, seeds: int, steps: int | None, limit: int | None, train: bool, as_json: bool, console: Console) -> None:
    """Measure the baselines, then train one model a seed, and print held-out accuracies with 95 % intervals.

    Args:
        steps: optimizer steps of each run; None: one epoch.
        train: without it, the baselines alone.

    Raises:
        DataError: `data` cannot be read.
        ValueError: a run did not complete; the message is its own.
    """
    pairs, left_out = _pairs(data, limit)
    accuracies: dict[str, list[float]] = {name: [] for name in NAMES if train or name != "model"}
    sizes = []
    for seed in range(seeds):
        kept, held = split(pairs, seed)
        sizes.append(len(held))
        accuracies["longer"].append(longer(held))
        accuracies["words"].append(bag_of_words(kept, held))
    console.print(f"{data}: {len(pairs)} pairs ({left_out} over {MAX_LENGTH} tokens left out), {sizes[0]} held out", highlight=False)
    for seed in range(seeds if train else 0):
        accuracies["model"].append(_trained(*split(pairs, seed), seed, steps, console))
    summary = {name: {"accuracies": values, **interval(values)} for name, values in accuracies.items()}
    if train:
        gain = [model - bag for model, bag in zip(accuracies["model"], accuracies["words"], strict=True)]
        summary["model - words"] = {"accuracies": gain, **interval(gain)}
    if as_json:
        print(json.dumps({"pairs": len(pairs), "held_out": sizes, **summary}))
    else:
        _render(summary, console)


def split(pairs: Pairs, seed: int) -> tuple[list[Preference], list[Preference]]:
    """(kept, held out): all pairs of a prompt are on one side."""
    kept, held = [], []
    for pair in pairs:
        digest = hashlib.sha256(f"{seed}\0{prompt_text(pair)}".encode()).digest()
        (held if int.from_bytes(digest[:8]) < HELD_OUT * 2**64 else kept).append(pair)
    return kept, held


def longer(held: Pairs) -> float:
    """How often the longer answer, in characters, is the chosen one; a tie is half."""
    return accuracy(np.array([len(pair.chosen) - len(pair.rejected) for pair in held]))


def bag_of_words(kept: Pairs, held: Pairs) -> float:
    """Held-out accuracy of a logistic regression on the difference of the two answers' word counts (log(1 + n), of words that two pairs have).

    The L2 penalty is the one of `PENALTIES` that does best on a fifth of the kept pairs.
    """
    seen = Counter(word for pair in kept for word in {*_tokens(pair.chosen), *_tokens(pair.rejected)})
    index = {word: i for i, word in enumerate(word for word, count in seen.items() if count > 1)}
    x_BD = _differences(kept, index)
    products_BB = x_BD @ x_BD.T
    inner = np.arange(len(kept)) % 5 > 0

    def inner_accuracy(penalty: float) -> float:
        return accuracy(products_BB[np.ix_(~inner, inner)] @ fit_logistic(products_BB[np.ix_(inner, inner)], penalty))

    alpha_B = fit_logistic(products_BB, max(PENALTIES, key=inner_accuracy))
    return accuracy(_differences(held, index) @ (x_BD.T @ alpha_B))


def fit_logistic(products_BB: np.ndarray, penalty: float, iterations: int = 12) -> np.ndarray:
    """alpha, where w = x^T alpha minimises mean(log(1 + exp(-x w))) + penalty / 2 |w|^2, from the products x x^T, by Newton's method.

    (Rasmussen and Williams, Gaussian Processes for Machine Learning, algorithm 3.1: the same optimum, with a prior of covariance 1 / (B penalty).)
    """
    count = len(products_BB)
    kernel_BB = products_BB / (penalty * count)
    alpha_B, margin_B = np.zeros(count), np.zeros(count)
    for _ in range(iterations):
        right_B = 1 / (1 + np.exp(-margin_B))
        root_B = np.sqrt(right_B * (1 - right_B))
        target_B = root_B**2 * margin_B + (1 - right_B)
        system_BB = np.eye(count) + root_B[:, None] * kernel_BB * root_B
        alpha_B = target_B - root_B * np.linalg.solve(system_BB, root_B * (kernel_BB @ target_B))
        margin_B = kernel_BB @ alpha_B
    return alpha_B / (penalty * count)


def accuracy(margin_B: np.ndarray) -> float:
    return float(np.mean(np.where(margin_B == 0, 0.5, margin_B > 0)))


def interval(values: Sequence[float]) -> dict[str, float | None]:
    """Mean, and half the width of its 95 % interval by Student's t over the seeds; None for one seed."""
    half = T95[min(len(values) - 1, len(T95)) - 1] * statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else None
    return {"mean": statistics.mean(values), "half_width": half}


def experiment(folder: Path, held: int, seed: int, steps: int | None) -> Experiment:
    """The run of one seed on the split in `folder`."""
    overrides = [
        f"name={folder.parent.name}-{folder.name}",
        f"seed={seed}",
        f"data.train={folder / 'train.jsonl'}",
        f"data.validation={folder / 'validation.jsonl'}",
        f"data.max_length={MAX_LENGTH}",
        "algorithm=reward_model",
        "algorithm.lr=1e-4",
        "algorithm.global_batch_size=16",
        "algorithm.micro_batch_tokens=2048",
        f"model.init_seed={seed}",
        "model.precision=auto",
        f"validation.max_rows={held}",
        "validation.every_steps=0",
        "checkpoint.every_steps=20",
    ]
    return api.compose([*overrides, *([f"algorithm.max_steps={steps}"] if steps else [])])


def _pairs(data: str, limit: int | None) -> tuple[list[Preference], int]:
    chat = Chat(hf.tokenizer(hf.local_directory(hf.EMBEDDED)))
    rows = [row for row in read(data, "preference", on_bad_row="skip", limit=limit).rows if isinstance(row, Preference) and not row.turns]
    encoded = [chat.one(row) for row in rows]
    pairs = [row for row, tokens in zip(rows, encoded, strict=True) if len(tokens.prefix) + max(map(len, tokens.branches)) <= MAX_LENGTH]
    if len(pairs) < 20:
        raise ValueError(f"{data}: {len(pairs)} pairs of at most {MAX_LENGTH} tokens; a comparison needs at least 20")
    return pairs, len(rows) - len(pairs)


def _tokens(text: str) -> list[str]:
    return re.findall(r"[a-z0-9']+", text.lower())


def _differences(pairs: Pairs, index: dict[str, int]) -> np.ndarray:
    x_BD = np.zeros((len(pairs), len(index)), np.float32)
    for i, pair in enumerate(pairs):
        for text, sign in ((pair.chosen, 1), (pair.rejected, -1)):
            for word, count in Counter(_tokens(text)).items():
                if word in index:
                    x_BD[i, index[word]] += sign * math.log1p(count)
    return x_BD


def _trained(kept: Pairs, held: Pairs, seed: int, steps: int | None, console: Console) -> float:
    """The held-out accuracy of this seed's run: the completed one with these settings, else one resumed or launched now."""
    wanted = experiment(_written(kept, held, seed), len(held), seed, steps)
    run = next(
        (run for run in api.runs() if yaml.safe_load(run.dir.spec_path.read_text()) == yaml.safe_load(wanted.with_absolute_paths().to_yaml())), None
    ) or api.submit(wanted)
    if run.status.state in (State.STOPPED, State.KILLED, State.FAILED):
        run.resume()
    with console.status("") as shown:
        while not (status := run.status).state.ended:
            shown.update(f"seed {seed}: {run.id}, step {status.step}/{status.total_steps or '?'} ({status.message or status.state})")
            time.sleep(1)
    if status.state != State.COMPLETED:
        raise ValueError(f"run {run.id} is {status.state}: {status.message}; the same command continues it")
    return [event["metrics"][M.ACCURACY] for event in run.events() if event["kind"] == "validation"][-1]


def _written(kept: Pairs, held: Pairs, seed: int) -> Path:
    """The split as files in the cache, in a folder named after what is in them."""
    texts = ["".join(json.dumps(_row(pair)) + "\n" for pair in part) for part in (kept, held)]
    digest = hashlib.sha256("\0".join(texts).encode()).hexdigest()
    folder = sources.cache_root() / "bench" / "reward-bench" / f"{seed}-{digest[:8]}"
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in zip(("train", "validation"), texts, strict=True):
        (folder / f"{name}.jsonl").write_text(text)
    return folder


def _row(pair: Preference) -> dict[str, object]:
    prompt = [{"role": message.role, "content": message.content} for message in pair.prompt]
    return {"prompt": prompt, "chosen": pair.chosen, "rejected": pair.rejected}


def _render(summary: dict[str, Any], console: Console) -> None:
    table = Table("", "held-out accuracy", "95 % interval", "seeds", box=None)
    for name, row in summary.items():
        half = row["half_width"]
        bounds = "" if half is None else f"{row['mean'] - half:.3f} to {row['mean'] + half:.3f}"
        table.add_row(NAMES.get(name, "reward model − bag of words"), f"{row['mean']:.3f}", bounds, ", ".join(f"{a:.3f}" for a in row["accuracies"]))
    console.print(table)
