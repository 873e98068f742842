"""From text to tokens, by the tokenizer's own chat template.

A conversation is rendered once and its whole text encoded once, so that a row's tokens are those of `apply_chat_template(tokenize=True)` with every
tokenizer. What is learnt is known in characters (`template.Layout`); a token that overlaps such a part is learnt. A special token that a message
spells (`<|im_end|>`) stays text: see `workbench.data.spelled`.
"""

from __future__ import annotations

import dataclasses
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from workbench.data import nemo_template, row_values
from workbench.data.marks import Span
from workbench.data.packing import Row
from workbench.data.rows import Conversation, Malformed, Message, Preference, PromptOnly, Rated, RawText, Taught, TextRow, Tools, Unpaired
from workbench.data.spelled import Spelled
from workbench.data.steering import answer_to, conditioned, declared
from workbench.data.template import Ask, Layout, Template
from workbench.data.tokenizer import end_token
from workbench.settings import Data, Steering

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

PART_CHARACTERS = 64
"""Of a text of more than four times so many characters an allowed token, first a part of so many is encoded, to see whether it is far too long."""
TO_BE_ANSWERED = "Yes"
"""Stands for the answer of a prompt, to see where the prompt ends."""


@dataclass(frozen=True)
class Encoded:
    """A row, and how many tokens of its prefix are the prompt of its last answer."""

    row: Row
    prompt_tokens: int


@dataclass(frozen=True)
class TooLong:
    """A row of which a small part alone has more than twice the tokens that are allowed, so that the whole was not encoded: at least so many."""

    tokens: int


@dataclass(frozen=True)
class Piece:
    """Consecutive tokens of one origin. `role` is empty for what the template adds."""

    tokens: list[int]
    role: str
    learn: bool


@dataclass(frozen=True)
class _Text:
    """A layout with its tokens up to its end; `spans` are their characters."""

    layout: Layout
    tokens: list[int]
    spans: list[Span]

    @property
    def prompt(self) -> int:
        """How many tokens lie in the prompt; one that reaches into the answer does not."""
        return next((i for i, (_, end) in enumerate(self.spans) if end > self.layout.prompt), len(self.tokens))

    def marked(self, parts: Sequence[Span]) -> list[bool]:
        """The tokens that overlap any of these parts, which are in order and apart."""
        ends = [end for _, end in parts]
        result = []
        for start, end in self.spans:
            i = bisect_left(ends, start + 1)
            result.append(i < len(parts) and parts[i][0] < max(end, start + 1))
        return result


