"""The engine's model against transformers, and packing against rows computed alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from tests import gang, models
from tests.engine.policies import FULL, logprobs, pairs, policy
from workbench.algorithms import dpo, reward_model, sft
from workbench.data.packing import Row
from workbench.engine import hf, lora, parallel
from workbench.engine.model import transformer_config
from workbench.engine.step import Policy
from workbench.models.roles import critic
from workbench.rollout.base import Prompt, Sampling
from workbench.rollout.engines.megatron import Engine
from workbench.settings import Lora, Model
from workbench.settings.layout import Layout
from workbench.settings.online import Critic

pytestmark = pytest.mark.usefixtures("alone")

LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 10000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
SHAPES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", {}),
    "tied": ("llama", {"tie_word_embeddings": True}),
    "one group a head": ("llama", {"num_key_value_heads": 4}),
    "wide heads": ("llama", {"head_dim": 32}),
    "llama3 rope": ("llama", {"rope_parameters": LLAMA3}),
    "linear rope": ("llama", {"rope_parameters": {"rope_type": "linear", "rope_theta": 10000.0, "factor": 4.0}}),
    "qwen2": ("qwen2", {}),
    "mistral": ("mistral", {"head_dim": 24}),
    "mixtral": ("mixtral", {}),
}


def reference_logprobs(directory: Path, tokens: list[int], last: int) -> np.ndarray:
    """transformers' log-probabilities of the last tokens of a sequence computed alone."""
    model = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32)
    ids = torch.tensor([tokens])
    with torch.no_grad():
        logprobs = model(ids).logits.log_softmax(-1)
    return logprobs[0, :-1].gather(1, ids[0, 1:, None])[-last:, 0].numpy()


@pytest.mark.parametrize("name", SHAPES)
def test_equals_transformers(tmp_path: Path, name: str) -> None:
    """Log-probabilities of both answers of packed pairs, and of a conversation, equal transformers' on each sequence alone."""
    kind, changes = SHAPES[name]
    directory = models.save(tmp_path / "model", kind, **changes)
    rows = [*pairs(3), Row(list(range(5, 105)), learn=[True] * 100)]
    found = logprobs(policy(directory, micro_batch_tokens=100_000), rows)
    for i, row in enumerate(rows[:3]):
        expected = np.concatenate([reference_logprobs(directory, [*row.prefix, *branch], len(branch)) for branch in row.branches])
        np.testing.assert_allclose(found[i], expected, atol=1e-4)
    np.testing.assert_allclose(found[3], reference_logprobs(directory, list(rows[3].prefix), 99), atol=1e-4)


def test_embedded_model_equals_transformers() -> None:
    """SmolLM2-135M-Instruct, converted from GGUF."""
    directory = hf.local_directory(hf.EMBEDDED)
    tokens = hf.tokenizer(directory)("The capital of France is Paris, and that of Italy is Rome.")["input_ids"]
    found = logprobs(policy(directory), [Row(tokens, learn=[True] * len(tokens))])
    np.testing.assert_allclose(found[0], reference_logprobs(directory, tokens, len(tokens) - 1), atol=1e-4)


def test_microbatches_do_not_matter(tiny_model: Path) -> None:
    """One pack of all rows, and one row a pack: the same loss, gradient norm and next step to 1e-5."""
    rows = with_reference(tiny_model, pairs(8))
    results = []
    for tokens in (100_000, 16):
        trained = policy(tiny_model, micro_batch_tokens=tokens, lr=1e-3)
        results.append([trained.update(rows, dpo.loss, step, 0) for step in range(3)])
    for packed, alone in zip(*results, strict=True):
        assert packed["loss"] == pytest.approx(alone["loss"], rel=1e-5)
        assert packed["grad_norm"] == pytest.approx(alone["grad_norm"], rel=1e-5)


