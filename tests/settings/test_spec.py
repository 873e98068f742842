"""The typed settings: what is refused, and how the message helps."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.settings import Model, placement
from workbench.settings import best as checkpoints
from workbench.settings.composing import SpecError, choices, compose_tree, overrides_between
from workbench.settings.modules import algorithm_names, find_algorithm
from workbench.settings.online import SamplingConfig, require
from workbench.settings.placement import servers
from workbench.settings.spec import Experiment, compose, filled, parse


def problem(*overrides: str) -> str:
    with pytest.raises(SpecError) as error:
        compose(overrides)
    return str(error.value)


def test_experiments_compose() -> None:
    for name in choices("experiment"):
        assert compose([f"experiment={name}"]).algorithm.name in algorithm_names()
    for name in algorithm_names():
        online = issubclass(find_algorithm(name).Config, SamplingConfig)
        wanted = ["algorithm.rewards={short: {program: brevity}}"] if online else []  # what to reward nobody can guess
        assert compose([f"algorithm={name}", *wanted]).algorithm.name == name


def test_a_reward_is_of_one_kind() -> None:
    assert problem("algorithm=ppo").startswith("algorithm.rewards: needs at least one component, such as {")
    for words, got in (("{}", "none"), ("{program: math, model: there}", "model and program")):
        said = problem("algorithm=ppo", f"algorithm.rewards={{it: {words}}}")
        assert f"a reward is of exactly one kind: set one of judge, model, program; got {got}" in said
    assert "names a part twice" in problem("experiment=ppo_demo", "algorithm.served=[critic,critic_reward]")
    assert "no multiple of samples_per_prompt=3" in problem("experiment=ppo_demo", "algorithm.samples_per_prompt=3")


def test_a_problem_says_how_to_write_it_and_is_short() -> None:
    assert problem("experiment=dpo_demo", "name=ü") == "name: 'ü' is not a valid value; a text goes in quotes: 'name=\"…\"'"
    assert len(problem("experiment=dpo_demo", f"name={'x' * 5000}")) < 200
    assert "did you mean 'program'?" in problem("experiment=ppo_demo", "algorithm.rewards.concise.progam=math")
    assert "did you mean 'mode'?" in problem("algorithm=grpo", "algorithm.rewards={it: {judge: {model: there, mod: scored}}}")


@pytest.mark.parametrize("words", [("experiment=dpo_demo",), ("experiment=ppo_demo", "backend=slurm"), ("algorithm=sft",)])
def test_filled_has_what_a_parse_would_add(words: tuple[str, ...]) -> None:
    tree = compose_tree(words)
    assert filled(tree) == parse(tree).model_dump(mode="json")


def test_a_reward_is_written_as_it_is_given() -> None:
    """Without the kinds that it is not of, so that a file of one run needs no kind but its own; those of older runs name them as null."""
    older = {"program": "math", "model": None, "weight": 1.0}
    algorithm = {"name": "grpo", "samples_per_prompt": 2, "rewards": {"it": older, "nice": {"judge": {"model": "there"}, "weight": 0.5}}}
    tree = {"algorithm": algorithm, "data": {"train": "x"}, "backend": {"name": "local"}}
    written = parse(tree).model_dump(mode="json")["algorithm"]["rewards"]
    assert written["it"] == {"weight": 1.0, "program": "math"}
    assert list(written["nice"]) == ["judge", "weight"]
    assert written["nice"]["judge"]["mode"] == "pairwise"
    assert filled(tree) == parse(tree).model_dump(mode="json")
    assert Experiment.from_yaml(parse(tree).to_yaml()) == parse(tree)


def test_a_servers_processes_must_fit_its_layout() -> None:
    """SmolLM2-135M has 9 heads in 3 groups."""
    said = problem("experiment=ppo_demo", "algorithm.critic.model={tensor_parallel: 3}")
    assert "the critic server: tensor_parallel=3 on 1 rank: a copy of the model takes tensor x pipeline x context = 3 ranks" in said
    assert "1 is no multiple of it (algorithm.critic.processes)" in said
    said = problem("experiment=ppo_demo", "algorithm.critic={processes: 2, model: {tensor_parallel: 2}}")
    assert "tensor_parallel=2 does not divide the model's 9 attention heads" in said
    assert "the critic server: tensor_parallel=3 on 1 rank" in problem("experiment=ppo_demo", "model.tensor_parallel=3", "backend.ranks_per_node=3")
    place = ("algorithm.served=[reference]", "algorithm.reference_server={processes: 4, tensor_parallel: 3}")
    assert "4 is no multiple of it (algorithm.reference_server.processes)" in problem("experiment=ppo_demo", *place)
    said = problem("experiment=ppo_demo", "algorithm.served=[reward]", "algorithm.critic={model: {tensor_parallel: 3}}")
    assert "algorithm.critic.model has tensor_parallel=3, the policy no model parallelism" in said
    fits = compose(["experiment=ppo_demo", "algorithm.critic={processes: 6, model: {tensor_parallel: 3}}"])
    assert [(server.name, server.processes, server.layout.ranks) for server in servers(fits.algorithm, fits.model)] == [
        ("critic", 6, 3),
        ("reward", 1, 1),
    ]


def test_unknown_names_and_their_nearest() -> None:
    assert problem("algorithm.bta=0.3").startswith("algorithm.bta: there is no such key; did you mean 'beta'?")
    assert "did you mean 'rank'?" in problem("model.lora.rnk=3")
    assert "did you mean 'checkpoint'?" in problem("chekpoint.every_steps=3")
    assert "did you mean 'sft'?" in problem("algorithm=sftt")
    assert "expected key=value" in problem("nonsense")


def test_another_choice_leaves_the_experiments_settings_of_that_group_behind() -> None:
    sft = compose_tree(["experiment=dpo_demo", "algorithm=sft", "algorithm.lr=0.5"])
    assert sft["algorithm"] == {"name": "sft", "lr": 0.5}
    assert sft["data"] == compose_tree(["experiment=dpo_demo"])["data"]
    assert compose_tree(["experiment=dpo_demo", "algorithm=dpo"]) == compose_tree(["experiment=dpo_demo"])


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**31), 2**31)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.sampled_from("ab ${}[]'\"\\,=:1e.\n") | st.characters(codec="utf-8")),
    st.lists,
    max_leaves=4,
)


@given(st.lists(VALUES, min_size=4, max_size=12))
@settings(max_examples=25, deadline=None)
def test_every_value_survives_the_command_line(values: list[object]) -> None:
    """Quotes, backslashes, braces, newlines, words that look like numbers: what Hydra reads is what was written. Several at once, as composing takes time."""
    tree = {f"value{i}": value for i, value in enumerate(values)}
    read = compose_tree(overrides_between({}, tree))
    assert {name: read[name] for name in tree} == tree


def test_bounds_and_types() -> None:
    assert problem("algorithm.lr=2").startswith("algorithm.lr: input should be less than or equal to 1 (got 2)")
    assert "got 'many'" in problem("algorithm.epochs=many")
    assert len(problem("algorithm.lr=2", "seed=-1").splitlines()) == 2


def test_batch_must_fit_the_ranks() -> None:
    assert "not divisible by the 3 data-parallel ranks; nearest: 30" in problem("backend.ranks_per_node=3", "algorithm.global_batch_size=32")


def test_yaml_round_trip() -> None:
    experiment = compose(["experiment=dpo_demo", "name=again"])
    assert Experiment.from_yaml(experiment.to_yaml()) == experiment


@given(st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"]), min_size=1, max_size=30), st.floats(1e-9, 1), st.sampled_from([None, 7]))
@settings(max_examples=40, deadline=None)
def test_overrides_give_the_same_tree(name: str, lr: float, steps: int | None) -> None:
    """The command line that a form shows composes to what the form holds."""
    start = compose(["experiment=dpo_demo"]).model_dump(mode="json")
    end = {**start, "name": name, "algorithm": {**start["algorithm"], "lr": lr, "max_steps": steps}}
    words = overrides_between(start, end)
    assert parse(compose_tree(["experiment=dpo_demo", *words])).model_dump(mode="json") == parse(end).model_dump(mode="json")


@pytest.mark.parametrize(
    ("words", "has_gpus", "served"),
    [
        (["algorithm=ppo"], False, ("critic", "reward")),
        (["algorithm=ppo"], True, ()),
        (["algorithm=ppo", "backend=slurm"], False, ()),
        (["algorithm=grpo"], False, ()),
        (["algorithm=ppo", "algorithm.served=[auto,critic]"], False, ("critic",)),
    ],
)
def test_what_is_served_where_it_is_left_open(words: list[str], has_gpus: bool, served: tuple[str, ...]) -> None:
    experiment = compose([*words, "data.train=x", "algorithm.rewards={a: {program: brevity}}"]).settled(has_gpus)
    assert require(experiment.algorithm, SamplingConfig).served == served
    assert [server.name for server in servers(experiment.algorithm, experiment.model)] == list(served)


def test_a_role_that_advances_is_not_served() -> None:
    algorithm = compose(["experiment=ppo_demo", "algorithm.served=[reference]"]).algorithm
    with pytest.raises(ValueError, match="it advances with the policy"):
        placement.check_served(algorithm, Model(), {"reward": "frozen", "reference": "advancing"})


def test_the_best_checkpoints_can_be_told() -> None:
    """By a metric that there is, at steps that have both a validation and a checkpoint; where they do not, nothing is asked."""
    best = "checkpoint.keep_best=1"
    assert "no such metric; did you mean 'accuracy'?" in problem(best, "checkpoint.best_metric=acuracy")
    assert "only the last step would have both; set validation.every_steps above 0" in problem(best, "validation.every_steps=0")
    assert "every 7 steps and checkpoints every 20 meet at step 140, and the run has 100" in problem(
        best, "validation.every_steps=7", "algorithm.max_steps=100"
    )
    compose([best, "validation.every_steps=7", "algorithm.max_steps=140"])
    compose(["checkpoint.best_metric=acuracy", "validation.every_steps=0"])
    with pytest.raises(ValueError, match="there are none: set data.validation"):
        checkpoints.check_steps(compose([best]), 100, held_out=0)
    with pytest.raises(ValueError, match="is not measured on held-out rows; did you mean 'loss'.*these are: accuracy, loss"):
        checkpoints.check_measured(compose([best, "checkpoint.best_metric=sft_loss"]), {"loss": 1.0, "accuracy": 0.5})


def test_what_is_best_follows_the_algorithm() -> None:
    def settled(*overrides: str) -> tuple[str, str]:
        found = checkpoints.settled(compose(overrides))
        return found.best_metric, found.best_mode

    rewards = "algorithm.rewards={short: {program: brevity}}"
    assert settled("algorithm=dpo") == ("loss", "min")
    assert settled("algorithm=dpo", "checkpoint.best_metric=accuracy") == ("accuracy", "max")
    assert settled("algorithm=grpo", rewards) == ("rewards", "max")
    assert settled("algorithm=grpo", rewards, "checkpoint.best_metric=kl_per_answer", "checkpoint.best_mode=max") == ("kl_per_answer", "max")


def test_sampling_that_cannot_be_learnt_from_is_refused() -> None:
    rewards = ("algorithm=grpo", "algorithm.rewards={short: {program: brevity}}")
    assert "greater than 0" in problem(*rewards, "algorithm.temperature=0")
    assert "above 1, such as 3" in problem(*rewards, "algorithm.dual_clip=0.5")
    served = ("algorithm.served=[reference]", "algorithm.top_p=0.9")
    assert "a server does not know which tokens were kept" in problem(*rewards, *served)
    compose([*rewards, *served, "algorithm.logprobs_of=policy"])
