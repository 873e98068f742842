"""`attributes.json`: what a model was conditioned on, and which ratings its training rows had together. The sliders and their reach come from it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError, model_validator

from workbench.rundir import opening
from workbench.rundir.files import replacing
from workbench.rundir.opening import Unreadable
from workbench.settings import Steering

FILE = "attributes.json"
LARGEST = 64 << 20
"""Bytes of such a file; a larger one is refused."""
Vector = tuple[float | None, ...]


@dataclass(frozen=True)
class Targets:
    """The attributes of a model, and the distinct ratings of its training rows.

    `vectors` has them in the order of `steering.attributes`, None for one that was not rated; `counts` how many rows have each. `template_kwargs` are the
    chat template's variables in training.
    """

    steering: Steering
    vectors: tuple[Vector, ...]
    counts: tuple[int, ...]
    template_kwargs: Mapping[str, JsonValue]

    @staticmethod
    def of(steering: Steering, ratings: Iterable[Mapping[str, float]], template_kwargs: Mapping[str, JsonValue]) -> Targets:
        """Of the training rows' ratings; the commonest first."""
        counted = Counter(tuple(each.get(name) for name in steering.attributes) for each in ratings)
        ordered = sorted(counted.items(), key=lambda item: (-item[1], tuple(-1e9 if value is None else value for value in item[0])))
        return Targets(steering, tuple(vector for vector, _ in ordered), tuple(count for _, count in ordered), template_kwargs)

    @property
    def rows(self) -> int:
        return sum(self.counts)

    def write(self, path: Path) -> None:
        tree = {"format": 1, "steering": self.steering.model_dump(mode="json"), "template_kwargs": dict(self.template_kwargs), "rows": self.rows}
        with replacing(path) as file:
            file.write(json.dumps({**tree, "vectors": self.vectors, "counts": self.counts}, ensure_ascii=False).encode())

    @staticmethod
    def read(path: Path) -> Targets:
        """Raises FileNotFoundError, and Unreadable for what is no such file."""
        with open(path, "rb", opener=opening.opener) as file:
            text = file.read(LARGEST + 1)
        if len(text) > LARGEST:
            raise Unreadable(path, f"larger than {LARGEST >> 20} MiB")
        try:
            return Targets.parse(json.loads(text))
        except ValueError as error:
            raise Unreadable(path, str(error)) from None

    @staticmethod
    def beside(directory: Path) -> Targets | None:
        """Of the model in a directory, which may be anybody's. Raises Unreadable for what is no such file."""
        path = directory / FILE
        if not path.is_file():
            return None
        try:
            with path.open("rb") as file:
                return Targets.parse(json.loads(file.read(LARGEST)))
        except ValueError as error:
            raise Unreadable(path, str(error)) from None

    @staticmethod
    def parse(tree: object) -> Targets:
        """From what `write` writes, read as JSON. Raises ValueError."""
        try:
            file = _File.model_validate(tree)
        except ValidationError as error:
            raise ValueError(f"no attributes of a model: {error.errors()[0]['msg']} at {'.'.join(map(str, error.errors()[0]['loc']))}") from None
        return Targets(file.steering, tuple(map(tuple, file.vectors)), tuple(file.counts), file.template_kwargs)


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    format: int = Field(ge=1, le=1)
    steering: Steering
    template_kwargs: dict[str, JsonValue]
    rows: int
    vectors: Sequence[Sequence[float | None]]
    counts: Sequence[int]

    @model_validator(mode="after")
    def _fits(self) -> _File:
        if len(self.vectors) != len(self.counts) or any(len(vector) != len(self.steering.attributes) for vector in self.vectors):
            raise ValueError("vectors and counts do not fit the attributes")
        return self
