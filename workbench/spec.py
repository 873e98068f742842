"""The typed experiment, and the only reader of `conf/`.

YAML, form and command-line input become one frozen `Experiment` here. Hydra composes the files; pydantic checks every value. A key
that no field has is refused, and the message names the nearest one.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, get_args

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SerializeAsAny, ValidationError, field_validator, model_validator

from backends import base as backends
from workbench.layout import Layout, known_shape
from workbench.layout import check as check_layout

CONF = Path(__file__).resolve().parents[1] / "conf"


class Frozen(BaseModel):
    """Base of every part of the experiment: immutable, and strict about its keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)
    folded: ClassVar[Mapping[str, Sequence[str]]] = {}
    """Title and fields of what a form folds away: settings that most runs leave alone."""


class AlgorithmConfig(Frozen):
    """What every algorithm has; each algorithm's `Config` extends it with its own keys and vetted defaults."""

    live: ClassVar[Sequence[str]] = ("lr",)
    """Settings that may be changed while the run goes on."""
    folded = {"Optimizer": ("min_lr_ratio", "weight_decay", "adam_beta1", "adam_beta2", "adam_eps", "clip_norm")}

    name: str = Field(description="Which algorithm trains the model: a file in workbench/algorithms/.")
    lr: float = Field(1e-5, gt=0, le=1, description="Peak learning rate, reached after the warm-up.")
    min_lr_ratio: float = Field(0.1, ge=0, le=1, description="Where the cosine ends, as a share of the peak learning rate.")
    warmup_steps: int = Field(10, ge=0, description="Steps of linear warm-up.")
    weight_decay: float = Field(0.0, ge=0, le=1, description="AdamW's decoupled weight decay.")
    adam_beta1: float = Field(0.9, ge=0, lt=1, description="AdamW's first-moment decay.")
    adam_beta2: float = Field(0.98, ge=0, lt=1, description="AdamW's second-moment decay.")
    adam_eps: float = Field(1e-8, gt=0, lt=1, description="AdamW's epsilon, added to the root of the second moment.")
    clip_norm: float = Field(1.0, ge=0, description="Largest global gradient norm; 0 does not clip.")
    global_batch_size: int = Field(32, ge=1, le=65536, description="Rows (for preferences: pairs) in one optimizer step, over all ranks.")
    micro_batch_tokens: int = Field(
        4096, ge=16, description="Tokens packed into one microbatch: lower it to save memory. The result does not depend on it."
    )
    epochs: int = Field(1, ge=1, le=1000, description="Passes over the training rows, unless max_steps ends the run sooner.")
    max_steps: int | None = Field(None, ge=1, description="Optimizer steps after which the run ends; empty: as the epochs give.")

    @property
    def num_scores(self) -> int:
        """Scores that the model gives a sequence through a head of its own; 0 keeps the language model's head."""
        return 0

    @property
    def score_at(self) -> Literal["sequence", "token"]:
        """Whether the score head reads each sequence's last token, or the place before each target (a critic)."""
        return "sequence"

    @property
    def with_entropy(self) -> bool:
        """Whether the loss wants the entropy of each prediction."""
        return False

    @property
    def rows_per_step(self) -> int:
        """Rows of the data that one step of the run takes."""
        return self.global_batch_size


class Lora(Frozen):
    """Low-rank adapters on the linear layers (Hu et al., arXiv 2106.09685); rank 0 trains every weight instead."""

    rank: int = Field(16, ge=0, le=1024, description="Rank of the adapters; 0 is full fine-tuning.")
    alpha: float = Field(32.0, gt=0, description="Adapters are scaled by alpha / rank.")
    rank_stabilized: bool = Field(False, description="Scale by alpha / sqrt(rank) instead (rsLoRA, arXiv 2312.03732).")
    dropout: float = Field(0.0, ge=0, lt=1, description="Dropout on the adapters' input.")
    targets: tuple[Literal["qkv", "proj", "fc1", "fc2"], ...] = Field(
        ("qkv", "proj", "fc1", "fc2"), min_length=1, description="Which linear layers get an adapter."
    )


