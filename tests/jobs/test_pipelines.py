"""Pipelines: which stage is launched when, whatever happens to whoever launches them; the launch itself is replaced. And one whole, killed for real."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest

from tests.waiting import ended, until, until_step
from workbench import api
from workbench.backends import local, slurm
from workbench.backends.base import Job, JobStatus, Task
from workbench.jobs import inputs, pipelines, plans, sequence, sequencer
from workbench.rundir import listing, store
from workbench.rundir import pipelines as folders
from workbench.rundir.opening import Unreadable
from workbench.rundir.store import RunDir, State
from workbench.settings.composing import SpecError

PIPELINE = """
description: Answers, a model trained on them, and its export.
stages:
  answers: [job=generate, data.train={rows}, model.source={model}, job.max_tokens=6, job.prompts_per_step=2]
  train: [algorithm=sft, "data.train=${{answers.rows}}", model.source={model}, algorithm.global_batch_size=4, algorithm.max_steps={steps},
    data.validation_fraction=0, validation.samples=0, model.lora.dropout=0.1, checkpoint.every_steps=2]
  export: [job=export, "job.checkpoint=${{train.checkpoint}}"]
"""
INDEPENDENT = """
stages:
  one: [job=generate, data.train={rows}, model.source={model}]
  two: [job=generate, data.train={rows}, model.source={model}]