def test_gradient_equals_autograd_in_transformers(tiny_model: Path) -> None:
    """The gradient norm of SFT on two conversations equals transformers' on the same tokens, each learnt token weighing the same."""
    rows = [Row([5, 6, 7, 8, 9, 10], learn=[0, 0, 1, 1, 1, 1]), Row([11, 12, 13], learn=[0, 1, 1])]
    trained = Policy(FULL, sft.Config(clip_norm=0), tiny_model, 10, sft.OUTPUTS)
    metrics = trained.update(rows, sft.loss, 0, 0)
    model = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    total = torch.zeros(())
    for row in rows:
        ids = torch.tensor([row.prefix])
        nll = -model(ids).logits.log_softmax(-1)[0, :-1].gather(1, ids[0, 1:, None])[:, 0]
        total = total + nll[torch.tensor(row.learn[1:], dtype=torch.bool)].sum()
    loss = total / 6
    loss.backward()
    norm = torch.stack([p.grad.double().square().sum() for p in model.parameters()]).sum().sqrt()
    assert metrics["loss"] == pytest.approx(loss.item(), rel=1e-5)
    assert metrics["grad_norm"] == pytest.approx(norm.item(), rel=1e-4)


@pytest.mark.parametrize("kind", ["full", "selective"])
def test_recompute_changes_nothing(tiny_model: Path, kind: Literal["full", "selective"]) -> None:
    rows = with_reference(tiny_model, pairs(4))
    plain = policy(tiny_model, lr=1e-3).update(rows, dpo.loss, 0, 0)
    again = policy(tiny_model, Model(lora=Lora(rank=0), recompute=kind), lr=1e-3).update(rows, dpo.loss, 0, 0)
    assert again["loss"] == pytest.approx(plain["loss"], rel=1e-6)
    assert again["grad_norm"] == pytest.approx(plain["grad_norm"], rel=1e-6)


def test_bf16_is_near_fp32(tiny_model: Path) -> None:
    rows = pairs(4)
    fp32 = logprobs(policy(tiny_model), rows)
    bf16 = logprobs(policy(tiny_model, Model(precision="bf16", lora=Lora(rank=0))), rows)
    for i, each in enumerate(fp32):
        assert np.abs(each - bf16[i]).mean() < 0.1


def test_adapters_start_as_the_base_and_can_be_switched_off(tiny_model: Path) -> None:
    rows = pairs(4)
    base = logprobs(policy(tiny_model), rows)
    adapted = policy(tiny_model, Model(lora=Lora(rank=4)), lr=1e-2, warmup_steps=0)
    assert all(np.array_equal(base[i], each) for i, each in enumerate(logprobs(adapted, rows)))
    adapted.update(with_reference(tiny_model, rows), dpo.loss, 0, 0)
    assert all(np.array_equal(base[i], each) for i, each in enumerate(logprobs(adapted, rows, reference=True)))
    assert not any(np.array_equal(base[i], each) for i, each in enumerate(logprobs(adapted, rows)))
    assert all(("lora_" in name) == parameter.requires_grad for name, parameter in adapted.chunks[0].named_parameters())


@pytest.mark.parametrize("name", ["llama", "tied", "qwen2", "mixtral"])
def test_export_round_trip(tmp_path: Path, name: str) -> None:
    """What is written back equals what was read, tensor by tensor."""
    kind, changes = SHAPES[name]
    directory = models.save(tmp_path / "model", kind, **changes)
    out = hf.save(policy(directory).weights(), directory, tmp_path / "out", "note")
    before, after = (AutoModelForCausalLM.from_pretrained(d, dtype=torch.float32).state_dict() for d in (directory, out))
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) for key in before)
    assert hf.tokenizer(out).chat_template == models.CHATML
    with pytest.raises(FileExistsError):
        hf.save({}, directory, out, "note")


def test_trained_adapters_export_merged_and_alone(tmp_path: Path, tiny_model: Path) -> None:
    """transformers with the merged weights, and peft with the adapters, equal the engine to 1e-4."""
    from peft import PeftModel

    rows = pairs(4)
    settings = Lora(rank=4, alpha=8)
    trained = policy(tiny_model, Model(lora=settings), lr=1e-2, warmup_steps=0)
    for step in range(3):
        trained.update(with_reference(tiny_model, rows), dpo.loss, step, 0)
    tokens = list(range(5, 45))
    ours = logprobs(trained, [Row(tokens, learn=[True] * 40)])[0]
    out = hf.save(trained.weights(), tiny_model, tmp_path / "merged", "note")
    np.testing.assert_allclose(ours, reference_logprobs(out, tokens, 39), atol=1e-4)
    adapter = lora.save_adapter(trained.chunks[0], settings, trained.hf_config, str(tiny_model), tmp_path / "adapter")
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32), str(adapter))
    ids = torch.tensor([tokens])
    with torch.no_grad():
        theirs = model(ids).logits.log_softmax(-1)[0, :-1].gather(1, ids[0, 1:, None])[:, 0]
    np.testing.assert_allclose(ours, theirs.numpy(), atol=1e-4)


