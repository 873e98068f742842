"""What `workbench bench algorithms` runs: an entry each, in the order of the table. A new algorithm is one more.

In the overrides, `$rule` is the file and the function that gives the reward, `$teacher` the folder of a model that has learnt from the demonstrations.
"""

from __future__ import annotations

from dataclasses import dataclass

from workbench import metrics as M
from workbench.bench.toy import MAX_TOKENS, DataKind

REWARD = "reward"
"""The metric of what answers: the mean reward of sampled answers to held-out prompts. Any other is one of the run's own held-out metrics."""

ONLINE = (
    "algorithm.rewards={vowels: {program: $rule}}",
    "algorithm.served=[]",
    "algorithm.rollout_batch_size=64",
    f"algorithm.max_tokens={MAX_TOKENS}",
)


@dataclass(frozen=True)
class Entry:
    """One row of the table.

    `overrides` are those of `workbench run` that are the algorithm's own; `also` is a held-out metric of the run, shown before and after.
    """

    name: str
    data: DataKind
    overrides: tuple[str, ...]
    steps: int = 60
    metric: str = REWARD
    also: str | None = None

    @property
    def algorithm(self) -> str:
        return next(word.removeprefix("algorithm=") for word in self.overrides if word.startswith("algorithm="))


def _offline(name: str, data: DataKind, *overrides: str, also: str | None = M.ACCURACY) -> Entry:
    return Entry(name, data, (f"algorithm={name}", "algorithm.lr=1e-3", *overrides), also=also)


def _dpo(loss: str, *overrides: str) -> Entry:
    """A loss of DPO's family."""
    return Entry(loss, "pairs", ("algorithm=dpo", f"algorithm.preference_loss={loss}", "algorithm.lr=1e-3", *overrides), also=M.ACCURACY)


def _online(name: str, *overrides: str, batch: int = 32, steps: int = 30) -> Entry:
    """An update learns from `batch` answers, or prompts where the algorithm counts these."""
    return Entry(name, "prompts", (f"algorithm={name}", "algorithm.lr=1e-3", f"algorithm.global_batch_size={batch}", *ONLINE, *overrides), steps)


SPIN = ("algorithm.iterations=3", "algorithm.iteration_steps=20", f"algorithm.max_tokens={MAX_TOKENS}")

ON_POLICY = (
    "algorithm=distill",
    "algorithm.lr=1e-3",
    "algorithm.teacher.source=$teacher",
    "algorithm.teacher.top_k=16",
    "algorithm.on_policy.fraction=0.5",
    f"algorithm.on_policy.max_tokens={MAX_TOKENS}",
)

ENTRIES = (
    _offline("sft", "demonstrations", also=M.LOSS),
    _offline("distill", "demonstrations", "algorithm.teacher.source=$teacher", "algorithm.teacher.top_k=16", also=M.TEACHER_DIVERGENCE),
    Entry("on_policy_distill", "demonstrations", ON_POLICY, also=M.TEACHER_DIVERGENCE),
    _offline("spin", "demonstrations", *SPIN, also=None),
    _offline("dpo", "pairs"),
    _dpo("cdpo", "algorithm.label_smoothing=0.1"),
    _dpo("ipo"),
    _dpo("hinge"),
    _dpo("rpo_sq"),
    _dpo("rpo_fwd_kl"),
    _dpo("rpo_bwd_kl"),
    _offline("cpo", "pairs"),
    _offline("orpo", "pairs"),
    _offline("simpo", "pairs"),
    _offline("kto", "labels"),
    _offline("steerlm2", "groups", also=None),
    Entry("reward_model", "pairs", ("algorithm=reward_model", "algorithm.lr=1e-3"), metric=M.ACCURACY),
    _online("ppo", "algorithm.critic.lr=1e-3", "algorithm.critic.global_batch_size=32"),
    _online("reinforce"),
    _online("grpo"),
    _online("online_dpo", batch=8),
    _online("rejection_sampling", batch=8),
)
