"""megatron-core's GPTModel for the families of `workbench.engine.families`, built from a Hugging Face configuration."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Literal, TypedDict, cast

import torch
from megatron.core import tensor_parallel
from megatron.core.models.gpt.gpt_layer_specs import get_gpt_layer_local_spec
from megatron.core.models.gpt.gpt_model import GPTModel
from megatron.core.parallel_state import is_pipeline_first_stage, is_pipeline_last_stage
from megatron.core.process_groups_config import ProcessGroupCollection
from megatron.core.transformer.spec_utils import ModuleSpec
from megatron.core.transformer.transformer_block import TransformerBlockSubmodules, get_num_layers_to_build
from megatron.core.transformer.transformer_config import TransformerConfig
from megatron.core.transformer.transformer_layer import get_transformer_layer_offset
from torch import Tensor, nn
from transformers import PretrainedConfig

from workbench.engine import device, families, mended, parallel
from workbench.engine.attention import PackedAttention, PackedRows
from workbench.engine.head import ScoreHead, VocabularyHead
from workbench.engine.megatron_types import LayerSubmodules, put
from workbench.settings import Model
from workbench.settings.layout import Shape, check

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


class Norm(nn.RMSNorm):
    """RMSNorm as megatron's layer specs build it; the weight is marked for sequence parallelism."""

    def __init__(self, config: TransformerConfig, hidden_size: int, eps: float = 1e-5, **_: object):
        super().__init__(hidden_size, eps=eps)
        put(self.weight, sequence_parallel=config.sequence_parallel)


