"""A server's rank: `python -m workbench.serve RUN_DIR ROLE`. Rank 0 answers the requests; the others of its layout compute with it."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from workbench import placement, start
from workbench.serve.answers import PARTS, Arrays, Described
from workbench.serve.endpoint import BadRequest, Endpoint, check_tokens
from workbench.spec import Experiment
from workbench.store import RunDir

IDLE_S = 60.0
"""The other ranks hear from rank 0 at least this often, so that their wait does not time out."""


def serve(run: RunDir, spec: Experiment, place: placement.Server) -> None:
    """Answer until SIGTERM."""
    from workbench.engine import parallel

    described: dict[str, Described] = {}
    for make in PARTS[place.role]:
        described |= make(run, spec, place.layout).endpoints()
    if parallel.rank() == 0:
        _lead(run, spec, place, described)
    else:
        _follow({name: call for name, (_, _, call) in described.items()})


def _lead(run: RunDir, spec: Experiment, place: placement.Server, described: dict[str, Described]) -> None:
    """Rank 0: refuse what is wrong, hand what is right to the other ranks, and compute with them."""
    from workbench.engine import hf, parallel
    from workbench.serve.server import Server

    vocabulary = min(hf.config(hf.local_directory(source)).vocab_size for source in {spec.model.source, *place.sources})
    longest = spec.data.max_length + spec.algorithm.max_tokens  # type: ignore[attr-defined]
    last = [time.monotonic()]

    def endpoint(name: str) -> Endpoint:
        inputs, outputs, compute = described[name]

        def call(arrays: Arrays) -> Arrays:
            check(arrays, vocabulary, longest)
            last[0] = time.monotonic()
            parallel.from_first((name, arrays))
            return compute(arrays)

        return Endpoint(name, inputs, outputs, call)

    ended: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: ended.append(number))

    def stop() -> bool:
        if time.monotonic() - last[0] > IDLE_S:
            last[0] = time.monotonic()
            parallel.from_first(None)
        return bool(ended)

    # The gang's own address: loopback where all is on one machine, the node's on a cluster.
    host = os.environ.get("MASTER_ADDR", "127.0.0.1")
    Server(run.path, place.role, [endpoint(name) for name in described], host).run(stop)
    parallel.from_first("end")


def _follow(handlers: dict[str, Callable[[Arrays], Arrays]]) -> None:
    """Another rank: compute what rank 0 does, until it says that it ends."""
    from workbench.engine import parallel

    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # sent to all ranks alike: rank 0 ends the last request first
    nothing: Any = None
    while (asked := parallel.from_first(nothing)) != "end":
        if asked is not None:
            name, arrays = asked
            try:
                handlers[name](arrays)
            except BadRequest:  # refused on every rank alike: rank 0 tells whoever asked
                continue


def check(arrays: Arrays, vocabulary: int, longest: int) -> None:
    """Raises BadRequest for arrays that no model could read, before any other rank hears of them."""
    if "step" in arrays and (arrays["step"].shape != (1,) or arrays["step"][0] < 0):
        raise BadRequest(f"step: one number from 0, got {arrays['step'].tolist()}")
    if "tokens" not in arrays:
        return
    check_tokens(arrays["tokens"], arrays["sequence_lengths"], vocabulary, longest)
    rows = len(arrays["tokens"])
    for name in ("prompt_lengths", "columns"):
        if name in arrays and len(arrays[name]) != rows:
            raise BadRequest(f"{name} has {len(arrays[name])} entries for {rows} rows of tokens")
    if not ((arrays["prompt_lengths"] >= 1) & (arrays["prompt_lengths"] < arrays["sequence_lengths"])).all():
        raise BadRequest("prompt_lengths: from 1 to below sequence_lengths")
    for name in ("returns", "values"):
        if name in arrays and (arrays[name].shape != arrays["tokens"].shape or not np.isfinite(arrays[name]).all()):
            raise BadRequest(f"{name}: finite numbers in the shape of tokens, {arrays['tokens'].shape}")


def main() -> int:
    run, role = RunDir(Path(sys.argv[1])), sys.argv[2]
    spec = Experiment.from_yaml(run.spec_path.read_text())
    from workbench.engine import parallel

    place = placement.of_role(role, spec.algorithm, spec.model)
    serve(run, start.join(run, spec, place.layout), place)
    parallel.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())
