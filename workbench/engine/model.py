"""megatron-core's GPTModel for the Llama family, built from a Hugging Face configuration."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from megatron.core.models.gpt.gpt_layer_specs import get_gpt_layer_local_spec
from megatron.core.models.gpt.gpt_model import GPTModel
from megatron.core.tensor_parallel import model_parallel_cuda_manual_seed
from megatron.core.transformer.spec_utils import ModuleSpec
from megatron.core.transformer.transformer_block import TransformerBlockSubmodules, get_num_layers_to_build
from megatron.core.transformer.transformer_config import TransformerConfig
from torch import Tensor, nn
from transformers import PretrainedConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from workbench.engine.attention import PackedAttention, PackedRows
from workbench.engine.hf import head_dim
from workbench.functional.logprobs import target_logprobs

FAMILY = ("llama", "mistral", "qwen2")
"""`model_type`s of the Llama family: RMSNorm, SwiGLU, RoPE, grouped queries; qwen2 adds biases to q, k and v."""


class Norm(nn.RMSNorm):
    """RMSNorm as megatron's layer specs build it; the weight is marked for sequence parallelism."""

    def __init__(self, config: TransformerConfig, hidden_size: int, eps: float = 1e-5, **_: Any):
        super().__init__(hidden_size, eps=eps)
        self.weight.sequence_parallel = config.sequence_parallel  # type: ignore[attr-defined]


