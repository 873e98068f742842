"""What transformers types more loosely of its tokenizers than they behave: text to tokens and back."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def decode(tokenizer: PreTrainedTokenizerBase, tokens: Sequence[int], skip_special_tokens: bool = False) -> str:
    """The text of one sequence of tokens."""
    return cast(str, tokenizer.decode(cast(list[int], tokens), skip_special_tokens=skip_special_tokens))


def added_vocabulary(tokenizer: PreTrainedTokenizerBase) -> Mapping[str, int]:
    """The tokens beside the vocabulary that was learnt, with their numbers."""
    return cast(Callable[[], Mapping[str, int]], tokenizer.get_added_vocab)()


def end_token(tokenizer: PreTrainedTokenizerBase) -> int:
    """The number of the token that ends a sequence; the tokenizer has one."""
    return cast(int, tokenizer.eos_token_id)
