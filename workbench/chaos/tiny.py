"""Small random models in the Hugging Face format, with a tokenizer trained on the spot."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoModelForCausalLM, LlamaConfig, MistralConfig, MixtralConfig, PreTrainedTokenizerFast, Qwen2Config

CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
TEXT = [
    "What is the capital of France? The capital of France is Paris.",
    "Tell me how bread is made, in one short sentence.",
    "0123456789 user assistant system",
]
SHAPE = {
    "hidden_size": 64,
    "intermediate_size": 176,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
}


def tokenizer() -> PreTrainedTokenizerFast:
    """Byte-level BPE with 400 tokens and a ChatML template."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    bpe.train_from_iterator(TEXT, trainers.BpeTrainer(vocab_size=400, special_tokens=special, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe, eos_token="<|im_end|>", pad_token="<|endoftext|>", additional_special_tokens=["<|im_start|>"], chat_template=CHATML
    )


def save(folder: Path, kind: str = "llama", **changes: Any) -> Path:
    """A random model whose weights are large enough that every part of it shows in the logits."""
    vocabulary = tokenizer()
    shape = {
        **SHAPE,
        "vocab_size": len(vocabulary),
        "tie_word_embeddings": False,
        "eos_token_id": vocabulary.eos_token_id,
        "bos_token_id": None,
        **changes,
    }
    config = {"llama": LlamaConfig, "mistral": MistralConfig, "qwen2": Qwen2Config, "mixtral": MixtralConfig}[kind](**shape)
    if kind in ("mistral", "mixtral"):
        config.sliding_window = None
    if kind == "mixtral":
        config.num_local_experts = 4
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" in name:
                parameter.copy_(1 + 0.1 * torch.randn_like(parameter))
            elif name.endswith("bias"):
                parameter.copy_(0.3 * torch.randn_like(parameter))
            else:
                parameter.mul_(4)
    model.save_pretrained(folder)
    vocabulary.save_pretrained(folder)
    return folder
