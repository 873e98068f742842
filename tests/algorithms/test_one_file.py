"""An algorithm that wants something else of the model is one file and its YAML."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.extend import extended, workbench
from workbench.rundir.store import RunDir

SHARPEN = '''"""Raise the likelihood of the tokens that are likeliest already, and of the data."""

from typing import Literal

from workbench.settings import AlgorithmConfig
from workbench.settings.outputs import Outputs

ROWS = "conversation"
ROLES = {}


class Config(AlgorithmConfig):
    name: Literal["sharpen"] = "sharpen"
    among: int = 4


def OUTPUTS(cfg):
    return Outputs(logprobs=True, top_k=cfg.among)


def loss(batch, cfg):
    top = batch.top_k
    mass_N = top.logprobs_NK.exp().sum(1)
    loss_N = -batch.logprobs_N - mass_N
    return loss_N, {"loss": loss_N, "likeliest": mass_N, "whole": mass_N + top.rest_N.exp()}


def train(cfg, rt):
    for rows in rt.batches():
        yield rt.update(rows, loss)
'''


def test_an_algorithm_that_wants_the_likeliest_tokens(tmp_path: Path, tiny_model: Path) -> None:
    """On two ranks that share the vocabulary; tests/engine/test_vocabulary.py has them equal to one, tests/test_costs.py an algorithm on one rank."""
    folder = extended(tmp_path, {"workbench/algorithms/sharpen.py": SHARPEN, "conf/algorithm/sharpen.yaml": "name: sharpen\n"})
    data = folder / "rows.jsonl"
    text = {
        "messages": [{"role": "user", "content": "Tell me how bread is made."}, {"role": "assistant", "content": "The capital of France is Paris."}]
    }
    data.write_text(f"{json.dumps(text)}\n" * 12)
    words = (f"model.source={tiny_model}", f"data.train={data}", "algorithm.global_batch_size=4", "algorithm.max_steps=2", "validation.samples=0")
    layout = ("model.tensor_parallel=2", "backend.ranks_per_node=2", "backend.threads_per_rank=1")
    done = workbench(folder, "run", "algorithm=sharpen", *words, *layout)
    assert done.returncode == 0, done.stdout + done.stderr
    run = RunDir(next((folder / "runs").iterdir()))
    steps = [event["metrics"] for event in run.events() if event["kind"] == "step"]
    assert len(steps) == 2
    assert all(step["whole"] == pytest.approx(1, abs=1e-5) and 0 < step["likeliest"] < 1 for step in steps)
