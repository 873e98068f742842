"""`workbench chaos`: failures on a real SLURM, and what becomes of the runs."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from workbench.terminal.console import Console


def chaos(
    names: Annotated[list[str] | None, typer.Argument(help="Which scenarios; all without one.")] = None,
    keep: Annotated[Path | None, typer.Option(help="Keep the runs in this folder.")] = None,
) -> None:
    """Bring up a SLURM cluster of four nodes on this machine, let things go wrong, and tell how the runs end. Needs root; takes minutes."""
    from workbench.chaos.lab import Lab
    from workbench.chaos.scenarios import LIMIT, SCENARIOS, Stage

    known = {scenario.name: scenario for scenario in SCENARIOS}
    if unknown := [name for name in names or () if name not in known]:
        raise ValueError(f"no scenario {unknown[0]!r}; there are: {', '.join(known)}")
    out = Console()
    out.print(
        "| what happens | ends | attempts | back after | largest difference of the curves |\n|---|---|---|---|---|", markup=False, soft_wrap=True
    )
    failed = []
    with tempfile.TemporaryDirectory(prefix="workbench-chaos-") as folder, Lab() as lab:
        os.environ.update(lab.env)
        stage = Stage(keep or Path(folder), lab)
        for scenario in (known[name] for name in names or known):
            outcome = stage.play(scenario)
            for name in lab.failed:
                lab.repair_node(name)
            ends = outcome.state if outcome.state == "completed" else f"{outcome.state}: {outcome.message.splitlines()[0]}"
            back = "it is not hit" if outcome.recovery_s is None else f"{outcome.recovery_s:.0f} s"
            row = f"| {scenario.what} | {ends} | {outcome.attempts} | {back} | {outcome.difference:.0e} |"
            out.print(row, markup=False, soft_wrap=True)
            failed += [] if outcome.good else [scenario.name]
    if failed:
        raise ValueError(f"not as an undisturbed run ({LIMIT:g}), nor in a state that names the cause: {', '.join(failed)}")
