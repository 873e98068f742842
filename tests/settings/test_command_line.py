"""Settings as a command line and as Python: both give back the same experiment."""

import shlex
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest

from workbench import api
from workbench.notebook.experiments import Experiment, as_spec
from workbench.settings import command_line, composing, spec
from workbench.settings.python_call import python_call

CASES = [
    (["experiment=dpo_demo"], []),
    (["experiment=dpo_demo"], ["algorithm.beta=0.3", "model.lora.targets=[qkv]", "name='it\"s $mine'", "data.limit=9"]),
    (["experiment=dpo_demo", "algorithm=sft"], ["algorithm.lr=0.0002"]),
    (["experiment=dpo_demo", "backend=slurm"], ["backend.num_nodes=2", "backend.modules=[cuda/12,nccl]"]),
    (["experiment=dpo_demo", "model=smollm2_135m"], ["model.lora.rank=8"]),
    (["experiment=ppo_demo"], ["algorithm.rewards.short.program=brevity", "seed=3"]),
    (["experiment=ppo_demo"], ["~algorithm.rewards.concise", "algorithm.rewards.short.program=brevity"]),
    (["experiment=ppo_demo"], ["~algorithm.rewards.concise", "algorithm.rewards.concise.program=brevity"]),
    (["job=generate"], ["data.train=prompts.jsonl"]),
]


@pytest.mark.parametrize(("choices", "changes"), CASES, ids=[" ".join(map(str, case)) for case in CASES])
def test_the_command_and_the_python_give_the_same_experiment(choices, changes):
    experiment = spec.compose([*choices, *changes])
    tree = experiment.model_dump(mode="json")
    program, verb, *words = shlex.split(command_line.command(choices, tree))
    assert (program, verb) == ("workbench", "run")
    assert spec.compose(words) == experiment
    launched = []
    wb = SimpleNamespace(Experiment=Experiment, launch=lambda given: launched.append(as_spec(given)))
    exec(python_call(choices, tree), {"wb": wb, "api": api})
    assert launched == [experiment]


@pytest.mark.parametrize("name", composing.choices("experiment"))
def test_an_experiment_alone_is_short(name):
    tree = command_line.resolved([f"experiment={name}"])
    assert command_line.command([f"experiment={name}"], tree) == f"workbench run experiment={name}"
    assert python_call([f"experiment={name}"], tree) == f'wb.launch(wb.Experiment("{name}"))'


def test_words_of_a_tree_are_its_choices():
    assert command_line.words_of(command_line.resolved(["experiment=dpo_demo", "backend=slurm"])) == ["algorithm=dpo", "backend=slurm"]
    assert command_line.words_of(command_line.resolved(["job=generate"])) == ["job=generate", "backend=local"]


def test_threads_compose_at_the_same_time():
    """Hydra keeps its state in the process: without a lock one of them finds another's."""
    seeds = range(16)
    with ThreadPoolExecutor(8) as pool:
        trees = list(pool.map(lambda seed: composing.compose_tree(["experiment=dpo_demo", f"seed={seed}"]), seeds))
    assert [tree["seed"] for tree in trees] == list(seeds)
