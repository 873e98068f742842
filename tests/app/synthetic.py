"""Run directories that look like real ones, made in no time: for the pages' tests and for looking at the pages."""

from __future__ import annotations

import argparse
import json
import math
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from workbench.monitoring import score_diagnostics as diagnostics
from workbench.rundir import listing, store
from workbench.rundir.events import EventWriter
from workbench.rundir.files import finite
from workbench.rundir.store import RunDir, State
from workbench.settings.spec import compose

PROMPTS = (
    "How do I keep basil alive indoors?",
    "Explain what a hash table is to a child.",
    "Is it safe to microwave foil?",
    "Write a haiku about rain.",
)
PACE_S = 1.02
Metrics = Callable[[int, int], dict[str, float]]
"""What a step writes, by its number and the run's seed."""
EARLY = "I am not sure. There are many things to say about it and it depends on many things and many things."
LATE = "Short answer first: it works best with steady light and a little water. Here is why, in two steps you can try today."


def spec_yaml(*overrides: str, experiment: str = "dpo_demo") -> str:
    return compose([f"experiment={experiment}", *overrides]).to_yaml()


def step_metrics(step: int, seed: int = 0, sft: bool = False) -> dict[str, float]:
    """What a DPO step writes, with curves of a plausible shape."""
    noise = random.Random(step * 1009 + seed).gauss
    learnt = 1 - math.exp(-step / 60)
    metrics = {
        "loss": 0.693 - 0.42 * learnt + noise(0, 0.035),
        "grad_norm": 2.4 - 1.1 * learnt + abs(noise(0, 0.3)),
        "lr": 5e-5 * min(1, step / 10) * (0.55 + 0.45 * math.cos(math.pi * min(1, step / 400))),
        "tokens_per_s": 820 + noise(0, 25),
        "samples_per_s": 3.1 + noise(0, 0.1),
        "step_time_s": 1.02 + abs(noise(0, 0.04)),
        "time_data_s": 0.04 + abs(noise(0, 0.01)),
        "time_forward_backward_s": 0.86 + abs(noise(0, 0.03)),
        "time_optimizer_s": 0.09 + abs(noise(0, 0.01)),
        "peak_memory_gib": 3.2 + 0.002 * min(step, 200),
    }
    if sft:
        return metrics
    margin = 1.6 * learnt + noise(0, 0.12)
    return metrics | {
        "preference_loss": metrics["loss"],
        "accuracy": min(1.0, max(0.0, 0.5 + 0.36 * learnt + noise(0, 0.05))),
        "rewards_chosen_mean": 0.45 * margin,
        "rewards_rejected_mean": -0.55 * margin,
        "rewards_margin": margin,
        "logprobs_chosen": -112 + 6 * learnt + noise(0, 1.5),
        "logprobs_rejected": -118 - 14 * learnt + noise(0, 1.5),
    }


