"""Low-rank adapters: peft's, on megatron-core's parallel linear layers (Hu et al., arXiv 2106.09685).

peft has a layer for these, but up to 0.21 it misses its `lora_bias` entry, drops the `megatron_config` argument and forgets that megatron's
layers return a tuple; the subclass below mends the three and is registered through peft's own hook. Its layer has no DoRA, so there is none
here.
"""

from __future__ import annotations

import contextlib
import copy
import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from megatron.core import tensor_parallel
from peft import LoraConfig, PeftModel, inject_adapter_in_model
from peft.tuners.lora import LoraLayer
from peft.tuners.lora.tp_layer import LoraParallelLinear
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import PretrainedConfig, PreTrainedModel

from workbench.engine import hf as weights
from workbench.engine import parallel
from workbench.engine.megatron_types import AdaptedProduct, put, weight
from workbench.engine.model import PackedGPT
from workbench.settings import Lora

_ADAPTER = "default"
_LAYER_OF_TARGET = {"qkv": "linear_qkv", "proj": "linear_proj", "fc1": "linear_fc1", "fc2": "linear_fc2"}


class ParallelLora(LoraParallelLinear):
    """peft's adapter on a Column- or RowParallelLinear."""

    def __init__(self, base_layer: nn.Module, adapter_name: str, config: LoraConfig, **kwargs: Any):
        kwargs.setdefault("megatron_config", config.megatron_config)
        super().__init__(base_layer, adapter_name, config=config, backend=tensor_parallel, **kwargs)

    def update_layer(self, adapter_name: str, r: int, lora_alpha: int, config: LoraConfig, *args: Any, **kwargs: Any) -> None:
        self.lora_bias[adapter_name] = False
        super().update_layer(adapter_name, r, lora_alpha, config, *args, **kwargs)

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor | None]:
        out, bias = self.base_layer(x, *args, **kwargs)
        if not self.disable_adapters:
            for name in self.active_adapters:
                down, _ = _with_bias(self.lora_A[name](self.lora_dropout[name](x)))
                up, _ = _with_bias(self.lora_B[name](down))
                out = out + up * self.scaling[name]
        return out, bias


def attach(chunk: PackedGPT, settings: Lora, seed: int) -> None:
    """Put adapters on the layers that the settings name and freeze everything else. The model's outputs do not change (B is zero).

    Raises:
        ValueError: the settings name the MLPs of a mixture of experts.
    """
    if chunk.config.num_moe_experts and {"fc1", "fc2"} & set(settings.targets):
        raise ValueError("experts have no adapters: set model.lora.targets=[qkv,proj], or model.lora.rank=0")
    dtype = next(chunk.parameters()).dtype
    config = LoraConfig(
        r=settings.rank,
        lora_alpha=cast(int, settings.alpha),
        lora_dropout=settings.dropout,
        use_rslora=settings.rank_stabilized,
        target_modules=[_LAYER_OF_TARGET[target] for target in settings.targets],
        megatron_config=cast(dict[str, object], copy.copy(chunk.config)),  # peft changes its params_dtype
        megatron_core="megatron.core",
    )
    custom = {tensor_parallel.ColumnParallelLinear: ParallelLora, tensor_parallel.RowParallelLinear: ParallelLora}
    config._register_custom_module(cast(dict[type[nn.Module], type[nn.Module]], custom))
    inject_adapter_in_model(config, chunk, adapter_name=_ADAPTER)
    for name, parameter in chunk.named_parameters():
        parameter.requires_grad_("lora_" in name or name == weights.SCORE_HEAD)
    for name, layer in _adapted(chunk):
        _initialise(layer, f"{seed} {chunk.global_name(name)}", chunk.config.sequence_parallel)
    chunk.to(dtype)


def _initialise(layer: AdaptedProduct, name: str, sequence_parallel: bool) -> None:
    """A as peft draws it, the same whatever the layout: the whole matrix from a generator of its own, of which a rank keeps its part.

    Under sequence parallelism a replicated matrix sees only this rank's tokens: megatron is set to sum its gradient.
    """
    down, up = weight(layer.lora_A, _ADAPTER), weight(layer.lora_B, _ADAPTER)
    generator = torch.Generator().manual_seed(int.from_bytes(hashlib.sha256(name.encode()).digest()[:8]) >> 1)
    whole = torch.empty(down.shape[0], layer.in_features)
    nn.init.kaiming_uniform_(whole, a=math.sqrt(5), generator=generator)
    with torch.no_grad():
        down.copy_(whole.chunk(parallel.tensor_size(), dim=1)[parallel.tensor_rank()] if layer.is_parallel_a else whole)
        up.zero_()
    put(up if layer.is_parallel_a else down, sequence_parallel=sequence_parallel)


