"""Whether a line or a small file of a run is what its writer leaves: readers take nothing else, so that a damaged one is named and not met later."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

MOST = 1 << 53
"""Numbers of steps, tokens and bytes are below it."""
SHOWN = 60
Count = Annotated[int, Field(gt=-MOST, lt=MOST)]
Moment = Annotated[float, Field(ge=0, lt=1e11, allow_inf_nan=False)]
"""Seconds since the epoch, in years that a calendar has."""
Number = float | Literal["nan", "inf", "-inf"]


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True)


class _Bin(_Strict):
    predicted: Number
    observed: Number
    count: Count


class _Histogram(_Strict):
    edges: list[Number]
    chosen: list[Count]
    rejected: list[Count]


class _Lengths(_Strict):
    tokens: list[Count]
    scores: list[Number]
    chosen: list[bool]


class _Confusion(_Strict):
    levels: list[int]
    counts: list[list[Number]]


class _Ratings(_Strict):
    name: str
    rated: Count
    actual: list[Number]
    predicted: list[Number]
    bins: list[_Bin] = []
    calibration: list[_Bin] = []
    confusion: _Confusion | None = None


class _Ranking(_Strict):
    kind: str = "ranking"
    calibration: list[_Bin]
    histogram: _Histogram
    lengths: _Lengths


class _Regression(_Strict):
    kind: Literal["regression"]
    attributes: list[_Ratings]


class _Sample(_Strict):
    prompt: str
    response: str


class _Event(_Strict):
    """The fields of `workbench.rundir.lines.Event`, each as its readers need it."""

    seq: Count
    time: Moment
    kind: str
    step: Count = 0
    total_steps: Count = 0
    live: dict[str, object] = {}
    coverage: dict[str, int] = {}
    metrics: dict[str, Number | None] = {}
    samples: list[_Sample] = []
    diagnostics: _Regression | _Ranking | None = None
    seconds: Number = 0
    bytes: Count = 0
    message: str = ""
    done: Count | None = None
    total: Count | None = None
    name: str = ""
    rollouts: list[Count] = []
    ranks: list[str] = []
    request: str = ""
    asked: Number | None = None
    values: dict[str, object] = {}
    reason: str = ""
    report: dict[str, object] = {}


_NEEDED = {
    "step": ("step",),
    "validation": ("step",),
    "checkpoint": ("step",),
    "phase": ("message",),
    "alarm": ("name", "step", "message"),
    "alarm_over": ("name",),
    "control": ("request", "step"),
    "warning": ("message",),
    "end": ("step", "reason"),
    "data": ("report",),
}
"""What readers take for given in an event of a kind; a kind that is not here is passed over."""


class _Request(_Strict):
    time: Moment
    request: str
    values: dict[str, object] = {}


class _Job(_Strict):
    model_config = ConfigDict(extra="forbid")
    backend: str
    id: str
    host: str
    started: Moment
    mark: str = ""


class _Status(_Strict):
    model_config = ConfigDict(extra="forbid")
    format: Count = 1
    state: str
    message: str = ""
    attempt: Annotated[int, Field(ge=0, lt=MOST)] = 0
    step: Annotated[int, Field(ge=0, lt=MOST)] = 0
    total_steps: Annotated[int, Field(ge=0, lt=MOST)] = 0
    created: Moment = 0.0
    updated: Moment = 0.0
    job: _Job | None = None


class _Pipeline(_Strict):
    model_config = ConfigDict(extra="forbid")
    format: Count
    created: Moment
    updated: Moment
    attempt: Annotated[int, Field(ge=1, lt=MOST)]
    stopping: bool
    resuming: list[str]
    problems: dict[str, str]
    job: _Job | None


class _Stage(_Strict):
    model_config = ConfigDict(extra="forbid")
    pipeline: Annotated[str, Field(min_length=1, max_length=200)]
    stage: Annotated[str, Field(min_length=1, max_length=80)]


class _Beat(_Strict):
    model_config = ConfigDict(extra="forbid")
    role: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]+$")]
    rank: Count
    attempt: Count
    host: str
    pid: Count
    number: Count
    interval_s: float
    step: Count
    phase: str
    phase_s: float
    collective: str
    place: str
    moves: Count
    quiet_s: float
    ended: bool = False
    cpus: float = 0.0
    memory_mib: float = 0.0
    gpu_memory_mib: float | None = None
    gpu_busy: float | None = None


def event(record: Mapping[str, object]) -> str:
    """Why an event is none; empty where it is one."""
    if wrong := _wrong(_Event, record):
        return wrong
    needed = _NEEDED.get(str(record["kind"]), ())
    missing = [name for name in needed if name not in record]
    return f"{record['kind']}: {', '.join(missing)} is missing" if missing else ""


def request(record: Mapping[str, object]) -> str:
    """Why a request is none; empty where it is one."""
    return _wrong(_Request, record)


def status(record: Mapping[str, object]) -> str:
    """Why a status is none; empty where it is one. Its state is looked up elsewhere."""
    return _wrong(_Status, record)


def pipeline(record: Mapping[str, object]) -> str:
    """Why the status of a pipeline is none; empty where it is one."""
    return _wrong(_Pipeline, record)


def stage(record: Mapping[str, object]) -> str:
    """Why what a run says of its pipeline is nothing of the kind; empty where it is."""
    return _wrong(_Stage, record)


def beat(record: Mapping[str, object]) -> str:
    """Why a beat is none; empty where it is one."""
    return _wrong(_Beat, record)


def _wrong(model: type[BaseModel], record: object) -> str:
    try:
        model.model_validate(record)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        got = "" if first["type"] == "missing" else f" (got {str(first['input'])[:SHOWN]!r})"
        return f"{'.'.join(map(str, first['loc']))}: {first['msg'].lower()}{got}"
    return ""
