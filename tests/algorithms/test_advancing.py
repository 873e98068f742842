"""A reference that is moved up to the policy: what SPIN and iterated preference optimization stand on."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import models
from tests.extend import extended, warm, workbench
from workbench.rundir.store import RunDir, State

CLIMB = '''"""DPO against a reference that is moved up to the policy after every second step."""

from typing import Literal

from workbench.algorithms import dpo
from workbench.settings.outputs import Outputs

ROWS = "preference"
ROLES = {"reference": "advancing"}
OUTPUTS = Outputs(logprobs=True)
loss = dpo.loss


class Config(dpo.Config):
    name: Literal["climb"] = "climb"


def train(cfg, rt):
    for rows in rt.batches():
        learnt = rt.update(rt.with_reference(rows), loss)
        rt.state["seen"] = rt.state.get("seen", 0) + len(rows)
        if (rt.step + 1) % 2 == 0:
            rt.advance_reference()
        yield {**learnt, "seen": rt.state["seen"]}
'''


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    made = extended(tmp_path_factory.mktemp("climb"), {"workbench/algorithms/climb.py": CLIMB, "conf/algorithm/climb.yaml": "name: climb\n"})
    models.save(made / "model", num_hidden_layers=2, tie_word_embeddings=True)
    rows = [{"prompt": f"What is {i}?", "chosen": f"{i} is bread.", "rejected": "Paris"} for i in range(16)]
    (made / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with warm(made):
        yield made


def run(folder: Path, *overrides: str, check: bool = True) -> RunDir:
    words = (
        f"model.source={folder / 'model'}",
        f"data.train={folder / 'rows.jsonl'}",
        "algorithm=climb",
        "algorithm.global_batch_size=4",
        "algorithm.lr=3e-3",
        "algorithm.warmup_steps=0",
        "algorithm.max_steps=6",
        "validation.every_steps=3",
        "validation.samples=0",
        "checkpoint.every_steps=3",
        "checkpoint.asynchronous=false",
        "data.validation_fraction=0.2",
        "backend.threads_per_rank=1",
    )
    done = workbench(folder, "run", "--json", *words, *overrides)
    assert not check or done.returncode == 0, done.stdout + done.stderr
    return RunDir(Path(json.loads(done.stdout.splitlines()[0])["path"]))


def curve(run: RunDir) -> dict[int, tuple[float, ...]]:
    names = ("loss", "grad_norm", "rewards_margin", "seen")
    return {event["step"]: tuple(event["metrics"][name] for name in names) for event in run.events() if event["kind"] == "step"}


def advances(run: RunDir) -> list[dict[str, Any]]:
    return [event for event in run.events() if event["kind"] == "reference"]


@pytest.fixture(scope="module")
def undisturbed(folder: Path) -> RunDir:
    return run(folder, "name=undisturbed")


def test_the_first_step_after_it_moved_starts_from_no_margin(undisturbed: RunDir) -> None:
    """Against itself a policy has the loss log 2 and no margin: at steps 1, 3 and 5; and a margin at the steps between."""
    for step, (loss, _, margin, _) in curve(undisturbed).items():
        if step % 2:
            assert (loss, margin) == (pytest.approx(0.693147, abs=1e-5), pytest.approx(0, abs=1e-5))
        else:
            assert margin > 1e-3
    told = advances(undisturbed)
    assert [event["version"] for event in told] == [1, 2, 3]
    assert len({event["digest"] for event in told}) == 3
    assert [seen for *_, seen in curve(undisturbed).values()] == [4, 8, 12, 16, 20, 24]


@pytest.mark.parametrize("lora", ["model.lora.rank=16", "model.lora.rank=0"])
def test_from_a_checkpoint_it_goes_on_bit_for_bit(folder: Path, undisturbed: RunDir, lora: str) -> None:
    """At step 3 the reference is the policy of step 2: only the checkpoint has it. Of full fine-tuning it lies in host memory."""
    whole = undisturbed if lora.endswith("16") else run(folder, "name=whole", lora)
    killed = RunDir(whole.path.with_name(f"{whole.path.name}-killed"))
    shutil.copytree(whole.path, killed.path)
    shutil.rmtree(killed.checkpoints / "6")
    killed.update(state=State.STOPPED, job=None)
    done = workbench(folder, "resume", killed.id)
    assert done.returncode == 0, done.stdout + done.stderr
    assert [event["step"] for event in killed.events() if event["kind"] == "state"] == [0, 3]
    assert [event["step"] for event in killed.events() if event["kind"] == "step"] == [1, 2, 3, 4, 5, 6, 4, 5, 6]
    assert curve(killed) == curve(whole)
    assert [event["digest"] for event in advances(killed)[-2:]] == [event["digest"] for event in advances(whole)[-2:]]


def test_two_ranks_of_a_layer_and_two_stages_do_what_one_rank_does(folder: Path, undisturbed: RunDir) -> None:
    shared = run(folder, "name=shared", "model.tensor_parallel=2", "model.pipeline_parallel=2", "backend.ranks_per_node=4")
    for step, values in curve(undisturbed).items():
        assert curve(shared)[step] == pytest.approx(values, rel=1e-3, abs=1e-5)
