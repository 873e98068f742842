"""`wb.Run`: a run with all that a notebook asks of it; launching and finding runs."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from workbench import api
from workbench.notebook import progress, used_runs
from workbench.notebook.experiments import Experiment, Settings, as_spec
from workbench.notebook.rollout_table import RolloutTable
from workbench.rundir import annotations, answers, opening
from workbench.rundir import once as onces
from workbench.rundir.store import COMPLETE, ONCE, RunDir, Status
from workbench.settings import composing, stored
from workbench.settings import spec as specs
from workbench.views import feed, pictures, text

if TYPE_CHECKING:
    import pandas as pd

    from workbench.notebook.widgets.live_run import LiveRun

POLL_S = 0.25


class Run(api.Run):
    """One run, wherever it executes: its curves, its rollouts, and what can be asked of it.

    >>> run = wb.get("latest")
    >>> str(run.status.state), run.metrics["step"].tolist()
    ('completed', [1, 2])
    >>> len(run.rollouts.where("step = 2"))
    16
    """

    @property
    def name(self) -> str:
        """The name that its experiment has for people; the id where its settings cannot be read."""
        return str(stored.spec_tree(self.dir).get("name", self.id))

    @property
    def once(self) -> str:
        """The name that it was launched once with; empty where it has none."""
        return opening.read_text(self.dir.path / ONCE) if ONCE in opening.names(self.dir.path) else ""

    @property
    def metrics(self) -> pd.DataFrame:
        """A row a step: `step`, `elapsed_s` (seconds of training since the launch) and the metrics; NaN where a step has none."""
        used_runs.note(self.id)
        with feed.history(self.dir) as history:
            return history.frame()

    @property
    def held_out(self) -> pd.DataFrame:
        """A row a validation: `step`, `elapsed_s` and what was measured on the held-out rows."""
        used_runs.note(self.id)
        with feed.history(self.dir) as history:
            return history.validation_frame()

    @property
    def rollouts(self) -> RolloutTable:
        """What the policy answered, step by step, with rewards."""
        used_runs.note(self.id)
        return RolloutTable(self.dir)

    @property
    def answers(self) -> pd.DataFrame:
        """The answers to held-out prompts: `step`, `prompt`, `response`, …; of a job that generates all its answers, once they are there.

        Raises:
            Unreadable: the file of answers is damaged, or is not its owner's.
        """
        import pandas as pd

        used_runs.note(self.id)
        table = self.dir.path / answers.PARQUET
        if table.name in opening.names(self.dir.path):
            answers.check_table(table)
            with open(table, "rb", opener=opening.opener) as file:
                return pd.read_parquet(file)
        with feed.history(self.dir) as history:
            rows = [{"step": each.step, **sample} for each in history.validations for sample in each.samples]
        return pd.DataFrame(rows, columns=None if rows else pd.Index(["step", "prompt", "response"]))

    @property
    def annotated(self) -> Path:
        """The file of the answers that a job rated (`wb.annotate`): a data set for `data.train`. It is there when the job is complete."""
        return self.dir.path / annotations.ANNOTATED

    @property
    def checkpoints(self) -> pd.DataFrame:
        """The complete checkpoints, oldest first: `step`, `path`, `gib`."""
        import pandas as pd

        folder = self.dir.checkpoints
        steps = sorted(int(name) for name in opening.names(folder) if name.isascii() and name.isdigit())
        whole = [folder / str(step) for step in steps if opening.is_file(folder / str(step) / COMPLETE)]
        rows = [{"step": int(path.name), "path": str(path), "gib": opening.total_bytes(path) / 2**30} for path in whole]
        return pd.DataFrame(rows, columns=pd.Index(["step", "path", "gib"]))

    @property
    def link(self) -> str:
        """The address of its page in the app, where one of this user's is running on this machine; empty elsewhere. Who opens it logs in as usual."""
        from workbench.machines import logins

        try:
            apps = logins.running_apps()
        except PermissionError:  # the folder of logins is open to others: the app, which reads it, refuses it with the reason
            return ""
        return f"{apps[-1].origin}/run?id={self.id}" if apps else ""

    def live(self) -> LiveRun:
        """Curves, rollouts and controls that follow the run while other cells run."""
        from workbench.notebook.widgets.live_run import LiveRun

        return LiveRun(self, self.link)

    def log(self, role: str = "actor", lines: int = 50, rank: int | None = None) -> str:
        """The end of the newest log of a role: actor, driver, or a server's."""
        return self.log_tail(role, lines, rank)

    def wait(self, timeout_s: float | None = None) -> Status:
        """Block until the run has ended, and show how far it is. Interrupting the cell leaves it running. Raises TimeoutError."""
        deadline = None if timeout_s is None else time.monotonic() + timeout_s

        def poll() -> tuple[str, float | None] | None:
            if self.status.state.ended:
                return None
            if deadline is not None and time.monotonic() > deadline:
                raise TimeoutError(f"run {self.id} is still {self.status.state} after {timeout_s} s")
            return self._progress()

        progress.follow(poll)
        return self.status

    def __await__(self) -> Generator[Any, None, Status]:
        """`await run`: its status when it has ended; the kernel's other tasks continue meanwhile."""

        async def ended() -> Status:
            while not (status := self.status).state.ended:
                await asyncio.sleep(POLL_S)
            return status

        return ended().__await__()

    def resume(self, overrides: Sequence[str] = (), changed_data: bool = False, **settings: Settings) -> None:
        """Launch again from the latest valid checkpoint, as `run.resume(backend={"num_nodes": 4})`; returns at once.

        Raises:
            ValueError: the run is still running or is complete, or a data file has changed since the launch and `changed_data` does not allow that;
                SpecError for a setting that a resume cannot change.
        """
        used_runs.refuse_launch(f"run {self.id}, resumed,")
        super().resume([*overrides, *_plain_words(settings)], changed_data)

    def export(self, out: str | Path, step: int | None = None, adapter: bool = False, check: bool = False) -> Path:
        """Write a checkpoint, the newest without a step, as a new Hugging Face directory. In a process of its own.

        Args:
            adapter: the LoRA adapters alone, as peft loads them, instead of the merged model.
            check: load the result in transformers and refuse it where its logits differ from the engine's.

        Raises:
            ValueError: no such checkpoint or no adapters, `out` exists already, or the check failed; the message says which.
        """
        from workbench.jobs.exporting import export

        with progress.waiting(f"exporting {self.id} to {out} …"):
            export(self.dir, Path(out), step, adapter, check)
        return Path(out)

    def evaluate(self, step: int | None = None, *, once: str = "", **settings: Settings) -> Run:
        """Launch the evaluation of a checkpoint, the newest without a step: `run.evaluate(data={"validation": "more.jsonl"})`."""
        return evaluate(self, step, once=once, **settings)

    def generate(self, data: str, step: int | None = None, *, once: str = "", **settings: Settings) -> Run:
        """Launch a job that answers a data set's prompts with a checkpoint: `run.generate("prompts.jsonl", job={"temperature": 0})`."""
        return generate(self.id if step is None else f"{self.id}:{step}", data, once=once, **settings)

    def __repr__(self) -> str:
        try:
            status = self.status
        except api.Unreadable as error:
            return f"Run({self.id!r}: unreadable: {error})"
        done = f"step {status.step} of {status.total_steps}" if status.total_steps else f"step {status.step}"
        return f"Run({self.id!r}: {status.state}, {done}{f', {status.message.splitlines()[0]}' if status.message else ''})"

    def _repr_html_(self) -> str:
        return self.picture()

    def picture(self, limit: int = 6) -> str:
        """The run as HTML without scripts: what a saved notebook keeps. `limit` is how many curves it has."""
        try:
            status = self.status
        except api.Unreadable:
            return pictures.table([{"": repr(self)}])
        with feed.history(self.dir) as history:
            return pictures.run(self.name, self.id, history, status, self.link, limit)

    def _progress(self) -> tuple[str, float | None]:
        status = self.status
        with feed.history(self.dir) as history:
            total, step = history.total_steps or status.total_steps, history.steps[-1] if history.steps else status.step
            left = text.eta_s(history.steps, history.elapsed_s, total)
        if not total:
            return f"{self.id}: {status.state}", None
        return f"{self.id}: {status.state}, step {step:,} of {total:,}{f', {text.duration(left)} left' if left is not None else ''}", step / total


