"""Numbers and times as people read them."""

from __future__ import annotations

import itertools
import math
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Literal

from workbench.rundir.store import State

RECENT_STEPS = 30
STATE_COLOURS: dict[State, Literal["gray", "blue", "green", "orange", "red"]] = {
    State.CREATED: "gray",
    State.QUEUED: "gray",
    State.STARTING: "blue",
    State.RUNNING: "green",
    State.STOPPING: "orange",
    State.COMPLETED: "blue",
    State.STOPPED: "gray",
    State.KILLED: "orange",
    State.FAILED: "red",
    State.PREEMPTED: "orange",
}
STATE_ICONS = {
    State.CREATED: "schedule",
    State.QUEUED: "schedule",
    State.STARTING: "rocket_launch",
    State.RUNNING: "play_circle",
    State.STOPPING: "hourglass_bottom",
    State.COMPLETED: "check_circle",
    State.STOPPED: "stop_circle",
    State.KILLED: "dangerous",
    State.FAILED: "error",
    State.PREEMPTED: "schedule",
}


def number(value: float | None, digits: int = 4) -> str:
    """Four significant digits, thousands apart, tiny numbers with an exponent; a dash where there is none."""
    if value is None:
        return "–"
    if not math.isfinite(value):
        return str(value)
    if value < 0:
        return f"−{number(-value, digits)}"
    if value == 0 or value >= 10 ** (digits - 1):
        return f"{abs(value):,.0f}"
    if value < 1e-3:
        mantissa, exponent = f"{value:.2e}".split("e")
        return f"{mantissa.rstrip('0').rstrip('.')}e{int(exponent)}"
    return f"{value:.{max(0, digits - 1 - math.floor(math.log10(value)))}f}"


def duration(seconds: float | None) -> str:
    """`48 s`, `12 m 05 s`, `3 h 42 m`, `2 d 4 h`."""
    if seconds is None or not math.isfinite(seconds):
        return "–"
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} m {whole % 60:02d} s"
    if whole < 86400:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} m"
    return f"{whole // 86400} d {whole % 86400 // 3600} h"


def size(count: float) -> str:
    """Bytes: `812 B`, `4 KiB`, `1.2 GiB`."""
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} {unit}"
        count /= 1024
    return f"{count:.1f} GiB"


def ago(then: float, now: float | None = None) -> str:
    """`just now`, `5 m ago`, `3 h ago`, `2 d ago`."""
    seconds = (time.time() if now is None else now) - then
    for size, unit in ((86400, "d"), (3600, "h"), (60, "m")):
        if seconds >= size:
            return f"{int(seconds // size)} {unit} ago"
    return "just now"


def clock(then: float) -> str:
    """`14:05` today, `24 Nov 14:05` else; local time."""
    moment = time.localtime(then)
    today = time.localtime()[:3] == moment[:3]
    return time.strftime("%H:%M" if today else "%d %b %H:%M", moment)


def eta_s(steps: Sequence[int], times: Sequence[float], total_steps: int) -> float | None:
    """Seconds to the last step, from the median pace of the newest steps; None before two steps."""
    recent = list(zip(steps, times, strict=True))[-RECENT_STEPS - 1 :]
    paces = [(t1 - t0) / (s1 - s0) for (s0, t0), (s1, t1) in itertools.pairwise(recent) if s1 > s0 and t1 >= t0]
    if not paces or not total_steps:
        return None
    return max(0, total_steps - steps[-1]) * median(paces)


def visible(message: str) -> str:
    """Text from elsewhere, with what a terminal or a reader would be misled by as an escape that shows: control characters, ESC first of all, and
    those that turn the direction of writing or take no room. Line ends and tabs stay."""
    return _HIDDEN.sub(lambda match: match[0].encode("unicode_escape").decode(), message.replace("\r\n", "\n"))


_HIDDEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\ud800-\udfff\U000e0000-\U000e007f]"
)


def log_title(name: str) -> str:
    """A log by what it is of: `actor-0.2.log` is `actor 0 · attempt 2`, `slurm.17.1.log` is `SLURM job 17 · restart 1`."""
    of, number = name.removesuffix(".log").rpartition(".")[::2]
    system, dot, job = of.rpartition(".")
    if dot:
        return f"{system.replace('slurm', 'SLURM')} job {job}" + (f" · restart {number}" if number != "0" else "")
    return f"{of.replace('-', ' ')} · attempt {number}"


def title(key: str) -> str:
    """A field's or a metric's name for people: `global_batch_size` -> `Global batch size`."""
    *parts, last = (WORDS.get(word, word) for word in key.split("_"))
    text = " ".join([*parts, "(s)" if last == "s" else last])
    return text[:1].upper() + text[1:]


WORDS = {
    "lr": "learning rate",
    "lora": "LoRA",
    "kl": "KL",
    "fp8": "FP8",
    "adam": "Adam",
    "beta1": "β₁",
    "beta2": "β₂",
    "logprobs": "log-probs",
    "gib": "GiB",
    "sft": "SFT",
    "gpus": "GPUs",
    "cpus": "CPUs",
    "gae": "GAE",
    "qos": "QOS",
}


@dataclass(frozen=True)
class Figure:
    """One number of a run's headline: what it is, its value, what it is compared with, and its last values for a spark line."""

    label: str
    value: str
    note: str = ""
    help: str = ""
    curve: tuple[float, ...] = ()
