"""A run's checkpoint as a Hugging Face directory."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, PreTrainedTokenizerBase

from workbench.data import nemo_template, targets
from workbench.data.chat import Chat
from workbench.data.rows import Message, Unpaired
from workbench.data.targets import Targets
from workbench.data.tokenizer import end_token
from workbench.engine import checkpoint, hf, lora, padding, parallel, quantisation
from workbench.engine.model_files import NO_CODE
from workbench.engine.step import Policy
from workbench.jobs.exporting import TOLD, Question
from workbench.models import attribute_models
from workbench.processes.startup import settled
from workbench.rundir import opening
from workbench.rundir.permission import changes
from workbench.rundir.store import RunDir
from workbench.settings import Model, stored
from workbench.settings.modules import outputs_of
from workbench.settings.spec import Experiment

_CHECK_TEXT = "A short text whose logits are compared: the capital of France is Paris, and two and two make four."


@changes
def export(run: RunDir, out: Path, step: int | None = None, adapter: bool = False, check: bool = False) -> float | None:
    """Write step `step` (the newest complete checkpoint without one) to the new directory `out`.

    Args:
        adapter: the LoRA adapters alone, as peft loads them, instead of the merged model.
        check: load what was written in transformers and compare its logits with the engine's; of a reward model the scores of texts that end as trained ones
            do, alone and in batches padded on the left and on the right.

    Returns:
        The largest difference of the logits or scores where `check` asks for it.

    Raises:
        ValueError: no such checkpoint, no adapters to write, a check of adapters on quantised weights, or a newer version made the run.
        FileExistsError: `out` exists already.
    """
    experiment = settled(run, stored.experiment(run))
    steps = checkpoint.complete_steps(run.checkpoints)
    if not steps or step not in (None, *steps):
        raise ValueError(f"run {run.id} has no complete checkpoint{'' if step is None else f' of step {step}'}; there are: {steps or 'none'}")
    if adapter and not experiment.model.lora.rank:
        raise ValueError(f"run {run.id} trained every weight; there are no adapters to export")
    if out.exists():
        raise FileExistsError(f"{out} exists already; name a new directory")
    step = step or steps[-1]
    parallel.start()
    try:
        directory = hf.local_directory(experiment.model.source, experiment.model.revision)
        if adapter and check and quantisation.of(hf.config(directory).to_dict()):
            raise ValueError(
                f"{directory} has quantised weights, with which transformers would compute otherwise: check the merged model, without --adapter"
            )
        # In fp32, so that adapters are merged without rounding and the check compares like with like.
        alone = {name: field.default for name, field in Model.model_fields.items() if name not in ("source", "revision", "lora", "init_seed")}
        model = experiment.model.model_copy(update={**alone, "precision": "fp32"})
        policy = Policy(model, experiment.algorithm, directory, 1, outputs_of(experiment.algorithm))
        checkpoint.load_weights(policy, run.checkpoints, step)
        if adapter:
            lora.save_adapter(policy.chunks[0], experiment.model.lora, policy.hf_config, str(directory), out)
            if policy.wanted.scores:
                _tell_padding(directory, out)
        else:
            as_trained = experiment.model.precision == "bf16" and not experiment.model.lora.rank
            weights = {name: weight.bfloat16() if as_trained else weight for name, weight in policy.weights().items()}
            hf.save(weights, directory, out, _model_card(run, experiment, step), attribute_models.described(experiment.algorithm))
        _keep_steering(run, experiment, out)
        return _difference(policy, directory, out, adapter) if check else None
    finally:
        parallel.stop()


def _keep_steering(run: RunDir, experiment: Experiment, out: Path) -> None:
    """Beside the weights what they were conditioned on, and NeMo-Aligner's template where they were trained with it."""
    if opening.is_file(run.path / targets.FILE):
        Targets.read(run.path / targets.FILE).write(out / targets.FILE)
    if experiment.data.steering and experiment.data.steering.layout == "nemo":
        (out / "chat_template.jinja").write_text(nemo_template.TEMPLATE)


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
def _difference(policy: Policy, directory: Path, out: Path, adapter: bool) -> float:
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


def _model_card(run: RunDir, experiment: Experiment, step: int) -> str:
    return (
        f"---\nbase_model: {experiment.model.source}\nlibrary_name: transformers\ntags: [alignment-workbench, {experiment.algorithm.name}]\n---\n"
        f"# {experiment.name}\n\n`{experiment.model.source}` after {step} steps of `{experiment.algorithm.name}` with Alignment Workbench, "
        f"run `{run.id}`.\n\n```yaml\n{experiment.to_yaml()}```\n"
    )


def main() -> int:
    """The export that `workbench.jobs.exporting` asks for on standard input."""
    question = Question.model_validate_json(sys.stdin.read())
    try:
        export(RunDir(question.run), question.out, question.step, question.adapter, question.check)
    except (ValueError, OSError) as error:
        print(error, file=sys.stderr)
        return TOLD
    return 0


if __name__ == "__main__":
    sys.exit(main())
