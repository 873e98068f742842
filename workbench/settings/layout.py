"""How the ranks share a model: which layouts fit it, and which come nearest to one that does not. Knows no torch."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workbench.settings.sources import EMBEDDED

_SHOWN = 4


@dataclass(frozen=True)
class Shape:
    """What of a model a layout has to divide. `experts` is 0 for a dense model."""

    layers: int
    heads: int
    query_groups: int
    ffn: int
    experts: int = 0

    @classmethod
    def of(cls, config: dict[str, Any]) -> Shape:
        """From a Hugging Face config.json of the Llama family."""
        heads = config["num_attention_heads"]
        experts = config.get("num_local_experts") or 0
        return cls(config["num_hidden_layers"], heads, config.get("num_key_value_heads") or heads, config["intermediate_size"], experts)


_EMBEDDED = {EMBEDDED: Shape(layers=30, heads=9, query_groups=3, ffn=1536)}


def known_shape(source: str) -> Shape | None:
    """The shape of a model whose config.json is at hand: a directory, the embedded model, or a hub model that was fetched before."""
    if source in _EMBEDDED:
        return _EMBEDDED[source]
    try:
        path = Path(source).expanduser() / "config.json"
        is_file = path.is_file()
    except (OSError, RuntimeError):  # no path and no hub id
        return None
    if not is_file:
        from huggingface_hub import try_to_load_from_cache
        from huggingface_hub.errors import HFValidationError

        try:
            cached = try_to_load_from_cache(source, "config.json")
        except HFValidationError:  # no hub id: what it is the worker tells
            return None
        if not isinstance(cached, str):
            return None
        path = Path(cached)
    try:
        return Shape.of(json.loads(path.read_text()))
    except (KeyError, ValueError, RecursionError):  # another architecture: what is wrong with it the worker tells
        return None


@dataclass(frozen=True)
class Layout:
    """Ranks by what they share. Data-parallel ranks are those that the product of tensor, pipeline and context leaves."""

    tensor: int = 1
    pipeline: int = 1
    virtual: int = 1
    context: int = 1
    expert: int = 1

    @property
    def ranks(self) -> int:
        """Ranks that hold one copy of the model."""
        return self.tensor * self.pipeline * self.context

    def __str__(self) -> str:
        parts = [("tensor_parallel", self.tensor), ("pipeline_parallel", self.pipeline), ("virtual_pipeline", self.virtual)]
        parts += [("context_parallel", self.context), ("expert_parallel", self.expert)]
        return " ".join(f"{name}={size}" for name, size in parts if size > 1) or "no model parallelism"


RANKS = "backend.num_nodes x backend.ranks_per_node"


def problems(layout: Layout, world_size: int, shape: Shape | None = None, key: str = RANKS) -> list[str]:
    """Why `world_size` ranks cannot share a model so; empty where they can. Without a shape only the ranks are counted; `key` says where they are set."""
    messages = []
    if world_size % layout.ranks:
        messages.append(
            f"a copy of the model takes tensor x pipeline x context = {layout.ranks} ranks, and {world_size} is no multiple of it ({key})"
        )
    elif world_size // layout.ranks * layout.context % layout.expert:
        messages.append(
            f"expert_parallel={layout.expert} does not divide the {world_size // layout.ranks * layout.context} ranks that hold the same layers"
        )
    if layout.virtual > 1 and layout.pipeline == 1:
        messages.append(f"virtual_pipeline={layout.virtual} needs pipeline_parallel of 2 or more")
    if shape is None:
        return messages
    for name, size, what, count in (
        ("tensor_parallel", layout.tensor, "attention heads", shape.heads),
        ("tensor_parallel", layout.tensor, "key-value heads", shape.query_groups),
        ("tensor_parallel", layout.tensor, "MLP columns", shape.ffn),
        ("pipeline_parallel x virtual_pipeline", layout.pipeline * layout.virtual, "layers", shape.layers),
    ):
        if count % size:
            messages.append(f"{name}={size} does not divide the model's {count} {what}")
    if layout.expert > 1 and (not shape.experts or shape.experts % layout.expert):
        messages.append(f"expert_parallel={layout.expert} does not divide the model's {shape.experts} experts")
    return messages


def check(layout: Layout, world_size: int, shape: Shape | None = None, key: str = RANKS) -> None:
    """Raises ValueError with every reason why the layout does not fit, and the nearest that do."""
    messages = problems(layout, world_size, shape, key)
    if messages:
        near = "; ".join(str(other) for other in nearest(layout, world_size, shape)) or "none"
        raise ValueError(f"{layout} on {world_size} rank{'s' * (world_size > 1)}: {'; '.join(messages)}. Nearest that fit: {near}")


def nearest(layout: Layout, world_size: int, shape: Shape | None = None) -> list[Layout]:
    """Up to four layouts that fit, those that change least first (in steps of a factor of two, summed over the sizes)."""
    sizes = [n for n in range(1, world_size + 1) if world_size % n == 0]
    virtual = [1, 2, 4] if layout.virtual > 1 else [1]
    expert = sizes if layout.expert > 1 and (shape is None or shape.experts) else [1]
    choices: list[Sequence[int]] = [sizes, sizes, virtual, sizes if layout.context > 1 else [1], expert]
    others = (Layout(*sizes) for sizes in itertools.product(*choices))
    fitting = [other for other in others if not problems(other, world_size, shape)]
    return sorted(fitting, key=lambda other: (_distance(layout, other), -other.tensor))[:_SHOWN]


def _distance(a: Layout, b: Layout) -> float:
    pairs = ((a.tensor, b.tensor), (a.pipeline, b.pipeline), (a.virtual, b.virtual), (a.context, b.context), (a.expert, b.expert))
    return sum(max(x, y) / min(x, y) - 1 for x, y in pairs)
