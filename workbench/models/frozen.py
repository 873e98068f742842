"""Models that only read, and models in the layout of the processes that they are given."""

from __future__ import annotations

from typing import TYPE_CHECKING

from workbench.settings import AlgorithmConfig, Lora, Model
from workbench.settings.layout import Layout

if TYPE_CHECKING:
    from pathlib import Path

    from workbench.engine.step import Policy


class _Frozen(AlgorithmConfig):
    name: str = "frozen"
    scores: int = 0

    @property
    def num_scores(self) -> int:
        return self.scores


def frozen(model: Model, directory: Path, micro_batch_tokens: int, num_scores: int = 0) -> Policy:
    """A model that only reads. Adapters that nothing trains keep it without gradients and optimizer state, and change nothing."""
    from workbench.engine.step import Policy

    settings = model.model_copy(update={"lora": Lora(rank=1, targets=("qkv",)), "distributed_optimizer": False})
    return Policy(settings, _Frozen(micro_batch_tokens=micro_batch_tokens, scores=num_scores), directory, total_steps=1)


def laid_out(model: Model, layout: Layout) -> Model:
    """The model, shared by ranks in this layout."""
    sizes = {f"{name}_parallel": getattr(layout, name) for name in ("tensor", "pipeline", "context", "expert")}
    return model.model_copy(update={**sizes, "virtual_pipeline": layout.virtual, "sequence_parallel": model.sequence_parallel and layout.tensor > 1})
