"""The tests' models are those of `workbench chaos`."""

from __future__ import annotations

from pathlib import Path

from workbench.chaos.tiny import CHATML, SHAPE, TEXT, save, tokenizer

__all__ = ["CHATML", "SHAPE", "TEXT", "save", "save_reward_model", "tokenizer"]


def save_reward_model(folder: Path, seed: int) -> Path:
    """A random sequence classifier on the tiny model's tokens, as a Hugging Face directory."""
    import torch
    from transformers import AutoModelForSequenceClassification, LlamaConfig

    words = tokenizer()
    torch.manual_seed(seed)
    config = LlamaConfig(**SHAPE, vocab_size=len(words), num_labels=1, pad_token_id=words.pad_token_id)
    AutoModelForSequenceClassification.from_config(config, dtype=torch.float32).save_pretrained(folder)
    words.save_pretrained(folder)
    return folder
