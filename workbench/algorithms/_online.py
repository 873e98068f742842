"""What the algorithms that learn from their own rollouts share: settings, the loop of those without a critic, the policy's loss, metrics."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from workbench import functional as F
from workbench import metrics as M
from workbench.settings import AlgorithmConfig, Processes, Reward

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from workbench.algorithms import Batch, Loss, Metrics, Runtime
    from workbench.data.packing import Row
    from workbench.rollout.experience import Experience

    Advantages = Callable[[Sequence[Experience], Any], None]
    """`advantages(experiences, cfg)`: fills those of each experience's tokens."""


class OnlineConfig(AlgorithmConfig):
    """Settings of every algorithm that samples what it learns from."""

    live = ("lr", "temperature", "kl_coefficient")

    lr: float = Field(1e-5, gt=0, le=1, description="Peak learning rate, reached after the warm-up.")
    rollout_batch_size: int = Field(64, ge=1, description="Answers sampled in a step, all together.")
    samples_per_prompt: int = Field(1, ge=1, le=256, description="Answers to each prompt; they share its prefill.")
    max_tokens: int = Field(256, ge=1, description="Longest answer in tokens.")
    temperature: float = Field(1.0, ge=0, le=10, description="Sampling temperature.")
    top_k: int = Field(0, ge=0, description="Sample among the k likeliest tokens; 0: all.")
    top_p: float = Field(1.0, gt=0, le=1, description="Sample among the likeliest tokens that make up this share.")
    stop_strings: tuple[str, ...] = Field((), description="Texts that end an answer, beside the model's own end token.")
    rewards: dict[str, Reward] = Field({}, description="What an answer is worth: components by name, each a program or a model, weighted.")
    shaping: str | None = Field(
        None, description="A function of your own that changes an answer's reward, or spreads it over the tokens: path/to/file.py:function."
    )
    served: tuple[Literal["auto", "critic", "reward", "critic_reward", "reference"], ...] = Field(
        ("auto",),
        description="What answers behind PyTriton in processes of its own; the rest is computed in the policy's own processes. auto alone is what"
        " measures faster (`workbench bench placement`): critic and reward, on this machine where it has no GPU and PyTriton is installed.",
    )
    swap_to_host: Literal["gpu", "always", "never"] = Field(
        "gpu",
        description="critic_reward with a reward model: the weights of the one that does not compute lie in host memory, on a GPU, always (a CPU too) or never.",
    )
    reward_server: Processes = Field(Processes(), description="The reward server's processes; with the critic (critic_reward) it has the critic's.")
    reference_server: Processes = Field(Processes(), description="The reference server's processes.")
    kl_coefficient: float = Field(0.01, ge=0, description="Weight of the KL penalty to the reference policy.")
    kl_estimator: Literal["k1", "abs", "k2", "k3"] = Field("k1", description="How the KL of a token is estimated (Schulman 2020).")
    clip_low: float = Field(0.2, gt=0, lt=1, description="The ratio new / old policy is clipped at 1 - this.")
    clip_high: float = Field(0.2, gt=0, description="… and at 1 + this; a larger value than below lets unlikely tokens grow (clip-higher).")
    entropy_bonus: float = Field(0.0, ge=0, description="Weight of the entropy, which the loss rewards.")
    update_epochs: int = Field(1, ge=1, le=16, description="Passes over a step's rollouts.")
    truncated: Literal["keep", "mask", "penalty"] = Field(
        "keep", description="Answers cut at max_tokens: learnt from as they are, not learnt from, or given truncated_penalty."
    )
    truncated_penalty: float = Field(0.0, le=0, description="Added to the reward of a cut answer (truncated=penalty).")
    importance_cap: float = Field(
        2.0,
        ge=0,
        description="Cap of the weight by which tokens count that the trainer's policy gives another probability than their sampler; 0: none.",
    )

    @field_validator("rewards")
    @classmethod
    def _some_reward(cls, rewards: dict[str, Reward]) -> dict[str, Reward]:
        if not rewards:
            raise ValueError("needs at least one component, such as {concise: {program: workbench/rewards/example.py:concise}}")
        return rewards

    @model_validator(mode="after")
    def _sizes_divide(self) -> OnlineConfig:
        if self.rollout_batch_size % self.samples_per_prompt:
            raise ValueError(f"rollout_batch_size={self.rollout_batch_size} is no multiple of samples_per_prompt={self.samples_per_prompt}")
        if self.rollout_batch_size % self.global_batch_size:
            raise ValueError(f"rollout_batch_size={self.rollout_batch_size} is no multiple of global_batch_size={self.global_batch_size}")
        return self

    @property
    def rows_per_step(self) -> int:
        return self.rollout_batch_size // self.samples_per_prompt

    def problems(self) -> list[tuple[str, str]]:
        from workbench.rewards import resolve

        named = [(f"rewards.{name}.program", reward.program, resolve.PROGRAM) for name, reward in self.rewards.items()]
        found = []
        for key, name, kind in (*named, ("shaping", self.shaping, resolve.SHAPING)):
            try:
                if name is not None:
                    resolve.check(name, kind)
            except ValueError as error:
                found.append((key, str(error)))
        return found

    def with_absolute_paths(self, absolute: Callable[[str], str]) -> Self:
        def function(name: str | None) -> str | None:
            path, colon, word = (name or "").rpartition(":")
            return f"{absolute(path)}:{word}" if colon else name

        rewards = {
            name: reward.model_copy(update={"program": function(reward.program), "model": reward.model and absolute(reward.model)})
            for name, reward in self.rewards.items()
        }
        return self.model_copy(update={"rewards": rewards, "shaping": function(self.shaping)})

    @property
    def with_entropy(self) -> bool:
        return self.entropy_bonus > 0