@pytest.mark.parametrize("rank", [0, 4], ids=["full", "adapters"])
def test_reward_model_exports_as_a_classifier(tmp_path: Path, tiny_model: Path, rank: int) -> None:
    """transformers' sequence classifier, whole or as adapters, gives the engine's scores to 1e-4."""
    from peft import PeftModel

    settings = Lora(rank=rank, alpha=8) if rank else Lora(rank=0)
    cfg = reward_model.Config(lr=1e-2, warmup_steps=0)
    trained = Policy(Model(lora=settings), cfg, tiny_model, 10, reward_model.OUTPUTS(cfg))
    for step in range(2):
        trained.update(pairs(4), reward_model.loss, step, 0)
    row = pairs(1)[0]
    ours = trained.outputs([row])[0].of("scores_SK")[:, 0]
    if rank:
        out = lora.save_adapter(trained.chunks[0], settings, trained.hf_config, str(tiny_model), tmp_path / "adapter")
        base = AutoModelForSequenceClassification.from_pretrained(tiny_model, num_labels=1, dtype=torch.float32)
        model = PeftModel.from_pretrained(base, str(out))
    else:
        out = hf.save(trained.weights(), tiny_model, tmp_path / "out", "note")
        model = AutoModelForSequenceClassification.from_pretrained(out, dtype=torch.float32)
    with torch.no_grad():
        theirs = [model(torch.tensor([[*row.prefix, *branch]])).logits[0, 0].item() for branch in row.branches]
    np.testing.assert_allclose(ours, theirs, atol=1e-4)


def greedy(folder: Path) -> None:
    """Answers of the folder's model under this gang's layout, and the ones that one rank gave."""
    sizes = {"tensor_parallel": parallel.tensor_size(), "sequence_parallel": parallel.tensor_size() > 1}
    sampled = policy(folder / "model", Model(lora=Lora(rank=0), **sizes))
    prompts = [[5, 6, 7], [8, 9], [10, 11, 12, 13]]
    asked = [Prompt(tokens, key) for key, tokens in enumerate(prompts)]
    rollouts = sorted(Engine(sampled.chunks[0], slots=2).generate(asked, Sampling(12, temperature=0), 0), key=lambda rollout: rollout.key)
    found = [(rollout.tokens, rollout.logprobs) for rollout in rollouts]
    if not (folder / "answers.json").exists():
        (folder / "answers.json").write_text(json.dumps(found))
        return
    for (tokens, found_logprobs), (expected, expected_logprobs) in zip(found, json.loads((folder / "answers.json").read_text()), strict=True):
        assert tokens == expected
        np.testing.assert_allclose(found_logprobs, expected_logprobs, atol=1e-4)


def test_answers_do_not_depend_on_tensor_parallelism(tmp_path: Path) -> None:
    models.save(tmp_path / "model", tie_word_embeddings=True)
    gang.run(greedy, tmp_path, Layout())
    gang.run(greedy, tmp_path, Layout(tensor=2))


def test_what_is_not_supported_is_refused(tiny_model: Path, tmp_path: Path) -> None:
    config = hf.config(tiny_model)
    config.model_type = "gpt_neox"
    with pytest.raises(ValueError, match="'gpt_neox' has no family"):
        transformer_config(config, FULL)
    with pytest.raises(ValueError, match=r"no config\.json"):
        hf.local_directory(str(tmp_path))
    with pytest.raises(ValueError, match="there is no such file"):
        hf.local_directory(str(tmp_path / "x.gguf"))


def with_reference(directory: Path, rows: list[Row]) -> list[Row]:
    from dataclasses import replace

    found = logprobs(policy(directory), rows)
    return [replace(row, reference_logprobs_N=found[i]) for i, row in enumerate(rows)]


def test_a_critic_that_starts_from_a_language_model_expects_nothing(tiny_model: Path) -> None:
    rows = [Row(prefix=(1, 2, 3), branches=((4, 5),), learn=(1, 1))]
    values = Policy(FULL, Critic(), tiny_model, 1, critic.OUTPUTS).outputs(rows)
    assert [v.of("scores_SK").tolist() for v in values] == [[[0.0], [0.0]]]
