"""A checkpoint as a Hugging Face directory, written by a process of one rank: `workbench export`, and the job kind `export`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, PreTrainedTokenizerBase

from workbench.data import nemo_template, targets
from workbench.data.chat import Chat
from workbench.data.rows import Message, Unpaired
from workbench.data.tokenizer import end_token
from workbench.engine import checkpoint, hf, lora, padding, quantisation
from workbench.engine.model_files import NO_CODE
from workbench.engine.step import Policy
from workbench.processes import attribute_models
from workbench.processes.startup import settled
from workbench.rundir import opening
from workbench.rundir.store import RunDir
from workbench.settings import Model, stored
from workbench.settings.modules import outputs_of
from workbench.settings.spec import Experiment

_CHECK_TEXT = "A short text whose logits are compared: the capital of France is Paris, and two and two make four."


@dataclass(frozen=True)
class Source:
    """A step of a run, to be exported. `adapter`: the LoRA adapters alone, as peft loads them, instead of the merged model."""

    run: RunDir
    experiment: Experiment
    step: int
    adapter: bool = False


def source(run: RunDir, step: int | None = None, adapter: bool = False) -> Source:
    """Step `step` of a run, its newest complete checkpoint without one.

    Raises:
        ValueError: no such checkpoint, no adapters to write, or a newer version made the run.
    """
    experiment = settled(run, stored.experiment(run))
    steps = checkpoint.complete_steps(run.checkpoints)
    if not steps or step not in (None, *steps):
        raise ValueError(f"run {run.id} has no complete checkpoint{'' if step is None else f' of step {step}'}; there are: {steps or 'none'}")
    if adapter and not experiment.model.lora.rank:
        raise ValueError(f"run {run.id} trained every weight; there are no adapters to export")
    return Source(run, experiment, steps[-1] if step is None else step, adapter)


def directory_of(of: Source, check: bool) -> Path:
    """The folder of the weights that the run began with. Raises ValueError for a check of adapters on quantised weights."""
    directory = hf.local_directory(of.experiment.model.source, of.experiment.model.revision)
    if of.adapter and check and quantisation.of(hf.config(directory).to_dict()):
        raise ValueError(
            f"{directory} has quantised weights, with which transformers would compute otherwise: check the merged model, without --adapter"
        )
    return directory


def policy(of: Source, directory: Path) -> Policy:
    """The checkpoint's weights, in fp32: adapters are merged without rounding, and the check compares like with like."""
    alone = {name: field.default for name, field in Model.model_fields.items() if name not in ("source", "revision", "lora", "init_seed")}
    model = of.experiment.model.model_copy(update={**alone, "precision": "fp32"})
    loaded = Policy(model, of.experiment.algorithm, directory, 1, outputs_of(of.experiment.algorithm))
    checkpoint.load_weights(loaded, of.run.checkpoints, of.step)
    return loaded


def write(of: Source, loaded: Policy, directory: Path, out: Path) -> None:
    """Write the new directory `out`, with what the model was conditioned on beside the weights (`attributes.json`). The merged model's appears whole or not at all."""
    attributes = of.run.path / targets.FILE
    beside = {targets.FILE: opening.read_text(attributes, targets.LARGEST)} if opening.is_file(attributes) else {}
    if (steering := of.experiment.data.steering) and steering.layout == "nemo":
        beside["chat_template.jinja"] = nemo_template.TEMPLATE
    if of.adapter:
        lora.save_adapter(loaded.chunks[0], of.experiment.model.lora, loaded.hf_config, str(directory), out)
        if loaded.wanted.scores:
            _tell_padding(directory, out)
        for name, text in beside.items():
            (out / name).write_text(text)
        return
    as_trained = of.experiment.model.precision == "bf16" and not of.experiment.model.lora.rank
    weights = {name: weight.bfloat16() if as_trained else weight for name, weight in loaded.weights().items()}
    hf.save(weights, directory, out, _model_card(of), beside, attribute_models.described(of.experiment.algorithm))