class PackedGPT(GPTModel):
    """A GPTModel over packs: positions restart with each row, and the head gives the targets' log-probabilities instead of logits.

    With `num_scores` K it has a linear layer [K, D] in place of the language model's head, and gives scores_SK at each sequence's last token.
    """

    def __init__(self, *args: Any, num_scores: int = 0, seed: int = 0, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.score_head = _score_head(self.config.hidden_size, num_scores, seed) if num_scores and self.post_process else None
        if self.score_head is not None:
            del self.output_layer

    def _preprocess(self, *args: Any, packed_seq_params: PackedRows | None = None, **kwargs: Any) -> Any:
        assert packed_seq_params is not None and packed_seq_params.positions_T is not None
        decoder_input, rotary, *rest = super()._preprocess(*args, packed_seq_params=packed_seq_params, **kwargs)
        return decoder_input, rotary[packed_seq_params.positions_T], *rest

    def _postprocess(self, hidden_states: Tensor, *args: Any, packed_seq_params: PackedRows | None = None, **kwargs: Any) -> Tensor:
        """hidden [T, 1, D] to logprobs_N of the pack's targets, or to logits [T, V] where it names none."""
        if not self.post_process:
            return hidden_states
        assert packed_seq_params is not None
        hidden_TD = hidden_states[:, 0]
        if self.score_head is not None:
            return F.linear(hidden_TD[packed_seq_params.last_S].float(), self.score_head.weight.float())
        weight_VD = self.shared_embedding_or_output_weight() if self.share_embeddings_and_output_weights else self.output_layer.weight
        if packed_seq_params.target_N is None:
            return hidden_TD @ weight_VD.T
        return target_logprobs(hidden_TD[packed_seq_params.source_N], weight_VD, packed_seq_params.target_N)


def transformer_config(hf: PretrainedConfig, dtype: torch.dtype, recompute: bool = False) -> TransformerConfig:
    """megatron's configuration for a Hugging Face model of the family.

    Raises:
        ValueError: another architecture, or a feature that the engine does not have; the message names it.
    """
    if hf.model_type not in FAMILY:
        raise ValueError(f"model_type {hf.model_type!r} is not of the Llama family; the engine knows: {', '.join(FAMILY)}")
    if hf.model_type == "mistral" and hf.sliding_window:
        raise ValueError("sliding-window attention is not supported; use a Mistral model whose config has sliding_window null")
    if hf.hidden_act != "silu" or getattr(hf, "mlp_bias", False):
        raise ValueError(
            f"the engine's MLP is SwiGLU without bias; this model has hidden_act={hf.hidden_act!r}, mlp_bias={getattr(hf, 'mlp_bias', False)}"
        )
    return TransformerConfig(
        num_layers=hf.num_hidden_layers,
        hidden_size=hf.hidden_size,
        num_attention_heads=hf.num_attention_heads,
        num_query_groups=hf.num_key_value_heads,
        kv_channels=head_dim(hf),
        ffn_hidden_size=hf.intermediate_size,
        normalization="RMSNorm",
        layernorm_epsilon=hf.rms_norm_eps,
        gated_linear_unit=True,
        activation_func=F.silu,
        add_bias_linear=False,
        add_qkv_bias=has_qkv_bias(hf),
        attention_dropout=getattr(hf, "attention_dropout", 0.0),
        hidden_dropout=0.0,
        params_dtype=dtype,
        pipeline_dtype=dtype,
        bf16=dtype == torch.bfloat16,
        use_cpu_initialization=True,
        perform_initialization=False,
        bias_activation_fusion=False,
        bias_dropout_fusion=False,
        apply_rope_fusion=False,
        gradient_accumulation_fusion=False,
        masked_softmax_fusion=False,
        persist_layer_norm=False,
        calculate_per_token_loss=True,
        variable_seq_lengths=True,
        moe_token_dispatcher_type="alltoall",  # the default refuses variable lengths, with experts or without
        recompute_granularity="full" if recompute else None,
        recompute_method="uniform" if recompute else None,
        recompute_num_layers=1 if recompute else None,
    )


def has_qkv_bias(hf: PretrainedConfig) -> bool:
    """Qwen2 always has biases on q, k and v; a Llama says so (and would then have one on the output projection too, which is refused)."""
    if getattr(hf, "attention_bias", False):
        raise ValueError("attention_bias=True (a bias on the output projection too) is not supported")
    return hf.model_type == "qwen2"


def rope_frequencies(hf: PretrainedConfig) -> Tensor:
    """The inverse frequencies [head_dim / 2] of RoPE, with the model's own scaling (none, linear, llama3), as transformers computes them.

    Raises:
        ValueError: a scaling that depends on the length at hand or that rescales the attention (dynamic, yarn, longrope).
    """
    rope = hf.rope_parameters
    kind = rope.get("rope_type", "default")
    if kind == "default":
        dim = head_dim(hf)
        return 1.0 / (rope["rope_theta"] ** (torch.arange(0, dim, 2, dtype=torch.int64).float() / dim))
    if kind not in ("linear", "llama3"):
        raise ValueError(f"RoPE scaling {kind!r} is not supported; the engine knows: default, linear, llama3")
    return ROPE_INIT_FUNCTIONS[kind](hf, torch.device("cpu"))[0]


def build(
    hf: PretrainedConfig,
    dtype: torch.dtype,
    recompute: bool = False,
    pre_process: bool = True,
    post_process: bool = True,
    num_scores: int = 0,
    seed: int = 0,
) -> PackedGPT:
    """The model with unfilled weights, on this rank's device (see `hf.load_weights`)."""
    config = transformer_config(hf, dtype, recompute)
    model_parallel_cuda_manual_seed(0)
    layer = get_gpt_layer_local_spec(normalization="RMSNorm")
    layer.submodules.input_layernorm = Norm
    layer.submodules.pre_mlp_layernorm = Norm
    layer.submodules.self_attention.submodules.core_attention = ModuleSpec(module=PackedAttention)
    model = PackedGPT(
        config=config,
        transformer_layer_spec=TransformerBlockSubmodules([layer] * get_num_layers_to_build(config), layer_norm=Norm),  # type: ignore[arg-type]
        vocab_size=hf.vocab_size,
        max_sequence_length=hf.max_position_embeddings,
        pre_process=pre_process,
        post_process=post_process,
        parallel_output=True,
        share_embeddings_and_output_weights=hf.tie_word_embeddings and not num_scores,
        position_embedding_type="rope",
        rotary_base=int(hf.rope_parameters["rope_theta"]),
        num_scores=num_scores,
        seed=seed,
    )
    model.rotary_pos_emb.inv_freq = rope_frequencies(hf)
    return model.to(dtype)


def _score_head(hidden_size: int, num_scores: int, seed: int) -> nn.Linear:
    """It starts at N(0, 1 / (D + 1)) (Stiennon et al., arXiv 2009.01325, appendix B.1)."""
    head = nn.Linear(hidden_size, num_scores, bias=False)
    with torch.no_grad():
        head.weight.normal_(0, (hidden_size + 1) ** -0.5, generator=torch.Generator().manual_seed(seed))
    return head
