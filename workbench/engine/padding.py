"""The padding token of an exported classifier: transformers takes the score at the last token that is not padding, so no text may end with it."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import cast

from transformers import PreTrainedTokenizerBase

from workbench.data.tokenizer import added_vocabulary

ADDED = "<|padding|>"


@dataclass(frozen=True)
class Padding:
    """A token that ends no text, with its number. `is_new`: the tokenizer does not have it yet."""

    token: str
    number: int
    is_new: bool = False


def of(tokenizer: PreTrainedTokenizerBase, ends: Collection[int]) -> Padding:
    """The padding token of a model as a classifier: its own, unless it may end a text (as where padding and end of turn are one token); else another
    special token that neither the chat template nor the end of a sequence uses; else one that is to be added after the others.

    `ends` are the tokens that end the model's answers.
    """
    numbers = {str(token): int(number) for token, number in added_vocabulary(tokenizer).items()}
    used = _used(tokenizer, numbers) | set(ends)
    own = tokenizer.pad_token
    if own is not None and tokenizer.pad_token_id not in used:
        return Padding(str(own), cast(int, tokenizer.pad_token_id))
    special = {token.content for token in tokenizer.added_tokens_decoder.values() if token.special} | set(tokenizer.all_special_tokens)
    free = [token for token in special if token in numbers and numbers[token] not in used]
    if free:
        best = min(free, key=lambda token: (_rank(token, tokenizer), -numbers[token]))
        return Padding(best, numbers[best])
    return Padding(ADDED, max(tokenizer.get_vocab().values()) + 1, is_new=True)


def declare(tokenizer: PreTrainedTokenizerBase, padding: Padding) -> PreTrainedTokenizerBase:
    """The tokenizer with this padding token."""
    tokenizer.add_special_tokens({"pad_token": padding.token})
    assert tokenizer.pad_token_id == padding.number, (padding, tokenizer.pad_token_id)
    return tokenizer


def _rank(token: str, tokenizer: PreTrainedTokenizerBase) -> int:
    """The likelier a text has the token at its end, the higher."""
    name = token.lower()
    if "pad" in name:
        return 0
    if any(word in name for word in ("reserved", "unused", "extra")):
        return 1
    return 3 if token == tokenizer.unk_token or any(word in name for word in ("end", "eos", "eot", "</s>")) else 2


def _used(tokenizer: PreTrainedTokenizerBase, numbers: dict[str, int]) -> set[int]:
    """The beginning and the end of a sequence, and what the chat template spells."""
    template = tokenizer.chat_template
    texts = [] if not template else [template] if isinstance(template, str) else [str(each) for each in template.values()]
    spelt = {number for token, number in numbers.items() if any(token in text for text in texts)}
    return spelt | {int(number) for number in (tokenizer.bos_token_id, tokenizer.eos_token_id) if isinstance(number, int)}
