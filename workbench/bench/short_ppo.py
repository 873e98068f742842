"""A short real PPO, with what is asked for behind servers: what the measurements of placements and of communication run."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from workbench import api
from workbench.bench.kept import runs_in
from workbench.rundir.store import State

TINY = "tiny"
"""A random Llama of 0.6M parameters, made on the spot."""
SERVED = ("algorithm.served=[critic,reward]",)
ROLLOUTS, MAX_TOKENS = 32, 32
TIMEOUT_S = 3600.0

Step = dict[str, float]


@contextmanager
def model_folder(model: str) -> Iterator[str]:
    """Within: runs are kept in a folder that is gone afterwards. Yields the model's source."""
    with tempfile.TemporaryDirectory(prefix="workbench-ppo-") as folder, runs_in(Path(folder) / "runs"):
        if model == TINY:
            from workbench.bench import tiny

            model = str(tiny.save(Path(folder) / "tiny"))
        yield model


def steps(source: str, settings: Sequence[str], count: int, beside: Callable[[api.Run], None] = lambda run: None) -> list[Step]:
    """The metrics of the steps of one run but its first, which waits for the servers. `beside` is called once the run goes.

    Raises:
        ValueError: the run failed; the message is its own.
    """
    overrides = (
        "algorithm=ppo",
        f"model.source={source}",
        "algorithm.rewards={short: {program: brevity}}",
        "algorithm.served=[]",
        f"algorithm.rollout_batch_size={ROLLOUTS}",
        f"algorithm.global_batch_size={ROLLOUTS // 2}",
        f"algorithm.critic.global_batch_size={ROLLOUTS // 2}",
        f"algorithm.max_tokens={MAX_TOKENS}",
        f"algorithm.max_steps={count + 1}",
        "data.validation_fraction=0",
        "validation.every_steps=0",
        "checkpoint.every_steps=0",
        *settings,
    )
    run = api.submit(api.compose(overrides))
    try:
        beside(run)
        status = run.wait(TIMEOUT_S)
    finally:
        if not run.status.state.ended:
            run.kill()
    if status.state != State.COMPLETED:
        raise ValueError(f"the run with {' '.join(settings) or 'all defaults'} {status.state}: {status.message}")
    return [event["metrics"] for event in run.events() if event["kind"] == "step"][1:]