class Chat:
    """A tokenizer with its chat template, the template's variables (`data.template_kwargs`), and how it says ratings (`data.steering`).

    Raises:
        ValueError: there is no template, it does not take a question with an answer, or the tokenizer does not say where its tokens stand.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, variables: Mapping[str, object] | None = None, steering: Steering | None = None):
        if not tokenizer.is_fast:
            raise ValueError(
                f"{type(tokenizer).__name__} does not say which characters a token stands for; save the model with a tokenizer.json (a fast tokenizer)"
            )
        if not tokenizer.eos_token:
            raise ValueError("the tokenizer has no end-of-sequence token; set eos_token in its tokenizer_config.json")
        self._nemo = steering is not None and steering.layout == "nemo"
        self.tokenizer = nemo_template.used_by(tokenizer) if self._nemo else tokenizer
        self._variables, self._steering = variables, steering
        self._spelled_rows, self._spelled_first = 0, ""

    @classmethod
    def of(cls, tokenizer: PreTrainedTokenizerBase, data: Data | None) -> Chat:
        """As a run with these data settings has it."""
        return cls(tokenizer, data.template_kwargs, data.steering) if data else cls(tokenizer)

    @cached_property
    def template(self) -> Template:
        return Template(self.tokenizer, self._variables)

    @property
    def end_token(self) -> int:
        """The token that ends an assistant's turn: the template's, or the tokenizer's end of sequence where the template has none."""
        ending = self.template.ending
        return self._encode([ending])[0][0][-1] if ending else end_token(self.tokenizer)

    @property
    def notes(self) -> list[str]:
        """What is peculiar about the template, and about the rows that were encoded."""
        if "template" not in vars(self):  # only texts without turns
            return []
        more = []
        if self._spelled_rows:
            more.append(
                f"{self._spelled_rows:,} texts spell special tokens of the tokenizer ({self._spelled_first}): these stay text, and end no turn"
            )
        if count := self.template.thoughts_left_out:
            more.append(f"{count:,} turns before a last one have thoughts (reasoning_content) that the chat template leaves out")
        if count := self.template.opened_otherwise:
            more.append(
                f"{count:,} answers do not begin as the chat template's generation prompt ends: their prompts end sooner than those of samples"
            )
        if count := self.template.ended_otherwise:
            more.append(f"{count:,} assistant turns before a last one are not ended with {self.template.ending!r}: their end is not learnt")
        return [*self.template.notes, *more]

    def encode(self, rows: Sequence[TextRow], longest: int | None = None) -> list[Encoded | TooLong | Malformed]:
        """Each row as tokens, or why it cannot be: what its kind of row has as prefix and branches says `_row`.

        Conversations and prompts with ratings are conditioned on them, where this chat says ratings.

        Args:
            longest: rows that surely have more tokens need not be encoded.
        """
        given = [self._conditioned(row) for row in rows]
        asks = [ask for row in given if not isinstance(row, Malformed) for ask in _asks(row)]
        texts = iter(self._texts(asks, longest) if asks else ())
        results: list[Encoded | TooLong | Malformed] = []
        for row in given:
            if isinstance(row, Malformed):
                results.append(row)
            else:
                results.append(self._raw(row, longest) if isinstance(row, RawText) else self._row(row, [next(texts) for _ in _asks(row)]))
        return [_asked_plainly(result, row) for result, row in zip(results, rows, strict=True)]

    def _conditioned(self, row: TextRow) -> TextRow | Malformed:
        """The row with its ratings as text."""
        if self._steering is None or isinstance(row, RawText | Preference | Rated | Unpaired | Taught):
            return row
        messages = row.messages if isinstance(row, Conversation) else row.prompt
        if not any(message.ratings for message in messages):
            return row
        try:
            turns = conditioned([declared(message, self._steering) for message in messages], self._steering)
        except Malformed as error:
            return error
        return dataclasses.replace(row, messages=turns) if isinstance(row, Conversation) else dataclasses.replace(row, prompt=turns)

    def one(self, row: TextRow) -> Row:
        """One row as tokens. Raises Malformed."""
        (encoded,) = self.encode([row])
        if isinstance(encoded, Malformed):
            raise encoded
        assert isinstance(encoded, Encoded)
        return encoded.row

    def prompt(self, messages: Sequence[Message], tools: Tools = ()) -> list[int]:
        """The messages up to where the assistant answers. Raises Malformed."""
        return list(self.one(PromptOnly(tuple(messages), {}, tools=tools)).prefix)

    def pieces(self, row: TextRow) -> list[list[Piece]]:
        """A row for people: the prompt or conversation, then each answer of one that has branches. Raises Malformed."""
        encoded, given = self.one(row), self._conditioned(row)
        assert not isinstance(given, Malformed)  # which `one` raised
        if isinstance(given, RawText | Taught):
            return [_runs(encoded.prefix, [""] * len(encoded.prefix), encoded.learn)]
        asked = _asks(given)
        names = [_roles(ask, text) for ask, text in zip(asked, self._texts(asked), strict=True)]
        learn = encoded.learn if encoded.learn else [False] * len(encoded.prefix)
        opened = _runs(encoded.prefix, names[0], learn)
        if not encoded.branch_learn:
            return [opened, *([Piece(list(branch), "assistant", True)] for branch in encoded.branches)]
        parted = zip(encoded.branches, names, encoded.branch_learn, strict=True)
        return [opened, *(_runs(branch, roles[len(encoded.prefix) :], mask) for branch, roles, mask in parted)]

    def _row(self, row: TextRow, texts: Sequence[_Text | TooLong | Malformed]) -> Encoded | TooLong | Malformed:
        """A conversation is a prefix with its learnt tokens marked, up to the end of its last turn. A row with answers has the prompt as prefix and
        each answer, with what ends it, as a branch. A prompt has nothing to learn from yet."""
        if isinstance(row, Taught):
            return Encoded(Row(row.tokens, learn=row.learn, arrays=row_values.arrays(row)), row.prompt_tokens)
        good: list[_Text] = []
        for text in texts:
            if not isinstance(text, _Text):
                return text
            good.append(text)
        if isinstance(row, PromptOnly):
            prompt = good[0].tokens[: good[0].prompt]
            return Encoded(Row(prompt, learn=[False] * len(prompt), columns=row.columns), len(prompt))
        if isinstance(row, Conversation):
            learn = good[0].marked([span for spans in good[0].layout.learnt.values() for span in spans])
            tokens = good[0].tokens
            if not self.template.ending and row.messages[-1].learn:
                tokens, learn = [*tokens, end_token(self.tokenizer)], [*learn, True]
            if not any(learn[1:]):
                return Malformed("a conversation with something to learn", "one of which the chat template marks nothing as the assistant's")
            return Encoded(Row(tokens, learn=learn), good[0].prompt)
        if isinstance(row, Preference) and row.turns:
            return self._parted(row, good)
        shared = min(text.prompt for text in good)
        shared = next((i for i in range(shared) if len({text.tokens[i] for text in good}) > 1), shared)
        ending = [] if self.template.ending else [end_token(self.tokenizer)]
        branches = tuple([*text.tokens[shared:], *ending] for text in good)
        if self._nemo and isinstance(row, Rated):
            branches = tuple(nemo_template.to_be_rated(branch, self.tokenizer) for branch in branches)
        return Encoded(Row(good[0].tokens[:shared], branches, values=row_values.values(row), branch_values=row_values.branch_values(row)), shared)

    def _parted(self, row: Preference, texts: Sequence[_Text]) -> Encoded | Malformed:
        """Two conversations as the prefix that they share and a branch each, whose assistant's tokens are learnt."""
        masks = [text.marked([span for spans in text.layout.learnt.values() for span in spans]) for text in texts]
        if not all(map(any, masks)):
            return Malformed("conversations with something to learn", "one of which the chat template marks nothing as the assistant's")
        shared = min(mask.index(True) for mask in masks)
        shared = next((i for i in range(shared) if len({text.tokens[i] for text in texts}) > 1), shared)
        ends = [[] if self.template.ending or not turns[-1].learn else [end_token(self.tokenizer)] for turns in row.turns]
        branches = tuple([*text.tokens[shared:], *end] for text, end in zip(texts, ends, strict=True))
        learn = tuple([*mask[shared:], *[True] * len(end)] for mask, end in zip(masks, ends, strict=True))
        return Encoded(Row(texts[0].tokens[:shared], branches, values=row_values.values(row), branch_learn=learn), shared)

    def _raw(self, row: RawText, longest: int | None) -> Encoded | TooLong | Malformed:
        """Text as it is, with the tokens that the tokenizer puts around one, and the end of sequence; all is learnt."""
        if too_long := self._far_too_long(row.text, longest):
            return too_long
        tokens = self.tokenizer.encode(row.text)
        end = end_token(self.tokenizer)
        if len(tokens) > 1 and tokens[0] == tokens[1] == self.tokenizer.bos_token_id:  # the text spells it already
            tokens = tokens[1:]
        tokens = tokens if tokens[-1:] == [end] else [*tokens, end]
        if len(tokens) < 2:
            return Malformed("text of a token or more", repr(row.text[:40]))
        return Encoded(Row(tokens, learn=[True] * len(tokens)), 0)

    def _texts(self, asks: Sequence[Ask], longest: int | None = None) -> list[_Text | TooLong | Malformed]:
        layouts = self.template.lay_out(asks)
        plain: list[tuple[int, Layout]] = []
        texts: list[_Text | TooLong | Malformed] = [Malformed()] * len(asks)
        for i, (ask, layout) in enumerate(zip(asks, layouts, strict=True)):
            if isinstance(layout, Malformed):
                texts[i] = layout
            elif too_long := self._far_too_long(layout.text, longest):
                texts[i] = too_long
            elif spelled := self._spelled.within(ask):
                self._spelled_first = self._spelled_first or spelled
                texts[i] = self._kept_as_text(ask, layout)
            else:
                plain.append((i, layout))
        for (i, layout), (tokens, spans) in zip(plain, self._encode([layout.text for _, layout in plain]), strict=True):
            texts[i] = _up_to_end(layout, tokens, spans)
        return texts

    def _far_too_long(self, text: str, longest: int | None) -> TooLong | None:
        part = PART_CHARACTERS * (longest or 0)
        if longest is None or len(text) <= 4 * part:
            return None
        ((tokens, _),) = self._encode([text[:part]])
        return TooLong(len(tokens)) if len(tokens) > 2 * longest else None

    def _kept_as_text(self, ask: Ask, layout: Layout) -> _Text | Malformed:
        try:
            self._spelled_rows += 1
            tokens, spans = self._spelled.encode(ask, layout)
        except Malformed as error:
            return error
        return _up_to_end(layout, tokens, spans)

    def _encode(self, texts: Sequence[str]) -> list[tuple[list[int], list[Span]]]:
        if not texts:
            return []
        encoded = self.tokenizer(list(texts), add_special_tokens=False, return_offsets_mapping=True, return_attention_mask=False, verbose=False)
        return list(zip(encoded["input_ids"], encoded["offset_mapping"], strict=True))

    @cached_property
    def _spelled(self) -> Spelled:
        return Spelled(self.tokenizer)


