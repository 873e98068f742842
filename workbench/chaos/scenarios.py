"""What goes wrong on a cluster, done to real runs of a tiny model on a real SLURM: one list for the tests and for `workbench chaos`.

Each run must end with the losses of an undisturbed one, or in a state whose message names the cause.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import psutil

from workbench import api
from workbench import metrics as M
from workbench.chaos.lab import MAIN, URGENT, Lab
from workbench.rundir.files import ByteCursor
from workbench.rundir.store import State

STEPS = 40
AT_STEP = 8
PATIENCE_S = 420.0
LIMIT = 1e-4
CURVES = {"dpo": (M.LOSS, M.GRAD_NORM), "ppo": (M.CRITIC_LOSS, M.REWARDS, M.KL_PER_ANSWER, M.GRAD_NORM)}
"""The curves that must be the same. PPO's own loss is zero but for rounding: advantages are whitened, and at a step's one update the ratio is 1."""
REWARD = "def short(prompt, response, row): return -len(response) / 50\n"


@dataclass
class Scene:
    """A cluster, and a run on it that has made `AT_STEP` steps."""

    lab: Lab
    stage: Stage
    run: api.Run

    def kill(self, *arguments: str, **env: str) -> None:
        """kill -9 of the run's processes with these words in their command line and these values in their environment. At least one is."""
        for process in self._processes(*arguments, **env):
            process.kill()

    def node_of(self, rank: int) -> str:
        """The name of the node on which this rank of the policy works."""
        return self._processes("workbench.processes.worker", RANK=str(rank))[0].environ()["SLURMD_NODENAME"]

    def _processes(self, *arguments: str, **env: str) -> list[psutil.Process]:
        matches = []
        for process in psutil.process_iter(["cmdline"]):
            with suppress(psutil.Error):
                if {*arguments} <= {*(process.info["cmdline"] or ())} and str(self.run.dir.path) in process.environ().get("WORKBENCH_DASK", ""):
                    matches += [process] if all(process.environ().get(name) == value for name, value in env.items()) else []
        assert matches, f"no process of {self.run.id} has {arguments} in its command line and {env}"
        return matches

    @property
    def job(self) -> str:
        job = self.run.status.job
        assert job is not None
        return job["id"]

    def until(self, ready: Callable[[], object], what: str) -> None:
        wait_until(ready, f"{self.run.id}: {what}; {self.run.status}")


@dataclass(frozen=True)
class Scenario:
    """`disturb` is done to the run at step AT_STEP; it returns when the run was hit, where that is not at once.

    The run ends in `ends`, with `says` in its message; after `repair` a resume completes it.
    """

    name: str
    what: str
    disturb: Callable[[Scene], float | None]
    settings: Sequence[str] = ()
    ends: State = State.COMPLETED
    says: str = ""
    repair: Callable[[Scene], None] | None = None
    algorithm: str = "dpo"
    small_disk: bool = False
    hits: bool = True
    in_ci: bool = False


@dataclass(frozen=True)
class Outcome:
    """`recovery_s` is from the disturbance to the first step after it, or to the state that names the cause; None where the run itself is not hit.

    `difference` is the largest of the curves, relative.
    """

    scenario: Scenario
    state: State
    message: str
    attempts: int
    recovery_s: float | None
    difference: float

    @property
    def good(self) -> bool:
        return self.state == self.scenario.ends and self.scenario.says in self.message and self.difference <= LIMIT


