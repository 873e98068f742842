"""What a model's folder holds is read as it is meant, or refused by name before anything of it is loaded."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer, FineGrainedFP8Config

from tests import models
from tests.engine.policies import logprobs, pairs, policy
from workbench.engine import hf, preconditions, weight_files
from workbench.engine.loading import load_weights
from workbench.rollout.engines.hf import Engine

pytestmark = pytest.mark.usefixtures("alone")

Spoil = Callable[[Path], None]


def change(path: Path, **values: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def change_tensors(directory: Path, make: Callable[[dict[str, Tensor]], Mapping[str, Tensor]]) -> None:
    path = directory / "model.safetensors"
    save_file(dict(make(load_file(path))), path, metadata={"format": "pt"})


def quantise(directory: Path, block: tuple[int, int] | None, settings: dict[str, Any]) -> dict[str, Tensor]:
    """Every projection as float8 with a scale for each block (None: each row). Returns the numbers that they stand for, computed block by block."""
    whole: dict[str, Tensor] = {}
    suffix = "weight_scale_inv" if settings["quant_method"] == "fp8" else "weight_scale"

    def make(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        new = {}
        for name, tensor in tensors.items():
            whole[name] = tensor
            if "proj" not in name or "bias" in name:
                new[name] = tensor
                continue
            rows, columns = block or (1, tensor.shape[1])
            scales = torch.zeros(-(-tensor.shape[0] // rows), -(-tensor.shape[1] // columns))
            numbers, stands_for = torch.zeros_like(tensor).to(torch.float8_e4m3fn), torch.zeros_like(tensor)
            for i in range(len(scales)):
                for j in range(scales.shape[1]):
                    part = slice(i * rows, (i + 1) * rows), slice(j * columns, (j + 1) * columns)
                    scales[i, j] = tensor[part].abs().max() / 448
                    numbers[part] = (tensor[part] / scales[i, j]).to(torch.float8_e4m3fn)
                    stands_for[part] = numbers[part].float() * scales[i, j]
            new[name], new[name.replace("weight", suffix)], whole[name] = numbers, scales, stands_for
        return new

    change_tensors(directory, make)
    change(directory / "config.json", quantization_config=settings)
    return whole


FP8 = {"quant_method": "fp8", "activation_scheme": "dynamic", "weight_block_size": [16, 16]}
CHANNELS = {"type": "float", "num_bits": 8, "strategy": "channel", "symmetric": True}
COMPRESSED = {"quant_method": "compressed-tensors", "format": "float-quantized", "config_groups": {"group_0": {"weights": CHANNELS}}}


@pytest.mark.parametrize(
    ("block", "settings"),
    [
        ((16, 16), FP8),
        ((48, 40), {**FP8, "weight_block_size": [48, 40]}),
        (None, COMPRESSED),
        (None, {"quant_method": "compressed-tensors"}),
        ((48, 40), {**COMPRESSED, "config_groups": {"g": {"weights": {**CHANNELS, "strategy": "block", "block_structure": [48, 40]}}}}),
    ],
    ids=["blocks", "blocks that do not divide", "rows", "rows without groups", "compressed blocks"],
)
def test_float8_is_read_as_what_it_stands_for(block: tuple[int, int] | None, settings: dict[str, Any], tmp_path: Path) -> None:
    """The engine's weights equal the numbers times their scales bit for bit, whole and in the parts of tensor-parallel ranks; an export is plain."""
    directory = models.save(tmp_path / "model")
    whole = quantise(directory, block, settings)
    read = policy(hf.local_directory(str(directory)))
    exported = load_file(hf.save(read.weights(), directory, tmp_path / "plain", "note") / "model.safetensors")
    assert exported.keys() == whole.keys()
    assert all(torch.equal(exported[name], whole[name]) for name in whole)
    assert "quantization_config" not in json.loads((tmp_path / "plain" / "config.json").read_text())
    plain = policy(tmp_path / "plain")
    rows = pairs(2)
    assert all(np.array_equal(a, b) for a, b in zip(logprobs(read, rows), logprobs(plain, rows), strict=True))
    for part in hf.mapping(hf.config(directory)):
        parts = [torch.empty(0)] * 2
        if part.dim is not None and "layers" in part.name:
            size = list(dict(read.weights())[part.name].shape)
            size[part.dim] //= 2
            for rank in range(2):
                parts[rank] = torch.empty(size)
                load_weights([(part.name, parts[rank])], directory, False, rank, 2)
            ours = [torch.cat(halves, part.dim) for halves in zip(*(part.split(each) for each in parts), strict=True)]
            assert all(torch.equal(tensor, whole[name]) for name, tensor in zip(part.hf_names, ours, strict=True))