class Model(Frozen):
    """The policy, where its weights come from, in which precision it is trained, and how the ranks share it."""

    folded = {
        "Layout": (
            "tensor_parallel",
            "sequence_parallel",
            "pipeline_parallel",
            "virtual_pipeline",
            "context_parallel",
            "expert_parallel",
            "distributed_optimizer",
        ),
        "Memory and speed": ("recompute", "offload_activations", "offload_optimizer", "transformer_engine", "fp8"),
    }

    source: str = Field(
        "smollm2-135m-instruct",
        min_length=1,
        description="A Hugging Face directory, a hub id, a .gguf file, or smollm2-135m-instruct (comes with the package).",
    )
    precision: Literal["fp32", "bf16"] = Field("fp32", description="Arithmetic of the forward and backward pass; bf16 keeps fp32 master weights.")
    lora: Lora = Field(Lora(), description="Low-rank adapters.")
    init_seed: int = Field(0, ge=0, description="Seed of newly initialised weights (adapters, heads).")
    tensor_parallel: int = Field(1, ge=1, le=64, description="Ranks that share every layer's matrices.")
    sequence_parallel: bool = Field(
        False, description="With tensor parallelism: its ranks also share the tokens between the matrices, which saves activation memory."
    )
    pipeline_parallel: int = Field(1, ge=1, le=128, description="Stages of consecutive layers, each on ranks of its own.")
    virtual_pipeline: int = Field(
        1, ge=1, le=32, description="Groups of layers a stage holds, interleaved: a smaller pipeline bubble, more messages."
    )
    context_parallel: int = Field(1, ge=1, le=64, description="Ranks that share every sequence, for contexts too long for one.")
    expert_parallel: int = Field(1, ge=1, le=64, description="Ranks that share the experts of a mixture-of-experts model.")
    distributed_optimizer: bool = Field(
        False, description="ZeRO-1: the data-parallel ranks share the optimizer's state; reductions and gathers overlap with computation."
    )
    recompute: Literal["none", "selective", "full"] = Field(
        "none",
        description="Activations computed again in the backward pass: selective, the MLPs' (most of the memory); full, every layer's (a third more time).",
    )
    offload_activations: bool = Field(False, description="GPU: keep the activations for the backward pass in host memory.")
    offload_optimizer: bool = Field(False, description="GPU: keep the optimizer's state in host memory and update there.")
    transformer_engine: bool = Field(False, description="GPU: Transformer Engine's fused layers, where it is installed; without LoRA.")
    fp8: bool = Field(False, description="GPU of the Hopper generation or later: matrix products in FP8 (with transformer_engine).")

    @property
    def layout(self) -> Layout:
        return Layout(self.tensor_parallel, self.pipeline_parallel, self.virtual_pipeline, self.context_parallel, self.expert_parallel)

    @model_validator(mode="after")
    def _parts_go_together(self) -> Model:
        if self.sequence_parallel and self.tensor_parallel == 1:
            raise ValueError("sequence_parallel needs tensor_parallel of 2 or more")
        if self.transformer_engine and self.lora.rank:
            raise ValueError("transformer_engine has no adapters: set model.lora.rank=0, or transformer_engine=false")
        if self.fp8 and not self.transformer_engine:
            raise ValueError("fp8 needs transformer_engine=true")
        return self


class Reward(Frozen):
    """One component of an answer's reward: a program, or a reward model; exactly one of them."""

    program: str | None = Field(None, description="A function of workbench.rewards.programs, or your own: path/to/file.py:function.")
    model: str | None = Field(
        None, description="A reward model: a Hugging Face ...ForSequenceClassification directory, as `workbench export` writes."
    )
    weight: float = Field(1.0, description="Its weight in the sum.")

    @model_validator(mode="after")
    def _one_source(self) -> Reward:
        if (self.program is None) == (self.model is None):
            raise ValueError("a reward is a program or a model: set exactly one of them")
        return self


class Critic(AlgorithmConfig):
    """The value function of PPO: a model of the policy's kind with a head that scores every token, in a placement of its own."""

    name: Literal["critic"] = "critic"
    lr: float = Field(5e-5, gt=0, le=1, description="Peak learning rate, reached after the warm-up.")
    value_clip: float = Field(0.2, gt=0, description="New values are clipped within this of the old ones in the loss.")
    min_lr_ratio: float = Field(1.0, ge=1, le=1, description="A critic's learning rate stays at its peak.")
    warmup_steps: int = Field(0, ge=0, description="Steps in which the critic alone learns, and its learning rate rises.")
    model: Model | None = Field(None, description="Its model, layout and adapters; empty: as the policy's.")
    processes: int = Field(1, ge=1, le=64, description="Where it is served: the processes that share it.")

    @property
    def num_scores(self) -> int:
        return 1

    @property
    def score_at(self) -> Literal["sequence", "token"]:
        return "token"


_WEIGHTS = ("source", "precision", "lora", "init_seed")


