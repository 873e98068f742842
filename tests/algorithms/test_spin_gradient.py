"""SPIN's loss and gradient against the paper's own formula (arXiv 2401.01335, eq. 4.7): in numpy, and by transformers and autograd in double precision."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from tests import models
from workbench.algorithms import Answer, spin
from workbench.data.packing import Row
from workbench.engine.batch import Batch, Given
from workbench.engine.gather import gathered
from workbench.engine.step import Policy
from workbench.processes.reference_cache import measured_by_reference
from workbench.settings import Lora, Model

pytestmark = pytest.mark.usefixtures("alone")
LR, EPS, BETA = 0.5, 0.9, 0.3


def test_the_loss_is_the_papers_on_random_pairs() -> None:
    """l(t) = log(1 + exp(-t)) at t = beta (log p(y)/p_t(y) - log p(y')/p_t(y')), y the data's answer, y' the opponent's: each pair with a beta of its own."""
    rng = np.random.default_rng(0)
    for _ in range(200):
        lengths, betas = rng.integers(1, 7, 8), rng.uniform(0.01, 5, 4).astype(np.float32).astype(np.float64)  # a row's values are fp32
        policy, opponent = (-3 * rng.random(lengths.sum()) for _ in "ab")
        of = np.repeat(np.arange(8), lengths)
        rows = [Row([1], ((2,), (3,)), values={"beta": float(beta)}) for beta in betas]
        batch = Batch(Given(torch.from_numpy(policy)), torch.from_numpy(opponent), torch.from_numpy(of), 8, rows)
        loss_B, metrics = spin.loss(batch, spin.Config())
        ratios_S = np.array([(policy - opponent)[of == sequence].sum() for sequence in range(8)])
        t_B = betas * (ratios_S[0::2] - ratios_S[1::2])
        assert loss_B.numpy() == pytest.approx(np.log1p(np.exp(-t_B)), rel=1e-9)
        assert metrics["rewards_actual_mean"].numpy() == pytest.approx(betas * ratios_S[0::2], rel=1e-9)
        assert metrics["rewards_generated_mean"].numpy() == pytest.approx(betas * ratios_S[1::2], rel=1e-9)
        assert metrics["opponent_win_rate"].tolist() == (t_B < 0).tolist()


def of_paper(
    directory: Path, weights: Mapping[str, torch.Tensor], opponent: Mapping[str, torch.Tensor], rows: list[Row]
) -> tuple[float, torch.nn.Module]:
    """The mean of eq. 4.7 over the pairs, each answer a text of its own, and the model that has its gradient."""
    policy, frozen = (AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float64).eval() for _ in "ab")
    for model, of in ((policy, weights), (frozen, opponent)):
        model.load_state_dict({name: tensor.double() for name, tensor in of.items()})

    def logprob(model: torch.nn.Module, row: Row, answer: int) -> torch.Tensor:
        text = [*row.prefix, *row.branches[answer]]
        logprobs_TV = model(torch.tensor([text])).logits[0].log_softmax(-1)
        return torch.stack([logprobs_TV[i - 1, text[i]] for i in range(len(row.prefix), len(text))]).sum()

    losses = []
    for row in rows:
        with torch.no_grad():
            before = [logprob(frozen, row, answer) for answer in (0, 1)]
        now = [logprob(policy, row, answer) for answer in (0, 1)]
        losses.append(torch.log1p(torch.exp(-BETA * ((now[0] - before[0]) - (now[1] - before[1])))))
    loss = torch.stack(losses).mean()
    loss.backward()
    return loss.item(), policy


def test_a_steps_loss_and_gradient_are_the_papers(tmp_path: Path) -> None:
    """Twice: from the draw at which an iteration begins, and from a policy that its opponent is behind.

    Adam without memory and with a large epsilon moves a weight by -lr g / (|g| + eps), from which the whole gradient can be read.
    """
    directory = models.save(tmp_path / "model", num_hidden_layers=2)
    cfg = spin.Config(lr=LR, min_lr_ratio=1, warmup_steps=0, adam_beta1=0, adam_beta2=0, adam_eps=EPS, clip_norm=0, global_batch_size=3)
    policy = Policy(Model(lora=Lora(rank=0)), cfg, directory, 2, spin.OUTPUTS)
    policy.keep_reference()

    def weights() -> dict[str, torch.Tensor]:
        return {name: tensor.detach().clone() for name, tensor in gathered(policy.weights(), policy.hf_config)}

    rng = np.random.default_rng(1)
    prompts = [Row(rng.integers(3, 300, size).tolist(), (rng.integers(3, 300, size + 2).tolist(),)) for size in (3, 9, 5)]
    answers = [Answer(rng.integers(3, 300, size).tolist(), True) for size in (6, 2, 11)]
    rows = measured_by_reference(spin.pairs(prompts, answers, BETA), policy)
    opponent = weights()
    for step in range(2):
        before = weights()
        learnt = policy.update(rows, spin.loss, step, 0)
        loss, model = of_paper(directory, before, opponent, rows)
        assert learnt["loss"] == pytest.approx(loss, rel=1e-5)
        assert (learnt["loss"] == pytest.approx(np.log(2), abs=1e-6)) == (step == 0)
        gradient = {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}
        assert learnt["grad_norm"] == pytest.approx(torch.cat([each.flatten() for each in gradient.values()]).norm().item(), rel=1e-4)
        for name, after in weights().items():
            moved, expected = after.double() - before[name].double(), -LR * gradient[name] / (gradient[name].abs() + EPS)
            assert torch.allclose(moved, expected, rtol=1e-3, atol=1e-6), (step, name, (moved - expected).abs().max())
