"""The sections of an experiment: typed, immutable, strict about their keys. Each default and each description lives here and nowhere else."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar, Literal, Self

from pydantic import BaseModel, Field, JsonValue, model_validator

from workbench.backends.base import Immutable
from workbench.metrics import STEERLM
from workbench.settings.layout import Layout
from workbench.settings.naming import module_names

if TYPE_CHECKING:
    EngineName = str
    FormatName = str
else:
    FormatName = Literal[("auto", *module_names("data/formats"))]
    """The formats of rows that there are."""
    EngineName = Literal[tuple(module_names("rollout/engines"))]
    """The rollout engines there are."""


class Frozen(BaseModel, metaclass=Immutable, frozen=True, extra="forbid", validate_default=True):
    """Base of every part of the experiment: immutable, and strict about its keys."""

    folded: ClassVar[Mapping[str, Sequence[str]]] = {}
    """Title and fields of what a form folds away: settings that most runs leave alone."""
    sparse: ClassVar[bool] = False
    """Whether fields without a value are left out where the settings are written."""


Roles = Mapping[str, Literal["frozen", "learning", "advancing"]]
"""The models beside the policy that an algorithm asks, by name: one that stays as it is, learns beside the policy, or is moved up to it."""


class JobConfig(Frozen):
    """What every kind of job has; each kind's `Config` extends it with its own keys."""

    sections: ClassVar[Sequence[str]] = ()
    """The sections of the experiment that the kind reads: a form shows those, and `algorithm` is required where it is among them."""
    outputs: ClassVar[Mapping[str, str]] = {}
    """What a run leaves for the later stages of a pipeline: by name the file or folder in the run's folder; `checkpoint` is the newest one."""
    most_ranks: ClassVar[int | None] = None
    """How many processes the kind can be shared by; None: any number."""
    ends: ClassVar[bool] = True
    """Whether a run of this kind completes by itself: only such a one can be a stage of a pipeline."""

    doing: ClassVar[str] = ""
    """What a progress bar says that the job does; empty: its name with -ing."""
    reads: ClassVar[str] = "prompt"
    """The kind of row (`workbench.data.rows.Kind`) that a job without an algorithm reads."""

    name: str = Field(description="What the run does: a file in workbench/processes/kinds/.")

    def problems(self) -> list[tuple[str, str]]:
        """What a check of the files that the settings name finds wrong: (key, what). Nothing of them is run."""
        return []

    def with_absolute_paths(self, absolute: Callable[[str], str]) -> Self:
        """The same, with each file of the user's named from the root."""
        return self


class CheckpointJob(JobConfig):
    """A kind of job on weights that are there."""

    takes_over: ClassVar[Sequence[Literal["steering", "algorithm"]]] = ()
    """What the job has of the checkpoint's run beside the model: how it says ratings (`data.steering`), its algorithm."""
    needs_checkpoint: ClassVar[bool] = False
    """Whether there is nothing to be done without a checkpoint."""
    takes_scorers: ClassVar[bool] = False
    """Whether the weights may be of a model that scores answers, whatever the experiment's algorithm wants."""

    checkpoint: str | None = Field(
        default=None,
        description="Whose weights: a run's id or `latest` (its newest checkpoint), `id:step`, or the folder of a checkpoint; empty: the model's own.",
    )


class CheckpointsJob(JobConfig):
    """A kind of job on several checkpoints and models side by side."""

    checkpoints: tuple[str, ...] = Field(
        default=(),
        description="What is served: each a run's id (`id:step`, `latest`), a checkpoint's folder, or a model as model.source names it; empty: model.source.",
    )
    measure: str | None = Field(default=None, description="An attribute model's checkpoint that measures answers (`POST /v1/attributes`).")
    rules: tuple[str, ...] = Field(
        default=(), description="Functions that measure answers: names of rules, or path/to/file.py:function of (prompt messages, response)."
    )
    port: int = Field(default=0, ge=0, le=65535, description="The HTTP port on this machine; 0: a free one.")
    idle_timeout_s: float = Field(default=3600.0, ge=0, description="Seconds without a request after which the endpoint ends; 0: never.")
    slots: int = Field(default=8, ge=1, le=4096, description="Answers decoded at a time, of each model; others wait.")
    max_length: int = Field(
        default=4096, ge=8, description="Longest prompt and answer together in tokens, where the model's context is not shorter; bounds the caches."
    )
    max_waiting: int = Field(default=256, ge=1, description="Requests that may wait or be answered at a time; further ones are refused (429).")
    max_request_mb: int = Field(default=8, ge=1, le=1024, description="Largest request in MiB.")


