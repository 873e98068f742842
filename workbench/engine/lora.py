"""Low-rank adapters: peft's, on megatron-core's parallel linear layers (Hu et al., arXiv 2106.09685).

peft has a layer for these, but up to 0.21 it misses its `lora_bias` entry, drops the `megatron_config` argument and forgets that megatron's
layers return a tuple; the subclass below mends the three and is registered through peft's own hook.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from megatron.core import tensor_parallel
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import LoraLayer
from peft.tuners.lora.tp_layer import LoraParallelLinear
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import PretrainedConfig

from workbench.engine import hf as weights
from workbench.spec import Lora

_ADAPTER = "default"
_LAYER_OF_TARGET = {"qkv": "linear_qkv", "proj": "linear_proj", "fc1": "linear_fc1", "fc2": "linear_fc2"}


class ParallelLora(LoraParallelLinear):
    """peft's adapter on a Column- or RowParallelLinear."""

    def __init__(self, base_layer: nn.Module, adapter_name: str, config: LoraConfig, **kwargs: Any):
        kwargs.setdefault("megatron_config", config.megatron_config)
        super().__init__(base_layer, adapter_name, config=config, backend=tensor_parallel, **kwargs)

    def update_layer(self, adapter_name: str, r: int, lora_alpha: int, config: LoraConfig, **kwargs: Any) -> None:
        self.lora_bias[adapter_name] = False
        super().update_layer(adapter_name, r, lora_alpha, config, **kwargs)

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor | None]:
        out, bias = self.base_layer(x, *args, **kwargs)
        if not self.disable_adapters:
            for name in self.active_adapters:
                down, _ = _with_bias(self.lora_A[name](self.lora_dropout[name](x)))
                up, _ = _with_bias(self.lora_B[name](down))
                out = out + up * self.scaling[name]
        return out, bias


def attach(model: nn.Module, settings: Lora, seed: int) -> None:
    """Put adapters on the layers that the settings name and freeze everything else. The model's outputs do not change (B is zero)."""
    dtype = next(model.parameters()).dtype
    config = LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,  # type: ignore[arg-type]
        lora_dropout=settings.dropout,
        target_modules=[_LAYER_OF_TARGET[target] for target in settings.targets],
        megatron_config=copy.copy(model.config),  # peft changes its params_dtype
        megatron_core="megatron.core",
    )
    config._register_custom_module(
        {tensor_parallel.ColumnParallelLinear: ParallelLora, tensor_parallel.RowParallelLinear: ParallelLora}  # type: ignore[dict-item]
    )
    torch.manual_seed(seed)
    inject_adapter_in_model(config, model, adapter_name=_ADAPTER)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("lora_" in name or name == weights.SCORE_HEAD)
    model.to(dtype)


@contextlib.contextmanager
def off(model: nn.Module) -> Iterator[None]:
    """Within: the base model alone, which is the reference policy."""
    layers = [module for module in model.modules() if isinstance(module, LoraLayer)]
    for layer in layers:
        layer.enable_adapters(False)
    try:
        yield
    finally:
        for layer in layers:
            layer.enable_adapters(True)


def merged(model: nn.Module) -> dict[str, Tensor]:
    """The model's full weights by megatron's names, adapters added in: W + alpha / rank * B A, in fp32, kept in the weight's precision."""
    full = {}
    for name, parameter in model.named_parameters():
        if "lora_" not in name:
            full[name.replace(".base_layer.", ".")] = parameter.detach()
    for name, layer in _adapted(model):
        up, down = layer.lora_B[_ADAPTER].weight.detach().float(), layer.lora_A[_ADAPTER].weight.detach().float()
        weight = full[f"{name}.weight"]
        full[f"{name}.weight"] = (weight.float() + layer.scaling[_ADAPTER] * (up @ down)).to(weight.dtype)
    return full


def save_adapter(model: nn.Module, settings: Lora, hf: PretrainedConfig, base: str, out: Path) -> Path:
    """Write the adapters as a peft directory on the Hugging Face model. A fused layer's A serves each of its parts; its B is split."""
    if out.exists():
        raise FileExistsError(f"{out} exists already; name a new directory")
    parts = {name: (hf_names, split) for name, hf_names, _, split in weights.mapping(hf)}
    tensors, modules = {}, set()
    for name, layer in _adapted(model):
        hf_names, split = parts[f"{name}.weight"]
        for hf_name, up in zip(hf_names, split(layer.lora_B[_ADAPTER].weight.detach()), strict=True):
            module = hf_name.removesuffix(".weight")
            modules.add(module.rpartition(".")[2])
            tensors[f"base_model.model.{module}.lora_B.weight"] = up.contiguous()
            tensors[f"base_model.model.{module}.lora_A.weight"] = layer.lora_A[_ADAPTER].weight.detach().clone()
    out.mkdir(parents=True)
    config = LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,  # type: ignore[arg-type]
        lora_dropout=settings.dropout,
        target_modules=sorted(modules),
        base_model_name_or_path=base,
        task_type="CAUSAL_LM",
        inference_mode=True,
    )
    save_file(tensors, out / "adapter_model.safetensors", metadata={"format": "pt"})
    config.save_pretrained(str(out))
    return out


def _adapted(model: nn.Module) -> Iterator[tuple[str, Any]]:
    return ((name, module) for name, module in model.named_modules() if isinstance(module, LoraLayer))


def _with_bias(out: Tensor | tuple[Tensor, Tensor | None]) -> tuple[Tensor, Tensor | None]:
    """megatron's layers return (output, bias); torch's return the output."""
    return out if isinstance(out, tuple) else (out, None)