def validation(step: int, seed: int = 0, metrics_of: Metrics = step_metrics) -> dict[str, Any]:
    metrics = {key: value for key, value in metrics_of(step, seed + 77).items() if key in ("loss", "accuracy", "rewards_margin", "rewards")}
    metrics["loss"] += 0.02
    words = LATE.split() if step > 20 else EARLY.split()
    samples = [{"prompt": prompt, "response": " ".join(words[: 8 + (step // 5 + n) % 14])} for n, prompt in enumerate(PROMPTS)]
    return {"step": step, "metrics": metrics, "samples": samples}


def reward_validation(step: int, objective: str = "ranking", seed: int = 0) -> dict[str, Any]:
    """A reward model's, with the diagnostics of 240 made-up pairs, or of 160 answers rated for two attributes."""
    rng = np.random.default_rng(seed)
    if objective == "ranking":
        lengths = rng.integers(4, 220, (240, 2))
        scores = rng.normal(0, 1, (240, 2)) + [0.6 * (1 - math.exp(-step / 20)), 0] + 0.004 * lengths
        found = diagnostics.ranking(scores, lengths)
    else:
        ratings = rng.integers(0, 5, (160, 2)).astype(float)
        ratings[:40, 1] = math.nan
        found = diagnostics.regression(np.nan_to_num(ratings) * 0.7 + rng.normal(0.6, 0.5, (160, 2)), ratings, ("helpfulness", "verbosity"))
    metrics = {"loss": 0.6, **found.pop("metrics")}
    return {"step": step, "metrics": metrics, "samples": [], "diagnostics": found}


def append(run: RunDir, at: float, kind: str, **values: Any) -> None:
    """One event with a time of our choosing."""
    event = {"seq": sum(1 for _ in run.events()), "time": at, "kind": kind, **values}
    with run.events_path().open("a") as file:
        file.write(json.dumps(finite(event)) + "\n")


def write_steps(
    run: RunDir, first: int, last: int, seed: int = 0, validate_every: int = 10, start: float | None = None, metrics_of: Metrics = step_metrics
) -> None:
    """Steps first..last in one write, with times one second apart that end now (or begin at `start`)."""
    began = time.time() - PACE_S * (last - first) if start is None else start
    path = run.events_path()
    seq = sum(1 for _ in run.events())
    lines = []

    def add(kind: str, at: float, **values: Any) -> None:
        lines.append(json.dumps({"seq": seq + len(lines), "time": at, "kind": kind, **finite(values)}))

    for step in range(first, last + 1):
        at = began + PACE_S * (step - first)
        add("step", at, step=step, metrics=metrics_of(step, seed))
        if validate_every and step % validate_every == 0:
            add("validation", at + 0.2, **validation(step, seed, metrics_of))
        if step % 20 == 0:
            add("checkpoint", at + 0.4, step=step, path=f"checkpoints/{step}")
    with path.open("ab") as file:
        file.write("".join(line + "\n" for line in lines).encode())


def make(
    root: Path,
    name: str = "dpo-demo",
    steps: int = 60,
    total: int = 200,
    state: State = State.RUNNING,
    seed: int = 0,
    message: str = "",
    age_s: float = 0,
    overrides: tuple[str, ...] = (),
    experiment: str = "dpo_demo",
    metrics_of: Metrics = step_metrics,
) -> RunDir:
    """A run whose status says `state`, after `steps` of `total` steps."""
    run = store.create(root, name, spec_yaml(f"name={name}", *overrides, experiment=experiment))
    began = time.time() - age_s - PACE_S * steps
    append(run, began - 8, "phase", message="loading the model", done=1, total=3)
    append(run, began, "state", state="running", step=0, total_steps=total)
    append(run, began, "validation", **validation(0, seed, metrics_of))
    if steps:
        write_steps(run, 1, steps, seed, start=began + PACE_S, metrics_of=metrics_of)
    job = {"backend": "local", "id": "1", "host": "elsewhere", "started": 0.0}
    run.update(state=state, step=steps, total_steps=total, attempt=1, message=message, job=job, created=began - 9)
    (run.logs / "actor-0.1.log").write_text(
        "\n".join(f"step {n}: loss {metrics_of(n, seed)['loss']:.4f}, 820 tokens/s" for n in range(1, min(steps, 400) + 1)) + "\n"
    )
    for step in list(range(20, steps + 1, 20))[-2:]:
        folder = run.checkpoints / str(step)
        folder.mkdir()
        (folder / store.COMPLETE).write_text("")
    return run


def gallery(root: Path) -> None:
    """One run of every kind there is."""
    make(root, "dpo-demo", 148, 400, seed=1)
    make(root, "dpo-beta-03", 400, 400, State.COMPLETED, seed=2, age_s=9000, overrides=("algorithm.beta=0.3",))
    make(
        root,
        "ipo-long",
        92,
        300,
        State.STOPPED,
        seed=3,
        message="stopped; resume continues from the last checkpoint",
        age_s=4000,
        overrides=("algorithm.preference_loss=ipo",),
    )
    failed = make(
        root,
        "dpo-lr-too-high",
        37,
        200,
        State.FAILED,
        seed=4,
        message="rank 0 exited with code 1: the loss is not finite at step 37",
        age_s=600,
        overrides=("algorithm.lr=0.02",),
    )
    EventWriter(failed).write("step", step=38, metrics=step_metrics(38, 4) | {"loss": math.nan, "grad_norm": math.inf})
    (failed.logs / "actor-0.1.log").write_text(
        'step 36: loss 4.1210\nstep 37: loss nan\nTraceback (most recent call last):\n  File "workbench/worker.py", line 120, in <module>\nFloatingPointError: the loss is not finite at step 37; lower algorithm.lr (0.02)\n'
    )
    starting = store.create(root, "sft-first", spec_yaml("name=sft-first", "algorithm=sft"))
    EventWriter(starting).write("phase", message="importing the weights of smollm2-135m-instruct", done=71, total=272)
    starting.update(
        state=State.STARTING,
        attempt=1,
        message="importing the weights of smollm2-135m-instruct (71/272)",
        job={"backend": "local", "id": "1", "host": "elsewhere", "started": 0.0},
    )


def grow(run: RunDir, seconds: float, pace_s: float = 0.5) -> None:
    """Let a run go on by itself: a step every `pace_s`."""
    writer = EventWriter(run)
    step = run.status.step
    until = time.time() + seconds
    while time.time() < until:
        step += 1
        writer.write("step", step=step, metrics=step_metrics(step))
        if step % 10 == 0:
            writer.write("validation", **validation(step))
        run.update(step=step)
        time.sleep(pace_s)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Fill a runs folder with synthetic runs, and let the newest one grow.")
    parser.add_argument("root", type=Path)
    parser.add_argument("--grow-s", type=float, default=0)
    options = parser.parse_args()
    gallery(options.root)
    if options.grow_s:
        running = next(run for run in listing.list_runs(options.root) if run.status.state == State.RUNNING)
        grow(running, options.grow_s)