class AlgorithmConfig(Frozen):
    """What every algorithm has; each algorithm's `Config` extends it with its own keys and vetted defaults."""

    live: ClassVar[Sequence[str]] = ("lr",)
    """Settings that may be changed during the run."""
    folded = {"Optimizer": ("min_lr_ratio", "weight_decay", "adam_beta1", "adam_beta2", "adam_eps", "clip_norm")}

    name: str = Field(description="Which algorithm trains the model: a file in workbench/algorithms/.")
    lr: float = Field(default=1e-5, gt=0, le=1, description="Peak learning rate, reached after the warm-up.")
    min_lr_ratio: float = Field(default=0.1, ge=0, le=1, description="Where the cosine ends, as a share of the peak learning rate.")
    warmup_steps: int = Field(default=10, ge=0, description="Steps of linear warm-up.")
    weight_decay: float = Field(default=0.0, ge=0, le=1, description="AdamW's decoupled weight decay.")
    adam_beta1: float = Field(default=0.9, ge=0, lt=1, description="AdamW's first-moment decay.")
    adam_beta2: float = Field(default=0.98, ge=0, lt=1, description="AdamW's second-moment decay.")
    adam_eps: float = Field(default=1e-8, gt=0, lt=1, description="AdamW's epsilon, added to the root of the second moment.")
    clip_norm: float = Field(default=1.0, ge=0, description="Largest global gradient norm; 0 does not clip.")
    global_batch_size: int = Field(default=32, ge=1, le=65536, description="Rows (for preferences: pairs) in one optimizer step, over all ranks.")
    micro_batch_tokens: int = Field(
        default=4096, ge=16, description="Tokens packed into one microbatch: lower it to save memory. The result does not depend on it."
    )
    epochs: int = Field(default=1, ge=1, le=1000, description="Passes over the training rows, unless max_steps ends the run sooner.")
    max_steps: int | None = Field(default=None, ge=1, description="Optimizer steps after which the run ends; empty: as the epochs give.")

    @property
    def rows_per_step(self) -> int:
        """Rows of the data that one step of the run takes."""
        return self.global_batch_size

    def problems(self) -> list[tuple[str, str]]:
        """What a check of the files that the settings name finds wrong: (key, what). Nothing of them is run."""
        return []

    def with_absolute_paths(self, absolute: Callable[[str], str]) -> Self:
        """The same, with each file of the user's named from the root."""
        return self


class Lora(Frozen):
    """Low-rank adapters on the linear layers (Hu et al., arXiv 2106.09685); rank 0 trains every weight instead."""

    rank: int = Field(default=16, ge=0, le=1024, description="Rank of the adapters; 0 is full fine-tuning.")
    alpha: float = Field(default=32.0, gt=0, description="Adapters are scaled by alpha / rank.")
    rank_stabilized: bool = Field(default=False, description="Scale by alpha / sqrt(rank) instead (rsLoRA, arXiv 2312.03732).")
    dropout: float = Field(default=0.0, ge=0, lt=1, description="Dropout on the adapters' input.")
    targets: tuple[Literal["qkv", "proj", "fc1", "fc2"], ...] = Field(
        default=("qkv", "proj", "fc1", "fc2"), min_length=1, description="Which linear layers get an adapter."
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
        default="smollm2-135m-instruct",
        min_length=1,
        description="A Hugging Face directory, a hub id, a .gguf file, or smollm2-135m-instruct (comes with the package).",
    )
    revision: str | None = Field(
        default=None,
        min_length=1,
        description="Of a hub model: the branch, tag or commit; empty: its main branch as it is when the run begins. The run keeps the commit.",
    )
    precision: Literal["fp32", "bf16", "auto"] = Field(
        default="fp32",
        description="Arithmetic of the forward and backward pass; bf16 keeps fp32 master weights; auto is bf16 where the machine computes it fast.",
    )
    lora: Lora = Field(default=Lora(), description="Low-rank adapters.")
    init_seed: int = Field(default=0, ge=0, description="Seed of newly initialised weights (adapters, heads).")
    tensor_parallel: int = Field(default=1, ge=1, le=64, description="Ranks that share every layer's matrices.")
    sequence_parallel: bool = Field(
        default=False, description="With tensor parallelism: its ranks also share the tokens between the matrices, which saves activation memory."
    )
    pipeline_parallel: int = Field(default=1, ge=1, le=128, description="Stages of consecutive layers, each on ranks of its own.")
    virtual_pipeline: int = Field(
        default=1, ge=1, le=32, description="Groups of layers a stage holds, interleaved: a smaller pipeline bubble, more messages."
    )
    context_parallel: int = Field(default=1, ge=1, le=64, description="Ranks that share every sequence, for contexts too long for one.")
    expert_parallel: int = Field(default=1, ge=1, le=64, description="Ranks that share the experts of a mixture-of-experts model.")
    distributed_optimizer: bool = Field(
        default=False, description="ZeRO-1: the data-parallel ranks share the optimizer's state; reductions and gathers overlap with computation."
    )
    recompute: Literal["none", "selective", "full"] = Field(
        default="none",
        description="Activations computed again in the backward pass: selective, the MLPs' (most of the memory); full, every layer's (a third more time).",
    )
    offload_activations: bool = Field(default=False, description="GPU: keep the activations for the backward pass in host memory.")
    offload_optimizer: bool = Field(default=False, description="GPU: keep the optimizer's state in host memory and update there.")
    transformer_engine: bool = Field(default=False, description="GPU: Transformer Engine's fused layers, where it is installed; without LoRA.")
    fp8: bool = Field(default=False, description="GPU of the Hopper generation or later: matrix products in FP8 (with transformer_engine).")

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


