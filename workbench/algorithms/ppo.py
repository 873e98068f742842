"""Proximal Policy Optimization from rewards (Schulman et al., arXiv 1707.06347; Ouyang et al., arXiv 2203.02155), with a critic of its own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from workbench import functional as F
from workbench import metrics as M
from workbench.algorithms import _online as online
from workbench.algorithms._online import OUTPUTS, loss
from workbench.rollout.experience import rewarded
from workbench.settings import Roles
from workbench.settings.online import ActorCriticConfig

if TYPE_CHECKING:
    from workbench.algorithms import Metrics, Runtime
    from workbench.rollout.experience import Experience

ROWS = "prompt"
ROLES: Roles = {"reward": "frozen", "reference": "frozen", "critic": "learning"}
__all__ = ["OUTPUTS", "Config", "loss", "train"]


class Config(ActorCriticConfig):
    name: Literal["ppo"] = "ppo"
    gamma: float = Field(default=1.0, gt=0, le=1, description="Discount of later rewards.")
    gae_lambda: float = Field(default=0.95, ge=0, le=1, description="GAE's lambda: 1 is the whole return, 0 one step and the critic.")
    whiten_rewards: bool = Field(default=False, description="Rewards with KL to mean 0, variance 1 over the step.")
    reward_clip: float = Field(default=0.0, ge=0, description="Rewards are clipped at plus and minus this; 0 does not clip.")
    kl_target: float = Field(default=0.0, ge=0, description="Adapt the KL coefficient towards this KL an answer; 0 keeps it.")
    kl_horizon: int = Field(default=10000, ge=1, description="Answers over which the adaptive coefficient moves (Ziegler et al., arXiv 1909.08593).")


def advantages(experiences: Sequence[Experience], cfg: Config) -> None:
    """Rewards with KL at each token, the answer's own at its last (or as shaping spreads it); GAE; advantages whitened over the step's learnt tokens.

    An answer without a known reward has advantages of 0 and no returns.
    """
    import torch

    online.mute([e for e in experiences if e.reward is None])
    experiences = rewarded(experiences)
    kl_BT, mask_BT = online.padded(online.column(experiences, "kl"))
    values_BT, _ = online.padded(online.column(experiences, "values"))
    rewards_BT, _ = online.padded([torch.from_numpy(e.token_rewards).double() for e in experiences])
    if cfg.reward_clip:
        rewards_BT = rewards_BT.clamp(-cfg.reward_clip, cfg.reward_clip)
    rewards_BT = rewards_BT - cfg.kl_coefficient * kl_BT * mask_BT
    if cfg.whiten_rewards:
        rewards_BT = F.advantages.whiten(rewards_BT, mask_BT)
    advantages_BT, returns_BT = F.advantages.gae(rewards_BT, values_BT, mask_BT, cfg.gamma, cfg.gae_lambda)
    learn_BT = mask_BT * torch.tensor([[e.learn] for e in experiences])
    advantages_BT = F.advantages.whiten(advantages_BT, learn_BT if learn_BT.sum() > 1 else mask_BT)
    for i, e in enumerate(experiences):
        e.advantages = advantages_BT[i, : len(e.tokens)].float().numpy()
        e.returns = returns_BT[i, : len(e.tokens)].float().numpy()


def train(cfg: Config, rt: Runtime) -> Iterator[Metrics]:
    for rows in rt.batches():
        cfg = rt.settings
        experiences = online.sampled(rt, rows)
        rt.online.values(experiences)
        advantages(experiences, cfg)
        rt.online.keep(experiences)
        learning = rt.online.train_critic(rewarded(experiences))
        metrics = rt.online.learn(experiences, loss) if rt.step >= cfg.critic.warmup_steps else {}
        if cfg.kl_target:
            kl = sum(float(e.known("kl").sum()) for e in experiences) / len(experiences)
            rt.set(kl_coefficient=F.kl.adaptive(cfg.kl_coefficient, kl, cfg.kl_target, cfg.kl_horizon, len(experiences)))
        critic = _critic_metrics(rewarded(experiences), learning())
        yield {**metrics, **online.metrics(experiences), **critic, M.KL_COEFFICIENT: cfg.kl_coefficient}


def _critic_metrics(experiences: Sequence[Experience], learnt: Metrics) -> Metrics:
    """The critic's loss, and how much of the returns' variance its values explain."""
    import numpy as np

    values, returns = (np.concatenate([e.known(name) for e in experiences]) for name in ("values", "returns"))
    variance = returns.var()
    explained = {M.EXPLAINED_VARIANCE: float(1 - (returns - values).var() / variance)} if variance else {}
    means = {M.VALUES_MEAN: float(values.mean()), M.RETURNS_MEAN: float(returns.mean()), M.RETURNS_STD: float(returns.std())}
    lesson = {M.CRITIC_LOSS: M.LOSS, M.CRITIC_GRAD_NORM: M.GRAD_NORM}
    return {**means, **explained, **{name: learnt[of_critic] for name, of_critic in lesson.items() if of_critic in learnt}}
