"""fp32 matrix products on AMD's CPUs with AVX-512: oneDNN's instead of MKL's.

MKL, which torch asks, keeps to AVX2 on a CPU that is not Intel's; oneDNN, which torch has at hand as well, does not, and is two to four times
as fast there (`workbench bench decode` shows both). Only products are exchanged that are worth a call through Python.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator

import torch
from torch import Tensor

_WORTH = 2_000_000
"""Multiplications and additions in a product: what takes MKL 20 microseconds."""
_onednn = torch.ops.mkldnn._linear_pointwise
_library: torch.library.Library | None = None


def slow() -> bool:
    """MKL does not use all that this CPU can do."""
    able = torch.cpu.get_capabilities()
    return str(able.get("cpu_name", "")).startswith("AMD") and bool(able.get("avx512_f")) and torch.backends.mkldnn.is_available()


def exchange() -> None:
    """From now on all of this process's products, forward and backward, are oneDNN's where MKL is `slow`."""
    global _library
    if _library is None and slow():
        _library = torch.library.Library("aten", "IMPL")
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Warning only once for all operators")  # that a kernel is replaced is the purpose
            _library.impl("mm", _mm, "CPU")
            _library.impl("addmm", _addmm, "CPU")


@contextlib.contextmanager
def stock() -> Iterator[None]:
    """Within: torch's own."""
    global _library
    exchanged, _library = _library, None
    if exchanged is not None:
        exchanged._destroy()
    try:
        yield
    finally:
        if exchanged is not None:
            exchange()


def multiply(left: Tensor, right: Tensor) -> Tensor:
    """oneDNN's product of [M, K] and [K, N], on every CPU that torch has oneDNN for."""
    return _onednn(left, right.t(), None, "none", [], "")


def _mm(left: Tensor, right: Tensor) -> Tensor:
    if _worth(left, right):
        return multiply(left, right)
    return torch.mm(left, right, out=left.new_empty(len(left), right.shape[1]))


def _addmm(bias: Tensor, left: Tensor, right: Tensor, *, beta: float = 1, alpha: float = 1) -> Tensor:
    if beta == alpha == 1 and bias.dim() == 1 and _worth(left, right):
        return _onednn(left, right.t(), bias, "none", [], "")
    return torch.addmm(bias, left, right, beta=beta, alpha=alpha, out=left.new_empty(len(left), right.shape[1]))


def _worth(left: Tensor, right: Tensor) -> bool:
    return left.dtype is torch.float32 and len(left) * right.numel() > _WORTH
