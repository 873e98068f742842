"""`adherence.json`: how well a model does what its attributes are set to, as a job that measures it left it in its run's folder."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from workbench.rundir.files import finite, read_json, write_atomic
from workbench.rundir.opening import Unreadable

FILE = "adherence.json"
FORMAT = 1


@dataclass(frozen=True)
class Estimate:
    """A value with its 95 % interval; all are None where it is unknown, and `why` says the reason."""

    value: float | None
    low: float | None = None
    high: float | None = None
    why: str = ""

    def __str__(self) -> str:
        if self.value is None:
            return f"unknown: {self.why}"
        interval = "" if self.low is None or self.high is None else f" ({self.low:.2f} to {self.high:.2f})"
        return f"{self.value:.2f}{interval}"


@dataclass(frozen=True)
class Level:
    """What answers achieved that were asked for one rating of an attribute. `words`: their mean length."""

    requested: float
    rows: int
    achieved: Estimate
    words: Estimate


@dataclass(frozen=True)
class Attribute:
    """One attribute's adherence, over `rows` rows. `alone`: in these rows the other requested ratings were held equal over its levels.

    `error`: mean |measured - requested|; `bias`: mean measured - requested; `spearman`: of requested and measured; `words`: Spearman's of requested and
    the answer's words. `moved`: by measured attribute, the mean at the highest requested level less that at the lowest.
    """

    name: str
    rows: int
    alone: bool
    levels: Sequence[Level]
    error: Estimate
    bias: Estimate
    spearman: Estimate
    words: Estimate
    moved: Mapping[str, Estimate]


@dataclass(frozen=True)
class Adherence:
    """What a grid of requests came to.

    `leakage[a][b]`: into measured b from requested a, by partial correlation; its diagonal is the attribute's own. `correlation[a][b]`: between the ratings
    of the training rows, empty where those are not known. `measured_by`: what rated each attribute. `warnings`: what makes the figures doubtful.
    """

    rows: int
    prompts: int
    attributes: Sequence[Attribute]
    leakage: Mapping[str, Mapping[str, Estimate]]
    correlation: Mapping[str, Mapping[str, float | None]]
    measured_by: Mapping[str, str]
    warnings: Sequence[str]

    def of(self, name: str) -> Attribute:
        """Raises ValueError for an attribute that was not requested."""
        for attribute in self.attributes:
            if attribute.name == name:
                return attribute
        raise ValueError(f"{name} was not requested; requested were: {', '.join(each.name for each in self.attributes)}")

    def write(self, path: Path) -> None:
        write_atomic(path, json.dumps(finite({"format": FORMAT, **asdict(self)}), indent=1, ensure_ascii=False, allow_nan=False))


_SHAPE = TypeAdapter(Adherence)


def read(path: Path) -> Adherence:
    """Raises FileNotFoundError, and Unreadable for what is no such file."""
    tree = read_json(path)
    format = tree.pop("format", None)
    if format != FORMAT:
        raise Unreadable(path, f"of format {format!r}; this version reads {FORMAT}")
    try:
        return _SHAPE.validate_python(tree)
    except ValidationError as error:
        first = error.errors()[0]
        raise Unreadable(path, f"no adherence: {first['msg']} at {'.'.join(map(str, first['loc']))}") from None