"""


class Killed(BaseException):
    """In place of SIGKILL: nothing catches it, and nothing that comes after it is done."""


@dataclass
class Machine:
    """In place of the backends: what was launched, and what was asked of it. A driver that is launched does nothing."""

    launched: list[tuple[str, tuple[str, ...]]] = field(default_factory=list)
    running: dict[str, Path] = field(default_factory=dict)
    sequencers: list[str] = field(default_factory=list)

    def launch(self, task: Task, backend: str = "local") -> Job:
        number = str(1000 + len(self.launched) + len(self.sequencers))
        if "workbench.jobs.sequencer" in task.driver:
            self.sequencers.append(number)
        else:
            assert task.driver[1:] == ("-m", "workbench.jobs.stage", str(task.run_dir))
            self.launched.append((task.run_dir.name, task.after))
            self.running[number] = task.run_dir
        return Job(backend, number, "here", 1.0)

    def submit(self, task: Task) -> Job:
        return self.launch(task, "slurm")

    def look(self, job: Job) -> JobStatus:
        return JobStatus(job.id in self.running or job.id in self.sequencers, ended="died")

    def found(self, run_dir: Path) -> Job | None:
        return next((Job("local", number, "here", 1.0) for number, path in self.running.items() if path == run_dir), None)

    def end(self, run: RunDir, state: State, message: str = "") -> None:
        """The driver of a run ends."""
        self.running = {number: path for number, path in self.running.items() if path != run.path}
        run.update(state=state, message=message, step=1)


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Machine:
    made = Machine()
    monkeypatch.setenv("WORKBENCH_RUNS", str(tmp_path / "runs"))
    monkeypatch.setattr(local, "launch", made.launch)
    monkeypatch.setattr(local, "look", made.look)
    monkeypatch.setattr(local, "launched", made.found)
    monkeypatch.setattr(slurm, "launched", made.found)
    monkeypatch.setattr(slurm, "launch", made.submit)
    monkeypatch.setattr(slurm, "look", made.look)
    monkeypatch.setattr(slurm, "check", lambda task: [])
    monkeypatch.setattr(sequence, "PATIENCE_S", {"local": -1.0})
    return made


@pytest.fixture(scope="module")
def prompts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "prompts.jsonl"
    path.write_text("".join(json.dumps({"prompt": f"What is {i} and {i}?"}) + "\n" for i in range(6)))
    return path


@pytest.fixture
def written(tmp_path: Path, tiny_model: Path, prompts: Path) -> Callable[[str], str]:
    """Writes a pipeline; gives its path."""

    def write(text: str = PIPELINE, steps: int = 4) -> str:
        path = tmp_path / "mine.yaml"
        path.write_text(text.format(rows=prompts, model=tiny_model, steps=steps))
        return str(path)

    return write


def run_of(item: api.Pipeline, stage: str) -> RunDir:
    return RunDir(item.dir.runs / item.plan.stages[stage].run)


def passed(item: api.Pipeline) -> bool:
    """One look of the process that launches stages."""
    with item.dir.locked():
        return sequence.advance(item.dir)


def states(item: api.Pipeline) -> list[State | None]:
    return [stage.state for stage in item.status.stages]


def answer(item: api.Pipeline) -> None:
    """What the first stage leaves."""
    (run_of(item, "answers").path / "answers.jsonl").write_text(json.dumps({"prompt": [{"role": "user", "content": "a"}], "response": "b"}) + "\n")


def test_each_stage_is_launched_when_those_before_it_are_complete(machine: Machine, written: Callable[..., str]) -> None:
    item = api.submit_pipeline(written())
    assert (len(machine.sequencers), machine.launched, item.status.state) == (1, [], State.RUNNING)
    assert [stage.message for stage in item.status.stages] == ["waits for its turn", "waits for answers", "waits for train"]
    assert passed(item) and passed(item)
    answers, train = run_of(item, "answers"), run_of(item, "train")
    assert machine.launched == [(answers.id, ())]
    assert api.stage_of(api.get(answers.id)) == (item, "answers")
    answer(item)
    machine.end(answers, State.COMPLETED)
    assert passed(item) and passed(item)
    assert machine.launched == [(answers.id, ()), (train.id, ())]
    assert states(item) == [State.COMPLETED, State.QUEUED, None]
    assert api.get(train.id).spec.data.train == str(answers.path / "answers.jsonl")


def test_a_failure_holds_back_what_comes_after_and_resume_begins_there(machine: Machine, written: Callable[..., str]) -> None:
    item = api.submit_pipeline(written())
    passed(item)
    answers = run_of(item, "answers")
    machine.end(answers, State.FAILED, "rank 0 exited with code 1: out of memory\nits log")
    assert not passed(item)
    status = item.status
    assert (status.state, status.message) == (State.FAILED, "answers: rank 0 exited with code 1: out of memory")
    assert [(stage.blocked, stage.message.partition("\n")[0]) for stage in status.stages[1:]] == [
        (True, "waits for answers, which failed"),
        (True, "waits for train"),
    ]
    item.resume()
    assert passed(item)
    assert (answers.status.state, answers.status.attempt, item.status.attempt) == (State.QUEUED, 2, 2)
    assert machine.launched == [(answers.id, ())] * 2
    machine.end(answers, State.FAILED)
    assert not passed(item), "a stage is resumed once, not for ever"
    with pytest.raises(ValueError, match="has already failed"):
        item.stop()


def test_a_stage_that_cannot_be_launched_fails_the_pipeline_with_the_reason(machine: Machine, written: Callable[..., str]) -> None:
    """Its rows are malformed: no run is made, and once they are right resume launches it."""
    item = api.submit_pipeline(written())
    passed(item)
    answers = run_of(item, "answers")
    (answers.path / "answers.jsonl").write_text('{"prompt": "a"}\n')
    machine.end(answers, State.COMPLETED)
    assert not passed(item)
    assert item.status.state == State.FAILED and "answers.jsonl" in item.status.message and item.status.message.startswith("train: data.train: ")
    assert not listing.is_run(run_of(item, "train").path)
    answer(item)
    item.resume()
    assert passed(item)
    assert states(item) == [State.COMPLETED, State.QUEUED, None]


def test_stages_run_in_turn_here_also_where_they_do_not_need_each_other(machine: Machine, written: Callable[..., str]) -> None:
    item = api.submit_pipeline(written(INDEPENDENT))
    assert passed(item) and len(machine.launched) == 1
    machine.end(run_of(item, "one"), State.COMPLETED)
    assert not passed(item) and len(machine.launched) == 2
    machine.end(run_of(item, "two"), State.COMPLETED)
    assert (item.status.state, item.status.step) == (State.COMPLETED, 2)
    with pytest.raises(ValueError, match="is completed; only a stopped, killed or failed one"):
        item.resume()


def test_a_stop_ends_the_stage_and_launches_no_further(machine: Machine, written: Callable[..., str]) -> None:
    item = api.submit_pipeline(written())
    passed(item)
    item.stop()
    assert (item.status.state, states(item)[0]) == (State.STOPPING, State.STOPPING)
    machine.end(run_of(item, "answers"), State.STOPPED)
    assert not passed(item)
    assert (item.status.state, item.status.message) == (State.STOPPED, "answers was stopped; resume continues with it")
    assert [stage.message for stage in item.status.stages[1:]] == ["waits for answers, which was stopped", "waits for train"]
    item.resume()
    assert passed(item) and item.status.state == State.QUEUED


STEPS_OF_A_LAUNCH = [
    (store, "write_once", 1),
    (store, "write_once", 2),
    (inputs, "keep", 1),
    (RunDir, "begin_attempt", 1),
    (local, "launch", 1),
    (RunDir, "update", 1),
    (RunDir, "update", 2),
]


@pytest.mark.parametrize("before", [True, False], ids=["before", "after"])
@pytest.mark.parametrize(("where", "name", "count"), STEPS_OF_A_LAUNCH, ids=lambda value: str(getattr(value, "__name__", value)))
def test_a_kill_at_any_step_of_a_launch_loses_and_doubles_nothing(
    where: object, name: str, count: int, before: bool, machine: Machine, written: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    item = api.submit_pipeline(written())
    real, called = getattr(where, name), 0

    def killed(*args: object, **kwargs: object) -> object:
        nonlocal called
        called += 1
        if called == count and before:
            raise Killed
        made = real(*args, **kwargs)
        if called == count:
            raise Killed
        return made

    discarded = monkeypatch.context()
    with discarded as patch:
        patch.setattr(where, name, killed)
        patch.setattr(store.shutil, "rmtree", lambda path: None)  # a killed process clears nothing away
        with pytest.raises(Killed):
            passed(item)
    assert passed(item) and passed(item), item.status
    answers = run_of(item, "answers")
    assert machine.launched == [(answers.id, ())] and answers.status.state == State.QUEUED
    assert answers.status.job and answers.status.job["id"] in machine.running
    assert [run.id for run in api.runs()] == [answers.id]


def test_one_that_launches_for_an_earlier_attempt_ends(machine: Machine, written: Callable[..., str]) -> None:
    item = api.submit_pipeline(written())
    item.stop()
    assert item.status.message == "stopped; resume continues with the next stage"
    item.resume()
    sequencer.run(item.dir, attempt=1)
    assert machine.launched == []


def test_a_dead_launcher_is_told_and_resume_starts_another(machine: Machine, written: Callable[..., str]) -> None:
    item = api.submit_pipeline(written())
    passed(item)
    with pytest.raises(ValueError, match="is queued; only a stopped"):
        item.resume()
    machine.sequencers.clear()
    assert item.status.orphaned and item.status.message == pipelines.SEQUENCER_DIED
    item.resume()
    assert len(machine.sequencers) == 1 and not item.status.orphaned
    assert passed(item) and len(machine.launched) == 1


SLURM = ("backend=slurm",)


def test_on_slurm_every_stage_is_submitted_at_once_after_those_that_it_needs(machine: Machine, written: Callable[..., str]) -> None:
    """Paths and the model of a checkpoint that is to come are settled: `train`'s is the base model with its adapters."""
    item = api.submit_pipeline(written(), SLURM)
    answers, train, export = (run_of(item, name) for name in ("answers", "train", "export"))
    assert machine.launched == [(answers.id, ()), (train.id, ("1000",)), (export.id, ("1001",))]
    assert machine.sequencers == [] and item.status.state == State.QUEUED
    spec = api.get(export.id).spec
    assert (spec.job.model_dump()["checkpoint"], spec.model.lora) == (train.id, api.get(train.id).spec.model.lora)
    machine.end(train, State.FAILED, "out of memory")
    machine.end(export, State.STOPPED, "cancelled")
    machine.end(answers, State.COMPLETED)
    answer(item)
    assert [stage.message for stage in item.status.stages] == ["", "out of memory", "cancelled"]
    export.update(step=0)
    assert item.status.stages[2].message == "waits for train, which failed"
    item.resume()
    assert machine.launched[3:] == [(train.id, ()), (export.id, ("1003",))]


