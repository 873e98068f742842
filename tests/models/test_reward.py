"""A reward model in the processes of a policy that shares its layers: its scores are those of one process."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests import gang
from workbench.rewards.base import Finished
from workbench.settings.layout import Layout


def score(folder: Path) -> None:
    """On every rank of a layout."""
    from workbench.engine import hf, parallel
    from workbench.models.protocol import Surroundings
    from workbench.models.roles.reward import RewardModels
    from workbench.rundir.store import RunDir
    from workbench.settings.spec import compose

    sources = json.loads((folder / "sources.json").read_text())
    layout = (f"model.tensor_parallel={parallel.tensor_size()}", f"model.pipeline_parallel={parallel.pipeline_size()}")
    rewards = f"algorithm.rewards={{liked: {{model: {sources['reward']}}}, short: {{program: brevity}}}}"
    ranks = f"backend.ranks_per_node={parallel.world_size()}"
    spec = compose(["algorithm=grpo", f"model.source={sources['policy']}", rewards, "algorithm.samples_per_prompt=8", *layout, ranks])
    rng = np.random.default_rng(3)
    answers = [
        Finished(i, "?", "!", {}, prefix, rng.integers(3, 250, 4 + i).tolist())
        for i in range(3)
        for prefix in [rng.integers(3, 250, 5 + i).tolist()]
        for _ in "ab"
    ]
    directory = hf.local_directory(spec.model.source)
    made = RewardModels(Surroundings(RunDir(folder), spec, spec.model.layout, directory))
    found = np.array([component.at_once(answers).values for component in made.components], np.float32).T
    if parallel.rank() == 0:
        np.save(folder / f"{parallel.world_size()}.npy", found)


@pytest.mark.parametrize("layout", [Layout(tensor=2), Layout(pipeline=3)], ids=str)
@pytest.mark.usefixtures("alone")
def test_scores_in_any_layout(layout: Layout, tmp_path: Path, tied_model: Path, tiny_reward: Path) -> None:
    (tmp_path / "sources.json").write_text(json.dumps({"policy": str(tied_model), "reward": str(tiny_reward)}))
    score(tmp_path)
    gang.run(score, tmp_path, layout)
    alone, shared = np.load(tmp_path / "1.npy"), np.load(tmp_path / f"{layout.ranks}.npy")
    assert alone.shape == (6, 2) and len(set(alone[:, 0])) == 6
    assert np.allclose(shared, alone, rtol=1e-4, atol=1e-6)