def test_float8_blocks_equal_transformers(tmp_path: Path) -> None:
    directory = models.save(tmp_path / "model")
    quantise(directory, (16, 16), FP8)
    theirs = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32, quantization_config=FineGrainedFP8Config(dequantize=True))
    tokens = list(range(5, 40))
    ours = policy(directory).logits(tokens).detach()
    np.testing.assert_allclose(ours, theirs(torch.tensor([tokens])).logits[0].detach(), atol=1e-4)


def test_the_sampler_in_transformers_has_the_policys_weights(tmp_path: Path) -> None:
    directory = models.save(tmp_path / "model")
    quantise(directory, (16, 16), FP8)
    trained = policy(directory)
    engine = Engine(directory, lambda: ((name, tensor) for name, tensor, _ in hf.to_hf(trained.weights(), trained.hf_config)), None)
    engine.update_weights(0)
    tokens = list(range(5, 40))
    model: Any = engine.model
    np.testing.assert_allclose(trained.logits(tokens).detach(), model(torch.tensor([tokens])).logits[0].detach(), atol=1e-4)


REFUSED_SCHEMES: dict[str, dict[str, Any]] = {
    "bitsandbytes, load_in_8bit": {"quant_method": "bitsandbytes", "load_in_8bit": True},
    "bitsandbytes, load_in_4bit": {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4"},
    "gptq, bits=4": {"quant_method": "gptq", "bits": 4},
    "awq, bits=4": {"quant_method": "awq", "bits": 4},
    "mxfp4": {"quant_method": "mxfp4"},
    "aqlm": {"quant_method": "aqlm"},
    "fbgemm_fp8": {"quant_method": "fbgemm_fp8"},
    "modelopt": {"quant_method": "modelopt"},
    "format=int-quantized": {**COMPRESSED, "format": "int-quantized"},
    "format=pack-quantized": {**COMPRESSED, "format": "pack-quantized"},
    "num_bits=4": {"quant_method": "compressed-tensors", "config_groups": {"g": {"weights": {**CHANNELS, "num_bits": 4}}}},
    "strategy=group": {"quant_method": "compressed-tensors", "config_groups": {"g": {"weights": {**CHANNELS, "strategy": "group"}}}},
    "sparse-24": {**COMPRESSED, "sparsity_config": {"format": "sparse-24-bitmask"}},
    "expert_dtype=fp4": {**FP8, "expert_dtype": "fp4"},
    "weight_block_size=3": {**FP8, "weight_block_size": 3},
    "some": {"some": "thing"},
}


@pytest.mark.parametrize("told", REFUSED_SCHEMES)
@pytest.mark.parametrize("where", ["", "text_config"])
def test_other_quantised_weights_are_refused_by_name(told: str, where: str) -> None:
    settings = {"quantization_config": REFUSED_SCHEMES[told]}
    config = {"model_type": "llama", **({where: settings} if where else settings)}
    with pytest.raises(ValueError, match=told) as caught:
        preconditions.check_config(config, "m/config.json")
    assert str(caught.value).startswith("m/config.json: ")


def bnb_int8(directory: Path) -> None:
    def make(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        name = "model.layers.0.mlp.down_proj.weight"
        scale = tensors[name].abs().amax(1)
        return {**tensors, name: (tensors[name] / scale[:, None] * 127).round().to(torch.int8), name.replace("weight", "SCB"): scale}

    change_tensors(directory, make)


def float8_without_settings(directory: Path) -> None:
    quantise(directory, (16, 16), FP8)
    change(directory / "config.json", quantization_config=None)


def float8_without_scales(directory: Path) -> None:
    quantise(directory, (16, 16), FP8)
    change_tensors(directory, lambda tensors: {name: tensor for name, tensor in tensors.items() if "scale" not in name})


def scales_left_over(directory: Path) -> None:
    change_tensors(directory, lambda tensors: {**tensors, "model.layers.1.mlp.up_proj.weight_scale": torch.ones(176, 1)})


def scales_of_another_shape(directory: Path) -> None:
    quantise(directory, (16, 16), FP8)
    change(directory / "config.json", quantization_config={**FP8, "weight_block_size": [32, 32]})


def absmax_left_over(directory: Path) -> None:
    change_tensors(directory, lambda tensors: {**tensors, "model.layers.1.mlp.up_proj.absmax": torch.ones(4)})


def another_head(directory: Path) -> None:
    change_tensors(directory, lambda tensors: {**tensors, "v_head.summary.weight": torch.ones(1, 64)})


def more_layers(directory: Path) -> None:
    change(directory / "config.json", num_hidden_layers=2)


def no_head(directory: Path) -> None:
    change_tensors(directory, lambda tensors: {name: tensor for name, tensor in tensors.items() if name != "lm_head.weight"})


def a_score_head(directory: Path) -> None:
    change_tensors(directory, lambda tensors: {**tensors, "score.weight": torch.ones(1, 64)})


def a_head_beside_the_embedding(directory: Path) -> None:
    change(directory / "config.json", tie_word_embeddings=True)


def fewer_rows(directory: Path) -> None:
    change_tensors(directory, lambda tensors: {**tensors, "model.embed_tokens.weight": tensors["model.embed_tokens.weight"][:-1].clone()})


def a_damaged_file(directory: Path) -> None:
    path = directory / "model.safetensors"
    path.write_bytes(path.read_bytes()[:100])


def a_missing_file(directory: Path) -> None:
    (directory / "model.safetensors").unlink()
    (directory / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "model-00001-of-00001.safetensors"}}))


