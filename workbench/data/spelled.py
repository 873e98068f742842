"""Special tokens that a message spells (`<|im_end|>`) and that stay text."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, cast

from workbench.data.marks import Span
from workbench.data.rows import Malformed, Message
from workbench.data.template import Ask, Layout

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerBase


class Spelled:
    """Keeps special tokens that a message spells as text, so that no text can end a turn or begin another.

    A second tokenizer knows the special tokens by other names, private characters. In the template's text its own special tokens get those names,
    and the texts stay as they are.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase):
        self._tokenizer = tokenizer
        self._special = {token.content: number for number, token in tokenizer.added_tokens_decoder.items() if token.special}
        names = sorted(self._special, key=len, reverse=True)
        self.pattern = re.compile("|".join(map(re.escape, names))) if names else None

    @cached_property
    def _renamed(self) -> tuple[Tokenizer, dict[str, str], dict[int, int]]:
        """The tokenizer, its names by the special tokens', and the tokens' own numbers by its numbers."""
        from tokenizers import Tokenizer

        tree = json.loads(cast("Tokenizer", self._tokenizer.backend_tokenizer).to_str())
        names = {content: f"\U0010f000{i}\U0010f001" for i, content in enumerate(self._special)}
        for token in tree["added_tokens"]:
            token["content"] = names.get(token["content"], token["content"])
        tree["post_processor"] = None
        renamed = Tokenizer.from_str(json.dumps(tree))
        renamed.no_padding()
        renamed.no_truncation()
        numbers = {name: number for name, number in renamed.get_vocab().items() if name in names.values()}
        return renamed, names, {numbers[name]: self._special[content] for content, name in names.items()}

    def within(self, ask: Ask) -> str:
        """The first special token that a message spells; empty where none does."""
        spelled = self.pattern and next(filter(None, (self.pattern.search(_said(message)) for message in ask.messages)), None)
        return spelled[0] if spelled else ""

    def encode(self, ask: Ask, layout: Layout) -> tuple[list[int], list[Span]]:
        """Tokens and their characters in the layout's text. Raises Malformed: it is not known where a message that spells one stands."""
        assert self.pattern
        for message, span in zip(ask.messages, layout.contents, strict=True):
            spelled = self.pattern.search(_said(message))
            if spelled and (span is None or self.pattern.search(json.dumps(message.extra, ensure_ascii=False, default=str))):
                raise Malformed("a turn that spells no special token where the chat template rewrites it", spelled[0])
        renamed, names, numbers = self._renamed
        kept = [span for span in layout.contents if span]
        pieces: list[str] = []
        places: list[tuple[int, int, int]] = []
        """(start, end) of each renamed token in the new text, and by how much the characters after it stand further on."""
        last = shift = 0
        for match in self.pattern.finditer(layout.text):
            start, end = match.span()
            if any(a < end and start < b for a, b in kept):
                continue
            name = names[match[0]]
            pieces += [layout.text[last:start], name]
            places.append((start + shift, start + shift + len(name), len(name) - (end - start)))
            shift += len(name) - (end - start)
            last = end
        encoding = renamed.encode("".join([*pieces, layout.text[last:]]), add_special_tokens=False)
        spans = [(_back(a, places), _back(b, places)) for a, b in encoding.offsets]
        return [numbers.get(token, token) for token in encoding.ids], spans


def _back(position: int, places: Sequence[tuple[int, int, int]]) -> int:
    """A character of the renamed text in the layout's."""
    return position - sum(growth for _, end, growth in places if end <= position)


def _said(message: Message) -> str:
    return message.content + json.dumps(message.extra, ensure_ascii=False, default=str) if message.extra else message.content
