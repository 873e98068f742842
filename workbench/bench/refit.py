"""What it costs to give the rollout engine the policy's new weights: seconds, and their share of a step of PPO."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from rich.console import Console
from rich.table import Table

from workbench import metrics as M
from workbench.bench import short_ppo

LIMIT = 0.01
"""The share of a step that a refit may take."""
ENGINES: dict[str, tuple[str, ...]] = {
    "megatron": (),
    "megatron, a copy beside training": ("rollout.max_staleness=1",),
    "hf": ("rollout.name=hf",),
}


@dataclass(frozen=True)
class Refit:
    """Medians over the steps of a run."""

    model: str
    engine: str
    refit_s: float
    step_s: float

    @property
    def share(self) -> float:
        return self.refit_s / self.step_s


def compare(models: Sequence[str], steps: int, as_json: bool, console: Console) -> bool:
    """Run a short PPO with each engine on each model, and print a table or JSON. True where every engine keeps within LIMIT.

    Raises:
        ValueError: a run failed.
    """
    results = []
    for model in models:
        with console.status(model) as status, short_ppo.model_folder(model) as source:
            for engine, settings in ENGINES.items():
                status.update(f"{model}: {engine}")
                results.append(of_steps(model, engine, short_ppo.steps(source, settings, steps)))
    if as_json:
        print(json.dumps([{**asdict(each), "share": each.share} for each in results]))
    else:
        table = Table("model", "engine", "refit, ms", "step, s", "share", box=None, header_style="dim")
        for each in results:
            table.add_row(each.model, each.engine, f"{1e3 * each.refit_s:,.2f}", f"{each.step_s:.2f}", f"{each.share:.2%}")
        console.print(table)
    return all(each.share <= LIMIT for each in results)


def of_steps(model: str, engine: str, steps: Sequence[short_ppo.Step]) -> Refit:
    refit_s, step_s = (statistics.median(step[name] for step in steps) for name in (M.TIME_OF("refit"), M.STEP_TIME_S))
    return Refit(model, engine, refit_s, step_s)
