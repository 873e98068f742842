"""A run's checkpoint as a Hugging Face directory."""

from __future__ import annotations

import sys
from pathlib import Path

from workbench.engine import parallel
from workbench.jobs.exporting import TOLD, Question
from workbench.processes import exported
from workbench.rundir.permission import changes
from workbench.rundir.store import RunDir


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
    source = exported.source(run, step, adapter)
    if out.exists():
        raise FileExistsError(f"{out} exists already; name a new directory")
    parallel.start()
    try:
        directory = exported.directory_of(source, check)
        policy = exported.policy(source, directory)
        exported.write(source, policy, directory, out)
        return exported.difference(policy, directory, out, adapter) if check else None
    finally:
        parallel.stop()


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