class Data(Frozen):
    """Where the rows come from, which are held out, and what happens to those that do not fit."""

    train: str = Field(min_length=1, description="A .jsonl, .jsonl.gz or .parquet file, or a Hugging Face dataset id.")
    validation: str | None = Field(None, description="Held-out rows; empty: validation_fraction of the training rows is held out.")
    validation_fraction: float = Field(0.1, ge=0, le=0.5, description="Share of rows held out where no validation file is named.")
    format: Literal["auto", "hh", "preference", "nemo", "input_output", "messages", "sharegpt", "rated", "unpaired", "prompts"] = Field(
        "auto", description="Schema of the rows; auto tells it from the first row's keys."
    )
    max_length: int = Field(1024, ge=8, description="Longest row in tokens, prompt and answer together.")
    overlength: Literal["drop", "truncate_left", "error"] = Field(
        "drop", description="What happens to a longer row: left out, its prompt cut from the left, or the run refused."
    )
    on_bad_row: Literal["error", "skip"] = Field("error", description="Whether a malformed row refuses the file or is left out and counted.")
    limit: int | None = Field(None, ge=1, description="Use only the first rows; empty: all.")


class Rollout(Frozen):
    """The engine that samples answers."""

    name: Literal["megatron", "hf", "tensorrt_llm"] = Field(
        "megatron", description="The embedded decoder on the policy's own weights; transformers' generate; TensorRT-LLM (GPU)."
    )
    slots: int = Field(
        32, ge=1, le=4096, description="Answers decoded at a time on each tensor-parallel group; a finished one gives its place to the next."
    )


class Validation(Frozen):
    """Measurements on held-out rows while the run goes on."""

    every_steps: int = Field(10, ge=0, description="Steps between validations; 0 validates only before the first and after the last step.")
    max_rows: int = Field(256, ge=1, description="Held-out rows measured each time (the same ones, so that the curve compares).")
    samples: int = Field(4, ge=0, le=64, description="Held-out prompts answered at each validation, greedily, for reading.")
    sample_tokens: int = Field(64, ge=1, le=4096, description="Longest sampled answer in tokens.")


class Checkpoint(Frozen):
    """When the run is saved and what is kept."""

    every_steps: int = Field(20, ge=0, description="Steps between checkpoints; 0 saves only at the end and on a stop.")
    keep_last: int = Field(2, ge=1, description="How many of the newest checkpoints are kept.")
    keep_best: int = Field(0, ge=0, description="How many of the best are kept besides, by best_metric at their validation.")
    best_metric: str = Field("loss", min_length=1, description="Held-out metric that ranks the checkpoints.")
    best_mode: Literal["min", "max"] = Field("min", description="Whether the smallest or the largest value is the best.")
    asynchronous: bool = Field(True, description="Write in the background while the next steps run.")


def algorithm_names() -> list[str]:
    """The algorithms there are: the files of workbench/algorithms/."""
    return sorted(p.stem for p in (Path(__file__).parent / "algorithms").glob("*.py") if not p.stem.startswith("_"))


def find_algorithm(name: str) -> Any:
    """The module `workbench.algorithms.<name>`. Importing it loads no torch.

    Raises:
        ValueError: no such algorithm; the message names the nearest and lists all.
    """
    if name not in algorithm_names():
        raise ValueError(f"unknown algorithm {name!r}{nearest(name, algorithm_names())}; there are: {', '.join(algorithm_names())}")
    return import_module(f"workbench.algorithms.{name}")


def _typed(find: Any, base: type[BaseModel]) -> BeforeValidator:
    """Turn a mapping with a `name` into the `Config` of the module that `find` gives for that name."""

    def parse(value: Any) -> Any:
        if isinstance(value, base):
            return value
        if not isinstance(value, dict) or not isinstance(value.get("name"), str):
            raise ValueError(f"expected a mapping with a name, got {value!r}")
        return find(value["name"]).Config(**value)

    return BeforeValidator(parse)


AnyAlgorithm = Annotated[SerializeAsAny[AlgorithmConfig], _typed(find_algorithm, AlgorithmConfig)]
AnyBackend = Annotated[SerializeAsAny[backends.Config], _typed(backends.find, backends.Config)]


