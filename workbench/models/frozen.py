"""Models that only read, and models in the layout of the processes that they are given."""

from __future__ import annotations

from typing import TYPE_CHECKING

from workbench.settings import AlgorithmConfig, Lora, Model
from workbench.settings.layout import Layout
from workbench.settings.outputs import Outputs

if TYPE_CHECKING:
    from pathlib import Path

    from workbench.engine.step import Policy


def frozen(model: Model, directory: Path, micro_batch_tokens: int, wanted: Outputs) -> Policy:
    """A model that only reads, and what is wanted of it. Adapters that nothing trains keep it without gradients and optimizer state, and change nothing."""
    from workbench.engine.step import Policy

    settings = model.model_copy(update={"lora": Lora(rank=1, targets=("qkv",)), "distributed_optimizer": False})
    return Policy(settings, AlgorithmConfig(name="frozen", micro_batch_tokens=micro_batch_tokens), directory, 1, wanted)


def laid_out(model: Model, layout: Layout) -> Model:
    """The model, shared by ranks in this layout."""
    sizes = {f"{name}_parallel": getattr(layout, name) for name in ("tensor", "pipeline", "context", "expert")}
    return model.model_copy(update={**sizes, "virtual_pipeline": layout.virtual, "sequence_parallel": model.sequence_parallel and layout.tensor > 1})