def loss(batch: Batch, cfg: OnlineConfig) -> tuple[Tensor, Metrics]:
    """The clipped surrogate of PPO (Schulman et al., arXiv 1707.06347, eq. 7), one value a token, minus the entropy bonus.

    `arrays` of the rows: advantages, old_logprobs, rollout_logprobs, learn (0 where a token is not learnt from).
    """
    learn_N = batch.arrays["learn"]
    loss_N, ratio_N, clipped_N = F.policy_gradient.clipped(
        batch.logprobs_N, batch.arrays["old_logprobs"], batch.arrays["advantages"], cfg.clip_low, cfg.clip_high
    )
    if cfg.importance_cap:
        loss_N = loss_N * F.policy_gradient.truncated_importance(batch.arrays["old_logprobs"], batch.arrays["rollout_logprobs"], cfg.importance_cap)
    if batch.entropy_N is not None:
        loss_N = loss_N - cfg.entropy_bonus * batch.entropy_N
    loss_N = (loss_N * learn_N)[learn_N > 0]
    kept = learn_N > 0
    ratio_N, clipped_N = ratio_N.detach()[kept], clipped_N[kept].float()
    return loss_N, {
        M.LOSS: loss_N,
        M.PPO_RATIO: ratio_N,
        M.PPO_RATIO_CLAMPED: ratio_N.clamp(1 - cfg.clip_low, 1 + cfg.clip_high),
        M.CLIP_FRACTION: clipped_N,
    }


def train(rt: Runtime, loss: Loss, advantages: Advantages) -> Iterator[Metrics]:
    """Without a critic: sample, weigh each answer against others, learn."""
    for rows in rt.batches():
        experiences = sampled(rt, rows)
        advantages(experiences, rt.settings)
        rt.online.keep(experiences)
        yield {**rt.online.learn(experiences, loss), **metrics(experiences)}


def sampled(rt: Runtime, rows: Sequence[Row]) -> list[Experience]:
    """Answers to the rows' prompts, with their rewards, log-probabilities and KL to the reference."""
    experiences = rt.online.rollout(rows)
    rt.online.measure(experiences)
    decide_learning(experiences, rt.settings)
    measure_kl(experiences, rt.settings)
    return experiences


