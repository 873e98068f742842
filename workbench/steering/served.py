"""What the sliders know of a served checkpoint: its attributes with their levels, and how the training rows are spread over them."""

from __future__ import annotations

from dataclasses import dataclass

from workbench.data.targets import Targets
from workbench.rundir.lines import Json
from workbench.serve.completions import ServedModel


@dataclass(frozen=True)
class Served:
    """A checkpoint that the run `endpoint` serves."""

    endpoint: str
    model: ServedModel

    @property
    def key(self) -> str:
        return f"{self.endpoint}/{self.model.id}"

    def json(self) -> dict[str, Json]:
        """For a browser: `steering` is None for a model that was not trained with attributes."""
        targets = self.model.targets
        return {
            "key": self.key,
            "endpoint": self.endpoint,
            "model": self.model.id,
            "source": self.model.source,
            "step": self.model.step,
            "steering": _sliders(targets) if targets else None,
        }


def _sliders(targets: Targets) -> dict[str, Json]:
    """`shares`: by attribute the share of the rated training rows at each level. `first`: the commonest ratings, where the sliders begin."""
    steering = targets.steering
    shares: dict[str, Json] = {}
    for index, name in enumerate(steering.attributes):
        counts = dict.fromkeys(steering.levels, 0)
        for vector, count in zip(targets.vectors, targets.counts, strict=True):
            if (rating := vector[index]) is not None:
                counts[min(max(round(rating), steering.lowest), steering.highest)] += count
        rated = sum(counts.values())
        shares[name] = [count / rated if rated else 0.0 for count in counts.values()]
    commonest = targets.vectors[0] if targets.vectors else ()
    return {
        "attributes": list(steering.attributes),
        "levels": list(steering.levels),
        "layout": steering.layout,
        "shares": shares,
        "rows": targets.rows,
        "first": {name: round(rating) for name, rating in zip(steering.attributes, commonest, strict=False) if rating is not None},
    }
