"""A run's checkpoint as a Hugging Face directory."""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from workbench.engine import checkpoint, hf, lora, parallel
from workbench.engine.model_files import NO_CODE
from workbench.engine.step import Policy
from workbench.jobs.exporting import TOLD, Question
from workbench.processes.startup import settled
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
        check: load what was written in transformers and compare its logits with the engine's.

    Returns:
        The largest difference of the logits where `check` asks for it.

    Raises:
        ValueError: no such checkpoint, no adapters to write, or a newer version made the run.
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
        directory = hf.local_directory(experiment.model.source)
        # In fp32, so that adapters are merged without rounding and the check compares like with like.
        alone = {name: field.default for name, field in Model.model_fields.items() if name not in ("source", "lora", "init_seed")}
        model = experiment.model.model_copy(update={**alone, "precision": "fp32"})
        policy = Policy(model, experiment.algorithm, directory, 1, outputs_of(experiment.algorithm))
        checkpoint.load_weights(policy, run.checkpoints, step)
        if adapter:
            lora.save_adapter(policy.chunks[0], experiment.model.lora, policy.hf_config, str(directory), out)
        else:
            as_trained = experiment.model.precision == "bf16" and not experiment.model.lora.rank
            weights = {name: weight.bfloat16() if as_trained else weight for name, weight in policy.weights().items()}
            hf.save(weights, directory, out, _model_card(run, experiment, step))
        return _difference(policy, directory, out, adapter) if check else None
    finally:
        parallel.stop()


@torch.no_grad()
def _difference(policy: Policy, directory: Path, out: Path, adapter: bool) -> float:
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

    kind = AutoModelForCausalLM if not policy.wanted.scores else AutoModelForSequenceClassification
    theirs = kind.from_pretrained(directory if adapter else out, dtype=torch.float32, use_safetensors=True, **NO_CODE)
    if adapter:
        theirs = lora.with_adapter(theirs, out)
    ids = hf.tokenizer(directory)(_CHECK_TEXT)["input_ids"]
    ours = policy.logits(ids)
    return (ours - theirs(torch.tensor([ids])).logits[0]).abs().max().item()


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