class Experiment(Frozen):
    """Everything a run is: `runs/<id>/spec.yaml` holds one, resolved and immutable."""

    name: str = Field("run", min_length=1, max_length=80, description="A name for people; the run's id is made from it.")
    seed: int = Field(0, ge=0, lt=2**31, description="Seed of the data order and of dropout.")
    algorithm: AnyAlgorithm
    model: Model = Model()
    data: Data
    validation: Validation = Validation()
    checkpoint: Checkpoint = Checkpoint()
    rollout: Rollout = Rollout()
    backend: AnyBackend

    @field_validator("name")
    @classmethod
    def _printable(cls, name: str) -> str:
        if not name.isprintable():
            raise ValueError("a name has printable characters only")
        return name

    @model_validator(mode="after")
    def _fits_ranks(self) -> Experiment:
        layout, world_size = self.model.layout, self.backend.world_size
        check_layout(layout, world_size, known_shape(self.model.source) if world_size > 1 else None)
        batch, ranks = self.algorithm.global_batch_size, world_size // layout.ranks
        if batch % ranks:
            raise ValueError(
                f"algorithm.global_batch_size={batch} is not divisible by the {ranks} data-parallel ranks; nearest: {max(1, batch // ranks) * ranks}"
            )
        return self

    def with_absolute_paths(self) -> Experiment:
        """The same, with each file of the user's named from the root: a resume from another folder finds it too."""
        data = self.data.model_copy(update={key: _absolute(getattr(self.data, key)) for key in ("train", "validation")})
        return self.model_copy(update={"data": data, "model": self.model.model_copy(update={"source": _absolute(self.model.source)})})

    def to_yaml(self) -> str:
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True)

    @classmethod
    def from_yaml(cls, text: str) -> Experiment:
        return parse(yaml.safe_load(text))


class SpecError(ValueError):
    """A setting is wrong. `problems` holds one (dotted key, what is wrong) a line of the message."""

    def __init__(self, problems: Sequence[tuple[str, str]]):
        self.problems = list(problems)
        super().__init__("\n".join(f"{key}: {what}" if key else what for key, what in self.problems))


def parse(tree: dict[str, Any]) -> Experiment:
    """A plain mapping, checked.

    Raises:
        SpecError: with every wrong key at once; an unknown key names the nearest one.
    """
    try:
        return Experiment.model_validate(tree)
    except ValidationError as error:
        raise SpecError([_explain(dict(e), tree) for e in error.errors()]) from None


def compose(overrides: Sequence[str] = ()) -> Experiment:
    """The experiment that `conf/` and the overrides give, in Hydra's grammar: `algorithm=dpo algorithm.beta=0.3`.

    Raises:
        SpecError: an unknown group choice or key, or a value out of bounds.
    """
    return parse(compose_tree(overrides))


RESUMABLE = ("backend", "validation", "checkpoint", *(f"model.{name}" for name in Model.model_fields if name not in _WEIGHTS))
"""What a resume may change: where and in which layout a run goes on, not what it computes."""


def changed(experiment: Experiment, overrides: Sequence[str]) -> Experiment:
    """The experiment of a run that goes on with other settings: `model.tensor_parallel=1 backend.ranks_per_node=4`.

    Raises:
        SpecError: a setting that a resume may not change, or a value out of bounds.
    """
    tree = experiment.model_dump(mode="json")
    for override in overrides:
        key, equals, value = override.partition("=")
        if not equals:
            raise SpecError([(override, "expected key=value")])
        if not any(key == name or key.startswith(f"{name}.") for name in RESUMABLE) or key.startswith("backend.name"):
            raise SpecError([(key, f"a resume cannot change it; it can change: {', '.join(RESUMABLE)}")])
        *path, last = key.split(".")
        branch = tree
        for part in path:
            branch = branch.setdefault(part, {})
        branch[last] = yaml.safe_load(value)
    return parse(tree)


def compose_tree(overrides: Sequence[str] = ()) -> dict[str, Any]:
    """As `compose`, before the check: what a form starts from.

    What an experiment sets in a group is meant for its own choice there: `experiment=dpo_demo algorithm=sft` has none of DPO's settings.
    """
    words = _hydra_words(overrides)
    tree, choice = _hydra(words)
    experiment = [word for word in words if word.startswith("experiment=")]
    if experiment and any(word.partition("=")[0] in groups() for word in words if word not in experiment):
        own = _hydra(experiment)[1]
        without = _hydra([word for word in words if word not in experiment])[0]
        tree |= {group: without[group] for group in own if group in tree and own[group] != choice[group]}
    return tree


