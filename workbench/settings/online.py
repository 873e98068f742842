"""Settings of the algorithms that learn from their own rollouts: the rewards by their kinds, the critic, the servers, and what they share."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Protocol, Self, TypeVar, cast

from pydantic import (
    BeforeValidator,
    Field,
    SerializeAsAny,
    SerializerFunctionWrapHandler,
    create_model,
    field_validator,
    model_serializer,
    model_validator,
)

from workbench.settings.layout import Layout
from workbench.settings.naming import module_names
from workbench.settings.sections import AlgorithmConfig, Frozen, Model

C = TypeVar("C", bound=AlgorithmConfig)
TOGETHER = {"critic_reward": ("critic", "reward")}
"""Servers of several roles, whose models share the accelerator."""
MEASURING = ("reference", "teacher")
"""Roles that give log-probabilities of answers."""

if TYPE_CHECKING:
    ServerName = str
else:
    ServerName = Literal[("auto", *module_names("models/roles"), *TOGETHER)]
    """What may be served: each role alone, and those that go together."""


@dataclass(frozen=True)
class Need:
    """A role that a component of the reward asks (a file of workbench/models/roles/), and the model that the role has to hold for it, if any."""

    role: str
    source: str | None = None


class RewardKind(Protocol):
    """A file of workbench/rewards/kinds/ as the settings see it; `workbench.rewards.base.Kind` is all of it.

    `Config` is a `Frozen` model or `str`: what stands in the settings under the kind's name. Nothing here runs the user's code.
    """

    Config: Any

    def problems(self, config: Any, samples_per_prompt: int) -> list[tuple[str, str]]:
        """What a check of the files and variables that the settings name finds wrong: (key below the kind's, or "", what)."""
        ...

    def with_absolute_paths(self, config: Any, absolute: Callable[[str], str]) -> Any:
        """The same settings, with each file of the user's named from the root."""
        ...

    def needs(self, config: Any) -> Sequence[Need]:
        """The roles that it asks, with the models that they hold for it."""
        ...


def reward_kinds() -> list[str]:
    """The kinds of reward there are: the files of workbench/rewards/kinds/."""
    return module_names("rewards/kinds")


def find_reward_kind(name: str) -> RewardKind:
    """The module `workbench.rewards.kinds.<name>`. Importing it loads no torch."""
    return cast(RewardKind, import_module(f"workbench.rewards.kinds.{name}"))


class Reward(Frozen):
    """One component of an answer's reward, `{<kind>: <the kind's settings>, weight: w}`. `reward_model` has a field for each kind there is."""

    sparse = True

    weight: float = Field(default=1.0, description="Its weight in the sum; one of weight 0 is logged only.")

    @property
    def kind(self) -> str:
        """The kind's name."""
        return self._kinds()[0]

    @property
    def settings(self) -> Any:
        """The kind's own settings: the `Config` of its file."""
        return getattr(self, self.kind)

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        known = [name for name in type(self).model_fields if name != "weight"]
        if len(self._kinds()) != 1:
            raise ValueError(f"a reward is of exactly one kind: set one of {', '.join(known)}; got {' and '.join(self._kinds()) or 'none'}")
        return self

    @model_serializer(mode="wrap")
    def _without_other_kinds(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        settings = handler(self)
        return {name: settings[name] for name in (self.kind, "weight")}

    def _kinds(self) -> list[str]:
        return [name for name in type(self).model_fields if name != "weight" and getattr(self, name) is not None]

    def with_absolute_paths(self, absolute: Callable[[str], str]) -> Self:
        return self.model_copy(update={self.kind: find_reward_kind(self.kind).with_absolute_paths(self.settings, absolute)})


@functools.cache
def reward_model() -> type[Reward]:
    """`Reward` with an optional field for each kind. Cached: a kind's file that comes later is seen by the next process."""
    fields: dict[str, Any] = {}
    for name in reward_kinds():
        module = find_reward_kind(name)
        fields[name] = (module.Config | None, Field(default=None, description=re.split(r"\n\s*\n", module.__doc__ or "")[0].replace("\n", " ")))
    return create_model("Reward", __base__=Reward, __doc__=Reward.__doc__, **fields)


def _parsed(value: Any) -> Any:
    return value if isinstance(value, Reward) else reward_model().model_validate(value)


AnyReward = Annotated[SerializeAsAny[Reward], BeforeValidator(_parsed)]


def sources_of(rewards: Iterable[Reward], role: str) -> tuple[str, ...]:
    """The models that the rewards ask of a role, each once, in their order."""
    needs = [need for reward in rewards for need in find_reward_kind(reward.kind).needs(reward.settings)]
    return tuple(dict.fromkeys(need.source for need in needs if need.role == role and need.source is not None))


class Critic(AlgorithmConfig):
    """The value function of PPO: a model of the policy's kind with a head that scores every token, in a placement of its own."""

    name: Literal["critic"] = "critic"
    lr: float = Field(default=5e-5, gt=0, le=1, description="Peak learning rate, reached after the warm-up.")
    value_clip: float = Field(default=0.2, gt=0, description="New values are clipped within this of the old ones in the loss.")
    min_lr_ratio: float = Field(default=1.0, ge=1, le=1, description="A critic's learning rate stays at its peak.")
    warmup_steps: int = Field(default=0, ge=0, description="Steps in which the critic alone learns, and its learning rate rises.")
    model: Model | None = Field(default=None, description="Its model, layout and adapters; empty: as the policy's.")
    processes: int = Field(default=1, ge=1, le=64, description="Where it is served: the processes that share it.")


class Processes(Frozen):
    """A server's processes, and how they share its model; data-parallel ranks are those that are left."""

    processes: int = Field(default=1, ge=1, le=64, description="Where it is served: the processes that share it.")
    tensor_parallel: int = Field(default=1, ge=1, le=64, description="Processes that share every layer's matrices.")
    pipeline_parallel: int = Field(default=1, ge=1, le=64, description="Stages of consecutive layers, each on processes of its own.")

    @property
    def layout(self) -> Layout:
        return Layout(self.tensor_parallel, self.pipeline_parallel)


class Teacher(Processes):
    """The teacher of a distillation, with the policy's tokens; see `workbench.models.roles.teacher`."""

    source: str = Field(min_length=1, description="A Hugging Face directory, a hub id or a .gguf file.")
    top_k: int = Field(0, ge=0, description="How many of its likeliest tokens it tells at each place; 0: only the answer's own.")


class SamplingConfig(AlgorithmConfig):
    """Settings of every algorithm that samples what it learns from."""

    live = ("lr", "temperature")
    answers_in_unit: ClassVar[int] = 1
    """How many answers, side by side, `global_batch_size` counts as one."""

    lr: float = Field(default=1e-5, gt=0, le=1, description="Peak learning rate, reached after the warm-up.")
    rollout_batch_size: int = Field(default=64, ge=1, description="Answers sampled in a step, all together.")
    samples_per_prompt: int = Field(default=1, ge=1, le=256, description="Answers to each prompt; they share its prefill.")
    max_tokens: int = Field(default=256, ge=1, description="Longest answer in tokens.")
    temperature: float = Field(
        default=1.0, gt=0, le=10, description="Sampling temperature, above 0; the policy that learns is softmax(logits / temperature), as sampled."
    )
    top_k: int = Field(default=0, ge=0, description="Sample among the k likeliest tokens; 0: all.")
    top_p: float = Field(default=1.0, gt=0, le=1, description="Sample among the likeliest tokens that make up this share.")
    logprobs_of: Literal["kept", "policy"] = Field(
        default="kept",
        description="With top_k or top_p, whose log-probabilities are learnt: kept, among the tokens that the sampler kept, is what was sampled from;"
        " policy, among all tokens, is biased, and what engines and servers can do that do not know the kept ones.",
    )
    stop_strings: tuple[str, ...] = Field(
        default=(), description="Texts that end an answer, beside the model's own end token; rewards are given what stands before."
    )
    rewards: dict[str, AnyReward] = Field(
        default={}, description="What an answer is worth: components by name, each of one kind (program, model, judge), weighted."
    )
    shaping: str | None = Field(
        default=None, description="A function of your own that changes an answer's reward, or spreads it over the tokens: path/to/file.py:function."
    )
    served: tuple[ServerName, ...] = Field(
        default=("auto",),
        description="What answers behind PyTriton in processes of its own; the rest is computed in the policy's own processes. auto alone is what"
        " measures faster (`workbench bench placement`): critic and reward, on this machine where it has no GPU and PyTriton is installed.",
    )
    swap_to_host: Literal["gpu", "always", "never"] = Field(
        default="gpu",
        description="critic_reward with a reward model: the weights of the one that does not compute lie in host memory, on a GPU, always (a CPU too) or never.",
    )
    reward_server: Processes = Field(
        default=Processes(), description="The reward server's processes; with the critic (critic_reward) it has the critic's."
    )
    judge_server: Processes = Field(default=Processes(), description="The judge server's processes: for a judge with a model of its own.")
    update_epochs: int = Field(default=1, ge=1, le=16, description="Passes over a step's rollouts.")
    truncated: Literal["keep", "mask", "penalty"] = Field(
        default="keep", description="Answers truncated at max_tokens: learnt from as they are, not learnt from, or given truncated_penalty."
    )
    truncated_penalty: float = Field(default=0.0, le=0, description="Added to the reward of a truncated answer (truncated=penalty).")

    @field_validator("rewards")
    @classmethod
    def _some_reward(cls, rewards: dict[str, Reward]) -> dict[str, Reward]:
        if not rewards:
            raise ValueError("needs at least one component, such as {concise: {program: workbench/rewards/example.py:concise}}")
        return rewards

    @model_validator(mode="after")
    def _sizes_divide(self) -> Self:
        if self.rollout_batch_size % self.samples_per_prompt:
            raise ValueError(f"rollout_batch_size={self.rollout_batch_size} is no multiple of samples_per_prompt={self.samples_per_prompt}")
        if self.learnt_per_step % self.global_batch_size:
            raise ValueError(self._no_multiple())
        return self

    def _no_multiple(self) -> str:
        return f"rollout_batch_size={self.rollout_batch_size} is no multiple of global_batch_size={self.global_batch_size}"

    @property
    def rows_per_step(self) -> int:
        return self.rollout_batch_size // self.samples_per_prompt

    @property
    def learnt_per_step(self) -> int:
        """At most so many of what `global_batch_size` counts are learnt from in a step."""
        return self.rollout_batch_size

    @property
    def among_kept(self) -> bool:
        """Log-probabilities are those among the tokens that top-k and top-p kept."""
        return self.logprobs_of == "kept" and (self.top_k > 0 or self.top_p < 1)

    @model_validator(mode="after")
    def _kept_tokens_are_known(self) -> Self:
        if self.among_kept and (served := [name for name in self.served if name in MEASURING]):
            raise ValueError(
                f"served={','.join(served)} with top_k={self.top_k}, top_p={self.top_p}: a server does not know which tokens were kept;"
                " do not serve it, sample without top_k and top_p, or set logprobs_of=policy"
            )
        return self

    @model_validator(mode="after")
    def _judge_has_a_model(self) -> Self:
        if "judge" in self.served and not sources_of(self.rewards.values(), "judge"):
            raise ValueError("served names judge, and no reward asks a judge that has a model here: rewards={helpful: {judge: {model: DIRECTORY}}}")
        return self

    def problems(self) -> list[tuple[str, str]]:
        result = []
        for name, reward in self.rewards.items():
            for key, what in find_reward_kind(reward.kind).problems(reward.settings, self.samples_per_prompt):
                result.append((".".join(filter(None, ("rewards", name, reward.kind, key))), what))
        if self.shaping is not None:
            result += [("shaping", what) for what in _shaping().problems(self.shaping)]
        return result

    def with_absolute_paths(self, absolute: Callable[[str], str]) -> Self:
        rewards = {name: reward.with_absolute_paths(absolute) for name, reward in self.rewards.items()}
        shaping = self.shaping and _shaping().with_absolute_paths(self.shaping, absolute)
        return self.model_copy(update={"rewards": rewards, "shaping": shaping})


class ReferencedConfig(SamplingConfig):
    """Settings of one that measures its answers against a reference policy."""

    reference_server: Processes = Field(default=Processes(), description="The reference server's processes.")
    kl_estimator: Literal["k1", "abs", "k2", "k3"] = Field(default="k1", description="How the KL of a token is estimated (Schulman 2020).")
    kl_clamped: bool = Field(
        default=False, description="Bound the estimate k3 as verl does: the log-ratio within 20, a token's KL within 10; beyond it has no gradient."
    )


class OnlineConfig(ReferencedConfig):
    """Settings of one that learns from its answers by the clipped surrogate of PPO."""

    live = (*SamplingConfig.live, "kl_coefficient")

    kl_coefficient: float = Field(default=0.01, ge=0, description="Weight of the KL penalty to the reference policy.")
    clip_low: float = Field(default=0.2, gt=0, lt=1, description="The ratio new / old policy is clipped at 1 - this.")
    clip_high: float = Field(default=0.2, gt=0, description="… and at 1 + this; a larger value than below lets unlikely tokens grow (clip-higher).")
    dual_clip: float = Field(
        default=0.0,
        ge=0,
        description="c above 1: where the advantage is negative, a token's surrogate is c times it at least (dual clip, arXiv 1912.09729); 0: no bound.",
    )
    entropy_bonus: float = Field(default=0.0, ge=0, description="Weight of the entropy, which the loss rewards.")
    importance_cap: float = Field(
        default=2.0,
        ge=0,
        description="Cap of the weight by which tokens count that the trainer's policy gives another probability than their sampler; 0: none.",
    )

    @field_validator("dual_clip")
    @classmethod
    def _beyond_the_clip(cls, dual_clip: float) -> float:
        if 0 < dual_clip <= 1:
            raise ValueError("0 for no bound, or a number above 1, such as 3")
        return dual_clip


class ActorCriticConfig(OnlineConfig):
    """Settings of an online algorithm with a value function of its own."""

    critic: Critic = Field(default=Critic(), description="The value function.")


def require(algorithm: AlgorithmConfig, kind: type[C]) -> C:
    """The algorithm's settings as those that a part of a run is written for.

    Raises:
        TypeError: they are of another kind, as those of an algorithm without rollouts.
    """
    if not isinstance(algorithm, kind):
        raise TypeError(f"this takes an algorithm whose settings extend {kind.__name__}; {algorithm.name}'s are {type(algorithm).__name__}")
    return algorithm


class _Shaping(Protocol):
    def problems(self, name: str) -> list[str]: ...

    def with_absolute_paths(self, name: str, absolute: Callable[[str], str]) -> str: ...


def _shaping() -> _Shaping:
    return cast(_Shaping, import_module("workbench.rewards.shaping"))
