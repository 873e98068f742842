"""From text to tokens, by the tokenizer's own chat template.

The template is rendered around marks that stand for the messages' texts; what lies between the marks is encoded with its special tokens,
the texts without any (so a text that spells "<|im_end|>" stays text). No token spans a boundary, so what is learnt is exact at token
level: each assistant turn that is to be learnt, and the token that ends it.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from workbench.data.packing import Row
from workbench.data.rows import Conversation, Message, Preference, PromptOnly, Rated, Unpaired
from workbench.data.tokenizer import added_vocabulary, end_token, rendered

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_MARK = "\ue000{}\ue001"
_FIND = re.compile("\ue000([0-9]+)\ue001")


@dataclass(frozen=True)
class Span:
    """Consecutive tokens of one origin. `role` is empty for what the template adds."""

    tokens: list[int]
    role: str
    learn: bool


def encode_preference(row: Preference, tokenizer: PreTrainedTokenizerBase) -> Row:
    """The prompt, with the template's opening of the answer, as prefix; each answer with the token that ends a turn as a branch."""
    rewards = {"chosen_reward": row.chosen_reward, "rejected_reward": row.rejected_reward}
    return _tree(row, {name: value for name, value in rewards.items() if value is not None}, tokenizer)


def encode_answer(row: Rated | Unpaired, tokenizer: PreTrainedTokenizerBase) -> Row:
    """As a pair with one branch; its values are the ratings by attribute, or `desirable`, 1 or 0."""
    return _tree(row, row.attributes if isinstance(row, Rated) else {"desirable": float(row.desirable)}, tokenizer)


def encode_prompt(row: PromptOnly, tokenizer: PreTrainedTokenizerBase) -> Row:
    """The prompt with the template's opening of the answer; nothing to learn from yet."""
    tokens = prompt_tokens(row.prompt, tokenizer)
    return Row(tokens, learn=[False] * len(tokens), columns=row.columns)


def _tree(row: Preference | Rated | Unpaired, values: Mapping[str, float], tokenizer: PreTrainedTokenizerBase) -> Row:
    ending = _ending(tokenizer)
    return Row(prompt_tokens(row.prompt, tokenizer), tuple([*_plain(tokenizer, text), *ending] for text in row.answers), values=dict(values))


def encode_conversation(row: Conversation, tokenizer: PreTrainedTokenizerBase) -> Row:
    """All turns up to the end of the last assistant's; `learn` marks the tokens to learn."""
    tokens: list[int] = []
    learn: list[bool] = []
    for span in spans(row.messages, tokenizer):
        tokens += span.tokens
        learn += [span.learn] * len(span.tokens)
    return Row(tokens, learn=learn)


def prompt_tokens(messages: Sequence[Message], tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """The messages and the template's opening of the assistant's turn."""
    shape = tuple(message.role for message in messages)
    tokens: list[int] = []
    for i, piece in enumerate(_pieces(tokenizer, shape, True)):
        tokens += _plain(tokenizer, messages[i // 2].content) if i % 2 else _special(tokenizer, piece)
    return tokens


def spans(messages: Sequence[Message], tokenizer: PreTrainedTokenizerBase) -> list[Span]:
    """A conversation as spans of tokens, with the end token of each learnt turn learnt too. What follows the last turn's end is left out."""
    pieces = _pieces(tokenizer, tuple(message.role for message in messages), False)
    ending = _ending(tokenizer)
    result: list[Span] = []
    for i, message in enumerate(messages):
        result.append(Span(_special(tokenizer, pieces[2 * i]), "", False))
        learnt = message.role == "assistant" and message.learn
        result.append(Span(_plain(tokenizer, message.content), message.role, learnt))
        if message.role == "assistant":
            after = _special(tokenizer, pieces[2 * i + 2])
            if after[: len(ending)] != ending:
                raise ValueError(
                    f"the chat template ends an earlier assistant turn with {tokenizer.decode(after)!r}, the last with {tokenizer.decode(ending)!r}"
                )
            result.append(Span(ending, message.role, learnt))
            if i + 1 < len(messages):
                pieces[2 * i + 2] = pieces[2 * i + 2][len(_ending_text(tokenizer)) :]
    return [span for span in result if span.tokens]


def _pieces(tokenizer: PreTrainedTokenizerBase, roles: tuple[str, ...], generation: bool) -> list[str]:
    return list(_rendered(_key(tokenizer), roles, generation))


def _ending_text(tokenizer: PreTrainedTokenizerBase) -> str:
    """What the template puts after an answer, up to and with its first special token: what the model must say to end its turn."""
    if not tokenizer.eos_token:
        raise ValueError("the tokenizer has no end-of-sequence token; set eos_token in its tokenizer_config.json")
    after = _rendered(_key(tokenizer), ("user", "assistant"), False)[-1]
    token = next((t for t in _closers(tokenizer) if after.lstrip().startswith(t)), None)
    return after[: after.index(token) + len(token)] if token else ""


def _closers(tokenizer: PreTrainedTokenizerBase) -> list[str]:
    added = [str(token) for token in added_vocabulary(tokenizer)]
    return sorted({*added, str(tokenizer.eos_token)}, key=len, reverse=True)


def _ending(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """The tokens that end an answer: the template's, or the tokenizer's end of sequence where the template adds none."""
    text = _ending_text(tokenizer)
    return _special(tokenizer, text) if text else [end_token(tokenizer)]


class _key:
    """A tokenizer as a cache key: the same object, the same template."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase):
        self.tokenizer = tokenizer
        self.identity = (id(tokenizer), tokenizer.chat_template)

    def __hash__(self) -> int:
        return hash(self.identity[0])

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _key) and other.identity == self.identity


@functools.lru_cache(maxsize=4096)
def _rendered(key: _key, roles: tuple[str, ...], generation: bool) -> tuple[str, ...]:
    """The template's own text before, between and after the messages of these roles: 2 n + 1 pieces, the odd ones being the marks.

    Raises:
        ValueError: there is no template, or it changes or reorders the messages.
    """
    if not key.tokenizer.chat_template:
        raise ValueError("the tokenizer has no chat template; put a chat_template.jinja beside the model (an instruct model has one)")
    messages = [{"role": role, "content": _MARK.format(i)} for i, role in enumerate(roles)]
    text = rendered(key.tokenizer, messages, generation)
    pieces = tuple(_FIND.split(text))
    if list(pieces[1::2]) != [str(i) for i in range(len(roles))]:
        raise ValueError(f"the chat template does not keep the messages {', '.join(roles)} as they are; it gives {text!r}")
    return pieces


@functools.lru_cache(maxsize=4096)
def _special_cached(key: _key, text: str) -> tuple[int, ...]:
    return tuple(key.tokenizer.encode(text, add_special_tokens=False))


def _special(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """The template's own text: its special tokens count."""
    return list(_special_cached(_key(tokenizer), text)) if text else []


def _plain(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """A message's text: whatever it spells, it is text."""
    return tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True)
