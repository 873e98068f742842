"""CPU or CUDA, decided once. The only module that knows how megatron-core, written for CUDA, runs on a CPU.

megatron-core calls `torch.cuda.*` for the current device, the random state and synchronisation, and creates tensors on "cuda". On a CPU
its modules see a stand-in for the name `torch` that answers those calls for the CPU and passes everything else through. Nothing outside
`megatron.core.*` is changed, and with CUDA nothing is changed at all.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import os
import resource
import sys
import types
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Literal

import torch
from torch import Tensor

from workbench.engine import products
from workbench.engine.megatron_types import put
from workbench.rundir import beats

CUDA = torch.cuda.is_available()
BACKEND = "nccl" if CUDA else "gloo"
_CPU = torch.device("cpu")


def current() -> torch.device:
    """This rank's device."""
    return torch.device("cuda", torch.cuda.current_device()) if CUDA else _CPU


def describe() -> str:
    """One line for people: the GPU's name, or the CPU threads in use."""
    return torch.cuda.get_device_name() if CUDA else f"CPU, {torch.get_num_threads()} threads"


def select() -> None:
    """Take this rank's GPU (by LOCAL_RANK) or its share of the CPU's threads (by OMP_NUM_THREADS). Call once, before any tensor."""
    if CUDA:
        torch.cuda.set_device(index := int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())
        beats.gauge = functools.partial(_gpu_use, index)
    elif "OMP_NUM_THREADS" in os.environ:
        torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    if not CUDA:
        products.exchange()


def _gpu_use(index: int) -> tuple[float, float | None]:
    """(reserved MiB, busy share) of a GPU, for another thread: it waits for no kernel. The share needs the package nvidia-ml-py."""
    busy = None
    if importlib.util.find_spec("pynvml"):
        with contextlib.suppress(
            importlib.import_module("pynvml").NVMLError, RuntimeError
        ):  # not every GPU tells, and a share that is missing is no reason to stop
            busy = torch.cuda.utilization(index) / 100
    return torch.cuda.memory_reserved(index) / 2**20, busy


def native_precision() -> Literal["fp32", "bf16"]:
    """bf16 on a GPU and on a CPU with instructions for it; elsewhere it is emulated, about ten times slower than fp32."""
    can = torch.cpu.get_capabilities()
    return "bf16" if CUDA or can.get("amx_bf16") or can.get("avx512_bf16") or can.get("bf16") else "fp32"


def synchronize() -> None:
    """Wait for the device, so that a clock read afterwards means something."""
    if CUDA:
        torch.cuda.synchronize()


def peak_memory_gib() -> float:
    """Largest memory so far: allocated on the GPU, or resident in the host for a CPU rank."""
    if CUDA:
        return torch.cuda.max_memory_allocated() / 2**30
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def memory_bytes() -> int:
    """All of this rank's GPU's memory, or 0 on a CPU."""
    return torch.cuda.get_device_properties(current()).total_memory if CUDA else 0


def import_megatron() -> None:
    """On a CPU, where nothing is compiled: import megatron-core without torch's compiler, so that a rank starts in three quarters of the time."""
    if CUDA:
        return
    compiler, torch.compile = torch.compile, lambda function=None, **_: function or (lambda inner: inner)
    try:
        from megatron.core import jit

        jit.disable_jit_fuser()
    finally:
        torch.compile = compiler


def adopt_megatron() -> None:
    """Make every megatron-core module loaded so far run on this device. Safe to call again after more were loaded."""
    if CUDA:
        return
    from megatron.core import jit

    jit.disable_jit_fuser()
    for name, module in list(sys.modules.items()):
        if name.startswith("megatron.core") and getattr(module, "torch", None) is torch:
            put(module, torch=_TORCH)
    _patch_random()
    _patch_clipping()
    _patch_token_dispatcher()