def a_larger_tokenizer(directory: Path) -> None:
    words = AutoTokenizer.from_pretrained(directory)
    words.add_special_tokens({"additional_special_tokens": ["<|turn|>", "<|over|>"]})
    words.save_pretrained(directory)


SPOILT: dict[Spoil, str] = {
    bnb_int8: r"down_proj\.weight is of type I8",
    float8_without_settings: r"is of type F8_E4M3, and config\.json has no quantization_config",
    float8_without_scales: "there is no scale beside it",
    scales_left_over: r"up_proj\.weight is of type F32 and has a scale beside it",
    scales_of_another_shape: r"has scales of shape \[.*\]; expected one a tensor, one a row or one for blocks of 32 x 32",
    absmax_left_over: r"1 tensors are read by no part of a llama: model\.layers\.1\.mlp\.up_proj\.absmax",
    another_head: r"v_head\.summary\.weight",
    more_layers: r"9 tensors are read by no part of a llama: model\.layers\.2\..* and 5 more",
    no_head: r"no tensor 'lm_head\.weight'",
    a_score_head: "is a reward model: it has a score head",
    a_head_beside_the_embedding: r"lm_head\.weight is not the embedding.*tie_word_embeddings",
    fewer_rows: r"embed_tokens\.weight has \d+ rows, and config\.json has vocab_size=\d+",
    a_damaged_file: "is not a whole safetensors file",
    a_missing_file: "is missing: the index beside it names it",
    a_larger_tokenizer: r"the tokenizer has (\d+) tokens and the embedding (\d+) rows \(vocab_size\): 2 tokens have none, the first is '<\|turn\|>' \(\2\)",
}


@pytest.mark.parametrize("spoil", SPOILT, ids=lambda spoil: spoil.__name__)
def test_a_model_that_is_not_what_it_seems_is_refused(spoil: Spoil, tmp_path: Path) -> None:
    directory = models.save(tmp_path / "model")
    spoil(directory)
    with pytest.raises(ValueError, match=SPOILT[spoil]) as caught:
        policy(hf.local_directory(str(directory)))
    assert str(directory) in str(caught.value)


def test_what_means_nothing_is_read_past(tmp_path: Path) -> None:
    """A head that is the embedding, buffers of old files, a file that transformers does not read beside the one that it does; a smaller tokenizer."""
    tied = models.save(tmp_path / "tied", tie_word_embeddings=True, vocab_size=512)
    change_tensors(
        tied,
        lambda tensors: {
            **tensors,
            "lm_head.weight": tensors["model.embed_tokens.weight"].clone(),
            "model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(8),
        },
    )
    save_file({"layers.0.attention.wk.weight": torch.ones(4, 4)}, tied / "consolidated.safetensors")
    rows = pairs(1)
    found = logprobs(policy(hf.local_directory(str(tied))), rows)
    plain = logprobs(policy(models.save(tmp_path / "plain", tie_word_embeddings=True, vocab_size=512)), rows)
    assert np.array_equal(found[0], plain[0])


