"""A server's rank: `python -m workbench.processes.server RUN_DIR SERVER`. Rank 0 answers the requests; the others of its layout compute with it."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np

from workbench.models.connections import find_role
from workbench.models.endpoint import Arrays, BadRequest, Endpoint, Field, check_tokens
from workbench.models.protocol import Surroundings
from workbench.processes import startup as start
from workbench.rundir import beats
from workbench.rundir.store import RunDir
from workbench.serve.health import Health
from workbench.settings import placement, stored
from workbench.settings.online import SamplingConfig, require
from workbench.settings.spec import Experiment

if TYPE_CHECKING:
    from workbench.engine.swap import Stage

IDLE, IDLE_S = "idle", 60.0
"""The other ranks hear from rank 0 at least this often, so that their wait does not time out."""
LINGER_S = 0.02
"""A request that needs another model on the accelerator waits this long for one that does not: less than a swap costs."""


@dataclass(frozen=True)
class Served:
    """An endpoint as every rank has it, and the role that answers it."""

    role: str
    inputs: tuple[Field, ...]
    outputs: tuple[Field, ...]
    compute: Callable[[Arrays], Arrays]


def serve(run: RunDir, spec: Experiment, placed: placement.Server) -> None:
    """Answer until SIGTERM."""
    from workbench.engine import parallel

    directory, spec = start.fetched(run, spec)
    around = Surroundings(run, spec, placed.layout, directory)
    stage = _stage(spec, placed)
    endpoints: dict[str, Served] = {}
    for role in placed.roles:
        endpoints |= _endpoints(role, around, stage)
    if parallel.rank() == 0:
        _lead(around, placed, endpoints, stage)
    else:
        _follow(endpoints)


def _stage(spec: Experiment, placed: placement.Server) -> Stage | None:
    """Where two models take turns on the accelerator."""
    from workbench.engine import device
    from workbench.engine.swap import Stage

    if len(placed.roles) == 1 or len(placed.sources) == 1:
        return None
    wanted = require(spec.algorithm, SamplingConfig).swap_to_host
    return Stage() if wanted == "always" or (wanted == "gpu" and device.CUDA) else None


def _endpoints(role: str, around: Surroundings, stage: Stage | None) -> dict[str, Served]:
    module = find_role(role)
    made = stage.build(role, lambda: module.serve(around), lambda served: served.models()) if stage else module.serve(around)

    def on_stage(compute: Callable[[Arrays], Arrays]) -> Callable[[Arrays], Arrays]:
        def call(arrays: Arrays) -> Arrays:
            if stage:
                stage.enter(role)
            return compute(arrays)

        return call

    return {name: Served(role, each.inputs, each.outputs, on_stage(each.compute)) for name, each in made.endpoints().items()}


def _lead(around: Surroundings, placed: placement.Server, endpoints: dict[str, Served], stage: Stage | None) -> None:
    """Rank 0: refuse what is wrong, hand what is right to the other ranks, and compute with them."""
    from workbench.engine import hf, parallel
    from workbench.serve.server import Server

    run, spec = around.run, around.spec
    vocabulary = hf.config(around.directory).vocab_size
    longest = spec.data.max_length + getattr(spec.algorithm, "max_tokens", 0)
    last = [time.monotonic()]

    def endpoint(name: str, served: Served) -> Endpoint:
        def call(arrays: Arrays) -> Arrays:
            check(arrays, vocabulary, longest)
            last[0] = time.monotonic()
            with beats.doing(name):
                parallel.from_first((name, arrays))
                return served.compute(arrays)

        return Endpoint(name, served.inputs, served.outputs, call, served.role)

    ended: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: ended.append(number))

    def stop() -> bool:
        if time.monotonic() - last[0] > IDLE_S:
            last[0] = time.monotonic()
            parallel.from_first(None)
        return bool(ended)

    def swaps() -> dict[str, object]:
        return {"here": stage.here, "swaps": stage.swaps, "swapped_s": stage.seconds, "host_bytes": stage.bytes_away} if stage else {}

    server = Server(
        run.path,
        placed.name,
        [endpoint(name, served) for name, served in endpoints.items()],
        host=os.environ.get("MASTER_ADDR", "127.0.0.1"),  # the gang's own: loopback on one machine, the node's address on a cluster
        linger_s=LINGER_S if stage else 0.0,
        health=Health(run.path, placed.name, placed.processes, swaps),
    )
    with beats.doing(IDLE):
        server.run(stop)
    parallel.from_first("end")


def _follow(endpoints: dict[str, Served]) -> None:
    """Another rank: compute what rank 0 does, until it says that it ends."""
    from workbench.engine import parallel

    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # sent to all ranks alike: rank 0 ends the last request first
    nothing = cast("tuple[str, Arrays] | str | None", None)
    with beats.doing(IDLE):
        while not isinstance(asked := parallel.from_first(nothing), str):
            if asked is not None:
                name, arrays = cast(tuple[str, Arrays], asked)
                with beats.doing(name), contextlib.suppress(BadRequest):  # refused on every rank alike: rank 0 tells whoever asked
                    endpoints[name].compute(arrays)


def check(arrays: Arrays, vocabulary: int, longest: int) -> None:
    """Raises BadRequest for arrays that no model could read, before any other rank hears of them."""
    if "step" in arrays and (arrays["step"].shape != (1,) or arrays["step"][0] < 0):
        raise BadRequest(f"step: one number from 0, got {arrays['step'].tolist()}")
    if "tokens" not in arrays:
        return
    check_tokens(arrays["tokens"], arrays["sequence_lengths"], vocabulary, longest)
    rows = len(arrays["tokens"])
    for name in ("prompt_lengths", "temperatures", "columns", "asked"):
        if name in arrays and len(arrays[name]) != rows:
            raise BadRequest(f"{name} has {len(arrays[name])} entries for {rows} rows of tokens")
    if not ((arrays["prompt_lengths"] >= 1) & (arrays["prompt_lengths"] < arrays["sequence_lengths"])).all():
        raise BadRequest("prompt_lengths: from 1 to below sequence_lengths")
    if not (arrays["temperatures"] > 0).all():
        raise BadRequest("temperatures: above 0")
    for name in ("returns", "values"):
        if name in arrays and (arrays[name].shape != arrays["tokens"].shape or not np.isfinite(arrays[name]).all()):
            raise BadRequest(f"{name}: finite numbers in the shape of tokens, {arrays['tokens'].shape}")


def main() -> int:
    run, name = RunDir(Path(sys.argv[1])), sys.argv[2]
    beats.begin(run, name)
    spec = stored.experiment(run)
    placed = placement.server(name, spec.algorithm, spec.model)
    spec = start.join(run, spec, placed.layout)
    from workbench.engine import parallel

    serve(run, spec, placed)
    parallel.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())
