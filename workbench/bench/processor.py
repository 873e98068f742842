"""The processor that a comparison ran on, and how fast its matrix products are: what a ratio of two programs depends on besides the programs."""

from __future__ import annotations

import platform
import statistics
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from workbench.engine import device, products
from workbench.engine.model import DTYPES

SHAPES = ((512, 576, 1536), (512, 1536, 576), (512, 576, 576), (32, 576, 1536))
"""Products [M, K] x [K, N] as (M, K, N): a microbatch of SmolLM2-135M through its MLP and attention, and a decoding step of 32 answers."""
MEASURE_S = 0.08
"""Seconds that each product of each library is repeated."""
Library = Literal["torch", "onednn"]
LIBRARIES: tuple[Library, ...] = ("torch", "onednn")
"""What `torch.mm` calls as torch ships it (MKL for fp32, where torch is built with it), and oneDNN."""


@dataclass(frozen=True)
class Rate:
    """GFLOP/s of one library in one precision over SHAPES: the slowest, the median and the fastest product."""

    precision: str
    library: Library
    lowest: float
    median: float
    highest: float

    def __str__(self) -> str:
        mkl = self.precision == "fp32" and torch.backends.mkl.is_available()
        library = "oneDNN" if self.library == "onednn" else "MKL" if mkl else "torch.mm"
        return f"{self.precision} {library} {self.median:,.0f} ({self.lowest:,.0f} to {self.highest:,.0f})"


@dataclass(frozen=True)
class Processor:
    """What a table of a comparison is headed with. `exchanged` says whether the engine uses oneDNN's fp32 products in place of torch's own here."""

    name: str
    threads: int
    exchanged: bool
    rates: tuple[Rate, ...]

    def lines(self) -> Iterable[str]:
        """The table's head, for people."""
        yield f"{self.name}, {self.threads} threads" + ("; the engine's fp32 products are oneDNN's here" if self.exchanged else "")
        if self.rates:
            yield f"matrix products, GFLOP/s, median (lowest to highest) of {len(SHAPES)} shapes: {'; '.join(map(str, self.rates))}"


def examine(threads: int | None = None) -> Processor:
    """This machine's processor with `threads` threads, torch's present number without it. Takes about two seconds on a CPU; a GPU has no rates here."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads or before)
    try:
        rates = () if device.CUDA else tuple(_rate(precision, library) for precision in ("fp32", "bf16") for library in LIBRARIES)
        return Processor(device.describe() if device.CUDA else name(), torch.get_num_threads(), products.slow() and not device.CUDA, rates)
    finally:
        torch.set_num_threads(before)


def name() -> str:
    """The processor's model as Linux has it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _rate(precision: str, library: Library) -> Rate:
    measured = [_gflops(*shape, DTYPES[precision], products.multiply if library == "onednn" else torch.mm) for shape in SHAPES]
    return Rate(precision, library, min(measured), statistics.median(measured), max(measured))


@products.stock()
def _gflops(m: int, k: int, n: int, dtype: torch.dtype, multiply: Callable[[Tensor, Tensor], Tensor]) -> float:
    """By the fastest of the calls within MEASURE_S, after one that is not timed: other processes only make a call slower."""
    left, right = torch.randn(m, k, dtype=dtype), torch.randn(k, n, dtype=dtype)
    multiply(left, right)
    seconds = []
    while sum(seconds) < MEASURE_S:
        started = time.perf_counter()
        multiply(left, right)
        seconds.append(time.perf_counter() - started)
    return 2 * m * k * n / min(seconds) / 1e9
