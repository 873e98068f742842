"""Critic and reward in the policy's own processes or behind servers: seconds a step of the same short PPO, in turn."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from rich.console import Console
from rich.table import Table

from workbench import metrics as M
from workbench.bench import short_ppo

PLACEMENTS: dict[str, tuple[str, ...]] = {"colocated": (), "served": short_ppo.SERVED}
PHASES = ("generate", "reward", "logprobs", "init_logprobs", "critic_infer", "critic_train", "train", "critic_wait")


@dataclass(frozen=True)
class Measured:
    """One placement on one model: each run's median seconds a step, and the median of its phases over all steps."""

    model: str
    placement: str
    seconds: list[float]
    phases: dict[str, float]


def compare(models: Sequence[str], rounds: int, steps: int, as_json: bool, console: Console) -> None:
    """Run both on each model, and print a table or JSON. Raises ValueError where a run fails."""
    results = []
    for model in models:
        with console.status(model) as status, short_ppo.model_folder(model) as source:
            runs: dict[str, list[list[short_ppo.Step]]] = {name: [] for name in PLACEMENTS}
            for i in range(rounds):
                for name in PLACEMENTS if i % 2 == 0 else reversed(PLACEMENTS):  # neither always has the warmer machine
                    status.update(f"{model}: round {i + 1} of {rounds}, {name}")
                    runs[name].append(short_ppo.steps(source, PLACEMENTS[name], steps))
        results += [measured(model, name, of_placement) for name, of_placement in runs.items()]
    if as_json:
        print(json.dumps([asdict(each) for each in results]))
    else:
        _render(results, steps, console)


def measured(model: str, placement: str, runs: Sequence[Sequence[short_ppo.Step]]) -> Measured:
    every = [step for run in runs for step in run]
    phases = {name: statistics.median(step.get(M.TIME_OF(name), 0.0) for step in every) for name in PHASES}
    return Measured(model, placement, [statistics.median(step[M.STEP_TIME_S] for step in run) for run in runs], phases)


def _render(results: Sequence[Measured], steps: int, console: Console) -> None:
    size = f"{short_ppo.ROLLOUTS} answers of at most {short_ppo.MAX_TOKENS} tokens"
    console.print(f"PPO, {size}, {len(results[0].seconds)} runs of {steps} steps each, in turn", highlight=False)
    table = Table("model", "critic and reward", "s a step", *(name.replace("_", " ") for name in PHASES), box=None, header_style="dim")
    for each in results:
        spread = f"{statistics.median(each.seconds):.2f} ({min(each.seconds):.2f} to {max(each.seconds):.2f})"
        table.add_row(each.model, each.placement, spread, *(f"{each.phases[name]:.2f}" for name in PHASES))
    console.print(table)
