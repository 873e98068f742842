"""Public chat templates with three kinds of tokenizer: a row's tokens and its mask are those that transformers gives.

The templates are those that come with TRL, whose wheel `make test` unpacks without its dependencies. Those named `_training` have `generation` blocks,
of which transformers gives the mask too.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from jinja2 import TemplateError

from tests.data.templates import FOLDER, NAMES, TALKS, talk, tokenizer
from workbench.data.chat import Chat, Encoded
from workbench.data.rows import Conversation, Malformed, Message, Preference, PromptOnly


def by_transformers(words: Any, turns: Sequence[Message], parts: bool, mask: bool) -> tuple[list[int], list[bool]]:
    """Tokens, and which of them transformers takes for the assistant's.

    Of several tokens that stand for the last character of a block transformers counts the first alone; here they all count.
    """
    plain = [{"role": turn.role, "content": turn.content} for turn in turns]
    if parts:
        plain = [{"role": turn.role, "content": [{"type": "text", "text": turn.content}]} for turn in turns]
    given = words.apply_chat_template(
        plain, tokenize=True, return_dict=True, return_assistant_tokens_mask=mask, tokenizer_kwargs={"return_offsets_mapping": True}
    )
    learnt = [bool(each) for each in given["assistant_masks"]] if mask else []
    for i in range(1, len(learnt)):
        learnt[i] = learnt[i] or (learnt[i - 1] and given["offset_mapping"][i] == given["offset_mapping"][i - 1])
    return given["input_ids"], learnt


@pytest.mark.skipif(not NAMES, reason="TRL's templates are not there; `make test` unpacks its wheel into .venv/trl")
@pytest.mark.parametrize("name", NAMES or [""])
def test_rows_are_what_the_template_gives(name: str) -> None:
    for kind in ("bytes", "prepended", "first"):
        words = tokenizer(kind)
        words.chat_template = (FOLDER / f"{name}.jinja").read_text()
        chat = Chat(words)
        for turns in map(talk, TALKS):
            before = chat.template.opened_otherwise
            (encoded,) = chat.encode([Conversation(tuple(turns))])
            if isinstance(encoded, Malformed):
                with pytest.raises(TemplateError) as refused:
                    by_transformers(words, turns, chat.template.takes_parts, mask=False)
                assert str(refused.value) in encoded.args[1]
                continue
            tokens, mask = by_transformers(words, turns, chat.template.takes_parts, chat.template.has_blocks)
            row = encoded.row
            count = len(row.prefix) if chat.template.ending else len(row.prefix) - 1
            assert tokens[:count] == list(row.prefix)[:count]
            learnt = [bool(each) for each in row.learn][:count]
            if mask:
                assert (learnt, any(mask[count:])) == (mask[:count], False)
            else:
                check_against_the_training_template(name, chat, turns, tokens, learnt)
            if turns[-1].content.strip() == turns[-1].content and chat.template.opened_otherwise == before:
                check_prefixes(chat, turns, encoded)


def check_against_the_training_template(name: str, chat: Chat, turns: Sequence[Message], tokens: list[int], learnt: list[bool]) -> None:
    """Where TRL's own version with `generation` blocks writes the same text: nothing is learnt that it does not give to the assistant, and of the rest
    only white space, openings (`<|start|>assistant`) and what ends an earlier turn."""
    assert any(learnt)
    path = FOLDER / f"{name}_training.jinja"
    if not path.exists():
        return
    words: Any = chat.tokenizer
    own, words.chat_template = words.chat_template, path.read_text()
    theirs, mask = by_transformers(words, turns, chat.template.takes_parts, mask=True)
    words.chat_template = own
    if theirs == tokens:
        assert not [i for i, each in enumerate(learnt) if each and not mask[i]]
        more = "".join(words.convert_ids_to_tokens(token) for i, token in enumerate(tokens[: len(learnt)]) if mask[i] and not learnt[i])
        for text in TALKS.values():
            assert not any(answer.strip() in more for answer in text[1::2] if len(answer) > 1)


def check_prefixes(chat: Chat, turns: Sequence[Message], talk: Encoded) -> None:
    """The conversation's prompt is that of a preference row and of a prompt, and a preference row's answer is what the conversation learns last."""
    prompt, answer = tuple(turns[:-1]), turns[-1].content
    pair = chat.one(Preference(prompt, answer, "Quite another answer."))
    opened = list(talk.row.prefix[: talk.prompt_tokens])
    assert opened == list(pair.prefix)[: len(opened)]
    assert [*pair.prefix, *pair.branches[0]] == list(talk.row.prefix)
    assert list(chat.one(PromptOnly(prompt, {})).prefix) == list(pair.prefix) == opened