class RunList(Sequence[Run]):
    """Some runs, newest first; a picture of them is a table.

    >>> runs = wb.runs(algorithm="dpo")
    >>> runs[0].name, len(runs[:1])
    ('dpo_demo', 1)
    """

    def __init__(self, runs: Sequence[Run]) -> None:
        self._runs = list(runs)

    @overload
    def __getitem__(self, index: int | str) -> Run: ...
    @overload
    def __getitem__(self, index: slice) -> RunList: ...
    def __getitem__(self, index: int | slice | str) -> Run | RunList:
        """By number, by a slice, or by the beginning or end of an id."""
        if isinstance(index, slice):
            return RunList(self._runs[index])
        if isinstance(index, int):
            return self._runs[index]
        matching = [run for run in self._runs if run.id.startswith(index) or run.id.endswith(index)]
        if len(matching) != 1:
            raise ValueError(f"{len(matching) or 'no'} runs of these match {index!r}: {', '.join(run.id for run in matching or self._runs[:5])}")
        return matching[0]

    def __len__(self) -> int:
        return len(self._runs)

    @property
    def df(self) -> pd.DataFrame:
        """A row a run: id, name, what it does, state, steps done and in all, when it began."""
        import pandas as pd

        return pd.DataFrame([_row(run) for run in self._runs], columns=pd.Index(COLUMNS))

    def __repr__(self) -> str:
        return "\n".join(map(repr, self._runs)) or "no runs"

    def _repr_html_(self) -> str:
        return pictures.table([_cells(run) for run in self._runs], f"{len(self)} runs" if len(self) else f"no such runs in {api.runs_root()}")


