"""Public chat templates and tokenizers of three kinds, for the tests of tokens."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, decoders, normalizers, pre_tokenizers, trainers
from tokenizers.models import BPE
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from tests import models
from workbench.data.chat import Chat
from workbench.data.rows import Message

FOLDER = Path(__file__).parents[2] / ".venv/trl/trl/chat_templates"
NAMES = sorted(path.stem for path in FOLDER.glob("*.jinja"))
SPECIAL = [
    "<|im_start|>",
    "<|im_end|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|eot_id|>",
    "<|end|>",
    "<|user|>",
    "<|assistant|>",
    "<|system|>",
    "<start_of_turn>",
    "<end_of_turn>",
    "<|start|>",
    "<|message|>",
    "<|channel|>",
    "<|return|>",
    "<|START_OF_TURN_TOKEN|>",
    "<|END_OF_TURN_TOKEN|>",
    "<|END_RESPONSE|>",
    "<end_of_utterance>",
    "<｜User｜>",
    "<｜Assistant｜>",
    "<｜end▁of▁sentence｜>",
    "<|turn>",
    "<turn|>",
    "[INST]",
    "[/INST]",
]
TALKS = {
    "one turn": ["What is soap?", "Sodium chloride is a mineral."],
    "system": ["Be brief.", "Hi", "Hello there."],
    "two turns": ["What is soap?", "A cleaner.", "And salt?", "A mineral."],
    "white space": ["  padded question \n", "\n padded answer  "],
    "thoughts": ["2+2?", "<think>\nTwo and two.\n</think>\n\nFour.", "3+3?", "<think>\nThree.\n</think>\n\nSix."],
    "Unicode": ["Ünï 😀 数学?", "Ja: 😀\n\n\tfin▁e", "x", "y"],
}


def talk(name: str) -> list[Message]:
    texts = TALKS[name]
    roles = ["system"] * (len(texts) % 2) + ["user", "assistant"] * (len(texts) // 2)
    return [Message(role, text) for role, text in zip(roles, texts, strict=True)]  # pyright: ignore


@functools.cache
def sentencepiece(prepended: bool) -> Tokenizer:
    """As Llama 2's and Mistral's: a "▁" before the text after each special token, or before the first text alone."""
    bpe = Tokenizer(BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    first: Any = pre_tokenizers.Metaspace("▁", prepend_scheme="first", split=True)
    if prepended:
        bpe.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])  # pyright: ignore
        first = pre_tokenizers.Split("▁", "merged_with_next")
    bpe.pre_tokenizer = first
    bpe.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])  # pyright: ignore
    special = ["<unk>", "<s>", "</s>", *(f"<0x{i:02X}>" for i in range(256))]
    bpe.train_from_iterator(models.TEXT, trainers.BpeTrainer(vocab_size=600, special_tokens=special, show_progress=False, max_token_length=12))
    return bpe


@functools.cache
def tokenizer(kind: str) -> PreTrainedTokenizerBase:
    if kind == "bytes":
        words: Any = models.tokenizer()
        words.bos_token = "<|im_start|>"
    else:
        words = PreTrainedTokenizerFast(
            tokenizer_object=sentencepiece(kind == "prepended"),
            bos_token="<s>",
            eos_token="</s>",
            unk_token="<unk>",
            clean_up_tokenization_spaces=False,
        )
    words.add_special_tokens({"additional_special_tokens": SPECIAL})
    return words


def chat(template: str = models.CHATML, **variables: object) -> Chat:
    """The tiny tokenizer with this template: its text, or the name of one that TRL ships."""
    words = models.tokenizer()
    path = FOLDER / f"{template}.jinja"
    words.chat_template = path.read_text() if "{" not in template else template
    return Chat(words, variables)
