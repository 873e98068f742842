"""Reward models: what is exported scores in transformers as here, in any batch; what is none is refused; one with other tokens is asked in its own."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from tests import models
from tests.engine.policies import FULL, pairs, policy
from workbench.algorithms import reward_model
from workbench.data.chat import Chat
from workbench.data.rows import Message, PromptOnly, Unpaired
from workbench.engine import hf, padding
from workbench.engine.step import Policy
from workbench.models import messages
from workbench.models.reward_models import RewardModel
from workbench.processes.exported import score_difference
from workbench.rewards.base import Finished
from workbench.settings import Lora, Model

pytestmark = pytest.mark.usefixtures("alone")

TALL = "{% for m in messages %}{{ '<|im_start|>' + m['role'] + ': ' + m['content'] + '<|im_end|>' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant: ' }}{% endif %}"
ASKED = PromptOnly((Message("system", "user"), Message("user", "What is the capital of France?")), {})


def as_it_is(directory: Path) -> None: ...


def pad_is_end(directory: Path) -> None:
    """As SmolLM2-Instruct's."""
    change(directory, "<|im_end|>", 2)


def no_pad(directory: Path) -> None:
    change(directory, None, None)


def every_token_is_used(directory: Path) -> None:
    """No special token is left, and the embedding has no row beyond the tokenizer's."""
    change(directory, "<|im_end|>", 2)
    template = directory / "chat_template.jinja"
    template.write_text("{# <|endoftext|> #}" + template.read_text())


def change(directory: Path, token: str | None, number: int | None) -> None:
    for name, values in (("config.json", {"pad_token_id": number}), ("tokenizer_config.json", {"pad_token": token})):
        path = directory / name
        path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def trained(directory: Path) -> Policy:
    cfg = reward_model.Config(lr=1e-2, warmup_steps=0)
    made = Policy(FULL, cfg, directory, 10, reward_model.OUTPUTS(cfg))
    made.update(pairs(4), reward_model.loss, 0, 0)
    return made


@pytest.mark.parametrize("spoil", [as_it_is, pad_is_end, no_pad, every_token_is_used])
def test_an_exported_one_scores_in_transformers_as_here(spoil: Callable[[Path], None], tmp_path: Path) -> None:
    """Texts that end with the token that ends a turn: alone, and in batches padded on either side, by the tokenizer that was exported too."""
    source = models.save(tmp_path / "model")
    spoil(source)
    made = trained(source)
    out = hf.save(made.weights(), source, tmp_path / "out", "note")
    theirs = AutoModelForSequenceClassification.from_pretrained(out, dtype=torch.float32)
    words = AutoTokenizer.from_pretrained(out)
    assert words.pad_token_id == theirs.config.pad_token_id not in (None, words.eos_token_id)
    texts = [
        words.apply_chat_template([{"role": "user", "content": text}], tokenize=False).rstrip()
        for text in ("What is it?", "Tell me how bread is made.")
    ]
    tokens = words(texts)["input_ids"]
    assert all(each[-1] == words.eos_token_id for each in tokens)
    with torch.no_grad():
        assert score_difference(made, theirs, tokens) < 1e-4
        ours = [made.logits(each).item() for each in tokens]
        for side in ("left", "right"):
            words.padding_side = side
            np.testing.assert_allclose(theirs(**words(texts, padding=True, return_tensors="pt")).logits[:, 0], ours, atol=1e-4)
    again = RewardModel(Model(), hf.local_directory(str(out)), source, 4096)
    found = again.score([Finished(i, "", "", {}, each[:2], each[2:], ASKED) for i, each in enumerate(tokens)])
    if spoil is not every_token_is_used:  # with one more token it is asked in its own: about the messages
        np.testing.assert_allclose(found, ours, atol=1e-4)


def test_a_padding_token_that_means_something_else_is_seen(tmp_path: Path) -> None:
    """The check of an export fails where transformers takes the score at another token."""
    source = models.save(tmp_path / "model")
    made = trained(source)
    theirs = AutoModelForSequenceClassification.from_pretrained(hf.save(made.weights(), source, tmp_path / "out", "note"), dtype=torch.float32)
    theirs.config.pad_token_id = 2
    with torch.no_grad():
        assert score_difference(made, theirs, [[5, 6, 7, 2], [5, 6, 2]]) > 1e-2


def test_the_likeliest_padding_token() -> None:
    words = models.tokenizer()
    words.pad_token = words.eos_token
    words.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<reserved_1>", "<|pad|>", "<file>"]})
    assert padding.of(words, ()).token == "<|pad|>"
    assert padding.of(words, {words.convert_tokens_to_ids("<|pad|>")}).token == "<reserved_1>"
    words.pad_token = "<file>"
    assert padding.of(words, ()).token == "<file>"


