"""What a configuration may ask for beyond the engine's layers. Each is refused by its name and value."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

ROPE_TYPES = ("default", "linear", "llama3")
"""The scalings of RoPE that neither depend on the length at hand nor rescale the attention."""
NEUTRAL: Mapping[str, tuple[object, ...]] = {
    "hidden_act": ("silu", "swish"),
    "attention_bias": (False,),
    "mlp_bias": (False,),
    "use_sliding_window": (False,),
    "sliding_window": (),
    "attention_chunk_size": (),
    "no_rope_layers": (),
    "use_mrope": (False,),
    "alibi": (False,),
    "use_qk_norm": (False,),
    "qk_layernorm": (False,),
    "clip_qkv": (),
    "attn_logit_softcapping": (),
    "final_logit_softcapping": (),
    "query_pre_attn_scalar": (),
    "attention_multiplier": (),
    "embedding_multiplier": (1,),
    "residual_multiplier": (1,),
    "logits_scaling": (1,),
    "logit_scale": (1,),
    "router_jitter_noise": (0,),
    "partial_rotary_factor": (1,),
    "is_encoder_decoder": (False,),
    "add_cross_attention": (False,),
}
"""By key of a configuration, the values with which the layer is the engine's: RMSNorm, SwiGLU without biases, full causal attention, RoPE on whole heads.
Without a value the feature is not there."""


def refuse(config: Mapping[str, Any], unread: Collection[str] = ()) -> None:
    """Raises ValueError for every feature that the configuration asks for and the engine does not have. `unread` are keys that the family's layers do not read."""
    if asked := [f"{key}={value!r}" for key, value in _asked(config) if key not in unread]:
        raise ValueError(
            f"{', '.join(asked)}: the engine does not compute this (its layers are RMSNorm, SwiGLU without biases, full causal attention with RoPE"
            f" {', '.join(ROPE_TYPES)}); take a model without it"
        )


def _asked(config: Mapping[str, Any]) -> Iterator[tuple[str, object]]:
    for key, values in NEUTRAL.items():
        value = config.get(key)
        if value is not None and value not in values:
            yield key, value
    for key in ("rope_scaling", "rope_parameters"):
        rope = config.get(key) or {}
        if not isinstance(rope, Mapping) or any(isinstance(value, Mapping) for value in rope.values()):
            yield key, rope
        elif (kind := rope.get("rope_type", rope.get("type", "default"))) not in ROPE_TYPES:
            yield f"{key}.rope_type", kind
        elif rope.get("partial_rotary_factor", 1) != 1:
            yield f"{key}.partial_rotary_factor", rope["partial_rotary_factor"]
    kinds = dict.fromkeys(kind for kind in config.get("layer_types") or () if kind != "full_attention")
    if kinds:
        yield "layer_types", list(kinds)
