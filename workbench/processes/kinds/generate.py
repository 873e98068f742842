"""Generating: prompts in, answers with their log-probabilities out, in any layout. A step answers some prompts; a resume continues with the next.

rollouts/<step>.parquet   a step's answers, as those of a training run (`workbench.rundir.rollouts`)
answers.jsonl, answers.parquet   all of them, when the run is complete (`workbench.rundir.answers`)
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field, model_validator

from workbench import metrics as M
from workbench.settings.sections import CheckpointJob

if TYPE_CHECKING:
    from workbench.data.packing import Row
    from workbench.engine.batch import Metrics
    from workbench.processes.rank import Rank
    from workbench.rollout.experience import Experience


class Config(CheckpointJob):
    """Answer every prompt of a data set."""

    sections = ("model", "data", "rollout", "watch", "backend")
    takes_over = ("steering",)
    outputs: ClassVar = {"rows": "answers.jsonl"}

    name: Literal["generate"] = "generate"
    samples_per_prompt: int = Field(default=1, ge=1, le=256, description="Answers to each prompt; they share its prefill.")
    max_tokens: int = Field(default=256, ge=1, description="Longest answer in tokens.")
    temperature: float = Field(default=1.0, ge=0, le=10, description="Sampling temperature; 0 takes the likeliest token each time.")
    top_k: int = Field(default=0, ge=0, description="Sample among the k likeliest tokens; 0: all.")
    top_p: float = Field(default=1.0, gt=0, le=1, description="Sample among the likeliest tokens that make up this share.")
    stop_strings: tuple[str, ...] = Field(default=(), description="Texts that end an answer, beside the model's own end token; not in its text.")
    prompts_per_step: int = Field(default=64, ge=1, le=65536, description="Prompts answered before the answers are saved: what a kill can lose.")

    targets: tuple[dict[str, float], ...] = Field(
        default=(),
        description="Ratings to ask for, {verbosity: 4, humor: 0}: each prompt is answered under each of them (a model trained with data.steering).",
    )
    sweep: tuple[str, ...] = Field(default=(), description="Attributes of which each level is asked for in turn, the others as in base.")
    base: dict[str, float] = Field(default={}, description="What sweep asks of the other attributes; those without a rating are left out.")
    drawn: int = Field(default=0, ge=0, le=256, description="Ratings asked of each prompt that are drawn from those of the training rows.")
    unconditioned: bool = Field(default=False, description="Ask a model that was trained with data.steering without ratings.")

    @model_validator(mode="after")
    def _asks_one_way(self) -> Config:
        if sum(map(bool, (self.targets, self.sweep, self.drawn, self.unconditioned))) > 1:
            raise ValueError("targets, sweep, drawn and unconditioned exclude each other")
        if self.base and not self.sweep:
            raise ValueError("base is of sweep: name the attributes to sweep, or set targets")
        return self


class Generation:
    """One rank of it."""

    def __init__(self, rank: Rank):
        from workbench.engine import parallel
        from workbench.processes.controls import Controls
        from workbench.processes.phases import PhaseTimes
        from workbench.processes.requests import Requests
        from workbench.processes.restored import restored_policy
        from workbench.processes.sampling import Sampler
        from workbench.rundir import rollouts
        from workbench.rundir.answers import Asked

        assert isinstance(rank.spec.job, Config)
        self._rank, self._cfg = rank, rank.spec.job
        whole = rank.spec.data.model_copy(update={"validation": None, "validation_fraction": 0.0})
        data = rank.read(whole, "prompt", self._cfg.max_tokens)
        if not data.train:
            raise ValueError(f"data.train={whole.train}: no prompt is left to answer; `workbench data check --kind prompt` tells why")
        requests = Requests(rank)
        self._rows, self._asked = [], []
        for number, (text, row) in enumerate(zip(data.texts, data.train, strict=True)):
            prompt = [{"role": message.role, "content": message.content} for message in text.prompt]
            for requested in requests.of(number):
                self._rows.append(row if requested is None else requests.conditioned(row, text, requested))
                self._asked.append(Asked(prompt, _of_the_prompt(row.columns), number, requested))
        self.total_steps = -(-len(self._rows) // self._cfg.prompts_per_step)
        policy, self._version = restored_policy(rank)
        self._times = PhaseTimes()
        self._sampler = Sampler(rank.spec, policy, rank.directory, rank.tokenizer, self._times)
        saved = parallel.from_first(rollouts.steps(rank.run) if parallel.rank() == 0 else [])
        self.step = next((step for step in range(self.total_steps) if step + 1 not in saved), self.total_steps)
        self._controls = Controls(rank, self._refuse)

    def go(self) -> None:
        """Answer to the end or to a stop, whichever comes first."""
        from workbench.engine import parallel
        from workbench.rundir import answers, beats

        rank = self._rank
        rank.emit("state", state="running", step=self.step, total_steps=self.total_steps)
        beats.moved(self.step)
        self._sampler.refit(self._version)
        while self.step < self.total_steps:
            if self._controls.stop_requested(self.step):
                rank.emit("end", reason="stopped", step=self.step)
                return
            metrics = self._answer(self._rows[self.step * self._cfg.prompts_per_step :][: self._cfg.prompts_per_step])
            self.step += 1
            beats.moved(self.step)
            rank.emit("step", step=self.step, metrics=metrics)
        if parallel.rank() == 0:
            rank.emit("phase", message="writing the answers")
            with beats.doing("writing the answers"):
                answers.write(rank.run, self._asked, self._cfg.prompts_per_step, self._cfg.samples_per_prompt)
        rank.emit("end", reason="completed", step=self.step)

    def _answer(self, rows: Sequence[Row]) -> Metrics:
        """Answer some prompts and save the answers. Returns the step's metrics."""
        from workbench.engine import parallel
        from workbench.processes.sampling import in_order, sampling_of
        from workbench.rundir import rollouts

        began, cfg, step = time.perf_counter(), self._cfg, self.step + 1
        with self._times.timed("generate"):
            sampling = sampling_of(cfg, self._rank.end_tokens)
            mine = self._sampler.answers(rows, cfg.samples_per_prompt, step, self._rank.spec.seed, sampling)
        answers = in_order(parallel.gather_over_all(mine), len(rows), cfg.samples_per_prompt)
        if parallel.rank() == 0:
            with self._times.timed("store"):
                rollouts.write(self._rank.run, step, [e.record(number) for number, e in enumerate(answers)])
        parallel.barrier()
        seconds = time.perf_counter() - began
        return {**_metrics(answers, seconds), **self._sampler.profile(), **self._times.take(), M.STEP_TIME_S: seconds}

    def _refuse(self, values: Mapping[str, object]) -> None:
        self._rank.warn(f"not changed: {', '.join(values)}; a job that generates has no settings that may be changed while it is running")


def _of_the_prompt(columns: Mapping[str, str]) -> dict[str, str]:
    """A data row's columns, its own answer as `ground_truth`: beside a `response` it is not to be taken for ours. The ratings of that answer stay behind."""
    from workbench.data.formats import rated, steerlm2
    from workbench.rundir.annotations import TELLING

    kept = {name: value for name, value in columns.items() if name not in {"answer", *rated.COLUMNS, *TELLING, steerlm2.ATTRIBUTES}}
    return {"ground_truth": columns["answer"], **kept} if "answer" in columns else kept


def _metrics(answers: Sequence[Experience], seconds: float) -> Metrics:
    from workbench.rollout.experience import lengths

    tokens = sum(len(e.tokens) for e in answers)
    return {
        M.ROLLOUT_SIZE: len(answers),
        **lengths(answers),
        M.PROPERLY_ENDED: sum(e.finish_reason == "stop" for e in answers) / len(answers),
        M.TOKENS_PER_S: tokens / seconds,
        M.SAMPLES_PER_S: len(answers) / seconds,
    }


def work(rank: Rank) -> None:
    """What a rank of this kind of job does."""
    Generation(rank).go()
