"""What the algorithms that learn from their own rollouts share: settings, the loop of those without a critic, the policy's loss, metrics."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from workbench import functional as F
from workbench.settings import AlgorithmConfig, Processes, Reward
from workbench.settings.outputs import Outputs

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


def OUTPUTS(cfg: OnlineConfig) -> Outputs:
    """The entropy of the policy's predictions only where the loss rewards it: it takes a pass over all logits."""
    return Outputs(logprobs=True, entropy=cfg.entropy_bonus > 0)


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
    if cfg.entropy_bonus:
        loss_N = loss_N - cfg.entropy_bonus * batch.entropy_N
    loss_N = (loss_N * learn_N)[learn_N > 0]
    kept = learn_N > 0
    ratio_N, clipped_N = ratio_N.detach()[kept], clipped_N[kept].float()
    return loss_N, {
        "loss": loss_N,
        "ppo_ratio": ratio_N,
        "ppo_ratio_clamped": ratio_N.clamp(1 - cfg.clip_low, 1 + cfg.clip_high),
        "clip_fraction": clipped_N,
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
    penalise_truncated(experiences, rt.settings)
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

    return [torch.from_numpy(getattr(e, name)).double() for e in experiences]


def measure_kl(experiences: Sequence[Experience], cfg: OnlineConfig) -> None:
    """Fill each token's KL to the reference policy."""
    for e, own, reference in zip(experiences, column(experiences, "logprobs"), column(experiences, "reference_logprobs"), strict=True):
        e.kl = F.kl.kl(own, reference, cfg.kl_estimator).float().numpy()


def penalise_truncated(experiences: Sequence[Experience], cfg: OnlineConfig) -> None:
    """What an answer cut at max_tokens costs, by the setting."""
    for e in experiences:
        cut = e.finish_reason == "length"
        if cut and cfg.truncated == "penalty":
            e.reward += cfg.truncated_penalty
            if len(e.shaped):
                e.shaped[-1] += cfg.truncated_penalty
        e.learn = not (cut and cfg.truncated == "mask")


def by_prompt(experiences: Sequence[Experience], cfg: OnlineConfig, values: Sequence[float]) -> torch.Tensor:
    """One value an answer as [P, K]: the experiences lie prompt by prompt, samples in order."""
    import torch

    return torch.tensor(list(values), dtype=torch.float64).view(-1, cfg.samples_per_prompt)


def spread(experiences: Sequence[Experience], advantages: Sequence[float]) -> None:
    """An answer's advantage on each of its tokens."""
    import numpy as np

    for e, advantage in zip(experiences, advantages, strict=True):
        e.advantages = np.full(len(e.tokens), advantage, np.float32)


def metrics(experiences: Sequence[Experience]) -> Metrics:
    """NeMo-Aligner's numbers of a step's rollouts, by their names, and what else tells how it goes."""
    import numpy as np

    lengths = np.array([len(e.tokens) for e in experiences])
    rewards = np.array([e.reward for e in experiences])
    advantages, kl = (np.concatenate([getattr(e, name) for e in experiences]) for name in ("advantages", "kl"))
    mismatch = np.abs(np.concatenate([e.logprobs - e.rollout_logprobs for e in experiences]))
    names = experiences[0].components
    return {
        "rollout_size": len(experiences),
        "rewards": float(rewards.mean()),
        "rewards_std": float(rewards.std()),
        **{f"reward/{name}": float(np.mean([e.components[name] for e in experiences])) for name in names},
        "response_lengths": float(lengths.mean()),
        "prompt_lengths": float(np.mean([len(e.row.prefix) for e in experiences])),
        "fraction_of_samples_properly_ended": float(np.mean([e.finish_reason == "stop" for e in experiences])),
        "init_policy_kl": float(np.mean([e.kl.sum() for e in experiences])),
        "kl_per_token": float(kl.mean()),
        "entropy": float(np.concatenate([e.entropy for e in experiences]).mean()),
        "advantages_mean": float(advantages.mean()),
        "advantages_std": float(advantages.std()),
        "logprob_mismatch_mean": float(mismatch.mean()),
        "logprob_mismatch_max": float(mismatch.max()),
        "staleness": float(np.mean([e.step - 1 - e.weights_version for e in experiences])),
    }
