"""What the algorithms that learn from their own rollouts share: the loop of those without a critic, the policy's loss, metrics.

Where the reward of an answer is unknown (`None`: a judge that gave no verdict), the answer teaches nothing: it is masked as a truncated one is, is in
no mean and no other answer's baseline, and is counted (`rewards_unknown`). It is stored with the others, its reward null.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from workbench import functional as F
from workbench import metrics as M
from workbench.rollout.experience import lengths, mean_rewards, rewarded
from workbench.settings.online import OnlineConfig, ReferencedConfig, SamplingConfig
from workbench.settings.outputs import Outputs

if TYPE_CHECKING:
    from torch import Tensor

    from workbench.algorithms import Batch, Loss, Metrics, Runtime
    from workbench.data.packing import Row
    from workbench.rollout.experience import Experience

    Advantages = Callable[[Sequence[Experience], Any], None]
    """`advantages(experiences, cfg)`: fills those of each experience's tokens."""


def OUTPUTS(cfg: OnlineConfig) -> Outputs:
    """The entropy of the policy's predictions only where the loss rewards it: it takes a pass over all logits."""
    return Outputs(logprobs=True, entropy=cfg.entropy_bonus > 0)


def loss(batch: Batch, cfg: OnlineConfig) -> tuple[Tensor, Metrics]:
    """The clipped surrogate of PPO (Schulman et al., arXiv 1707.06347, eq. 7), one value a token, minus the entropy bonus.

    `arrays` of the rows: advantages, old_logprobs, rollout_logprobs, learn (0 where a token is not learnt from).
    """
    learn_N = batch.arrays["learn"]
    loss_N, ratio_N, clipped_N = F.policy_gradient.clipped(
        batch.logprobs_N, batch.arrays["old_logprobs"], batch.arrays["advantages"], cfg.clip_low, cfg.clip_high, cfg.dual_clip
    )
    if cfg.importance_cap:
        loss_N = loss_N * F.policy_gradient.truncated_importance(batch.arrays["old_logprobs"], batch.arrays["rollout_logprobs"], cfg.importance_cap)
    if cfg.entropy_bonus:
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
    """Answers to the rows' prompts, with their rewards and log-probabilities, and their KL to the reference where there is one.

    Raises:
        ValueError: no answer's reward is known.
    """
    experiences = rt.online.rollout(rows)
    if not rewarded(experiences):
        raise ValueError(f"step {rt.step + 1}: none of its {len(experiences)} answers has a known reward ({', '.join(experiences[0].components)})")
    rt.online.measure(experiences)
    decide_learning(experiences, rt.settings)
    if experiences[0].reference_logprobs is not None:
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


def measure_kl(experiences: Sequence[Experience], cfg: ReferencedConfig) -> None:
    """Fill each token's KL to the reference policy."""
    for e, own, reference in zip(experiences, column(experiences, "logprobs"), column(experiences, "reference_logprobs"), strict=True):
        e.kl = F.kl.kl(own, reference, cfg.kl_estimator, cfg.kl_clamped).float().numpy()


def decide_learning(experiences: Sequence[Experience], cfg: SamplingConfig) -> None:
    """What the policy learns from: not from an answer whose reward is unknown, and from one truncated at max_tokens as the setting says."""
    for e in experiences:
        cut = e.finish_reason == "length"
        if cut and cfg.truncated == "penalty" and e.reward is not None:
            e.reward += cfg.truncated_penalty
            if e.shaped is not None:
                e.shaped[-1] += cfg.truncated_penalty
        e.learn = e.reward is not None and not (cut and cfg.truncated == "mask")


def against_prompt(experiences: Sequence[Experience], value: Callable[[Experience], float], advantages: Callable[[Tensor], Tensor]) -> None:
    """Fill each token's advantage with its answer's against its prompt's other answers that are learnt from, which lie side by side.

    Args:
        value: what an answer is worth.
        advantages: of the values [P, K] of P prompts with K such answers each, their advantages [P, K].

    An answer that is masked, as one without a known reward is and a truncated one may be, is in no other's baseline (as in NeMo-Aligner). Prompts
    with equally many others are computed together. One with fewer than two teaches nothing: there is nothing to compare.
    """
    import torch

    groups: dict[int, list[list[Experience]]] = {}
    for _, same in itertools.groupby(experiences, key=lambda e: e.prompt_index):
        answers = list(same)
        alike = [e for e in rewarded(answers) if e.known("learn")]
        groups.setdefault(len(alike), []).append(alike)
        mute([e for e in answers if e.reward is None or not e.known("learn")])
    for count, prompts in groups.items():
        flat = [e for answers in prompts for e in answers]
        if count < 2:
            mute(flat)
        else:
            values_PK = torch.tensor([value(e) for e in flat], dtype=torch.float64).view(-1, count)
            spread(flat, advantages(values_PK).flatten().tolist())


def spread(experiences: Sequence[Experience], advantages: Sequence[float]) -> None:
    """An answer's advantage on each of its tokens."""
    import numpy as np

    for e, advantage in zip(experiences, advantages, strict=True):
        e.advantages = np.full(len(e.tokens), advantage, np.float32)


def mute(experiences: Sequence[Experience]) -> None:
    """Nothing is learnt from these."""
    spread(experiences, [0.0] * len(experiences))
    for e in experiences:
        e.learn = False


def metrics(experiences: Sequence[Experience]) -> Metrics:
    """NeMo-Aligner's numbers of a step's rollouts, by their names, and what else tells how it goes. What is not known yet is left out."""
    import numpy as np

    result: Metrics = {
        M.ROLLOUT_SIZE: len(experiences),
        **lengths(experiences),
        M.PROPERLY_ENDED: float(np.mean([e.finish_reason == "stop" for e in experiences])),
        M.STALENESS: float(np.mean([e.step - 1 - e.weights_version for e in experiences])),
    }
    if scored := rewarded(experiences):
        result |= {
            **mean_rewards(experiences, lambda values: float(np.mean(values))),
            M.REWARDS_STD: float(np.std([e.known("reward") for e in scored])),
        }
    if kl := [e.kl for e in experiences if e.kl is not None]:
        result |= {M.INIT_POLICY_KL: float(np.mean([each.mean() for each in kl])), M.KL_PER_ANSWER: float(np.mean([each.sum() for each in kl]))}
    if entropy := [e.entropy for e in experiences if e.entropy is not None]:
        result[M.ENTROPY] = float(np.concatenate(entropy).mean())
    if advantages := [e.advantages for e in experiences if e.advantages is not None]:
        whole = np.concatenate(advantages)
        result |= {M.ADVANTAGES_MEAN: float(whole.mean()), M.ADVANTAGES_STD: float(whole.std())}
    if mismatch := [np.abs(e.logprobs - e.rollout_logprobs) for e in experiences if e.logprobs is not None]:
        whole = np.concatenate(mismatch)
        result |= {M.LOGPROB_MISMATCH_MEAN: float(whole.mean()), M.LOGPROB_MISMATCH_MAX: float(whole.max())}
    return result
