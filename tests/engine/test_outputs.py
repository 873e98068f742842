"""What is wanted of a model: what is asked is there, what is not raises, and it is the same in any layout."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from tests import gang, models
from tests.engine.policies import FULL, pairs
from workbench import metrics as M
from workbench.algorithms import reward_model, sft
from workbench.data.packing import Row
from workbench.engine import columns, parallel
from workbench.engine.batch import Batch, Given, TopK
from workbench.engine.step import Policy
from workbench.models.roles import critic
from workbench.settings import AlgorithmConfig, Lora, Model
from workbench.settings.layout import Layout
from workbench.settings.modules import algorithm_names, find_algorithm, outputs_of
from workbench.settings.online import Critic
from workbench.settings.outputs import Outputs

ALL = Outputs(logprobs=True, entropy=True, top_k=5, at="named")


def test_every_algorithm_says_what_it_wants() -> None:
    values: dict[str, Any] = {"rewards": {"short": {"program": "brevity"}}}
    for name in algorithm_names():
        config = find_algorithm(name).Config
        cfg = config(**(values if "rewards" in config.model_fields else {}))
        assert isinstance(outputs_of(cfg), Outputs), name
    assert outputs_of(find_algorithm("ppo").Config(**values, entropy_bonus=0.1)) == Outputs(logprobs=True, entropy=True)
    assert outputs_of(reward_model.Config(objective="regression")).scores == len(M.STEERLM)


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({}, "ask for nothing"),
        ({"scores": 1, "logprobs": True}, "in place of"),
        ({"logprobs": True, "per": "token"}, "there are none"),
        ({"top_k": -1}, "counts"),
    ],
)
def test_what_no_model_gives_is_refused(asked: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Outputs(**asked)


def test_what_was_not_asked_for_raises() -> None:
    batch = Batch(Given(torch.zeros(2)), None, torch.tensor([0, 1]), 2, [Row([1], ((2,), (3,)))])
    assert batch.logprobs_N.tolist() == [0, 0]
    for name in ("entropy_N", "scores_SK", "top_k", "at"):
        with pytest.raises(ValueError, match="OUTPUTS"):
            getattr(batch, name)
    with pytest.raises(ValueError, match="ROLES"):
        _ = batch.reference_logprobs_N


@pytest.mark.parametrize("wanted", [ALL, Outputs(logprobs=True), Outputs(entropy=True), Outputs(top_k=5), Outputs(logprobs=True, at="named")])
def test_joined_and_parted_again(wanted: Outputs) -> None:
    """The columns hold each part where it was, and the gradient of each goes back to it."""
    torch.manual_seed(0)

    def tokens(k: int) -> TopK[torch.Tensor]:
        return TopK(torch.randint(2**24 - 9, 2**24, (3, k)), torch.randn(3, k, requires_grad=True), torch.randn(3, requires_grad=True))

    given = Given(
        torch.randn(3, requires_grad=True) if wanted.logprobs else None,
        torch.randn(3, requires_grad=True) if wanted.entropy else None,
        tokens(5) if wanted.top_k else None,
        tokens(2) if wanted.at else None,
    )
    found = columns.parted(columns.joined(given), wanted)
    for name, before in vars(given).items():
        after = getattr(found, name)
        pairs = (
            [(before, after)]
            if isinstance(before, torch.Tensor)
            else []
            if before is None
            else zip(vars(before).values(), vars(after).values(), strict=True)
        )
        assert (before is None) == (after is None), name
        for was, now in pairs:
            assert torch.equal(was, now)
            if was.requires_grad:
                assert torch.equal(torch.autograd.grad(now.sum(), was, retain_graph=True)[0], torch.ones_like(was))


def learn(batch: Batch, cfg: AlgorithmConfig) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """A loss of everything there is."""
    top, at = batch.top_k, batch.at
    rest_N = -at.rest_N.exp() * at.rest_N - top.rest_N.exp()
    loss_N = -batch.logprobs_N - 0.1 * batch.entropy_N - (top.logprobs_NK.exp() * top.logprobs_NK).sum(1) - 0.3 * at.logprobs_NK.sum(1) + rest_N
    return loss_N, {"loss": loss_N}


def rows() -> list[Row]:
    rng = np.random.default_rng(3)
    return [dataclasses.replace(row, arrays={"named": rng.integers(0, 371, (sum(map(len, row.branches)), 3))}) for row in pairs(4)]


def measure(folder: Path) -> None:
    """Three updates and then all outputs, left by one rank, compared with by the others."""
    sizes = {"tensor_parallel": parallel.tensor_size(), "pipeline_parallel": parallel.pipeline_size(), "context_parallel": parallel.context_size()}
    model = Model(lora=Lora(rank=0), **sizes, sequence_parallel=parallel.tensor_size() > 1)
    cfg = AlgorithmConfig(name="all", lr=1e-3, warmup_steps=0, adam_eps=1e-4, micro_batch_tokens=100)
    policy = Policy(model, cfg, folder / "model", 10, ALL)
    kept: dict[int, Given[np.ndarray]] = {}
    losses = [policy.update(rows(), learn, step, 0)["loss"] for step in range(3)] + [policy.evaluate(rows(), learn, kept)["loss"]]
    found = policy.outputs(rows())
    for i, given in kept.items():
        assert np.array_equal(given.of("top_k").tokens_NK, found[i].of("top_k").tokens_NK)
    flat: dict[str, Any] = {"losses": losses}
    for i, given in enumerate(found):
        flat |= {f"{i} {name}": given.of(name) for name in ("logprobs_N", "entropy_N")}
        flat |= {f"{i} {name} {key}": value for name in ("top_k", "at") for key, value in vars(given.of(name)).items()}
    if not (folder / "one.npz").exists():
        np.savez(folder / "one.npz", **flat)
    for name, expected in np.load(folder / "one.npz").items():
        np.testing.assert_allclose(flat[name], expected, atol=1e-4, rtol=1e-5, err_msg=name)


@pytest.mark.parametrize("layout", [Layout(tensor=2), Layout(pipeline=3), Layout(context=2)], ids=str)
@pytest.mark.usefixtures("alone")
def test_the_same_in_any_layout(tmp_path: Path, layout: Layout) -> None:
    """371 tokens: the two ranks have 186 rows each, one of them for no token."""
    models.save(tmp_path / "model", vocab_size=371)
    measure(tmp_path)
    gang.run(measure, tmp_path, layout)


@pytest.mark.usefixtures("alone")
def test_top_k_of_a_policy_equals_transformers(tiny_model: Path) -> None:
    tokens = list(range(5, 45))
    policy = Policy(FULL, sft.Config(), tiny_model, 1, Outputs(top_k=7))
    given = policy.outputs([Row(tokens, learn=[True] * 40)])[0]
    assert given.logprobs_N is None
    with torch.no_grad():
        whole = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)(torch.tensor([tokens])).logits[0, :-1].log_softmax(-1)
    highest = whole.topk(7)
    found = given.of("top_k")
    assert np.array_equal(found.tokens_NK, highest.indices.numpy())
    np.testing.assert_allclose(found.logprobs_NK, highest.values.numpy(), atol=1e-4)
    np.testing.assert_allclose(np.exp(found.rest_N), 1 - highest.values.exp().sum(1).numpy(), atol=1e-5)


@pytest.mark.usefixtures("alone")
def test_what_this_model_cannot_give_is_refused(tiny_model: Path) -> None:
    with pytest.raises(ValueError, match="top_k=1000000"):
        Policy(FULL, sft.Config(), tiny_model, 1, Outputs(top_k=1_000_000))
    values = Policy(FULL, Critic(), tiny_model, 1, critic.OUTPUTS)
    with pytest.raises(ValueError, match="asked for 0 scores"):
        values.outputs(pairs(1), Outputs(logprobs=True))
    with pytest.raises(ValueError, match="rows' array 'named'"):
        Policy(FULL, sft.Config(), tiny_model, 1, Outputs(at="named")).outputs(pairs(1))