def test_what_slurm_refuses_is_told_and_the_rest_is_submitted_by_resume(
    machine: Machine, written: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(task: Task) -> Job:
        if task.after:
            raise OSError("sbatch: error: QOSMaxSubmitJobPerUserLimit")
        return machine.submit(task)

    with monkeypatch.context() as patch:
        patch.setattr(slurm, "launch", refuse)
        with pytest.raises(ValueError, match=r"train: .*QOSMaxSubmitJobPerUserLimit"):
            api.submit_pipeline(written(), SLURM)
    item = api.pipeline("latest")
    machine.end(run_of(item, "answers"), State.COMPLETED)
    answer(item)
    assert item.status.state == State.FAILED
    item.resume()
    assert [run for run, _ in machine.launched] == [run_of(item, name).id for name in ("answers", "train", "export")]


def test_what_is_wrong_is_told_of_all_stages_before_the_first_is_launched(machine: Machine, written: Callable[..., str]) -> None:
    words = [
        "answers.data.train=none.jsonl",
        "train.model.source=./nowhere",
        "export.job.checkpoint=${train.checkpoint}",
        "train.algorithm=reward_model",
    ]
    with pytest.raises(SpecError) as told:
        api.submit_pipeline(written(), words)
    assert "answers.data.train: there is no file none.jsonl" in str(told.value)
    assert "train.model.source: there is no directory or file ./nowhere" in str(told.value)
    with pytest.raises(SpecError, match=r"export\.job\.checkpoint: run .* has no complete checkpoint|export\.job\.checkpoint: no run"):
        api.submit_pipeline(written(), ["export.job.checkpoint=nothing"])
    with pytest.raises(SpecError, match=r"export\.job\.checkpoint: job=export needs one: a run's id or `latest`"):
        api.submit_pipeline(written(), ["export.job.checkpoint=null"])
    with pytest.raises(SpecError, match=r"export: job=export runs in 1 process, and backend\.num_nodes x backend\.ranks_per_node is 2"):
        api.submit_pipeline(written(), ["export.backend.ranks_per_node=2"])
    assert api.pipelines() == [] and machine.launched == [] and not (api.runs_root() / folders.NAME).exists()


def test_a_job_on_a_checkpoint_of_scores_is_refused_before_there_is_one(machine: Machine, written: Callable[..., str], tmp_path: Path) -> None:
    text = PIPELINE.replace("algorithm=sft", "algorithm=reward_model").replace("job=export, ", 'job=generate, "data.train=${{answers.rows}}", ')
    with pytest.raises(SpecError, match=r"export\.job\.checkpoint: the checkpoint to come is of a model that scores answers and gives none"):
        api.submit_pipeline(written(text))


def test_a_damaged_folder_is_named(machine: Machine, written: Callable[..., str]) -> None:
    item = api.submit_pipeline(written())
    (item.dir.path / "status.json").write_text('{"format": 9}')
    with pytest.raises(Unreadable, match=r"made by a newer version \(format 9"):
        _ = item.status
    (item.dir.path / "status.json").write_text('{"attempt": "x"}')
    with pytest.raises(Unreadable, match="no status: "):
        _ = item.status
    (item.dir.path / "pipeline.yaml").chmod(0o600)
    (item.dir.path / "pipeline.yaml").write_text("a: [")
    with pytest.raises(Unreadable, match=r"pipeline\.yaml: no YAML"):
        plans.read(item.dir)


# --- whole ones


def losses(run: RunDir) -> dict[int, float]:
    return {event["step"]: event["metrics"]["loss"] for event in run.events() if event["kind"] == "step"}


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("WORKBENCH_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path / "cache"))
    yield tmp_path / "runs"
    for run in api.runs():
        if not run.status.state.ended:
            run.kill()


def undisturbed(path: str, words: Sequence[str]) -> api.Pipeline:
    """Launched by this process, whose runs are forked from a server that has imported everything."""
    plan = plans.plan(path, words)
    item = api.Pipeline(folders.create(listing.runs_root(), store.new_run_id(plan.name), plan.to_yaml()))
    for name in plan.stages:
        passed(item)
        assert api.Run(run_of(item, name)).wait(240).state == State.COMPLETED, run_of(item, name).log_tail()
    return item


def test_one_that_is_killed_in_its_middle_ends_as_one_that_is_left_alone(root: Path, written: Callable[..., str]) -> None:
    """SIGKILL to the process that launches stages and to the training stage's driver, with which its ranks die."""
    path = written(steps=30)
    item = api.submit_pipeline(path, ["backend.threads_per_rank=1"])
    train = api.Run(run_of(item, "train"))
    until(lambda: listing.is_run(train.dir.path) or item.status.state.ended, what="the second stage")
    until_step(train, 3)
    jobs = [item.dir.status.job, train.dir.status.job]
    processes = [psutil.Process(int(job["id"])) for job in jobs if job]
    assert len(processes) == 2
    for process in processes:
        process.send_signal(signal.SIGKILL)
    until(lambda: all(map(ended, processes)))
    assert train.wait(240).state == State.FAILED
    assert (item.status.state, [each.state for each in item.status.stages]) == (State.FAILED, [State.COMPLETED, State.FAILED, None])
    item.resume()
    assert item.wait(240).state == State.COMPLETED, item.status
    other = undisturbed(path, ["backend.threads_per_rank=1"])
    assert (train.status.attempt, run_of(item, "answers").status.attempt) == (2, 1)
    assert (run_of(item, "answers").path / "answers.jsonl").read_bytes() == (run_of(other, "answers").path / "answers.jsonl").read_bytes()
    assert losses(train.dir) == losses(run_of(other, "train")) and len(losses(train.dir)) == 30
    ours, theirs = (run_of(each, "export").path / "export" / "model.safetensors" for each in (item, other))
    assert ours.read_bytes() == theirs.read_bytes()
    assert sorted(run.id for run in api.runs()) == sorted(stage.run for each in (item, other) for stage in each.plan.stages.values())
