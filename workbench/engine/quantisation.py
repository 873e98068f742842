"""Quantised weights: float8 with its scales is read as the numbers that it stands for; every other kind is refused by name. Imports no torch before it reads.

Read are `quant_method: fp8` (DeepSeek-V3, arXiv 2412.19437, section 3.3.1: one scale a block, `weight_scale_inv`) and compressed-tensors' float8 (one
`weight_scale` a tensor, a row or a block). A weight is its float8 number times its scale, in fp32.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

SCALES = ("weight_scale_inv", "weight_scale")
"""What a float8 tensor `….weight` has beside it."""
OF_ACTIVATIONS = ("input_scale", "activation_scale", "output_scale", "k_scale", "v_scale")
"""Scales of what the quantised model computes, which is not quantised here."""
FLOAT8 = ("F8_E4M3", "F8_E5M2")
PLAIN = ("F64", "F32", "F16", "BF16")
POWERS_OF_TWO = "F8_E8M0"
"""Types of safetensors' headers; the last is one of scales."""
WAY_OUT = (
    "take the model's unquantised weights, or write them with transformers where it can: "
    "AutoModelForCausalLM.from_pretrained(…).dequantize().save_pretrained(…)"
)


@dataclass(frozen=True)
class Scheme:
    """How float8 weights have their scales: `block` is the size [rows, columns] of what shares a scale, None where a tensor or a row does."""

    block: tuple[int, int] | None

    def values(self, numbers: Tensor, scale: Tensor, name: str) -> Tensor:
        """The weights in fp32. Raises ValueError for a scale that does not fit the tensor."""
        import torch

        rows, columns = numbers.shape
        scale = scale.float()
        if scale.numel() == 1:
            return numbers.float() * scale.reshape(1, 1)
        if scale.numel() == rows and scale.shape[0] == rows:
            return numbers.float() * scale.reshape(rows, 1)
        if self.block is None or tuple(scale.shape) != tuple(-(-size // part) for size, part in zip((rows, columns), self.block, strict=True)):
            blocks = f"blocks of {self.block[0]} x {self.block[1]}" if self.block else "a tensor or a row"
            raise ValueError(
                f"{name} [{rows}, {columns}] has scales of shape {list(scale.shape)}; expected one a tensor, one a row or one for {blocks}"
            )
        whole = scale.repeat_interleave(self.block[0], 0).repeat_interleave(self.block[1], 1)
        return torch.mul(numbers.float(), whole[:rows, :columns])


def of(config: Mapping[str, Any]) -> Scheme | None:
    """How the model of this config.json is quantised; None where it is not.

    Raises:
        ValueError: in a way that is not read; the message names it and the way out.
    """
    nested = config.get("text_config")
    settings = config.get("quantization_config") or (nested.get("quantization_config") if isinstance(nested, Mapping) else None)
    if not settings:
        return None
    if not isinstance(settings, Mapping):
        raise ValueError(f"quantization_config={settings!r}: expected settings")
    method = settings.get("quant_method")
    if method == "fp8":
        return _fp8(settings)
    if method == "compressed-tensors":
        return _compressed(settings)
    raise _refused(_described(settings))


def _fp8(settings: Mapping[str, Any]) -> Scheme:
    if settings.get("expert_dtype", "fp8") != "fp8":
        raise _refused(f"quant_method=fp8, expert_dtype={settings['expert_dtype']}")
    return Scheme(_block(settings.get("weight_block_size", (128, 128)), "weight_block_size"))


def _compressed(settings: Mapping[str, Any]) -> Scheme:
    blocks: set[tuple[int, int] | None] = set()
    for key, plain in (("format", ("float-quantized", "naive-quantized")), ("quantization_status", ("compressed", "frozen"))):
        if settings.get(key) not in (None, *plain):
            raise _refused(f"quant_method=compressed-tensors, {key}={settings[key]}")
    sparsity = settings.get("sparsity_config") or {}
    if sparsity.get("format", "dense") != "dense":
        raise _refused(f"quant_method=compressed-tensors, sparsity_config.format={sparsity['format']}")
    if settings.get("transform_config"):
        raise _refused("quant_method=compressed-tensors with a transform_config")
    for name, group in (settings.get("config_groups") or {}).items():
        weights = group.get("weights") or {}
        is_float8 = weights.get("type") == "float" and weights.get("num_bits") == 8 and weights.get("symmetric", True)
        if not is_float8 or weights.get("strategy") not in ("tensor", "channel", "block"):
            shown = ", ".join(f"{key}={weights.get(key)}" for key in ("type", "num_bits", "strategy", "symmetric"))
            raise _refused(f"quant_method=compressed-tensors, config_groups.{name}.weights: {shown}")
        blocks.add(_block(weights.get("block_structure"), "block_structure") if weights["strategy"] == "block" else None)
    blocks.discard(None)
    if len(blocks) > 1:
        raise _refused(f"quant_method=compressed-tensors with blocks of several sizes, {sorted(map(str, blocks))}")
    return Scheme(next(iter(blocks), None))


def _block(value: object, key: str) -> tuple[int, int] | None:
    if value is None:
        return None
    if not isinstance(value, Sequence) or len(value) != 2 or not all(isinstance(size, int) and size > 0 for size in value):
        raise ValueError(f"quantization_config.{key}={value!r}: expected two sizes, [rows, columns]")
    return value[0], value[1]


def _described(settings: Mapping[str, Any]) -> str:
    if settings.get("quant_method") is None and not settings.get("load_in_4bit") and not settings.get("load_in_8bit"):
        return f"quantization_config={dict(settings)!r}"[:200]
    method = settings.get("quant_method") or "bitsandbytes"
    more = [key for key in ("load_in_4bit", "load_in_8bit") if settings.get(key)]
    more += [f"{key}={settings[key]}" for key in ("bits", "quant_type", "bnb_4bit_quant_type", "version") if key in settings]
    return ", ".join((f"quant_method={method}", *more))


def _refused(what: str) -> ValueError:
    return ValueError(f"the weights are quantised ({what}), which is not read; {WAY_OUT}")


def check_types(types: Mapping[str, str], scheme: Scheme | None) -> None:
    """Whether every tensor's numbers are what they seem, by its type in the files' headers.

    Raises:
        ValueError: one has integers, or float8 without a scale; the message names it.
    """
    for name, kind in types.items():
        scale = scale_of(name, types)
        if kind in FLOAT8 and (scheme is None or scale is None):
            missing = "config.json has no quantization_config" if scheme is None else "there is no scale beside it"
            raise ValueError(f"{name} is of type {kind}, and {missing}: what its numbers stand for is not known; {WAY_OUT}")
        if kind not in (*FLOAT8, *PLAIN) and not (kind == POWERS_OF_TWO and is_read(name, scheme)):
            raise ValueError(f"{name} is of type {kind}, as quantised or packed weights are, which are not read; {WAY_OUT}")
        if scale and kind in PLAIN:
            raise ValueError(f"{name} is of type {kind} and has a scale beside it ({scale}), which belongs to quantised weights; {WAY_OUT}")


def scale_of(name: str, tensors: Mapping[str, object]) -> str | None:
    """The name of a weight's scale, where it has one."""
    if not name.endswith(".weight"):
        return None
    stem = name.removesuffix("weight")
    return next((stem + scale for scale in SCALES if stem + scale in tensors), None)


def is_read(name: str, scheme: Scheme | None) -> bool:
    """Whether a tensor is one of those that make quantised weights what they are: a scale, of weights or of activations."""
    return scheme is not None and name.endswith((*SCALES, *OF_ACTIVATIONS))