def _tell_padding(directory: Path, out: Path) -> None:
    """Beside a reward model's adapters: the tokenizer with a padding token that ends no text, which the base model's configuration cannot be note."""
    tokenizer = hf.tokenizer(directory)
    chosen = padding.of(tokenizer, hf.end_tokens(directory))
    if chosen.is_new:
        note = "No token of its tokenizer can pad a batch: score one text at a time, or export the merged model, which has one more."
    else:
        padding.declare(tokenizer, chosen).save_pretrained(out)
        note = f"Before scoring a batch, set `model.config.pad_token_id = {chosen.number}` ({chosen.token}): no text ends with it."
    (out / "README.md").write_text(f"# Adapters of a reward model\n\n{note}\n")


@torch.no_grad()
def difference(policy: Policy, directory: Path, out: Path, adapter: bool) -> float:
    """The largest difference of the logits between the engine and transformers, which loads `out`.

    Of a reward model that of the scores: texts that end as trained ones do, alone and in batches padded on the left and on the right.
    """
    kind = AutoModelForCausalLM if not policy.wanted.scores else AutoModelForSequenceClassification
    labels = {"num_labels": policy.wanted.scores} if policy.wanted.scores and adapter else {}
    theirs = kind.from_pretrained(directory if adapter else out, dtype=torch.float32, use_safetensors=True, **labels, **NO_CODE)
    tokenizer = hf.tokenizer(directory)
    if policy.wanted.scores and adapter:
        chosen = padding.of(tokenizer, hf.end_tokens(directory))
        theirs.config.pad_token_id = None if chosen.is_new else chosen.number
    if adapter:
        theirs = lora.with_adapter(theirs, out)
    if policy.wanted.scores:
        return score_difference(policy, theirs, [_as_trained(tokenizer, text) for text in (_CHECK_TEXT, _CHECK_TEXT[:20])])
    ids = tokenizer(_CHECK_TEXT)["input_ids"]
    return (policy.logits(ids) - theirs(torch.tensor([ids])).logits[0]).abs().max().item()


def _as_trained(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """An answer as a reward model learns it: after a prompt, and with the token that ends it."""
    if not tokenizer.chat_template:
        return [*tokenizer(text)["input_ids"], end_token(tokenizer)]
    row = Chat(tokenizer).one(Unpaired((Message("user", text),), text, True))
    return [*row.prefix, *row.branches[0]]


def score_difference(policy: Policy, theirs: Any, texts: Sequence[Sequence[int]]) -> float:
    """The largest difference of the scores: each text alone, and all in a batch padded on the right and on the left."""
    ours = torch.stack([policy.logits(text) for text in texts])
    alone = torch.stack([theirs(torch.tensor([text])).logits[0] for text in texts])
    compared, pad, longest = [alone], theirs.config.pad_token_id, max(map(len, texts))
    if pad is not None:
        for left in (False, True):
            blank = [[pad] * (longest - len(text)) for text in texts]
            ids = [[*fill, *text] if left else [*text, *fill] for fill, text in zip(blank, texts, strict=True)]
            real = [[0] * len(f) + [1] * len(t) if left else [1] * len(t) + [0] * len(f) for f, t in zip(blank, texts, strict=True)]
            compared.append(theirs(torch.tensor(ids), attention_mask=torch.tensor(real)).logits)
    return max((ours - scores).abs().max().item() for scores in compared)


def _model_card(of: Source) -> str:
    model, algorithm = of.experiment.model.source, of.experiment.algorithm.name
    return (
        f"---\nbase_model: {model}\nlibrary_name: transformers\ntags: [alignment-workbench, {algorithm}]\n---\n"
        f"# {of.experiment.name}\n\n`{model}` after {of.step} steps of `{algorithm}` with Alignment Workbench, "
        f"run `{of.run.id}`.\n\n```yaml\n{of.experiment.to_yaml()}```\n"
    )
