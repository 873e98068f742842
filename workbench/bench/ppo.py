"""The demo of PPO over several seeds: does the reward on held-out prompts rise by more than the seeds differ, and does the KL stay bounded?"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

from rich.console import Console
from rich.table import Table

from workbench import api
from workbench import metrics as M
from workbench.monitoring import alarms
from workbench.rundir.lines import Event

SHOWN = 4
"""Held-out prompts whose answers are printed, before and after."""


@dataclass(frozen=True)
class Outcome:
    """One seed's run. `rewards` are the held-out means by step; `samples` are (prompt, answer before, answer after)."""

    run: str
    minutes: float
    rewards: dict[int, float]
    highest_kl: float
    samples: list[tuple[str, str, str]]

    @property
    def rise(self) -> float:
        return self.rewards[max(self.rewards)] - self.rewards[min(self.rewards)]


def measure(seeds: int, overrides: Sequence[str], as_json: bool, console: Console, follow: Callable[[api.Run], object]) -> bool:
    """Run `experiment=ppo_demo` once a seed, `follow` each to its end, and print what came of it.

    Returns whether the rise is beyond the seeds' spread at a bounded KL.
    """
    outcomes = []
    for seed in range(seeds):
        run = api.submit(api.compose(["experiment=ppo_demo", f"name=ppo-demo-seed-{seed}", f"seed={seed}", *overrides]))
        console.print(f"seed {seed}: {run.id}", highlight=False)
        follow(run)
        outcomes.append(outcome(run.id, list(run.events())))
    if as_json:
        print(json.dumps([asdict(each) for each in outcomes]))
    else:
        _render(outcomes, console)
    return min(each.rise for each in outcomes) > spread(outcomes) and not any(
        alarms.raised([{M.KL_PER_ANSWER: each.highest_kl}]) for each in outcomes
    )


def outcome(run: str, events: Sequence[Event]) -> Outcome:
    """What a run's events tell. The time is from its first event to its last."""
    validations = [event for event in events if event["kind"] == "validation"]
    first, last = validations[0], validations[-1]
    return Outcome(
        run=run,
        minutes=(events[-1]["time"] - events[0]["time"]) / 60,
        rewards={event["step"]: event["metrics"][M.REWARDS] for event in validations},
        highest_kl=max(event["metrics"][M.KL_PER_ANSWER] for event in events if event["kind"] == "step"),
        samples=[(a["prompt"], a["response"], b["response"]) for a, b in zip(first["samples"], last["samples"], strict=True)],
    )


def spread(outcomes: Sequence[Outcome]) -> float:
    """How far apart the seeds' last rewards are, the highest from the lowest."""
    last = [each.rewards[max(each.rewards)] for each in outcomes]
    return max(last) - min(last)


def _render(outcomes: Sequence[Outcome], console: Console) -> None:
    steps = sorted(outcomes[0].rewards)
    table = Table("seed", *(f"step {step}" for step in steps), "highest KL", "minutes", title="mean reward on held-out prompts")
    for seed, each in enumerate(outcomes):
        table.add_row(str(seed), *(f"{each.rewards[step]:.3f}" for step in steps), f"{each.highest_kl:.1f}", f"{each.minutes:.1f}")
    console.print(table)
    console.print(f"smallest rise {min(each.rise for each in outcomes):.3f}, spread of the seeds {spread(outcomes):.3f}", highlight=False)
    table = Table("held-out prompt", "before", "after", show_lines=True)
    for prompt, before, after in outcomes[0].samples[:SHOWN]:
        table.add_row(prompt.split("<|im_start|>user\n")[-1].partition("<|im_end|>")[0], before.strip(), after.strip())
    console.print(table)
