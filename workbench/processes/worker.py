"""What a rank runs: `python -m workbench.processes.worker RUN_DIR`.

It sets the engine up, hands itself to the algorithm's loop as its runtime, and owns what every loop needs: numbering, validation,
checkpoints, stopping, events.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from workbench.algorithms._online import OnlineConfig
from workbench.monitoring import alarms
from workbench.processes import startup as start
from workbench.rundir import beats
from workbench.rundir.events import EventWriter
from workbench.rundir.files import ByteCursor
from workbench.rundir.store import RunDir
from workbench.settings import stored
from workbench.settings.spec import Experiment, find_algorithm

if TYPE_CHECKING:
    from workbench.data.packing import Row
    from workbench.engine.batch import Loss, Metrics
    from workbench.processes.online import Online

VALIDATION_SEED = 0
PAUSE_POLL_S = 0.3


class Worker:
    """The runtime of one rank."""

    def __init__(self, run: RunDir, experiment: Experiment):
        from workbench.engine import hf, parallel

        self.run, self.spec = run, experiment
        self.algorithm = find_algorithm(experiment.algorithm.name)
        self._events = EventWriter(run) if parallel.rank() == 0 else None
        self._requests = ByteCursor()
        self._attempt = int(os.environ.get("WORKBENCH_ATTEMPT", "1"))
        self._paused, self._first_look = False, True
        self._history: list[Metrics] = []
        self._sounding: set[str] = set()
        self._directory = self._ready_on_first(lambda: hf.local_directory(experiment.model.source), "fetching the model")
        self._tokenizer = hf.tokenizer(self._directory)
        self._load_data()
        cfg = experiment.algorithm
        by_epochs = max(1, cfg.epochs * len(self.train) // cfg.rows_per_step)
        self.total_steps = cfg.max_steps or by_epochs
        self._load_policy()

    def _load_data(self) -> None:
        from workbench.data.dataset import load

        rows = self.algorithm.ROWS
        kind: Any = rows(self.spec.algorithm) if callable(rows) else rows
        data = load(self.spec.data, kind, self._tokenizer, self._progress("reading the data"))
        self.train, self.validation = list(data.train), list(data.validation[: self.spec.validation.max_rows])
        self._prompts = data.validation_prompts[: self.spec.validation.samples]
        self.emit("data", report=dataclasses.asdict(data.report))
        if not self.train:
            raise ValueError(f"data.train={self.spec.data.train}: no row is left to train on; `workbench data check` tells why")

    def _load_policy(self) -> None:
        from workbench.engine import parallel
        from workbench.engine.checkpoint import Checkpoints, obeyed
        from workbench.engine.step import Policy

        self.emit("phase", message="loading the model")
        self.policy = Policy(self.spec.model, self.spec.algorithm, self._directory, self.total_steps)
        if "reference" in self.algorithm.ROLES and not isinstance(
            self.spec.algorithm, OnlineConfig
        ):  # before a checkpoint is loaded: without adapters the first weights are the reference
            self.train = self._with_reference(self.train, "train")
            self.validation = self._with_reference(self.validation, "validation")
        self.checkpoints = Checkpoints(self.policy, self.run.checkpoints, self.spec.checkpoint)
        self.step = self.checkpoints.load_newest(self._warn)
        self._obeyed = parallel.from_first(obeyed(self.run.checkpoints, self.step) if parallel.rank() == 0 else 0.0)
        self._online = None
        if isinstance(self.spec.algorithm, OnlineConfig):
            from workbench.processes.online import Online

            self._online = Online(self, self.run, self.spec, self.policy, self._directory, self._tokenizer)
            if self._online.critic:
                self._online.critic.restore(self.step)

    # --- what an algorithm's loop sees (workbench.runtime.Runtime)

    def batches(self) -> Iterator[Sequence[Row]]:
        return map(self.batch, range(self.step, self.total_steps))

    def batch(self, step: int) -> Sequence[Row]:
        """The global batch of a step, from 0."""
        from workbench.data.packing import batch_indices

        chosen = batch_indices(len(self.train), self.spec.algorithm.rows_per_step, step, self.spec.seed)
        return [self.train[i] for i in chosen]

    def evaluate(self, rows: Sequence[Row], loss: Loss) -> Metrics:
        return self.policy.evaluate(rows, loss)

    def update(self, rows: Sequence[Row], loss: Loss) -> Metrics:
        with beats.doing("train"):
            return self.policy.update(rows, loss, self.step, self.spec.seed)

    @property
    def settings(self) -> Any:
        return self.policy.algorithm

    def set(self, **values: Any) -> None:
        """Change settings of the algorithm from the next use on. Raises ValidationError for a value out of bounds."""
        self.policy.set(**values)

    @property
    def online(self) -> Online:
        assert self._online, "this algorithm has no rollouts: its Config does not extend OnlineConfig"
        return self._online

    # --- the run

    def go(self) -> None:
        """Train to the end or to a stop, whichever comes first."""
        live = {name: getattr(self.settings, name) for name in self.settings.live}
        self.emit("state", state="running", step=self.step, total_steps=self.total_steps, live=live)
        beats.moved(self.step)
        held_out = self.validate() if self.step == 0 else {}
        reason = "stopped" if self._stop_requested() else "completed"
        began = time.perf_counter()
        for learnt in self.algorithm.train(self.settings, self) if reason == "completed" else ():
            self.step += 1
            sampled = {**self._online.measured(), "step_time_s": time.perf_counter() - began} if self._online else {}
            metrics = {**learnt, **sampled}
            beats.moved(self.step)
            self.emit("step", step=self.step, metrics=metrics)
            self._sound(metrics)
            self._report_checkpoint(wait=False)
            last = self.step == self.total_steps
            held_out = self.validate() if last or _due(self.step, self.spec.validation.every_steps) else {}
            stop = not last and self._stop_requested()
            if last or stop or _due(self.step, self.spec.checkpoint.every_steps):
                self._save(held_out.get(self.spec.checkpoint.best_metric))
            if stop:
                reason = "stopped"
                break
            began = time.perf_counter()
        if self._online:
            self._online.close()
        self._report_checkpoint(wait=True)
        self.emit("end", reason=reason, step=self.step)

    def _save(self, metric: float | None) -> None:
        """Begin a checkpoint of this step, of the critic first: so that a checkpoint of the policy has its critic's beside it."""
        with beats.doing("checkpoint"):
            self._report_checkpoint(wait=True)
            if self._online and self._online.critic:
                self._online.critic.save(self.step)
            self.checkpoints.save(self.step, metric, self._obeyed)
            self._report_checkpoint(wait=not self.spec.checkpoint.asynchronous)

    def _sound(self, metrics: Metrics) -> None:
        """An event for each alarm that begins with this step, with the rollouts that stand out in what it is about, and for each that is over."""
        self._history.append(metrics)
        now = alarms.found(self._history)
        for alarm in now:
            if alarm.name not in self._sounding:
                worst = self._online.worst(alarm.rank_by) if self._online and alarm.rank_by else []
                self.emit("alarm", step=self.step, name=alarm.name, message=alarm.message, rollouts=worst)
        for name in sorted(self._sounding - {alarm.name for alarm in now}):
            self.emit("alarm_over", step=self.step, name=name)
        self._sounding = {alarm.name for alarm in now}

    def validate(self) -> Metrics:
        """Measure the held-out rows and answer a few of their prompts."""
        with beats.doing("validation"):
            return self._validate()

    def _validate(self) -> Metrics:
        started = time.perf_counter()
        diagnostics: dict[str, Any] = {}
        if self._online:
            metrics, samples = self._held_out_rollouts()
        else:
            outputs: dict[int, np.ndarray] = {}
            metrics = self.policy.evaluate(self.validation, self.algorithm.loss, outputs) if self.validation else {}
            diagnostics = self._diagnose(outputs)
            metrics |= diagnostics.pop("metrics", {})
            samples = self._samples()
        if samples:
            metrics["answer_tokens_mean"] = sum(sample["tokens"] for sample in samples) / len(samples)
            metrics["answers_ended"] = sum(sample["finish_reason"] == "stop" for sample in samples) / len(samples)
        metrics["time_validation_s"] = time.perf_counter() - started
        self.emit("validation", step=self.step, metrics=metrics, samples=samples, **({"diagnostics": diagnostics} if diagnostics else {}))
        return metrics

    def _held_out_rollouts(self) -> tuple[Metrics, list[dict[str, Any]]]:
        """The mean reward of one sampled answer to each held-out prompt, always from the same draws, and some of the answers."""
        if not self.validation:
            return {}, []
        found = self.online.held_out(self.validation, VALIDATION_SEED)
        metrics = {"rewards": sum(e.reward for e in found) / len(found)}
        metrics |= {f"reward/{name}": sum(e.components[name] for e in found) / len(found) for name in found[0].components}
        metrics["response_lengths"] = sum(len(e.tokens) for e in found) / len(found)
        metrics["fraction_of_samples_properly_ended"] = sum(e.finish_reason == "stop" for e in found) / len(found)
        shown = found[: self.spec.validation.samples]
        return metrics, [{"prompt": e.prompt, "response": e.response, "tokens": len(e.tokens), "finish_reason": e.finish_reason} for e in shown]

    def _diagnose(self, outputs: dict[int, np.ndarray]) -> dict[str, Any]:
        """What the algorithm makes of all held-out rows' outputs together, on every rank alike."""
        from workbench.engine import parallel

        if not self.validation or not hasattr(self.algorithm, "diagnose"):
            return {}
        whole = parallel.from_last_stage({i: output for part in parallel.gather_over_data(outputs) for i, output in part.items()})
        return self.algorithm.diagnose(self.validation, [whole[i] for i in range(len(self.validation))], self.spec.algorithm)

    def _report_checkpoint(self, wait: bool) -> None:
        with beats.doing("checkpoint"):
            done = self.checkpoints.finish(wait)
        if done:
            self.emit("checkpoint", **done)

    def _warn(self, message: str) -> None:
        self.emit("warning", message=message)
        if self._events:
            print(f"warning: {message}", file=sys.stderr, flush=True)

    def emit(self, kind: str, **values: Any) -> None:
        """An event of the run, written by rank 0."""
        if self._events:
            self._events.write(kind, **values)

    def _samples(self) -> list[dict[str, Any]]:
        """Greedy answers to held-out prompts, where the layout lets one rank's layers see a token from end to end."""
        from workbench.engine import hf, parallel
        from workbench.rollout.base import Prompt, Sampling
        from workbench.rollout.megatron import Engine

        model = self.spec.model
        if self.spec.algorithm.num_scores or model.pipeline_parallel > 1 or model.expert_parallel > 1:
            return []
        self.policy.settle()
        mine = self._prompts[parallel.data_rank() :: parallel.data_size()]
        sampling = Sampling(self.spec.validation.sample_tokens, temperature=0, stop_tokens=hf.end_tokens(self._directory))
        prompts = [Prompt(prompt, key) for key, prompt in enumerate(mine)]
        rollouts = sorted(Engine(self.policy.chunks[0]).generate(prompts, sampling, VALIDATION_SEED), key=lambda rollout: rollout.key)
        answered = [
            {
                "prompt": self._tokenizer.decode(prompt),
                "response": self._tokenizer.decode(rollout.tokens, skip_special_tokens=True),
                "tokens": len(rollout.tokens),
                "finish_reason": rollout.finish_reason,
            }
            for prompt, rollout in zip(mine, rollouts, strict=True)
        ]
        shares = parallel.gather_over_data(answered)
        return [shares[i % len(shares)][i // len(shares)] for i in range(len(self._prompts))]

    def _stop_requested(self) -> bool:
        """Act on what was asked for since the last step, and wait while the run is to pause."""
        with beats.doing("requests"):
            stop = self._obey()
        if not self._paused:
            return stop
        self.emit("phase", message=f"paused at step {self.step}")
        with beats.doing("pause"):
            while self._paused:
                time.sleep(PAUSE_POLL_S)
                beats.moved()
                stop = self._obey()
        self.emit("phase", message="")
        return stop

    def _obey(self) -> bool:
        """Every rank takes the same requests; whether one of them is to stop."""
        from workbench.engine import parallel

        requests = parallel.from_first(self.run.requests(self._requests) if parallel.rank() == 0 else [])
        if self._first_look:  # a gang that was started again reads them again; the checkpoint has the outcome of those before it
            requests = [each for each in requests if each["request"] != "set" or each["time"] > self._obeyed]
            self._first_look = False
        for request in requests:
            self.emit("control", **{"asked" if key == "time" else key: value for key, value in request.items()}, step=self.step)
            if request["request"] == "set":
                self._apply(request["values"])
            self._paused = request["request"] == "pause" or (self._paused and request["request"] not in ("unpause", "stop"))
        self._obeyed = max([self._obeyed, *(each["time"] for each in requests)])
        stop = any(request["request"] == "stop" and request.get("attempt") in (None, self._attempt) for request in requests)
        self._paused = self._paused and not stop
        return stop

    def _apply(self, values: dict[str, Any]) -> None:
        """A change asked for while the run goes on; one that the settings do not allow is warned of and left."""
        wrong = [name for name in values if name not in self.settings.live]
        try:
            if wrong:
                raise ValueError(f"{', '.join(wrong)} cannot be changed while the run goes on; these can: {', '.join(self.settings.live)}")
            self.set(**values)
        except ValueError as error:
            self._warn(f"not changed: {error}")

    def _with_reference(self, rows: list[Row], part: str) -> list[Row]:
        """The rows with the reference policy's log-probabilities, from the disk where the same were computed before."""
        from workbench.data.packing import targets
        from workbench.engine import hf, parallel

        key = hashlib.sha256(f"{hf.digest(self._directory)} {self.spec.model.precision}".encode())
        for row in rows:
            key.update(repr((list(row.prefix), [list(b) for b in row.branches], list(row.learn))).encode())
        path = hf.cache_root() / "reference" / f"{key.hexdigest()[:24]}.npz"
        if not parallel.from_first(path.is_file()):
            known = self.policy.outputs(rows, reference=True, progress=self._progress(f"reference log-probabilities ({part})"))
            self._ready_on_first(lambda: _save_array(path, np.concatenate(known)), "saving them")
        logprobs = np.load(path)["logprobs"]
        ends = np.cumsum([len(targets(row)) for row in rows])[:-1]
        parts = np.split(logprobs, ends)
        return [dataclasses.replace(row, reference_logprobs_N=part) for row, part in zip(rows, parts, strict=True)]

    def _progress(self, message: str) -> Callable[[int, int], None]:
        """A callback that reports a start-up phase, at most twice a second."""
        last = 0.0

        def report(done: int, total: int) -> None:
            nonlocal last
            if time.monotonic() - last > 0.5 or done == total:
                last = time.monotonic()
                self.emit("phase", message=message, done=done, total=total)

        return report

    def _ready_on_first(self, make: Callable[[], Any], message: str) -> Any:
        """Rank 0 makes it (a cached file, say); the others wait, then find it made."""
        from workbench.engine import parallel

        self.emit("phase", message=message)
        with beats.doing(message):
            value = make() if parallel.rank() == 0 else None
            return parallel.from_first(value)


def _due(step: int, every: int) -> bool:
    return every > 0 and step % every == 0


def _save_array(path: Path, logprobs: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(f".{os.getpid()}.npz")
    np.savez(temporary, logprobs=logprobs)
    temporary.replace(path)


def main() -> int:
    run = RunDir(Path(sys.argv[1]))
    beats.begin(run, "actor")
    experiment = stored.experiment(run)
    experiment = start.join(run, experiment, experiment.model.layout)
    from workbench.engine import parallel

    Worker(run, experiment).go()
    parallel.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())