class PackedGPT(GPTModel):
    """A GPTModel over packs, or one chunk of its layers. Positions restart with each row; the head gives the wanted log-probabilities.

    `vocab_size` counts the tokens there are; the embedding has more rows where the tensor-parallel ranks do not divide them. With
    `num_scores` K a linear layer [K, D] stands in place of the language model's head.
    """

    def __init__(
        self,
        config: TransformerConfig,
        hf: PretrainedConfig,
        layers: TransformerBlockSubmodules,
        num_scores: int,
        seed: int,
        vp_stage: int | None,
        groups: ProcessGroupCollection | None = None,
    ):
        ranks = config.tensor_model_parallel_size
        super().__init__(
            config=config,
            transformer_layer_spec=cast(ModuleSpec, layers),
            vocab_size=-(-hf.vocab_size // ranks) * ranks,
            max_sequence_length=hf.max_position_embeddings,
            pre_process=is_pipeline_first_stage(ignore_virtual=False, vp_stage=vp_stage),
            post_process=is_pipeline_last_stage(ignore_virtual=False, vp_stage=vp_stage),
            parallel_output=True,
            share_embeddings_and_output_weights=hf.tie_word_embeddings and not num_scores,
            position_embedding_type="none",
            vp_stage=vp_stage,
            pg_collection=groups,
        )
        self.inv_freq = families.find(hf.model_type).rope_frequencies(hf)
        self.first_layer = get_transformer_layer_offset(config, vp_stage=vp_stage)
        self.score_head = ScoreHead(config.hidden_size, num_scores, seed) if num_scores and self.post_process else None
        if self.score_head is not None:
            del self.output_layer
        elif self.post_process:
            self.output_layer = VocabularyHead(self.output_layer.weight, hf.vocab_size, parallel.tensor_rank(), self.pg_collection.tp)

    def global_name(self, name: str) -> str:
        """A parameter's name in the whole model: layers and experts counted over all ranks, adapters' base layers as if there were none."""
        parts = name.replace(".base_layer.", ".").split(".")
        if parts[:2] == ["decoder", "layers"]:
            parts[2] = str(int(parts[2]) + self.first_layer)
        if "local_experts" in parts:
            at = parts.index("local_experts") + 1
            here = (self.config.num_moe_experts or 0) // parallel.expert_size()
            parts[at] = str(int(parts[at]) + here * parallel.expert_rank())
        name = ".".join(parts)
        for fused, norm in _FUSED_NORMS.items():
            name = name.replace(fused, norm)
        return name

    def logits(self, hidden_ND: Tensor) -> Tensor:
        """All logits [N, V] of the language model's head."""
        return self.output_layer(hidden_ND, self._tied_weight())

    def _tied_weight(self) -> Tensor | None:
        return self.shared_embedding_or_output_weight() if self.share_embeddings_and_output_weights else None

    def _preprocess(self, *args: Any, packed_seq_params: PackedRows | None = None, **kwargs: Any) -> Any:
        assert packed_seq_params is not None and packed_seq_params.positions_T is not None
        decoder_input, _, *rest = super()._preprocess(*args, packed_seq_params=packed_seq_params, **kwargs)
        angle = packed_seq_params.positions_T[:, None].float() * self.inv_freq.to(packed_seq_params.positions_T.device)
        return decoder_input, torch.cat([angle, angle], dim=-1)[:, None, None], *rest

    def _postprocess(self, hidden_states: Tensor, *args: Any, packed_seq_params: PackedRows | None = None, **kwargs: Any) -> Tensor:
        """hidden [T, 1, D] to what is wanted of the whole pack, or to logits [T, V] where nothing in particular is."""
        if not self.post_process:
            return hidden_states
        assert packed_seq_params is not None
        asked, hidden_TD = packed_seq_params, self._whole_hidden(hidden_states)[:, 0]
        if asked.wanted is None:
            return self.logits(hidden_TD)
        hidden_ND = hidden_TD[asked.places_N]
        if self.score_head is None:
            out = self.output_layer(hidden_ND, self._tied_weight(), asked.wanted, asked.target_N, asked.at_NK, asked.drawn)
        else:
            out = self.score_head(hidden_ND)
        return out if asked.slots_N is None else parallel.from_context(out, asked.slots_N, asked.total)

    def _whole_hidden(self, hidden: Tensor) -> Tensor:
        """Every tensor-parallel rank's tokens. A vocabulary-parallel head gives each rank a part of the gradient, a score head all of it."""
        partial = self.score_head is None
        if self.config.sequence_parallel:
            return tensor_parallel.gather_from_sequence_parallel_region(hidden, tensor_parallel_output_grad=partial)
        return tensor_parallel.copy_to_tensor_model_parallel_region(hidden) if partial else hidden


_FUSED_NORMS = {
    "self_attention.linear_qkv.layer_norm_weight": "input_layernorm.weight",
    "mlp.linear_fc1.layer_norm_weight": "pre_mlp_layernorm.weight",
}
"""Where Transformer Engine keeps the norms."""


def build(hf: PretrainedConfig, settings: Model, num_scores: int = 0, groups: ProcessGroupCollection | None = None) -> list[PackedGPT]:
    """This rank's chunks of the model with unfilled weights (see `loading.load_weights`): one, or one for each virtual pipeline stage.

    Raises:
        ValueError: another architecture, a feature that the engine does not have, or a layout that does not fit; the message says which.
    """
    check(settings.layout, parallel.world_size(), Shape.of(hf.to_dict()))
    config = transformer_config(hf, settings)
    tensor_parallel.model_parallel_cuda_manual_seed(0)
    stages: Sequence[int | None] = range(settings.virtual_pipeline) if settings.virtual_pipeline > 1 else [None]
    mended.router()
    with device.cuda_calls_stay_on_cpu():
        chunks = [PackedGPT(config, hf, _layers(config, settings, stage), num_scores, settings.init_seed, stage, groups) for stage in stages]
    return [chunk.to(config.params_dtype) for chunk in chunks]


def named_parameters(chunks: Sequence[nn.Module]) -> Iterator[tuple[str, nn.Parameter]]:
    """This rank's parameters by their names in the whole model."""
    for chunk in chunks:
        assert isinstance(chunk, PackedGPT)
        for name, parameter in chunk.named_parameters():
            yield chunk.global_name(name), parameter


def transformer_config(hf: PretrainedConfig, settings: Model) -> TransformerConfig:
    """megatron's configuration for a Hugging Face model of a known family.

    Raises:
        ValueError: another architecture, or a feature that the engine does not have; the message names it.
    """
    family = families.find(hf.model_type)
    family.check(hf.to_dict())
    architecture = family.architecture(hf)
    dtype = DTYPES[settings.precision]
    if architecture.get("num_moe_experts") and settings.tensor_parallel > 1 and not (device.CUDA and settings.sequence_parallel):
        raise ValueError("a mixture of experts with tensor_parallel needs sequence_parallel=true and GPUs: gloo exchanges no unequal parts")
    return TransformerConfig(
        **architecture,
        params_dtype=dtype,
        pipeline_dtype=dtype,
        bf16=dtype == torch.bfloat16,
        fp8="hybrid" if settings.fp8 else None,
        tensor_model_parallel_size=settings.tensor_parallel,
        sequence_parallel=settings.sequence_parallel,
        pipeline_model_parallel_size=settings.pipeline_parallel,
        virtual_pipeline_model_parallel_size=settings.virtual_pipeline if settings.virtual_pipeline > 1 else None,
        context_parallel_size=settings.context_parallel,
        expert_model_parallel_size=settings.expert_parallel,
        moe_router_load_balancing_type="none",
        moe_token_dispatcher_type="alltoall",  # the default refuses variable lengths, with experts or without
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
        batch_p2p_comm=False,
        **_recompute(settings),
    )


class _Recompute(TypedDict, total=False):
    recompute_granularity: Literal["full", "selective"]
    recompute_method: Literal["uniform", "block"]
    recompute_num_layers: int
    recompute_modules: list[str]


def _recompute(settings: Model) -> _Recompute:
    if settings.recompute == "none":
        return {}
    if settings.recompute == "selective":
        return {"recompute_granularity": "selective", "recompute_modules": ["mlp"]}
    return {"recompute_granularity": "full", "recompute_method": "uniform", "recompute_num_layers": 1}


def _layers(config: TransformerConfig, settings: Model, vp_stage: int | None) -> TransformerBlockSubmodules:
    """The layers of a chunk: Transformer Engine's where the settings ask for them, megatron's own otherwise."""
    norm: type[nn.Module] = Norm
    if settings.transformer_engine:
        layer, norm = _transformer_engine_layer(config)
    else:
        layer = get_gpt_layer_local_spec(num_experts=config.num_moe_experts, normalization="RMSNorm")
        put(layer.submodules, input_layernorm=Norm, pre_mlp_layernorm=Norm)
    put(cast(LayerSubmodules, layer.submodules).self_attention.submodules, core_attention=ModuleSpec(module=PackedAttention))
    return TransformerBlockSubmodules([layer] * get_num_layers_to_build(config, vp_stage=vp_stage), layer_norm=cast(nn.Module, norm))


def _transformer_engine_layer(config: TransformerConfig) -> tuple[ModuleSpec, type[nn.Module]]:
    from megatron.core.models.gpt.gpt_layer_specs import HAVE_TE, get_gpt_layer_with_transformer_engine_spec

    if not HAVE_TE or not device.CUDA:
        raise ValueError("model.transformer_engine=true needs a GPU and the package: pip install 'transformer-engine[pytorch]'")
    from megatron.core.extensions.transformer_engine import TENorm

    return get_gpt_layer_with_transformer_engine_spec(num_experts=config.num_moe_experts), cast(type[nn.Module], TENorm)