def test_without_a_trained_head_there_is_no_reward_model(tiny_model: Path, tmp_path: Path) -> None:
    """A random one trained the policy before."""
    with pytest.raises(ValueError, match=r"is no reward model: it has no trained score head .*algorithm=reward_model"):
        RewardModel(Model(), tiny_model, tiny_model, 4096)
    cfg = reward_model.Config(objective="regression", attributes=("a", "b"))
    several = Policy(FULL, cfg, tiny_model, 10, reward_model.OUTPUTS(cfg))
    with pytest.raises(ValueError, match="gives 2 scores to an answer"):
        RewardModel(Model(), hf.save(several.weights(), tiny_model, tmp_path / "out", "note"), tiny_model, 4096)


def test_one_with_other_tokens_is_asked_in_its_own(tmp_path: Path, tiny_model: Path, tiny_reward: Path) -> None:
    """The prompt's messages and the answer's text, by its own template, as it would be trained on them; one that is too long has no score."""
    path = tiny_reward / "chat_template.jinja"
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    for file in tiny_reward.iterdir():
        (foreign / file.name).write_bytes(file.read_bytes())
    (foreign / path.name).write_text(TALL)
    model = RewardModel(Model(), foreign, tiny_model, 4096)
    answers = [Finished(0, "", text, {}, (7, 8), (9, 2), ASKED) for text in ("Paris.", "The capital of France is Paris.", "a" * 4000)]
    *found, none = model.score(answers)
    words = hf.tokenizer(foreign)
    theirs = AutoModelForSequenceClassification.from_pretrained(foreign, dtype=torch.float32)
    expected = []
    for answer in answers[:2]:
        row = Chat(words).one(Unpaired(ASKED.prompt, answer.response, True))
        text = words.decode([*row.prefix, *row.branches[0]])
        assert (
            text
            == f"<|im_start|>system: user<|im_end|><|im_start|>user: What is the capital of France?<|im_end|><|im_start|>assistant: {answer.response}<|im_end|>"
        )
        expected.append(theirs(torch.tensor([[*row.prefix, *row.branches[0]]])).logits[0, 0].item())
    np.testing.assert_allclose(found, expected, atol=1e-4)
    assert none is None
    same = RewardModel(Model(), tiny_reward, tiny_model, 4096).score(answers[:1])
    np.testing.assert_allclose(same, theirs(torch.tensor([[7, 8, 9, 2]])).logits[0].tolist(), atol=1e-4)
    with pytest.raises(ValueError, match="the messages of a prompt are not known"):
        model.score([Finished(0, "", "Paris.", {}, (7, 8), (9, 2))])
    (foreign / path.name).unlink()
    with pytest.raises(ValueError, match="other tokens than the policy and no chat template"):
        RewardModel(Model(), foreign, tiny_model, 4096)


def test_padding_at_the_end_is_read_as_transformers_reads_it(tiny_model: Path, tiny_reward: Path) -> None:
    theirs = AutoModelForSequenceClassification.from_pretrained(tiny_reward, dtype=torch.float32)
    answers = [((7, 8), (9, 2)), ((7, 8), (9, 0, 0)), ((7, 8), (0, 0))]
    found = RewardModel(Model(), tiny_reward, tiny_model, 4096).score([Finished(i, "", "", {}, *tokens) for i, tokens in enumerate(answers)])
    expected = [theirs(torch.tensor([[*prefix, *answer]])).logits[0, 0].item() for prefix, answer in answers]
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_prompts_travel_whole() -> None:
    asked = PromptOnly((Message("user", "?", extra={"name": "Ada"}), Message("tool", "")), {}, tools=({"name": "look", "of": [1, None]},))
    assert messages.prompt_of(messages.prompt_text(asked).encode()) == asked
    assert messages.prompt_of(b"null") is None
    for text in (b"[]", b"{}", b'{"messages": [1], "tools": []}', b'{"messages": [{"role": 1, "content": "", "extra": {}}], "tools": []}', b"no"):
        with pytest.raises(ValueError, match=r"got|Expecting"):
            messages.prompt_of(text)


def test_a_policy_has_no_score_head(tiny_reward: Path) -> None:
    with pytest.raises(ValueError, match=r"is a reward model|no tensor 'lm_head\.weight'"):
        policy(tiny_reward, Model(lora=Lora(rank=0)))