def padded(arrays: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Arrays of unequal lengths as [B, T], and their mask."""
    import torch

    values_BT = torch.nn.utils.rnn.pad_sequence(list(arrays), batch_first=True)
    lengths_B = torch.tensor([len(a) for a in arrays])
    return values_BT, (torch.arange(values_BT.shape[1]) < lengths_B[:, None]).to(values_BT.dtype)


def column(experiences: Sequence[Experience], name: str) -> list[Tensor]:
    import torch

    return [torch.from_numpy(e.known(name)).double() for e in experiences]


def measure_kl(experiences: Sequence[Experience], cfg: OnlineConfig) -> None:
    """Fill each token's KL to the reference policy."""
    for e, own, reference in zip(experiences, column(experiences, "logprobs"), column(experiences, "reference_logprobs"), strict=True):
        e.kl = F.kl.kl(own, reference, cfg.kl_estimator).float().numpy()


def decide_learning(experiences: Sequence[Experience], cfg: OnlineConfig) -> None:
    """What the policy learns from: not from an answer whose reward is unknown, and from one cut at max_tokens as the setting says."""
    for e in experiences:
        cut = e.finish_reason == "length"
        if cut and cfg.truncated == "penalty" and e.reward is not None:
            e.reward += cfg.truncated_penalty
            if e.shaped is not None:
                e.shaped[-1] += cfg.truncated_penalty
        e.learn = e.reward is not None and not (cut and cfg.truncated == "mask")


def rewarded(experiences: Sequence[Experience]) -> list[Experience]:
    """Those whose reward is known.

    Raises:
        ValueError: not one is.
    """
    found = [e for e in experiences if e.reward is not None]
    if not found:
        raise ValueError(f"none of the {len(experiences)} answers of step {experiences[0].step} has a known reward: there is nothing to learn from")
    return found


def spread_by_prompt(experiences: Sequence[Experience], values: Sequence[float | None], advantage: Callable[[torch.Tensor], torch.Tensor]) -> None:
    """Each token of an answer gets the answer's advantage.

    Args:
        values: one an answer; None where it is unknown: such an answer is left out of its prompt's, and its advantage is 0.
        advantage: from the values [P, K] of K answers to each of P prompts to their advantages. It wants two answers or more.
    """
    import numpy as np
    import torch

    prompts = [list(same) for _, same in itertools.groupby(range(len(experiences)), key=lambda i: experiences[i].place)]
    found = [0.0] * len(experiences)
    if None not in values:
        found = advantage(torch.tensor(list(values), dtype=torch.float64).view(len(prompts), -1)).flatten().tolist()
    else:
        for prompt in prompts:
            known = [i for i in prompt if values[i] is not None]
            if len(known) > 1:
                theirs = advantage(torch.tensor([[values[i] for i in known]], dtype=torch.float64))[0].tolist()
                for i, each in zip(known, theirs, strict=True):
                    found[i] = each
    for e, each in zip(experiences, found, strict=True):
        e.advantages = np.full(len(e.tokens), each, np.float32)


def metrics(experiences: Sequence[Experience]) -> Metrics:
    """NeMo-Aligner's numbers of a step's rollouts, by their names, and what else tells how it goes. What is not known yet is left out."""
    import numpy as np

    lengths = np.array([len(e.tokens) for e in experiences])
    found: Metrics = {
        M.ROLLOUT_SIZE: len(experiences),
        M.RESPONSE_LENGTHS: float(lengths.mean()),
        M.PROMPT_LENGTHS: float(np.mean([len(e.row.prefix) for e in experiences])),
        M.PROPERLY_ENDED: float(np.mean([e.finish_reason == "stop" for e in experiences])),
        M.STALENESS: float(np.mean([e.step - 1 - e.weights_version for e in experiences])),
    }
    if scored := [e for e in experiences if e.reward is not None]:
        rewards = np.array([e.reward for e in scored])
        found |= {M.REWARDS: float(rewards.mean()), M.REWARDS_STD: float(rewards.std())}
        found |= {M.REWARD_OF(name): float(np.mean([e.known("components")[name] for e in scored])) for name in scored[0].known("components")}
        if len(scored) < len(experiences):
            found[M.REWARDS_UNKNOWN] = 1 - len(scored) / len(experiences)
    if kl := [e.kl for e in experiences if e.kl is not None]:
        found |= {M.INIT_POLICY_KL: float(np.mean([each.sum() for each in kl])), M.KL_PER_TOKEN: float(np.concatenate(kl).mean())}
    if entropy := [e.entropy for e in experiences if e.entropy is not None]:
        found[M.ENTROPY] = float(np.concatenate(entropy).mean())
    if advantages := [e.advantages for e in experiences if e.advantages is not None]:
        whole = np.concatenate(advantages)
        found |= {M.ADVANTAGES_MEAN: float(whole.mean()), M.ADVANTAGES_STD: float(whole.std())}
    if mismatch := [np.abs(e.logprobs - e.rollout_logprobs) for e in experiences if e.logprobs is not None]:
        whole = np.concatenate(mismatch)
        found |= {M.LOGPROB_MISMATCH_MEAN: float(whole.mean()), M.LOGPROB_MISMATCH_MAX: float(whole.max())}
    return found
