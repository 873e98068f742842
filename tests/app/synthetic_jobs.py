"""Runs that do not train, that look like real ones, made in no time."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from tests.app import synthetic, synthetic_rollouts
from workbench.rundir import annotations, answers, rollout_files, rollouts, store
from workbench.rundir.annotations import StepLines
from workbench.rundir.store import RunDir, State
from workbench.settings.spec import compose

SAMPLES, PROMPTS_PER_STEP = 2, 4
JOB = {"backend": "local", "id": "1", "host": "elsewhere", "started": 0.0}


def generate(root: Path, prompts: int = 10, steps: int = 3, state: State = State.COMPLETED, name: str = "answers") -> RunDir:
    """A run that has answered the prompts of its first steps; all of them where it is complete, which alone has the files of all answers."""
    words = ["job=generate", f"name={name}", f"job.prompts_per_step={PROMPTS_PER_STEP}", f"job.samples_per_prompt={SAMPLES}", "job.max_tokens=32"]
    run = store.create(root, name, compose(words).to_yaml())
    began, total = time.time() - 10 * steps, -(-prompts // PROMPTS_PER_STEP)
    synthetic.append(run, began, "data", report={"train": prompts})
    synthetic.append(run, began, "state", state="running", step=0, total_steps=total)
    for step in range(1, steps + 1):
        count = min(PROMPTS_PER_STEP, prompts - (step - 1) * PROMPTS_PER_STEP)
        rollouts.write(run, step, [unrewarded(record) for record in synthetic_rollouts.records(step, count, SAMPLES)])
        metrics = {"rollout_size": count * SAMPLES, "generation_length": 24.0, "fraction_of_samples_properly_ended": 0.75, "tokens_per_s": 480.0}
        synthetic.append(run, began + 10 * step, "step", step=step, metrics={**metrics, "step_time_s": 10.0})
    if state == State.COMPLETED:
        rows = [answers.Asked([{"role": "user", "content": synthetic.PROMPTS[n % 4]}], {"row": str(n)}, n) for n in range(prompts)]
        answers.write(run, rows, PROMPTS_PER_STEP, SAMPLES)
    run.update(state=state, step=steps, total_steps=total, attempt=1, message="", job=JOB, created=began - 5)
    return run


def unrewarded(record: dict[str, Any]) -> dict[str, Any]:
    """A rollout as one that is only sampled has it."""
    known = (*rollout_files.TEXTS, *rollout_files.COUNTS, "pieces", "tokens", "rollout_logprobs")
    return {name: value for name, value in record.items() if name in known}


def annotate(root: Path, answered: int = 6, state: State = State.COMPLETED) -> RunDir:
    """A run that has rated some answers, by two attributes of which one has the name of a column."""
    run = store.create(root, "ratings", compose(["job=annotate", "job.rules=[verbosity, question]", "name=ratings"]).to_yaml())
    synthetic.append(run, time.time() - 9, "state", state="running", step=0, total_steps=1)
    lines = StepLines(run.path, annotations.ANNOTATED)
    asked = [{"role": "user", "content": synthetic.PROMPTS[0]}]
    lines.add(
        [
            {"prompt": asked, "response": f"Answer {n}", "attributes": {"verbosity": n % 3, "question": 0}, "requested": {"verbosity": 2}}
            for n in range(answered)
        ]
    )
    if state == State.COMPLETED:
        lines.finish()
    run.update(state=state, step=1, total_steps=1, attempt=1, message="", job=JOB, created=time.time() - 10)
    return run


def evaluate(root: Path, of: RunDir, step: int = 40, state: State = State.COMPLETED) -> RunDir:
    """A run that has measured a checkpoint of another."""
    words = ["experiment=dpo_demo", "job=evaluate", "name='evaluate dpo-demo'", f"job.checkpoint={of.checkpoints / str(step)}"]
    run = store.create(root, "evaluate dpo-demo", compose(words).to_yaml())
    began = time.time() - 20
    synthetic.append(run, began, "state", state="running", step=step, total_steps=step)
    if state == State.COMPLETED:
        synthetic.append(run, began + 15, "validation", **synthetic.validation(step))
    run.update(state=state, step=step, total_steps=step, attempt=1, message="", job=JOB, created=began - 5)
    return run