COLUMNS = ("id", "name", "work", "state", "step", "total_steps", "created")


def _row(run: Run) -> dict[str, Any]:
    tree, status = stored.spec_tree(run.dir), run.status
    fields = ("state", "step", "total_steps", "created")
    return {"id": run.id, "name": str(tree.get("name", run.id)), "work": stored.work(tree), **{name: getattr(status, name) for name in fields}}


def _cells(run: Run) -> dict[str, object]:
    """A row of a list's picture; what cannot be read says so in its own row."""
    try:
        row = _row(run)
    except api.Unreadable as error:
        return {"run": run.id, "does": "", "state": "unreadable", "step": "", "loss": "", "began": str(error)}
    spark = pictures.spark(feed.glance(run.dir, row["total_steps"]).curve)
    return {
        "run": run.id,
        "does": row["work"],
        "state": pictures.Html(pictures.badge(row["state"])),
        "step": f"{row['step']:,} / {row['total_steps'] or '?'}",
        "loss": pictures.Html(spark),
        "began": text.clock(row["created"]),
    }


def runs(*, state: str = "", name: str = "", algorithm: str = "", job: str = "") -> RunList:
    """The runs of this folder (`$WORKBENCH_RUNS`, or ./runs) that can be read, newest first; only those with this state, name, algorithm or kind of job."""
    chosen = []
    for each in api.runs():
        try:
            tree, now = stored.spec_tree(each.dir), each.status.state
        except api.Unreadable:  # `workbench list` names it with the cause
            continue
        of = (str(now), tree.get("name"), tree.get("algorithm", {}).get("name"), stored.job(tree))
        if all(wanted in ("", has) for wanted, has in zip((state, name, algorithm, job), of, strict=True)):
            chosen.append(Run(each.dir))
    return RunList(chosen)


def get(run_id: str) -> Run:
    """The run with this id, or the only one whose id begins or ends so; `latest` is the newest. Raises ValueError for none or several."""
    used_runs.refuse_latest(run_id)
    run = Run(api.get(run_id).dir)
    used_runs.note(run.id)
    return run


def attach(run_id: str) -> LiveRun:
    """A live view of a run from any kernel: its whole history first, then what comes. `.run` is the run. Raises ValueError as `get` does."""
    return get(run_id).live()