@dataclass
class Stage:
    """Where the runs of all scenarios are: a folder with the tiny model and the data. Undisturbed runs are made once an algorithm."""

    folder: Path
    lab: Lab
    _undisturbed: dict[str, list[list[float]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        from workbench.chaos import tiny

        self.folder.mkdir(parents=True, exist_ok=True)
        tiny.save(self.folder / "model", tie_word_embeddings=True)
        rows = [{"prompt": f"What is {i} and {i}?", "chosen": f"It is {2 * i}.", "rejected": f"{i} {i} {i}, I do not know that."} for i in range(40)]
        (self.folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        (self.folder / "mine.py").write_text(REWARD)

    @property
    def cache(self) -> Path:
        return self.folder / "cache"

    def submit(self, algorithm: str, *settings: str, small_disk: bool = False) -> api.Run:
        overrides = [
            *("backend=slurm", f"backend.partition={MAIN}", "backend.time_limit='30'", "backend.exclusive=true", "backend.nodes_timeout_s=60"),
            *(f"model.source={self.folder / 'model'}", f"data.train={self.folder / 'rows.jsonl'}", f"algorithm={algorithm}", *ALGORITHMS[algorithm]),
            *(
                "algorithm.global_batch_size=8",
                f"algorithm.max_steps={STEPS}",
                "algorithm.epochs=1000",
                "algorithm.lr=1e-3",
                "validation.every_steps=0",
            ),
            *(
                "validation.samples=0",
                "checkpoint.every_steps=5",
                "checkpoint.asynchronous=false",
                "backend.threads_per_rank=1",
                "model.precision=fp32",
            ),
        ]
        overrides = [word.replace("MINE", str(self.folder / "mine.py")) for word in overrides]
        root = self.lab.small / "runs" if small_disk else self.folder / "runs"
        with _environment(WORKBENCH_RUNS=str(root), WORKBENCH_CACHE=str(self.cache)):
            return api.submit(api.compose([*overrides, *settings]))

    def undisturbed(self, algorithm: str) -> list[list[float]]:
        """The curves of a run that is left alone."""
        if algorithm not in self._undisturbed:
            run = self.submit(algorithm)
            status = run.wait(PATIENCE_S)
            assert status.state == State.COMPLETED, status
            self._undisturbed[algorithm] = curves(run, algorithm)
        return self._undisturbed[algorithm]

    def difference(self, run: api.Run, algorithm: str) -> float:
        """The largest relative difference from the curves of an undisturbed run; infinite where a step is missing."""
        ours, theirs = curves(run, algorithm), self.undisturbed(algorithm)
        if len(ours) != len(theirs):
            return float("inf")
        return max(abs(a - b) / max(abs(b), 1e-3) for one, other in zip(ours, theirs, strict=True) for a, b in zip(one, other, strict=True))

    def play(self, scenario: Scenario) -> Outcome:
        """Start a run, disturb it, and see how it ends."""
        self.undisturbed(scenario.algorithm)
        run = self.submit(scenario.algorithm, *scenario.settings, small_disk=scenario.small_disk)
        scene = Scene(self.lab, self, run)
        try:
            scene.until(lambda: run.status.state.ended or step_times(run, AT_STEP), "no step came")
            began = time.time()
            hit = scenario.disturb(scene) or began
            status = run.wait(PATIENCE_S)
            back = None if not scenario.hits else status.updated if scenario.ends != State.COMPLETED else _back(run, hit)
            if scenario.repair:
                scenario.repair(scene)
                with _environment(WORKBENCH_CACHE=str(self.cache)):
                    run.resume()
                assert run.wait(PATIENCE_S).state == State.COMPLETED, run.status
            difference = self.difference(run, scenario.algorithm) if run.status.state == State.COMPLETED else 0.0
            return Outcome(scenario, status.state, status.message, run.status.attempt, back and back - hit, difference)
        finally:
            if not run.status.state.ended:
                run.kill()
            wait_until(lambda: not self.lab.run("squeue", "-h"), "the queue does not empty")


def curves(run: api.Run, algorithm: str) -> list[list[float]]:
    """By step, the numbers of its CURVES; of a step that was made again, the later ones."""
    by_step = {event["step"]: [event["metrics"][name] for name in CURVES[algorithm]] for event in run.events() if event["kind"] == "step"}
    return [by_step[step] for step in sorted(by_step)]


def step_times(run: api.Run, from_step: int) -> list[float]:
    return [event["time"] for event in run.events() if event["kind"] == "step" and event["step"] >= from_step]


def _back(run: api.Run, hit: float) -> float | None:
    """When the first step came of ranks that started after a moment. Where none did, when the step came that was longest waited for."""
    started = next((event["time"] for event in run.events() if event["kind"] == "state" and event["time"] > hit), hit)
    times = [started, *(at for at in step_times(run, 1) if at > started)]
    waits = [(after - before, after) for before, after in pairwise(times)]
    return None if not waits else times[1] if started > hit else max(waits)[1]


def wait_until(ready: Callable[[], object], what: str, timeout_s: float = PATIENCE_S) -> None:
    deadline = time.monotonic() + timeout_s
    while not ready():
        if time.monotonic() > deadline:
            raise TimeoutError(what)
        time.sleep(0.1)


@contextmanager
def _environment(**values: str) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name)
            os.environ.update({name: value} if value is not None else {})


def _compete(scene: Scene) -> None:
    """Another run that wants three of the four nodes waits for this one, and a third for that."""
    others = [scene.stage.submit("dpo", "backend.num_nodes=3", "backend.ranks_per_node=1", "algorithm.global_batch_size=12") for _ in range(2)]
    for other in others:
        assert other.wait(PATIENCE_S).state == State.COMPLETED, other.status


def _preempt(scene: Scene) -> float:
    wanted = time.time()
    urgent = scene.lab.run("sbatch", "--parsable", "-p", URGENT, "-N4", "--exclusive", "-o/dev/null", "-t5", "--wrap=sleep 5")
    scene.until(lambda: urgent not in scene.lab.run("squeue", "-h", "-t", "pending", "-o", "%i").split(), "the urgent job does not start")
    return wanted


def _outlast(scene: Scene) -> float:
    """Held at its step until the time limit's warning, as a long run would be under way."""
    scene.run.pause()
    scene.until(lambda: scene.run.status.attempt == 2, "no second attempt came")
    scene.run.unpause()
    return next(request["time"] for request in scene.run.dir.requests(ByteCursor()) if request["request"] == "stop")


def _lose_first(scene: Scene) -> None:
    """The driver lives on the first of the job's nodes."""
    _lose(scene, scene.lab.run("scontrol", "show", "hostnames", scene.lab.run("squeue", "-h", "-j", scene.job, "-o", "%N")).split()[0])


def _lose_last(scene: Scene) -> None:
    """Which node the last rank has is not sure where there is a spare one: those that come first work."""
    _lose(scene, scene.node_of(3))


def _lose(scene: Scene, node: str) -> None:
    scene.lab.fail_node(node)
    scene.lab.notice_failed_node(node)


def _fill(scene: Scene) -> None:
    with suppress(OSError), (scene.lab.small / "fill").open("wb", buffering=0) as file:
        while file.write(bytes(1 << 16)):
            pass


ALGORITHMS = {
    "dpo": ("backend.num_nodes=2", "backend.ranks_per_node=2"),
    "ppo": (
        *("backend.num_nodes=1", "backend.ranks_per_node=2", "algorithm.served=[critic,reward]", "backend.critic.nodes=1", "backend.reward.nodes=1"),
        *("algorithm.rollout_batch_size=8", "algorithm.max_tokens=8", "algorithm.critic.global_batch_size=8", "algorithm.critic.lr=1e-3"),
        "algorithm.rewards={short: {program: 'MINE:short'}}",
    ),
}

SCENARIOS = (
    Scenario("rank", "kill -9 of a rank", lambda s: s.kill("workbench.processes.worker", RANK="3"), in_ci=True),
    Scenario("worker", "kill -9 of a node's dask worker", lambda s: s.kill("distributed.cli.dask_worker", SLURM_PROCID="1")),
    Scenario("driver", "kill -9 of the driver", lambda s: s.kill("workbench.processes.driver")),
    Scenario(
        "critic",
        "PPO: kill -9 of the critic server, on a node of its own",
        lambda s: s.kill("workbench.processes.server", "critic"),
        algorithm="ppo",
        in_ci=True,
    ),
    Scenario(
        "reward", "PPO: kill -9 of the reward server, on a node of its own", lambda s: s.kill("workbench.processes.server", "reward"), algorithm="ppo"
    ),
    Scenario("two gangs", "two more gangs want the same nodes", _compete, hits=False),
    Scenario(
        *("scancel", "scancel, then resume", lambda s: s.lab.run("scancel", s.job) and None),
        ends=State.KILLED,
        says="was cancelled (scancel)",
        repair=lambda _: None,
    ),
    Scenario("preempted", "a job of a higher partition takes all nodes", _preempt),
    Scenario("time limit", "the time limit comes before the end", _outlast, ("backend.time_limit='1'", "backend.warn_s=40")),
    Scenario("node, spare", "a node loses power; a spare one takes over", _lose_last, ("backend.spare_nodes=1",)),
    Scenario("node", "a node loses power; there is no spare one", _lose_last),
    Scenario("first node", "the driver's node loses power", _lose_first),
    Scenario("first node, spare", "the driver's node loses power; the job has a spare one", _lose_first, ("backend.spare_nodes=1",)),
    Scenario(
        *("full disk", "the run's disk is full; then resume", _fill),
        ends=State.FAILED,
        says="is full",
        repair=lambda s: (s.lab.small / "fill").unlink(),
        small_disk=True,
    ),
)