def as_cuda_type(parameter: torch.nn.Parameter) -> None:
    """megatron-core's optimizers sort parameters by the name of their CUDA tensor type: answer with it on a CPU too."""
    if not CUDA:
        name = parameter.data.type().replace("torch.", "torch.cuda.", 1)
        put(parameter, type=lambda *args: name if not args else parameter.data.type(*args))


def beside() -> contextlib.AbstractContextManager[object]:
    """Within: this thread's GPU work runs beside the other threads', in a stream of its own."""
    if not CUDA:
        return contextlib.nullcontext()
    select()  # a new thread begins on the first GPU
    return torch.cuda.stream(torch.cuda.Stream())


@contextlib.contextmanager
def cuda_calls_stay_on_cpu() -> Iterator[None]:
    """Within: `Tensor.cuda()` returns the tensor itself (megatron's checkpoint code calls it without asking)."""
    if CUDA:
        yield
        return
    original = Tensor.cuda
    put(Tensor, cuda=lambda self, *args, **kwargs: self)
    try:
        yield
    finally:
        put(Tensor, cuda=original)


@contextlib.contextmanager
def activations_on_host(wanted: bool) -> Iterator[None]:
    """Within: what the backward pass will need is kept in (pinned) host memory instead of on the GPU."""
    with torch.autograd.graph.save_on_cpu(pin_memory=True) if wanted and CUDA else contextlib.nullcontext():
        yield


def to_host(tensor: Tensor) -> Tensor:
    """A copy of its own in (pinned) host memory."""
    host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=CUDA)
    return host.copy_(tensor)


class HostCopy:
    """Tensors of the accelerator that can leave it: meanwhile their contents lie in (pinned) host memory, and every view stays what it was.

    On a CPU the "accelerator" is the process's own memory, so the same steps are taken there. `constant` contents are copied once.
    """

    def __init__(self, constant: bool = False):
        self._constant = constant
        self._host: list[Tensor] = []
        self._storages: list[torch.UntypedStorage] = []
        self._scratch: list[tuple[torch.UntypedStorage, int]] = []

    def leave(self, kept: Iterable[Tensor], scratch: Iterable[Tensor] = ()) -> int:
        """Copy what is `kept`, and give its memory and that of `scratch`, whose contents are not needed again, back. Returns the bytes given back."""
        storages = _storages(kept)
        known = [storage.data_ptr() for storage in storages]
        before = self._storages
        self._storages = storages
        self._scratch = [(storage, storage.nbytes()) for storage in _storages(scratch) if storage.data_ptr() not in known]
        sizes = [storage.nbytes() for storage in storages]
        if sizes != [host.numel() for host in self._host]:
            self._host = [torch.empty(size, dtype=torch.uint8, pin_memory=CUDA) for size in sizes]
            before = []
        if not (self._constant and [s._cdata for s in before] == [s._cdata for s in storages]):
            for host, storage in zip(self._host, storages, strict=True):
                host.copy_(_contents(storage), non_blocking=True)
        synchronize()
        for storage in [*storages, *(storage for storage, _ in self._scratch)]:
            storage.resize_(0)
        return sum(sizes) + sum(size for _, size in self._scratch)

    def enter(self) -> None:
        """Put everything back in the accelerator's memory; scratch is zero."""
        for host, storage in zip(self._host, self._storages, strict=True):
            storage.resize_(host.numel())
            _contents(storage).copy_(host, non_blocking=True)
        for storage, size in self._scratch:
            storage.resize_(size)
            _contents(storage).zero_()
        synchronize()


def _storages(tensors: Iterable[Tensor]) -> list[torch.UntypedStorage]:
    """What the tensors on this rank's device are views of, each once."""
    storages: dict[int, torch.UntypedStorage] = {}
    for tensor in tensors:
        storage = tensor.untyped_storage()
        if tensor.device.type == current().type and storage.nbytes():
            storages.setdefault(storage.data_ptr(), storage)
    return list(storages.values())


def _contents(storage: torch.UntypedStorage) -> Tensor:
    return torch.empty(0, dtype=torch.uint8, device=storage.device).set_(storage)