def launch(
    experiment: Experiment | specs.Experiment | str, *, once: str = "", backend: str | Mapping[str, object] | None = None, **settings: Settings
) -> Run:
    """Launch a run and return at once; it continues when this kernel ends.

    Args:
        experiment: what to run, or the name of a file in conf/experiment.
        once: a name of yours. The run that you launched with it before is returned, running or ended, and nothing is launched: a cell with it can be
            run again, also in a new kernel.
        backend: where it runs, by its name (`"slurm"`), or with its settings.
        settings: settings of the backend: `num_nodes=4, partition="gpu"`.

    Raises:
        SpecError: a wrong setting, with the nearest there is; or other settings than those that the run of `once` was launched with.

    >>> run = wb.launch("dpo_demo", once="first run")  # doctest: +SKIP
    """
    changes: dict[str, Settings] = {}
    if isinstance(backend, str) and not settings and not isinstance(experiment, specs.Experiment):
        changes = {"backend": backend}
    elif backend or settings:
        changes = {"backend": {**({"name": backend} if isinstance(backend, str) else backend or {}), **settings}}
    spec = as_spec(experiment, changes)
    return _launched(lambda: api.submit(spec, once), once)


def evaluate(run: Run | str, step: int | None = None, *, once: str = "", **settings: Settings) -> Run:
    """Launch the evaluation of a run's checkpoint on its held-out rows; with `once` as `launch` does.

    Raises SpecError for a setting that an evaluation does not take.
    """
    return _launched(lambda: api.evaluate(run if isinstance(run, str) else run.id, step, _plain_words(settings), once), once)


def generate(source: Run | str, data: str, *, once: str = "", **settings: Settings) -> Run:
    """Launch a job that answers a data set's prompts.

    Args:
        source: whose answers: a run, `id:step`, a checkpoint's folder, or a model.
        data: the prompts, as `data.train` names them.
        once: a name of yours, as of `launch`.
        settings: as of an Experiment: `job={"max_tokens": 64, "temperature": 0}`.

    Raises:
        SpecError: a wrong setting; or no such checkpoint, data or model.
    """
    overrides = [f"{key}={composing.quoted(value)}" for key, value in composing.leaves(dict(settings))]
    return _launched(lambda: api.generate(source if isinstance(source, str) else source.id, data, overrides, once), once)


def annotate(data: str, by: Run | str | None = None, *, rules: Sequence[str] = (), once: str = "", **settings: Settings) -> Run:
    """Launch a job that rates the answers of a data set; its `annotated.jsonl` is the file of `run.annotated`.

    Args:
        data: the answers, as `data.train` names them.
        by: a reward model with attributes: a run, `id:step`, or a checkpoint's folder.
        rules: what rates without a model: names of rules, or path/to/file.py:function.
        once: a name of yours, as of `launch`.
        settings: as of an Experiment: `data={"format": "conversation"}`, `job={"turns": "all"}`.

    Raises:
        SpecError: a wrong setting, nothing that rates, or no such checkpoint, rule or data.
    """
    overrides = [f"{key}={composing.quoted(value)}" for key, value in composing.leaves(dict(settings))]
    checkpoint = by.id if isinstance(by, Run) else by
    return _launched(lambda: api.annotate(data, checkpoint, rules, overrides, once), once)


def _launched(submit: Callable[[], api.Run], once: str) -> Run:
    """What `submit` launches, or the run that it finds by `once`. Raises NotVerifiable for a launch during a verification."""
    if not once or onces.launched(api.runs_root(), once) is None:
        used_runs.refuse_launch(f"a run with once={once!r}" if once else "a run without `once`")
    with progress.waiting("launching …"):
        run = Run(submit().dir)
    used_runs.note(run.id)
    return run


def _plain_words(settings: Mapping[str, Settings]) -> list[str]:
    """As `key=value` whose values are YAML: of what exists already, a part is changed."""
    return [f"{key}={json.dumps(value)}" for key, value in composing.leaves(dict(settings))]


def run_of(run: Run | RunDir | str) -> Run:
    """A run by itself, by its folder or by its id."""
    return get(run) if isinstance(run, str) else Run(run) if isinstance(run, RunDir) else run
