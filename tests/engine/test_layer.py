"""The description of a layer that decoding runs on, against megatron's layers that training runs on."""

from __future__ import annotations

import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tests import models
from workbench.algorithms import sft
from workbench.data.packing import Row
from workbench.engine import families, layer
from workbench.engine.model import PackedGPT
from workbench.engine.step import Policy
from workbench.rollout.base import Prompt, Sampling
from workbench.rollout.engines.megatron import Engine
from workbench.settings import Lora, Model

pytestmark = pytest.mark.usefixtures("alone")

KINDS = ("llama", "qwen2", "mixtral")
TOKENS = [5, 9, 40, 77, 13, 301, 17, 60, 61, 62, 63, 8, 200, 199, 3]
LIMIT = 1e-5
"""Of the largest logit."""
LEFT_OUT = {
    "the norm before attention": ("layer.input_layernorm(hidden)", "hidden"),
    "the norm before the MLP": ("layer.pre_mlp_layernorm(hidden)", "hidden"),
    "the last norm": ("return model.decoder.final_layernorm(hidden)", "return hidden"),
    "the residual around attention": ("hidden = hidden + attention(", "hidden = attention("),
    "the residual around the MLP": ("hidden = hidden + mlp(", "hidden = mlp("),
    "attention": ("hidden = hidden + attention(", "hidden = hidden + 0 * attention("),
    "the MLP": ("hidden = hidden + mlp(", "hidden = hidden + 0 * mlp("),
    "RoPE": ("return x * cos + torch.cat([second, first], dim=-1) * sin", "return x"),
    "half of RoPE": (" * cos + torch.cat([second, first], dim=-1) * sin", " * cos"),
    "the biases": ("F.linear(x, base.weight, base.bias)", "F.linear(x, base.weight)"),
    "the gate": ("F.silu(gate) * up", "up"),
    "the gate's activation": ("F.silu(gate) * up", "gate * up"),
    "the adapters": ("out = out + F.linear(F.linear(", "out = out + 0 * F.linear(F.linear("),
    "the adapters' scale": (" * adapted.scaling[name]", ""),
    "the output projection": (
        "product(module.linear_proj, out.transpose(1, 2).reshape(batch, length, -1), heads.alone)",
        "out.transpose(1, 2).flatten(2)",
    ),
}
"""What the description's source says of each part, and what it says without."""
NOT_IN = {"the biases": ("llama", "mixtral", "adapted"), "the gate": ("mixtral",), "the gate's activation": ("mixtral",)}
"""Parts that an architecture has not, or that megatron computes in both ways."""
ADAPTERS = ("the adapters", "the adapters' scale")


def trained(folder: Path, kind: str) -> Policy:
    """A model of the kind; `adapted` is a llama with adapters that have learnt something."""
    adapted = kind == "adapted"
    directory = models.save(folder / "model", "llama" if adapted else kind)
    policy = Policy(Model(lora=Lora(rank=4 if adapted else 0, alpha=16)), sft.Config(lr=1e-2, warmup_steps=0), directory, 10, sft.OUTPUTS)
    for step in range(2 if adapted else 0):
        policy.update([Row(TOKENS, learn=[True] * len(TOKENS))], sft.loss, step, 0)
    return policy


def causal(i: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    return torch.nn.functional.scaled_dot_product_attention(query, key, value, is_causal=True, enable_gqa=True)


@torch.no_grad()
def apart(policy: Policy, description: Any) -> float:
    """The largest difference of the logits, of the largest logit."""
    model = policy.chunks[0]
    assert isinstance(model, PackedGPT)
    expected = policy.logits(TOKENS)
    tables = description.rotary_tables(model, len(TOKENS), torch.float32, torch.device("cpu"))
    places = torch.arange(len(TOKENS))[None]
    heads = description.Heads.of(model.config)
    hidden = description.hidden_states(model, heads, torch.tensor([TOKENS]), places, tables, causal)
    return ((model.logits(hidden[0]) - expected).abs().max() / expected.abs().max()).item()


def without(part: str) -> Any:
    """The description without one of its parts."""
    said, changed = LEFT_OUT[part]
    source = Path(layer.__file__).read_text()
    assert source.count(said) == 1, f"{part}: {said!r} is {source.count(said)} times in {layer.__file__}"
    module = types.ModuleType("without")
    module.__dict__["__name__"] = layer.__name__
    exec(compile(source.replace(said, changed), layer.__file__, "exec"), module.__dict__)
    return module


@pytest.mark.parametrize("kind", [*KINDS, "adapted"])
def test_both_ways_give_the_same_logits_and_no_part_can_be_left_out(tmp_path: Path, kind: str) -> None:
    policy = trained(tmp_path, kind)
    assert apart(policy, layer) < LIMIT
    parts = [part for part in LEFT_OUT if kind not in NOT_IN.get(part, ()) and (kind == "adapted" or part not in ADAPTERS)]
    wrong = {part: apart(policy, without(part)) for part in parts}
    assert all(difference > 100 * LIMIT for difference in wrong.values()), wrong


@pytest.mark.parametrize("kind", [*KINDS, "adapted"])
def test_decoding_with_caches_equals_the_training_forward(tmp_path: Path, kind: str) -> None:
    """The log-probabilities that the sampler gives, token by token, are those of one training pass over prompt and answer."""
    policy = trained(tmp_path, kind)
    prompts = [TOKENS[:5], TOKENS[3:5], TOKENS[:9]]
    answers = list(Engine(policy.chunks[0], slots=2).generate([Prompt(p, key) for key, p in enumerate(prompts)], Sampling(10), 0))
    given = policy.outputs([Row(prompts[answer.key], (answer.tokens,)) for answer in answers])
    for answer, each in zip(answers, given, strict=True):
        np.testing.assert_allclose(answer.logprobs, each.of("logprobs_N"), rtol=LIMIT, atol=2 * LIMIT)


def test_every_family_has_a_file_with_the_same_names() -> None:
    assert families.names() == ["llama", "mistral", "mixtral", "qwen2"]
    for name in families.names():
        family = families.find(name)
        assert all(callable(getattr(family, function)) for function in ("check", "architecture", "parts", "rope_frequencies")), name
