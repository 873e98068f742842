"""What one thing costs to add: each is added to a copy of the project as the files that it takes, and used.

(The smallest of each, a rollout engine and a job kind among them: tests/test_docs.py; a page: tests/app; a metric: tests/test_metrics.py.)

| thing | files besides its test and YAML |
|---|---|
| algorithm that wants the likeliest tokens | 1 |
| reward kind | 1 |
| served role, with the algorithm that asks it | 2 |
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import models
from tests.extend import extended, warm, workbench
from workbench.rundir.store import RunDir

ALGORITHM = '''"""REINFORCE towards what a second opinion finds likely, with the mass of the likeliest tokens as a metric."""

from typing import Literal

from pydantic import Field

from workbench.algorithms import _online as online, reinforce
from workbench.settings.online import OnlineConfig, Processes, Teacher
from workbench.settings.outputs import Outputs

ROWS = "prompt"
ROLES = {"reward": "frozen", "reference": "frozen", "opinion": "frozen", "teacher": "frozen"}
OUTPUTS = Outputs(logprobs=True, top_k=3)


class Config(OnlineConfig):
    name: Literal["agree"] = "agree"
    samples_per_prompt: int = 4
    opinion_server: Processes = Field(Processes(), description="The second opinion's processes.")
    teacher: Teacher


def loss(batch, cfg):
    loss_N, metrics = online.loss(batch, cfg)
    learnt_N = batch.arrays["learn"] > 0
    disagreement_N = batch.arrays["opinion"][learnt_N] - batch.arrays["reference_logprobs"][learnt_N]
    taught_N = batch.arrays["teacher_logprobs"][learnt_N] - batch.arrays["reference_logprobs"][learnt_N]
    mass_N = batch.arrays["teacher_top_logprobs"].exp().sum(1) + batch.arrays["teacher_rest"].exp()
    metrics |= {"taught": taught_N.abs(), "mass": mass_N, "tokens": batch.arrays["teacher_tokens"]}
    return loss_N, {**metrics, "likeliest": batch.top_k.logprobs_NK.exp().sum(1), "disagreement": disagreement_N.abs()}


def train(cfg, rt):
    for rows in rt.batches():
        experiences = online.sampled(rt, rows)
        rt.online.ask("opinion", experiences)
        rt.online.ask("teacher", experiences)
        reinforce.advantages(experiences, rt.settings)
        rt.online.keep(experiences)
        yield {**rt.online.learn(experiences, loss), **online.metrics(experiences)}
'''
ROLE = '''"""A second opinion: the log-probabilities of the base model, asked apart from the reference."""

import numpy as np

from workbench.models import messages
from workbench.models.asking import ByToken
from workbench.models.endpoint import TOKENS, Field
from workbench.models.frozen import frozen, laid_out
from workbench.models.protocol import Answers
from workbench.rollout.experience import fill, group_into_rows
from workbench.settings.outputs import Outputs
from workbench.settings.placement import Place

OUTPUTS = Outputs(logprobs=True)


def placement(algorithm, model):
    processes = algorithm.opinion_server
    return Place(processes.processes, processes.layout, (model.source,), "algorithm.opinion_server.processes")


class Opinion:
    transport = None
    constant = True

    def __init__(self, around):
        model = laid_out(around.spec.model, around.layout)
        self.policy = frozen(model, around.directory, around.spec.algorithm.micro_batch_tokens, OUTPUTS)

    def begin(self, experiences): ...

    def fill(self, experiences):
        fill(experiences, [given.of("logprobs_N") for given in self.policy.outputs(group_into_rows(experiences, {}))], "opinion")

    def endpoints(self):
        return {"second_opinion": Answers(TOKENS, (Field("opinion", np.float32, 2),), self.answer)}

    def models(self):
        return [self.policy]

    def answer(self, arrays):
        found = [given.of("logprobs_N") for given in self.policy.outputs(messages.rows(arrays))]
        return {"opinion": messages.by_token(arrays, found)}


local = serve = Opinion


def remote(around, transport):
    return ByToken(transport, "second_opinion", "opinion", "opinion")
'''
KIND = '''"""How many letters of the setting stand in the answer."""

from workbench.rewards.base import Scores

EACH = True
Config = str


def problems(config, samples_per_prompt):
    return [] if config.isalpha() else [("", f"letters only, got {config!r}")]


def with_absolute_paths(config, absolute):
    return config


def needs(config):
    return ()


def scorer(name, config, given):
    return lambda answers: Scores([float(sum(answer.response.count(letter) for letter in config)) for answer in answers])
'''
FILES = {
    "workbench/algorithms/agree.py": ALGORITHM,
    "conf/algorithm/agree.yaml": "name: agree\n",
    "workbench/models/roles/opinion.py": ROLE,
    "workbench/rewards/kinds/letters.py": KIND,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    made = extended(tmp_path_factory.mktemp("costs"), FILES)
    models.save(made / "model", tie_word_embeddings=True)
    (made / "rows.jsonl").write_text("".join(json.dumps({"prompt": f"What is {i} and {i}?"}) + "\n" for i in range(12)))
    with warm(made):
        yield made


def run(folder: Path, *words: str) -> RunDir:
    teacher = [TEACHER] if "algorithm=agree" in words else []
    shared = (*teacher, f"model.source={folder / 'model'}", f"data.train={folder / 'rows.jsonl'}", "backend.threads_per_rank=1")
    done = workbench(folder, "run", "--json", *shared, *words)
    assert done.returncode == 0, done.stdout + done.stderr
    return RunDir(Path(json.loads(done.stdout.splitlines()[0])["path"]))


def steps(run: RunDir) -> list[dict[str, Any]]:
    return [event["metrics"] for event in run.events() if event["kind"] == "step"]


TEACHER = "algorithm.teacher={source: model, top_k: 3}"
ONLINE = (
    "algorithm=agree",
    "algorithm.rewards={es: {letters: es}}",
    "algorithm.global_batch_size=8",
    "algorithm.rollout_batch_size=8",
    "algorithm.max_tokens=8",
    "algorithm.max_steps=2",
    "algorithm.lr=1e-3",
    "data.validation_fraction=0",
)


def test_a_role_an_algorithm_and_a_kind_of_reward_here_and_served(folder: Path) -> None:
    here, served = (steps(run(folder, *ONLINE, f"algorithm.served={where}")) for where in ("[]", "[opinion,teacher]"))
    """The teacher here is the base model: it tells what the reference tells, and all tokens' mass is 1."""
    assert len(here) == len(served) == 2
    assert any("server_second_opinion_s" in metrics for metrics in served)
    for ours, theirs in zip(here, served, strict=True):
        assert ours["disagreement"] < 1e-5  # the second opinion is the reference's
        assert 0 < ours["likeliest"] < 1
        assert ours["taught"] < 1e-5
        assert ours["mass"] == pytest.approx(1, abs=1e-5)
        assert ours["reward/es"] >= 0
        for name in ("loss", "grad_norm", "likeliest", "rewards", "mass", "tokens"):
            assert ours[name] == pytest.approx(theirs[name], rel=1e-4, abs=1e-6), name


def test_a_wrong_setting_of_a_new_kind_is_told_before_the_launch(folder: Path) -> None:
    done = workbench(folder, "run", *ONLINE, TEACHER, "algorithm.rewards={es: {letters: 'e5'}}", f"data.train={folder / 'rows.jsonl'}")
    assert done.returncode == 2
    assert "letters only, got 'e5'" in done.stderr
    assert "there is no such key" in workbench(folder, "run", *ONLINE, TEACHER, "algorithm.rewards={es: {leters: es}}").stderr
