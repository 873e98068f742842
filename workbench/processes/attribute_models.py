"""An attribute model: the ratings of an answer, and the probability of each, from a head's scores."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from workbench.algorithms import reward_model
from workbench.functional import ordinal
from workbench.settings import AlgorithmConfig

HEAD = "attributes_head"
"""What config.json of an exported model says of its scores."""
_KEYS = ("objective", "attributes", "likelihood", "lowest", "highest")


@dataclass(frozen=True)
class Measured:
    """`expected` ratings by attribute; `log_probs` of each level, from an ordinal head alone."""

    expected: Mapping[str, float]
    log_probs: Mapping[str, np.ndarray] | None
    lowest: int
    highest: int

    def rounded(self) -> dict[str, int]:
        """Whole ratings within the scale, half to even, as NeMo-Aligner writes them."""
        return {name: int(np.clip(np.rint(value), self.lowest, self.highest)) for name, value in self.expected.items()}

    def log_likelihood(self, ratings: Mapping[str, float]) -> float | None:
        """log P(ratings | prompt, answer), the attributes taken as independent; None without an ordinal head.

        Raises:
            ValueError: an attribute that the model does not know, or a rating that is no level of its scale.
        """
        if self.log_probs is None:
            return None
        total = 0.0
        for name, rating in ratings.items():
            if name not in self.log_probs:
                raise ValueError(f"the attribute model knows {', '.join(self.log_probs)}, not {name}")
            if rating != int(rating) or not self.lowest <= rating <= self.highest:
                raise ValueError(f"{name}={rating:g} is no level of the attribute model, which has {self.lowest} to {self.highest}")
            total += float(self.log_probs[name][int(rating) - self.lowest])
        return total


def measured(scores_K: np.ndarray, cfg: reward_model.Config) -> Measured:
    """What a head's scores of one answer say."""
    if cfg.objective == "regression":
        return Measured(dict(zip(cfg.attributes, map(float, scores_K), strict=True)), None, cfg.lowest, cfg.highest)
    log_probs_AL = ordinal.log_probabilities(torch.from_numpy(scores_K).view(len(cfg.attributes), -1), cfg.likelihood)
    expected_A = ordinal.expectation(log_probs_AL) + cfg.lowest
    log_probs = dict(zip(cfg.attributes, log_probs_AL.numpy(), strict=True))
    return Measured(dict(zip(cfg.attributes, expected_A.tolist(), strict=True)), log_probs, cfg.lowest, cfg.highest)


def described(algorithm: AlgorithmConfig) -> dict[str, object]:
    """What config.json of an exported attribute model says of its scores; empty for a model that is none."""
    if not isinstance(algorithm, reward_model.Config) or algorithm.objective == "ranking":
        return {}
    labels = {str(i): name for i, name in enumerate(algorithm.attributes)} if algorithm.objective == "regression" else {}
    ids = {"id2label": labels, "label2id": {name: int(i) for i, name in labels.items()}} if labels else {}
    return {HEAD: algorithm.model_dump(mode="json", include=set(_KEYS)), **ids}


def head_of(algorithm: AlgorithmConfig, directory: Path) -> reward_model.Config:
    """The head of a checkpoint's algorithm, or of the model in a directory where there is no algorithm.

    Raises:
        ValueError: neither is an attribute model's.
    """
    if isinstance(algorithm, reward_model.Config) and algorithm.objective != "ranking":
        return algorithm
    tree = json.loads((directory / "config.json").read_text())
    if isinstance(head := tree.get(HEAD), dict) and set(head) <= set(_KEYS):
        return reward_model.Config(**head)
    raise ValueError(
        f"{directory} does not say which attributes its scores are: name a run's checkpoint (job.checkpoint), the export of one, or set"
        " algorithm=reward_model algorithm.objective=regression algorithm.attributes=[…]"
    )
