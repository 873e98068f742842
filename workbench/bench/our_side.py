"""This engine's half: `python -m workbench.bench.our_side SETTINGS.json` prints the same JSON line as `trl_side`.

A DPO step includes the reference pass over its rows (in a run it is made once and kept). With `same_kernels` the matrix products are torch's own,
as on the other side.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import sys
import time
from pathlib import Path
from typing import Any

from workbench import algorithms
from workbench import metrics as M
from workbench.data.chat import Chat
from workbench.data.formats import Asked, parse
from workbench.data.packing import Row
from workbench.engine import device, hf, parallel, products
from workbench.engine.step import Policy
from workbench.settings import Lora, Model
from workbench.settings.modules import outputs_of


def measure(settings: dict[str, Any]) -> dict[str, Any]:
    """In a gang of one rank."""
    parallel.start()
    with products.stock() if settings["same_kernels"] else contextlib.nullcontext():
        result = _steps(settings)
    parallel.stop()
    return result


def _steps(settings: dict[str, Any]) -> dict[str, Any]:
    directory = Path(settings["model"])
    chat = Chat(hf.tokenizer(directory))
    algorithm = algorithms.find(settings["kind"])
    fields = {"beta": settings["beta"]} if settings["kind"] == "dpo" else {}
    cfg = algorithm.Config(lr=settings["lr"], min_lr_ratio=1, warmup_steps=0, **fields)
    model = Model(source=str(directory), precision=settings["precision"], lora=Lora(rank=settings["rank"], alpha=settings["alpha"]))
    policy = Policy(model, cfg, directory, settings["steps"], outputs_of(cfg))
    if settings["kind"] == "dpo":
        rows = [chat.one(text) for row in settings["rows"] for text in parse(row, "preference", Asked("preference", ""))[0]]
    else:
        rows = [Row(row["input_ids"], learn=[bool(learn) for learn in row["completion_mask"]]) for row in settings["rows"]]
    seconds, first = [], {}
    for step in range(settings["steps"]):
        started = time.perf_counter()
        batch = rows
        if "reference" in algorithm.ROLES:
            known = policy.outputs(rows, reference=True)
            batch = [dataclasses.replace(row, reference_logprobs_N=given.of("logprobs_N")) for row, given in zip(rows, known, strict=True)]
        metrics = policy.update(batch, algorithm.loss, step, 0)
        seconds.append(time.perf_counter() - started)
        first = first or metrics
    names = (M.LOSS, M.LOGPROBS_CHOSEN, M.LOGPROBS_REJECTED)
    return {**{name: first.get(name) for name in names}, "seconds": seconds, M.PEAK_MEMORY_GIB: device.peak_memory_gib()}


if __name__ == "__main__":
    print("RESULT " + json.dumps(measure(json.loads(Path(sys.argv[1]).read_text()))))
