"""Mixtral (Jiang et al., arXiv 2401.04088): a Mistral whose MLPs are mixtures of experts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from workbench.engine.families import llama
from workbench.engine.families._parts import Part, gate_and_up
from workbench.engine.families.llama import rope_frequencies

if TYPE_CHECKING:
    from transformers import PretrainedConfig

__all__ = ["architecture", "check", "parts", "rope_frequencies"]


def check(config: Mapping[str, Any]) -> None:
    llama.check(config)
    if config.get("num_experts_per_tok", 2) < 2:
        raise ValueError(f"num_experts_per_tok={config['num_experts_per_tok']}: the engine's router takes two experts a token or more")


def architecture(hf: PretrainedConfig) -> dict[str, Any]:
    return {**llama.architecture(hf), "num_moe_experts": hf.num_local_experts, "moe_router_topk": hf.num_experts_per_tok}


def parts(hf: PretrainedConfig) -> Iterator[Part]:
    layers = range(hf.num_hidden_layers)
    yield from llama.around(hf, (part for i in layers for part in (*llama.attention(hf, i), *_experts(hf, i))))


def _experts(hf: PretrainedConfig, layer: int) -> Iterator[Part]:
    for i in range(hf.num_local_experts):
        ours, theirs = f"decoder.layers.{layer}.mlp.experts.local_experts.{i}", f"model.layers.{layer}.block_sparse_moe.experts.{i}"
        yield gate_and_up(f"{ours}.linear_fc1.weight", f"{theirs}.w1.weight", f"{theirs}.w3.weight")
        yield Part(f"{ours}.linear_fc2.weight", (f"{theirs}.w2.weight",), 1)
    yield Part(f"decoder.layers.{layer}.mlp.router.weight", (f"model.layers.{layer}.block_sparse_moe.gate.weight",))