def _hydra_words(overrides: Sequence[str]) -> list[str]:
    """The overrides in Hydra's grammar. Raises SpecError for a word that is none, and for a choice that is not there."""
    words = []
    for override in overrides:
        key = override.partition("=")[0]
        if "=" not in override and not override.startswith("~"):
            raise SpecError([(override, "expected key=value")])
        if key in groups() and (choice := override.partition("=")[2]) not in choices(key):
            raise SpecError([(key, f"there is no {choice!r}{nearest(choice, choices(key))}; there are: {', '.join(choices(key))}")])
        # A default lives in the typed field, not in YAML, so a value override may name a key that the YAML does not have.
        words.append(override if key in groups() or key[:1] in "+~" else f"++{override}")
    return words


def _hydra(words: Sequence[str]) -> tuple[dict[str, Any], dict[str, str]]:
    """The composed tree, and which choice each group has in it."""
    from hydra import compose, initialize_config_dir
    from hydra.errors import HydraException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        with initialize_config_dir(str(CONF), version_base="1.3"):
            config = compose("config", list(words), return_hydra_config=True)
        choice = {group: name for group, name in config.hydra.runtime.choices.items() if group in groups()}
        del config.hydra  # before the interpolations are resolved: Hydra's own refer to a job that there is not
        return OmegaConf.to_container(config, resolve=True), choice  # type: ignore[return-value]
    except (HydraException, OmegaConfBaseException) as error:
        raise SpecError([("", str(error))]) from None


def groups() -> list[str]:
    """The folders of conf/: what can be chosen by name."""
    return sorted(path.name for path in CONF.iterdir() if path.is_dir())


def choices(group: str) -> list[str]:
    """The choices of one group: its YAML files."""
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))


def overrides_between(start: dict[str, Any], end: dict[str, Any]) -> list[str]:
    """The `key=value` words that turn one tree into another: the command line that a form's settings equal."""
    was, now = dict(_leaves(start)), dict(_leaves(end))
    return [f"{key}={_hydra_value(value)}" for key, value in now.items() if key not in was or was[key] != value]


def nearest(word: str, known: Sequence[str]) -> str:
    """`; did you mean …?`, or nothing where no known word is close."""
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else ""


def _absolute(source: str | None) -> str | None:
    """A hub id, and what comes with the project, stay as they are."""
    if source is None or (CONF.parent / source).exists() or not (path := Path(source).expanduser()).exists():
        return source
    return str(path.resolve())


def _leaves(tree: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(tree, dict):
        for key, value in tree.items():
            yield from _leaves(value, f"{prefix}.{key}" if prefix else key)
    else:
        yield prefix, list(tree) if isinstance(tree, tuple) else tree


def _hydra_value(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, list):
        return f"[{','.join(_hydra_value(item) for item in value)}]"
    if isinstance(value, str) and not re.fullmatch(r"[A-Za-z_/][A-Za-z0-9_./-]*", value):
        literal = re.sub(r"(\\*)\$\{", r"\1\1\\${", value)  # no interpolation
        quoted = re.sub(r"(\\*)'", r"\1\1\\'", literal)
        return "'" + re.sub(r"(\\+)\Z", r"\1\1", quoted) + "'"
    if isinstance(value, str) and value.lower() in ("null", "true", "false", "nan", "inf"):
        return f"'{value}'"
    return str(value)


def _explain(error: dict[str, Any], tree: dict[str, Any]) -> tuple[str, str]:
    """One pydantic error as (dotted key, what was expected and what was found)."""
    path = [str(part) for part in error["loc"]]
    key = ".".join(path)
    if error["type"] == "extra_forbidden":
        known = _known_keys(path[:-1], tree)
        return key, f"there is no such key{nearest(path[-1], known)}; {'.'.join(path[:-1]) or 'the experiment'} has: {', '.join(known)}"
    if error["type"] == "missing":
        return key, "is required"
    message = error["msg"].removeprefix("Value error, ")
    return key, f"{message[:1].lower()}{message[1:]}" + ("" if isinstance(error["input"], dict | BaseModel) else f" (got {error['input']!r})")


def _known_keys(path: Sequence[str], tree: dict[str, Any]) -> list[str]:
    model: type[BaseModel] = Experiment
    for part in path:
        value = tree.get(part, {}) if isinstance(tree, dict) else {}
        if part == "algorithm":
            model = find_algorithm(value["name"]).Config
        elif part == "backend":
            model = backends.find(value["name"]).Config  # type: ignore[assignment]
        else:
            annotation = model.model_fields[part].annotation
            model = next(a for a in (annotation, *get_args(annotation)) if isinstance(a, type) and issubclass(a, BaseModel))
        tree = value
    return list(model.model_fields)