WEIGHTS = ("source", "revision", "precision", "lora", "init_seed")


class Steering(Frozen):
    """Which attributes answers are conditioned on, and where a conversation says them (SteerLM, arXiv 2310.05344)."""

    attributes: tuple[str, ...] = Field(default=STEERLM, min_length=1, description="The attributes, in the order in which they are written.")
    lowest: int = Field(default=0, description="The least rating.")
    highest: int = Field(default=4, description="The greatest rating; an ordinal head and the sliders have every whole number between.")
    layout: Literal["system", "user", "answer", "nemo"] = Field(
        default="system",
        description="Where `quality:4,toxicity:0` stands: at the end of the system turn, or of the question before each rated answer; answer: in a line before"
        " the answer, in the assistant's turn, which small models follow soonest; nemo: in NeMo-Aligner's own template (`<extra_id_2>`), in place of the"
        " model's.",
    )

    @model_validator(mode="after")
    def _is_a_scale(self) -> Steering:
        if self.lowest >= self.highest:
            raise ValueError(f"lowest={self.lowest} is not below highest={self.highest}")
        if len(set(self.attributes)) < len(self.attributes):
            raise ValueError("an attribute is named twice")
        if bad := [name for name in self.attributes if not name or set(name) & set(":,\n<>") or name != name.strip()]:
            raise ValueError(f"{bad[0]!r} cannot be written as name:rating: a name has no colon, comma, angle bracket or line break")
        return self

    @property
    def levels(self) -> tuple[int, ...]:
        """The ratings that there are."""
        return tuple(range(self.lowest, self.highest + 1))


OF_THE_TEMPLATE = {"messages", "tools", "documents", "add_generation_prompt"}
"""What a chat template is given of each conversation."""


