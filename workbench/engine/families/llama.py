"""Llama (Touvron et al., arXiv 2302.13971): RMSNorm, gated SiLU, RoPE, grouped queries. The others of this folder differ from it in little."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from workbench.engine.families import _features
from workbench.engine.families._parts import Part, gate_and_up, head_dim, qkv

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PretrainedConfig


def check(config: Mapping[str, Any]) -> None:
    _features.refuse(config)


def architecture(hf: PretrainedConfig) -> dict[str, Any]:
    import torch.nn.functional as F

    return {
        "num_layers": hf.num_hidden_layers,
        "hidden_size": hf.hidden_size,
        "num_attention_heads": hf.num_attention_heads,
        "num_query_groups": hf.num_key_value_heads,
        "kv_channels": head_dim(hf),
        "ffn_hidden_size": hf.intermediate_size,
        "normalization": "RMSNorm",
        "layernorm_epsilon": hf.rms_norm_eps,
        "gated_linear_unit": True,
        "activation_func": F.silu,
        "add_bias_linear": False,
        "add_qkv_bias": False,
        "attention_dropout": getattr(hf, "attention_dropout", 0.0),
        "hidden_dropout": 0.0,
    }


def parts(hf: PretrainedConfig) -> Iterator[Part]:
    yield from around(hf, (part for i in range(hf.num_hidden_layers) for part in (*attention(hf, i), *mlp(i))))


def around(hf: PretrainedConfig, layers: Iterator[Part]) -> Iterator[Part]:
    """The layers' parts between the embedding and the heads."""
    embedding, head = "model.embed_tokens.weight", "lm_head.weight"
    yield Part("embedding.word_embeddings.weight", (embedding,), 0)
    yield from layers
    yield Part("decoder.final_layernorm.weight", ("model.norm.weight",))
    yield Part("output_layer.weight", (embedding if hf.tie_word_embeddings else head,), 0)
    yield Part("score_head.weight", ("score.weight",))


def attention(hf: PretrainedConfig, layer: int, bias: bool = False) -> Iterator[Part]:
    """With the norms before attention and MLP; `bias`: on queries, keys and values."""
    ours, theirs = f"decoder.layers.{layer}", f"model.layers.{layer}"
    yield Part(f"{ours}.input_layernorm.weight", (f"{theirs}.input_layernorm.weight",))
    for kind in ("weight", "bias") if bias else ("weight",):
        q, k, v = (f"{theirs}.self_attn.{x}_proj.{kind}" for x in "qkv")
        yield qkv(f"{ours}.self_attention.linear_qkv.{kind}", (q, k, v), hf)
    yield Part(f"{ours}.self_attention.linear_proj.weight", (f"{theirs}.self_attn.o_proj.weight",), 1)
    yield Part(f"{ours}.pre_mlp_layernorm.weight", (f"{theirs}.post_attention_layernorm.weight",))


def mlp(layer: int) -> Iterator[Part]:
    ours, theirs = f"decoder.layers.{layer}.mlp", f"model.layers.{layer}.mlp"
    yield gate_and_up(f"{ours}.linear_fc1.weight", f"{theirs}.gate_proj.weight", f"{theirs}.up_proj.weight")
    yield Part(f"{ours}.linear_fc2.weight", (f"{theirs}.down_proj.weight",), 1)


def rope_frequencies(hf: PretrainedConfig) -> Tensor:
    """With the model's own scaling (none, linear, llama3), as transformers computes them."""
    import torch
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    rope = hf.rope_parameters
    kind = rope.get("rope_type", "default")
    if kind == "default":
        dim = head_dim(hf)
        return 1.0 / (rope["rope_theta"] ** (torch.arange(0, dim, 2, dtype=torch.int64).float() / dim))
    assert kind in _features.ROPE_TYPES, "`check` refuses the others"
    return ROPE_INIT_FUNCTIONS[kind](hf, torch.device("cpu"))[0]
