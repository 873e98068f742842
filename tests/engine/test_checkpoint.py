"""Checkpoints saved at one layout and loaded at another; damage noticed; retention."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests import gang, models
from workbench.algorithms import dpo
from workbench.data.packing import Row
from workbench.engine import checkpoint, parallel
from workbench.engine.checkpoint import Checkpoints
from workbench.engine.gather import gathered
from workbench.engine.step import Policy
from workbench.settings import Checkpoint, Lora, Model
from workbench.settings.layout import Layout

LORA = Lora(rank=4)
FULL = Lora(rank=0)
STEPS = 3


def settings(layout: Layout, lora: Lora, **changes: bool) -> Model:
    sizes = {"tensor_parallel": layout.tensor, "pipeline_parallel": layout.pipeline, "expert_parallel": layout.expert}
    return Model(lora=lora, **sizes, **changes)


def policy(folder: Path, layout: Layout, lora: Lora, **changes: bool) -> Policy:
    cfg = dpo.Config(lr=1e-3, warmup_steps=0, global_batch_size=8, micro_batch_tokens=128, adam_eps=1e-4)
    return Policy(settings(layout, lora, **changes), cfg, folder / "model", 10, dpo.OUTPUTS)


def rows() -> list[Row]:
    rng = np.random.default_rng(0)

    def words(low: int, high: int) -> list[int]:
        return rng.integers(3, 250, rng.integers(low, high)).tolist()

    plain = [Row(words(3, 30), (words(2, 20), words(2, 20))) for _ in range(8)]
    return [dataclasses.replace(row, reference_logprobs_N=np.full(sum(map(len, row.branches)), -3.0, np.float32)) for row in plain]


def here() -> Layout:
    return Layout(parallel.tensor_size(), parallel.pipeline_size(), expert=parallel.expert_size())


def train(trained: Policy, start: int) -> list[float]:
    return [trained.update(rows(), dpo.loss, step, 0)["loss"] for step in range(start, start + STEPS)]


VARIANTS = {"full": (FULL, False), "lora": (LORA, False), "zero": (FULL, True)}


def save(folder: Path) -> None:
    """Three steps, a checkpoint, three more: what they gave is left for the others to compare with."""
    for variant in json.loads((folder / "variants.json").read_text()):
        lora, zero = VARIANTS[variant]
        trained = policy(folder, here(), lora, distributed_optimizer=zero)
        train(trained, 0)
        saved = Checkpoints(trained, folder / variant, Checkpoint(asynchronous=True))
        saved.save(STEPS)
        losses = train(trained, STEPS)  # while it is written: what is saved is the state before
        saved.finish()
        whole = {name: tensor.clone().numpy() for name, tensor in gathered(trained.weights(), trained.hf_config)}
        if parallel.rank() == 0:
            np.savez(folder / f"{variant}.npz", losses=losses, **whole)  # type: ignore[arg-type]


def load_and_go_on(folder: Path) -> None:
    for variant in json.loads((folder / "variants.json").read_text()):
        lora, zero = VARIANTS[variant]
        resumed = policy(folder, here(), lora, distributed_optimizer=zero)
        warnings: list[str] = []
        assert Checkpoints(resumed, folder / variant, Checkpoint()).load_newest(warnings.append) == STEPS
        assert not warnings
        losses = train(resumed, STEPS)
        expected = np.load(folder / f"{variant}.npz")
        np.testing.assert_allclose(losses, expected["losses"], rtol=1e-5, err_msg=variant)
        for name, tensor in gathered(resumed.weights(), resumed.hf_config):
            np.testing.assert_allclose(tensor.numpy(), expected[name], atol=1e-5, err_msg=variant)


def test_any_layout_to_any_other(tmp_path: Path) -> None:
    """TP2 to PP2 and to DP2, for full training, adapters and ZeRO-1: losses and weights go on as if nothing had happened. The embedding is
    tied, so PP2 has a copy of it."""
    models.save(tmp_path / "model", tie_word_embeddings=True, num_hidden_layers=2)
    (tmp_path / "variants.json").write_text(json.dumps(list(VARIANTS)))
    gang.run(save, tmp_path, Layout(tensor=2))
    gang.run(load_and_go_on, tmp_path, Layout(pipeline=2))
    gang.run(load_and_go_on, tmp_path, Layout(), data=2)


def test_experts(tmp_path: Path) -> None:
    models.save(tmp_path / "model", "mixtral", num_hidden_layers=2)
    (tmp_path / "variants.json").write_text(json.dumps(["full"]))
    gang.run(save, tmp_path, Layout(expert=2), data=2)
    gang.run(load_and_go_on, tmp_path, Layout(pipeline=2))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, alone: None) -> Policy:
    folder = tmp_path_factory.mktemp("checkpoints")
    models.save(folder / "model")
    found = policy(folder, Layout(), LORA)
    train(found, 0)
    return found


def saved(trained: Policy, folder: Path, steps: dict[int, float | None], **settings: object) -> Checkpoints:
    found = Checkpoints(trained, folder, Checkpoint(**settings))  # type: ignore[arg-type]
    for step, metric in steps.items():
        found.save(step, metric)
        assert found.finish() is not None
    return found


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


@pytest.mark.parametrize(("damage", "said"), [(cut, "bytes"), (flip, "checksum"), (Path.unlink, "missing")], ids=["cut", "flipped", "missing"])
def test_a_damaged_checkpoint_is_passed_over(trained: Policy, tmp_path: Path, damage: Callable[[Path], None], said: str) -> None:
    """The one before is used, and a warning names both."""
    checkpoints = saved(trained, tmp_path, {2: None, 4: None})
    damage(next((tmp_path / "4").glob("__0_*")))
    warnings: list[str] = []
    assert checkpoints.load_newest(warnings.append) == 2
    assert len(warnings) == 1
    assert said in warnings[0]
    assert str(tmp_path / "4") in warnings[0]
    assert str(tmp_path / "2") in warnings[0]
    assert (checkpoint.complete_steps(tmp_path), (tmp_path / "4.damaged").is_dir()) == ([2], True)


def test_retention(trained: Policy, tmp_path: Path) -> None:
    """The last two, and the best two of those that have a metric."""
    saved(trained, tmp_path, {1: 0.5, 2: 0.1, 3: 0.4, 4: None, 5: 0.2, 6: 0.3, 7: None}, keep_last=2, keep_best=2)
    assert checkpoint.complete_steps(tmp_path) == [2, 5, 6, 7]


def test_best_may_be_the_largest(trained: Policy, tmp_path: Path) -> None:
    saved(trained, tmp_path, {1: 0.5, 2: 0.1, 3: 0.4}, keep_last=1, keep_best=1, best_mode="max")
    assert checkpoint.complete_steps(tmp_path) == [1, 3]


def test_adapters_on_other_weights_are_refused(trained: Policy, tmp_path: Path) -> None:
    """The files of the model were replaced after the checkpoint: what reads it would have its adapters on another model."""
    saved(trained, tmp_path, {1: None})
    meta = tmp_path / "1" / "meta.json"
    meta.write_text(json.dumps({**json.loads(meta.read_text()), "weights": "0" * 32}))
    with pytest.raises(ValueError, match="has adapters on other weights than .* has now"):
        checkpoint.load_weights(trained, tmp_path, 1)


def test_other_adapters_are_refused(trained: Policy, tmp_path: Path) -> None:
    saved(trained, tmp_path, {1: None})
    other = policy(trained.directory.parent, Layout(), Lora(rank=8))
    with pytest.raises(ValueError, match=r"saved by another model: model\.lora="):
        checkpoint.load(other, tmp_path, 1)