def _asked_plainly(result: Encoded | TooLong | Malformed, row: TextRow) -> Encoded | TooLong | Malformed:
    """With the prompt as it was read, without ratings in its text: what models beside the policy are asked about."""
    if not isinstance(result, Encoded) or not isinstance(row, PromptOnly):
        return result
    return dataclasses.replace(result, row=dataclasses.replace(result.row, asked=row))


def _asks(row: TextRow) -> list[Ask]:
    """The conversations whose texts make the row."""
    if isinstance(row, RawText | Taught):
        return []
    if isinstance(row, Conversation):
        return [Ask(row.messages, row.tools)]
    if isinstance(row, PromptOnly):
        return [Ask((*row.prompt, answer_to(row.prompt, TO_BE_ANSWERED)), row.tools)]
    if isinstance(row, Preference) and row.turns:
        return [Ask(turns, row.tools) for turns in row.conversations]
    return [Ask((*row.prompt, answer_to(row.prompt, answer)), row.tools) for answer in row.answers]


def _up_to_end(layout: Layout, tokens: list[int], spans: list[Span]) -> _Text:
    """Without what follows the last turn's end."""
    count = next((i for i, (start, _) in enumerate(spans) if start >= layout.end), len(tokens))
    return _Text(layout, tokens[:count], spans[:count])


def _roles(ask: Ask, text: _Text | TooLong | Malformed) -> list[str]:
    """Whose text each token is of; empty for what the template adds."""
    assert isinstance(text, _Text)
    turns = [(part, turn.role) for turn, part in zip(ask.messages, text.layout.contents, strict=True) if part]
    return [next((role for part, role in turns if part[0] < end and start < part[1]), "") for start, end in text.spans]


def _runs(tokens: Sequence[int], roles: Sequence[str], learn: Sequence[bool]) -> list[Piece]:
    pieces: list[Piece] = []
    for i, token in enumerate(tokens):
        role = roles[i] if i < len(roles) else "assistant"
        if pieces and (pieces[-1].role, pieces[-1].learn) == (role, learn[i]):
            pieces[-1].tokens.append(token)
        else:
            pieces.append(Piece([token], role, learn[i]))
    return pieces