class _Stream:
    """A CUDA stream, or one of its events, where work is done in order anyway."""

    def wait_stream(self, other: _Stream) -> None: ...
    def record_event(self) -> _Stream:
        return self

    def synchronize(self) -> None: ...


class _Cuda(types.ModuleType):
    """What megatron-core sees as `torch.cuda` on a CPU."""

    Stream = _Stream
    current_stream = staticmethod(_Stream)
    stream = staticmethod(contextlib.nullcontext)
    current_device = staticmethod(lambda: _CPU)
    synchronize = staticmethod(lambda *args, **kwargs: None)
    empty_cache = staticmethod(lambda: None)
    manual_seed = staticmethod(torch.manual_seed)
    get_rng_state = staticmethod(lambda *args, **kwargs: torch.get_rng_state())
    set_rng_state = staticmethod(lambda state, *args, **kwargs: torch.set_rng_state(state))

    def __getattr__(self, name: str) -> object:
        return getattr(torch.cuda, name)


class _Torch(types.ModuleType):
    """What megatron-core sees as `torch` on a CPU."""

    def __getattr__(self, name: str) -> object:
        return getattr(torch, name)


def _on_cpu(create: Callable[..., Tensor]) -> Callable[..., Tensor]:
    @functools.wraps(create)
    def wrapped(*args: Any, **kwargs: Any) -> Tensor:
        if kwargs.get("device") is not None and torch.device(kwargs["device"]).type == "cuda":
            kwargs["device"] = _CPU
        kwargs.pop("pin_memory", None)
        return create(*args, **kwargs)

    return wrapped


_TORCH = _Torch("torch")
put(_TORCH, cuda=_Cuda("torch.cuda"))
for _name in ("tensor", "zeros", "ones", "empty", "full", "arange", "zeros_like", "empty_like", "as_tensor", "rand", "randn"):
    setattr(_TORCH, _name, _on_cpu(getattr(torch, _name)))


def _patch_random() -> None:
    from megatron.core.tensor_parallel import random as megatron_random

    put(
        megatron_random,
        _get_cuda_rng_state=lambda *args, **kwargs: torch.get_rng_state(),
        _set_cuda_rng_state=lambda state, *args, **kwargs: torch.set_rng_state(state),
    )

    @contextlib.contextmanager
    def fork(self: megatron_random.CudaRNGStatesTracker, name: str = "model-parallel-rng") -> Iterator[None]:
        # megatron's own restores the CPU state on exit, which here is the tracked state itself: keep it first.
        outside = torch.get_rng_state()
        torch.set_rng_state(self.states_[name])
        try:
            yield
        finally:
            self.states_[name] = torch.get_rng_state()
            torch.set_rng_state(outside)

    put(megatron_random.CudaRNGStatesTracker, fork=fork)


def _patch_clipping() -> None:
    """megatron's gradient clipping insists on CUDA tensor types; the arithmetic is the same."""
    from megatron.core.optimizer import clip_grads, optimizer

    def clip(parameters: Any, max_norm: float, total_norm: float, use_decoupled_grad: bool = False) -> None:
        scale = max_norm / (total_norm + 1.0e-6)
        for parameter in parameters:
            grad = parameter.decoupled_grad if use_decoupled_grad else parameter.grad
            if scale < 1.0 and grad is not None:
                grad.mul_(scale)

    for module in (clip_grads, optimizer):
        put(module, clip_grad_by_total_norm_fp32=clip)


def _patch_token_dispatcher() -> None:
    """megatron turns the experts' token counts into numbers while it copies them from the GPU; on a CPU they are to become numbers too."""
    from megatron.core.transformer.moe import token_dispatcher

    def move(tensor: Tensor | None, as_numpy: bool = False, record_stream: bool = False) -> object:
        return tensor.numpy() if as_numpy and tensor is not None else tensor

    put(token_dispatcher, maybe_move_tensor_to_cpu=move)