@contextlib.contextmanager
def off(chunks: Sequence[nn.Module]) -> Iterator[None]:
    """Within: the base model alone, which is the reference policy."""
    layers = [module for chunk in chunks for module in chunk.modules() if isinstance(module, LoraLayer)]
    for layer in layers:
        layer.enable_adapters(False)
    try:
        yield
    finally:
        for layer in layers:
            layer.enable_adapters(True)


def merged(chunks: Sequence[PackedGPT]) -> dict[str, Tensor]:
    """This rank's weights by their names in the whole model, adapters added in: W + scaling B A, in fp32, kept in the weight's precision."""
    full = {}
    for chunk in chunks:
        for name, parameter in chunk.named_parameters():
            if "lora_" not in name:
                full[chunk.global_name(name)] = parameter.detach()
        for name, layer in _adapted(chunk):
            up, down = weight(layer.lora_B, _ADAPTER).detach().float(), weight(layer.lora_A, _ADAPTER).detach().float()
            key = f"{chunk.global_name(name)}.weight"
            full[key] = (full[key].float() + layer.scaling[_ADAPTER] * (up @ down)).to(full[key].dtype)
    return full


def divided_dim(name: str, layers: Mapping[str, int | None]) -> int | None:
    """The dimension of an adapter's matrix that tensor-parallel ranks divide: B's rows where they divide the layer's, A's columns likewise."""
    layer, _, matrix = name.rpartition(".lora_")
    dim = layers[f"{layer}.weight"]
    return dim if dim == (0 if matrix.startswith("B") else 1) else None


def save_adapter(chunk: PackedGPT, settings: Lora, hf: PretrainedConfig, base: str, out: Path) -> Path:
    """Write the adapters as a peft directory on the Hugging Face model. A fused layer's A serves each of its parts; its B is split."""
    if out.exists():
        raise FileExistsError(f"{out} exists already; name a new directory")
    parts = {part.name: part for part in weights.mapping(hf)}
    tensors, modules = {}, set()
    for name, layer in _adapted(chunk):
        part = parts[f"{name}.weight"]
        for hf_name, up in zip(part.hf_names, part.split(weight(layer.lora_B, _ADAPTER).detach()), strict=True):
            module = hf_name.removesuffix(".weight")
            modules.add(module.rpartition(".")[2])
            tensors[f"base_model.model.{module}.lora_B.weight"] = up.contiguous()
            tensors[f"base_model.model.{module}.lora_A.weight"] = weight(layer.lora_A, _ADAPTER).detach().clone()
    if chunk.score_head is not None:
        tensors["base_model.model.score.weight"] = chunk.score_head.weight.detach().contiguous()
    out.mkdir(parents=True)
    config = LoraConfig(
        r=settings.rank,
        lora_alpha=cast(int, settings.alpha),
        lora_dropout=settings.dropout,
        use_rslora=settings.rank_stabilized,
        target_modules=sorted(modules),
        base_model_name_or_path=base,
        task_type="CAUSAL_LM" if chunk.score_head is None else "SEQ_CLS",
        inference_mode=True,
    )
    save_file(tensors, out / "adapter_model.safetensors", metadata={"format": "pt"})
    config.save_pretrained(str(out))
    return out


def with_adapter(model: PreTrainedModel, folder: Path) -> PeftModel:
    """transformers' model with the adapters of a peft directory, which has them in safetensors.

    Raises:
        ValueError: it has them as a pickle.
    """
    if not (folder / "adapter_model.safetensors").is_file():
        raise ValueError(f"{folder} has no adapter_model.safetensors; adapters in a pickle (adapter_model.bin) are not read")
    return PeftModel.from_pretrained(model, str(folder))


def _adapted(model: nn.Module) -> Iterator[tuple[str, AdaptedProduct]]:
    return ((name, cast(AdaptedProduct, module)) for name, module in model.named_modules() if isinstance(module, LoraLayer))


def _with_bias(out: Tensor | tuple[Tensor, Tensor | None]) -> tuple[Tensor, Tensor | None]:
    """megatron's layers return (output, bias); torch's return the output."""
    return out if isinstance(out, tuple) else (out, None)