class Data(Frozen):
    """Where the rows come from, which are held out, and what happens to those that do not fit."""

    train: str = Field(min_length=1, description="A .jsonl, .jsonl.gz or .parquet file, or a Hugging Face dataset id.")
    validation: str | None = Field(default=None, description="Held-out rows; empty: validation_fraction of the training rows is held out.")
    validation_fraction: float = Field(default=0.1, ge=0, le=0.5, description="Share of rows held out where no validation file is named.")
    format: FormatName = Field(default="auto", description="Schema of the rows; auto tells it from the first rows' keys.")
    columns: dict[str, str | None] = Field(
        default={}, description="Our name of a column: the file's (`a.b` is b within a); null leaves the column out: {prompt: query, label: null}."
    )
    map: str | None = Field(
        default=None, description="A function of yours, path/to/file.py:function, that makes of a row (a dict) the row to read, several, or None."
    )
    pairs: Literal["extremes", "all"] = Field(
        default="extremes", description="Of several ranked answers: the best against the worst, or every two that differ in rank."
    )
    template_kwargs: dict[str, JsonValue] = Field(
        default={}, description="Variables of the model's chat template, such as {enable_thinking: false}; a run and its samples have the same."
    )
    steering: Steering | None = Field(
        default=None,
        description="Rows are conditioned on their ratings: the model learns to answer as the attributes say, and samples are asked with some.",
    )
    max_length: int = Field(default=1024, ge=8, description="Longest row in tokens, prompt and answer together.")
    overlength: Literal["drop", "truncate_left", "error"] = Field(
        default="drop", description="What happens to a longer row: left out, its prompt truncated on the left, or the run refused."
    )
    on_bad_row: Literal["error", "skip"] = Field(default="error", description="Whether a malformed row refuses the file or is left out and counted.")
    limit: int | None = Field(default=None, ge=1, description="Use only the first rows; empty: all.")
    max_row_mb: int = Field(default=8, ge=1, le=1024, description="Longest row of a file in MiB; a longer one is malformed.")
    max_expansion: int = Field(
        default=200, ge=1, description="How many times its size a compressed file may become when it is read; beyond that it is refused."
    )
    reader_memory_gb: float = Field(
        default=4.0, ge=0.25, description="Memory in GiB of the process that decodes a Parquet file or a hub's data set, a few rows at a time."
    )

    @model_validator(mode="after")
    def _template_has_its_own(self) -> Data:
        if own := sorted(OF_THE_TEMPLATE & {*self.template_kwargs}):
            raise ValueError(f"template_kwargs sets {', '.join(own)}, which each conversation gives the chat template: leave it out")
        return self


class Rollout(Frozen):
    """The engine that samples answers."""

    name: EngineName = Field(
        default="megatron", description="The embedded decoder on the policy's own weights; transformers' generate; TensorRT-LLM (GPU)."
    )
    slots: int = Field(
        default=32, ge=1, le=4096, description="Answers decoded at a time on each tensor-parallel group; a finished one gives its place to the next."
    )
    max_staleness: int = Field(
        default=0,
        ge=0,
        le=64,
        description="0 samples a step's answers before learning from them. k samples those of the next k steps meanwhile, from a copy of the weights"
        " that lacks at most k updates (asynchronous mode); algorithm.importance_cap corrects for it.",
    )


class Validation(Frozen):
    """Measurements on held-out rows during the run."""

    every_steps: int = Field(default=10, ge=0, description="Steps between validations; 0 validates only before the first and after the last step.")
    max_rows: int = Field(default=256, ge=1, description="Held-out rows measured each time (the same ones, so that the curve compares).")
    samples: int = Field(default=4, ge=0, le=64, description="Held-out prompts answered at each validation, greedily, for reading.")
    sample_tokens: int = Field(default=64, ge=1, le=4096, description="Longest sampled answer in tokens.")


class Watch(Frozen):
    """What happens when the run stands still, or its numbers are none."""

    hang_after_s: float = Field(
        default=300.0,
        ge=0,
        description="Seconds without progress after which an alarm names the ranks that stand still, four times as long at the start; 0: never.",
    )
    stop_on_nan: bool = Field(
        default=True,
        description="A loss or gradient norm that is NaN or infinite ends the run as failed; false continues. Weights that are not finite are never saved.",
    )
    on_hang: Literal["alarm", "restart"] = Field(
        default="alarm",
        description="restart also ends the ranks at fault, as if they had died: the gang continues from its last checkpoint, backend.max_restarts times.",
    )


class Checkpoint(Frozen):
    """When the run is saved and what is kept."""

    every_steps: int = Field(default=20, ge=0, description="Steps between checkpoints; 0 saves only at the end and on a stop.")
    keep_last: int = Field(default=2, ge=1, description="How many of the newest checkpoints are kept.")
    keep_best: int = Field(default=0, ge=0, description="How many of the best are kept besides, by best_metric at their validation.")
    best_metric: str = Field(
        default="auto",
        min_length=1,
        description="Held-out metric that ranks the checkpoints; auto is the loss, for algorithms that learn from rollouts the reward.",
    )
    best_mode: Literal["auto", "min", "max"] = Field(
        default="auto", description="Whether the smallest or the largest value is the best; auto: the largest of rewards, accuracies and the like."
    )
    asynchronous: bool = Field(default=True, description="Write in the background while the next steps run.")