REFUSED: dict[str, dict[str, Any]] = {
    "model_type 'gpt2' has no family": {"model_type": "gpt2"},
    "model_type None has no family": {},
    "there are: llama, mistral, mixtral, qwen2": {"model_type": "nemotron_h"},
    "use_sliding_window=True": {"model_type": "qwen2", "use_sliding_window": True, "sliding_window": 64},
    "sliding_window=4096": {"model_type": "mistral"},
    "sliding_window=64": {"model_type": "mixtral", "sliding_window": 64},
    r"layer_types=\['sliding_attention'\]": {"model_type": "qwen2", "layer_types": ["full_attention", "sliding_attention"]},
    "hidden_act='gelu'": {"model_type": "llama", "hidden_act": "gelu"},
    "attention_bias=True, mlp_bias=True": {"model_type": "llama", "attention_bias": True, "mlp_bias": True},
    "partial_rotary_factor=0.5": {"model_type": "llama", "partial_rotary_factor": 0.5},
    r"rope_parameters\.partial_rotary_factor=0.5": {"model_type": "llama", "rope_parameters": {"rope_type": "default", "partial_rotary_factor": 0.5}},
    r"rope_scaling\.rope_type='yarn'": {"model_type": "llama", "rope_scaling": {"type": "yarn", "factor": 4.0}},
    r"rope_scaling\.rope_type='dynamic'": {"model_type": "qwen2", "rope_scaling": {"rope_type": "dynamic", "factor": 2.0}},
    r"rope_parameters=\{'full_attention'": {"model_type": "llama", "rope_parameters": {"full_attention": {"rope_type": "default"}}},
    "final_logit_softcapping=30": {"model_type": "llama", "final_logit_softcapping": 30},
    "attention_multiplier=0.01": {"model_type": "llama", "attention_multiplier": 0.01},
    "num_experts_per_tok=1": {"model_type": "mixtral", "num_experts_per_tok": 1},
    "router_jitter_noise=0.1": {"model_type": "mixtral", "router_jitter_noise": 0.1},
}


@pytest.mark.parametrize("told", REFUSED)
def test_what_the_engine_does_not_compute_is_refused_by_name_and_value(told: str) -> None:
    with pytest.raises(ValueError, match=told):
        preconditions.check_config(REFUSED[told], "m")


def test_values_that_ask_for_nothing_are_no_reason() -> None:
    for config in (
        {"model_type": "qwen2", "use_sliding_window": False, "sliding_window": 32768, "layer_types": ["full_attention"]},
        {"model_type": "mistral", "sliding_window": None, "attention_bias": False, "rope_parameters": {"rope_type": "linear", "factor": 2.0}},
        {"model_type": "llama", "rope_scaling": {"type": "linear", "factor": 2.0}, "partial_rotary_factor": 1.0, "quantization_config": None},
    ):
        preconditions.check_config(config, "m")


def test_the_checks_before_a_launch_load_no_torch(tmp_path: Path) -> None:
    """They run in the app and on the command line."""
    directory = models.save(tmp_path / "model")
    a_larger_tokenizer(directory)
    program = (
        "import sys; from pathlib import Path; from workbench.engine import preconditions\n"
        "try: preconditions.check(Path(sys.argv[1]))\nexcept ValueError as error: print(error)\n"
        "print({'torch', 'transformers'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program, str(directory)], capture_output=True, text=True, check=True)
    assert "the first is '<|turn|>'" in done.stdout
    assert done.stdout.splitlines()[-1] == "set()"


@pytest.mark.parametrize(
    ("config", "longest"),
    [
        ({"max_position_embeddings": 100}, 100),
        ({"max_position_embeddings": 100, "rope_scaling": {"type": "linear", "factor": 4.0}}, 400),
        ({"max_position_embeddings": 100, "rope_scaling": {"rope_type": "llama3", "factor": 8.0, "original_max_position_embeddings": 10}}, 100),
        ({"max_position_embeddings": 10, "rope_parameters": {"rope_type": "llama3", "factor": 8.0, "original_max_position_embeddings": 10}}, 80),
        ({}, None),
    ],
)
def test_a_models_context(config: dict[str, Any], longest: int | None) -> None:
    assert preconditions.context_length(config) == longest


def test_a_fingerprint_is_of_what_the_weights_are(tmp_path: Path, tiny_model: Path) -> None:
    """The same wherever they lie; another one where any tensor was trained further."""
    first = models.save(tmp_path / "model")
    known = weight_files.fingerprint(first)
    assert known == weight_files.fingerprint(tiny_model) == weight_files.fingerprint(first.rename(tmp_path / "moved"))
    change_tensors(tmp_path / "moved", lambda tensors: {**tensors, "model.norm.weight": tensors["model.norm.weight"] * 1.001})
    assert weight_files.fingerprint(tmp_path / "moved") != known
