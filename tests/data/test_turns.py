"""What a conversation may have beside plain turns, what a template makes of it, and how it is refused where the template would leave it out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests import models
from tests.data.templates import chat, tokenizer
from workbench.data.chat import Chat, Encoded, TooLong
from workbench.data.dataset import load
from workbench.data.readers import DataError
from workbench.data.rows import Conversation, Malformed, Message, Preference, PromptOnly, RawText
from workbench.settings import Data

USER, ASSISTANT = Message("user", "2 + 2?"), Message("assistant", "4")
CALL = {"type": "function", "function": {"name": "add", "arguments": '{"a": 2, "b": 2}'}}
TOOLS: Any = ({"type": "function", "function": {"name": "add", "description": "Adds", "parameters": {"type": "object", "properties": {}}}},)
CALLED = (USER, Message("assistant", "", extra={"tool_calls": [CALL]}), Message("tool", "4"), Message("assistant", "It is 4."))
THOUGHT = (USER, Message("assistant", "4", extra={"reasoning_content": "Two and two."}))
R1 = (
    "{% for m in messages %}{% if m.role == 'user' %}{{ '<|User|>' + m.content }}{% else %}"
    "{{ '<|Assistant|>' + m.content.split('</think>')[-1] + '<|im_end|>' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|Assistant|><think>\n' }}{% endif %}"
)


def learnt(row: Any, of: Chat) -> str:
    return of.tokenizer.decode([token for token, learn in zip(row.prefix, row.learn, strict=True) if learn])


def test_tools_go_through_a_template_that_takes_them() -> None:
    qwen = chat("qwen2_5")
    row = qwen.one(Conversation(CALLED, tools=TOOLS))
    call = '<tool_call>\n{"name": "add", "arguments": {"a": 2, "b": 2}}\n</tool_call>'
    assert learnt(row, qwen) == f"{call}<|im_end|>It is 4.<|im_end|>"
    assert '"description": "Adds"' in qwen.tokenizer.decode(row.prefix)
    rendered = qwen.tokenizer.apply_chat_template(
        [
            {
                "role": m.role,
                "content": m.content,
                **({"tool_calls": [{"type": "function", "function": {"name": "add", "arguments": {"a": 2, "b": 2}}}]} if m.extra else {}),
            }
            for m in CALLED
        ],
        tools=list(TOOLS),
        tokenize=False,
    )
    assert str(rendered).rstrip() == qwen.tokenizer.decode(row.prefix)


@pytest.mark.parametrize(
    ("row", "what"),
    [
        (Conversation(CALLED[:2]), "tool_calls"),
        (Conversation(CALLED), "tool"),
        (Conversation((USER, ASSISTANT), tools=TOOLS), "tools"),
        (Conversation(THOUGHT), "reasoning_content"),
    ],
)
def test_a_template_that_leaves_them_out_refuses_the_row(row: Conversation, what: str) -> None:
    plain = chat("{% for m in messages if m.role != 'tool' %}{{ m.role + ': ' + m.content + '<|im_end|>' }}{% endfor %}")
    (refused,) = plain.encode([row])
    assert isinstance(refused, Malformed)
    assert f"a conversation without {what}" in refused.args[0]


def test_thoughts_are_learnt_where_the_template_writes_them() -> None:
    qwen = chat("qwen3")
    assert learnt(qwen.one(Conversation(THOUGHT)), qwen) == "<think>\nTwo and two.\n</think>\n\n4<|im_end|>"
    assert learnt(chat("gptoss").one(Conversation(THOUGHT)), qwen).count("Two and two.") == 1


def test_a_generation_prompt_that_no_answer_follows_is_cut_and_said() -> None:
    """As DeepSeek-R1's distilled models: the generation prompt opens a thought, the training text has none."""
    r1 = chat(R1)
    (note,) = r1.template.notes
    assert "'<think>\\n'" in note
    talk = Conversation((USER, Message("assistant", "<think>\nhm\n</think>4")))
    opened = r1.tokenizer.encode("<|User|>2 + 2?<|Assistant|>", add_special_tokens=False)
    assert r1.prompt([USER]) == list(r1.one(Preference((USER,), "4", "5")).prefix) == list(r1.one(talk).prefix)[: len(opened)] == opened
    assert learnt(r1.one(talk), r1) == "4<|im_end|>"


def test_what_the_template_puts_before_an_answer_is_learnt_or_asked() -> None:
    thinks, silent = chat("qwen3"), chat("qwen3", enable_thinking=False)
    rows = [each.one(Conversation((USER, ASSISTANT))) for each in (thinks, silent)]
    assert rows[0].prefix == rows[1].prefix
    assert [learnt(row, thinks) for row in rows] == ["<think>\n\n</think>\n\n4<|im_end|>", "4<|im_end|>"]
    assert ["enable_thinking" in " ".join(each.notes) for each in (thinks, silent)] == [True, False]


def test_a_base_model_stops_where_its_template_ends_a_turn() -> None:
    """Its end of sequence is another token, which the template never writes."""
    base = models.tokenizer()
    base.add_special_tokens({"eos_token": "<|endoftext|>"})
    assert Chat(base).end_token == base.convert_tokens_to_ids("<|im_end|>") != base.eos_token_id
    bare = chat("{% for m in messages %}{{ m.role + ': ' + m.content + '\n' }}{% endfor %}")
    assert bare.end_token == bare.tokenizer.eos_token_id
    header, no_end = bare.template.notes
    assert "puts 'assistant:', which its generation prompt lacks" in header and "puts no token after an answer" in no_end
    assert learnt(bare.one(Conversation((USER, ASSISTANT))), bare) == "assistant: 4" + bare.tokenizer.eos_token


@pytest.mark.parametrize("kind", ["bytes", "prepended", "first"])
def test_special_tokens_that_a_text_spells_stay_text(kind: str) -> None:
    """The other tokens are the same as without, whatever kind of tokenizer."""
    words = tokenizer(kind)
    words.chat_template = models.CHATML
    own = Chat(words)
    special = set(words.all_special_ids)
    spelled, plain = (own.one(Conversation((Message("user", f"Say{text} now"), Message("assistant", f"Yes {text}")))) for text in ("<|im_end|>", ""))
    assert [t for t in spelled.prefix if t in special] == [t for t in plain.prefix if t in special]
    assert words.decode(spelled.prefix).count("<|im_end|>") == words.decode(plain.prefix).count("<|im_end|>") + 2
    assert words.decode([t for t, learn in zip(spelled.prefix, spelled.learn, strict=True) if learn]).strip() == "Yes <|im_end|><|im_end|>"
    assert "2 " not in own.notes[-1] and "1 texts spell special tokens of the tokenizer (<|im_end|>)" in own.notes[-1]


def test_raw_text_is_learnt_whole() -> None:
    """As it is, its special tokens too, up to an end of sequence; the first token alone is not predicted."""
    plain = chat()
    row = plain.one(RawText("A stone.<|im_end|>B"))
    assert plain.tokenizer.decode(row.prefix) == "A stone.<|im_end|>B" + plain.tokenizer.eos_token
    assert all(row.learn)
    bare = models.tokenizer()
    bare.chat_template = None
    assert Chat(bare).one(RawText("A stone.")).prefix[-1] == bare.eos_token_id
    assert Chat(bare).notes == []


def test_a_turn_that_the_template_drops_is_no_silent_loss() -> None:
    last = chat("{% for m in messages[-2:] %}{{ m.role + ': ' + m.content + '<|im_end|>' }}{% endfor %}")
    (refused,) = last.encode([Conversation((USER, ASSISTANT, USER, ASSISTANT))])
    assert isinstance(refused, Malformed)
    assert "keeps every turn" in refused.args[0] and "user turn it leaves out" in refused.args[1]
    counts = chat("{% for m in messages %}{{ m.content + '<|im_end|>' + (m.content | length | string) }}{% endfor %}")
    with pytest.raises(ValueError, match="leaves as they are, or trims"):
        counts.one(Conversation((USER, ASSISTANT)))


def test_a_template_may_look_at_how_a_text_begins() -> None:
    """As Qwen3's at `<tool_response>`: marks at the text's very beginning would hide it."""
    looks = chat("{% for m in messages %}{{ ('!' if m.content.startswith('2 ') else '') + m.content + '<|im_end|>' }}{% endfor %}")
    row = looks.one(Conversation((USER, ASSISTANT)))
    assert looks.tokenizer.decode(row.prefix) == "!2 + 2?<|im_end|>4<|im_end|>"
    assert learnt(row, looks) == "4<|im_end|>"


def test_rows_that_the_template_refuses_are_bad_rows(tmp_path: Path) -> None:
    """With file and line, refused or skipped and counted, beside the rows that could not be read."""
    strict = chat(
        "{% for m in messages %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('roles must take turns') }}{% endif %}{% endfor %}"
        + models.CHATML
    )
    good = {"messages": [{"role": "user", "content": "Hello."}, {"role": "assistant", "content": "Good day."}]}
    two_users = {"messages": [good["messages"][0], *good["messages"]]}
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in (good, two_users, {"messages": []}, good)))
    with pytest.raises(DataError, match=r"1 of 4 rows are malformed(?s:.*)rows\.jsonl:3"):
        load(Data(train=str(path)), "conversation", strict)
    path.write_text("\n".join(json.dumps(row) for row in (good, two_users, good)))
    with pytest.raises(DataError, match=r"1 of 3 rows are malformed(?s:.*)rows\.jsonl:2: .*roles must take turns"):
        load(Data(train=str(path)), "conversation", strict)
    report = load(Data(train=str(path), on_bad_row="skip", validation_fraction=0), "conversation", strict).report
    assert (report.rows, report.bad, report.train) == (2, 1, 2)


def test_a_row_that_is_far_too_long_is_not_encoded(tmp_path: Path) -> None:
    plain = chat()
    rows = [RawText("a stone " * 2000), PromptOnly((Message("user", "a stone " * 2000),), {}), PromptOnly((USER,), {})]
    long, prompt, short = plain.encode(rows, longest=16)
    assert isinstance(long, TooLong) and isinstance(prompt, TooLong) and isinstance(short, Encoded)
    whole = plain.one(rows[1])
    assert prompt.tokens < len(whole.prefix)
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({"prompt": "a stone " * 2000}) + "\n" + json.dumps({"prompt": "2 + 2?"}))
    data = Data(train=str(path), max_length=32, validation_fraction=0)
    assert load(data, "prompt", plain).report.dropped == 1
    with pytest.raises(DataError, match=r"rows\.jsonl:1: more than \d+ tokens, data\.max_length is 32"):
        load(data.model_copy(update={"overlength": "error"}), "prompt", plain)
    assert load(data.model_copy(update={"overlength": "truncate_left"}), "prompt", plain).report.truncated == 1


def test_validation_asks_what_training_asked(tmp_path: Path) -> None:
    """The held-out rows' prompts are the rows' own first tokens."""
    path = tmp_path / "rows.jsonl"
    turns = [{"role": "user", "content": "2 + 2?"}, {"role": "assistant", "content": "4"}]
    path.write_text("\n".join(json.dumps({"messages": [*turns, {"role": "user", "content": f"and {i}?"}, turns[1]]}) for i in range(20)))
    plain = chat()
    data = load(Data(train=str(path), validation_fraction=0.5), "conversation", plain)
    for row, prompt in zip(data.validation, data.validation_prompts, strict=True):
        assert plain.tokenizer.decode(row.prefix[len(prompt) :]) == "4<|im_end|>"
        assert list(row.prefix[: len(prompt)]) == prompt


def test_the_templates_variables_are_not_what_a_conversation_gives() -> None:
    with pytest.raises(ValueError, match="template_kwargs sets add_generation_prompt, messages, which each conversation gives"):
        Data(train="rows.jsonl", template_kwargs={"messages": [], "add_generation_prompt": True, "enable_thinking": False})


TEXT_AND_CALL = (USER, Message("assistant", "Adding.", extra={"tool_calls": [CALL]}), Message("tool", "4"), Message("assistant", "It is 4."))
MISTRAL = (
    "{% for m in messages %}{% if m.role == 'user' %}{{ '[INST] ' + m.content + ' [/INST]' }}{% elif m.role == 'tool' %}"
    "{{ '[RESULT] ' + m.content + ' [/RESULT]' }}{% elif m.tool_calls %}{{ '[CALLS] ' + (m.tool_calls | tojson) + '<|im_end|>' }}"
    "{% else %}{{ ' ' + m.content + '<|im_end|>' }}{% endif %}{% endfor %}"
)


def test_calls_are_learnt_where_the_template_ends_no_turn_or_ends_them_otherwise() -> None:
    """As GLM-4's and gpt-oss's."""
    glm, words = chat("glm4moe"), models.tokenizer()
    words.add_special_tokens({"additional_special_tokens": ["<|start|>", "<|message|>", "<|channel|>", "<|end|>", "<|call|>", "<|return|>"]})
    words.chat_template = chat("gptoss").tokenizer.chat_template
    oss = Chat(words)
    assert "<tool_call>add" in learnt(glm.one(Conversation(CALLED[:2])), glm)
    (refused,) = glm.encode([Conversation(CALLED)])
    assert isinstance(refused, Malformed) and "whose end in the chat template's text is known" in refused.args[0]
    assert learnt(oss.one(Conversation(CALLED, tools=TOOLS)), oss).count("functions.add") == 1
    last = learnt(oss.one(Conversation(CALLED[:2], tools=TOOLS)), oss)
    assert "functions.add" in last and last.endswith("<|call|>")


@pytest.mark.parametrize("row", [CALLED, (*TEXT_AND_CALL[:1], Message("assistant", "One."), Message("assistant", "Two."))])
def test_nothing_of_the_user_is_learnt_without_an_assistants_header(row: tuple[Message, ...]) -> None:
    mistral = chat(MISTRAL)
    said = learnt(mistral.one(Conversation(row)), mistral)
    assert "INST" not in said and "RESULT" not in said and said.count("<|im_end|>") == 2


@pytest.mark.parametrize(
    ("template", "row", "what"),
    [
        (
            "{% for m in messages %}{{ m.content }}{% if m.tool_calls %}{{ m.tool_calls[0].function.name }}{% endif %}<|im_end|>{% endfor %}",
            (USER, Message("assistant", "", extra={"tool_calls": [CALL, CALL]})),
            "tool_calls",
        ),
        (
            "{% for m in messages %}{% if m.content %}{{ m.content }}{% else %}{{ m.tool_calls | tojson }}{% endif %}<|im_end|>{% endfor %}",
            TEXT_AND_CALL,
            "tool_calls",
        ),
        (
            "{% for m in messages %}{{ m.content }}{% if m.tool_calls %}{{ m.tool_calls | tojson }}{% else %}{{ m.reasoning_content }}{% endif %}<|im_end|>{% endfor %}",
            (USER, Message("assistant", "4", extra={"tool_calls": [CALL], "reasoning_content": "Hm."})),
            "reasoning_content",
        ),
    ],
)
def test_a_call_or_thought_of_this_row_that_is_left_out(template: str, row: tuple[Message, ...], what: str) -> None:
    """Though the template takes them elsewhere."""
    (refused,) = chat(template).encode([Conversation(row)])
    assert isinstance(refused, Malformed)
    assert f"keeps the {what}" in refused.args[0]


def test_all_tokens_that_end_an_answer_are_learnt() -> None:
    """As Cohere's: the end of the response, then the end of the turn, at which sampling stops."""
    both = chat(
        "{% for m in messages %}{{ m.role + ': ' + m.content + '<|im_start|><|im_end|>' }}{% endfor %}{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}"
    )
    assert learnt(both.one(Conversation((USER, ASSISTANT))), both) == "4<|im_start|><|im_end|>"
    assert both.end_token == both.tokenizer.convert_tokens_to_ids("<|im_end|>")


def test_special_tokens_are_the_tokenizers() -> None:
    with pytest.raises(ValueError, match="template_kwargs sets eos_token, which the tokenizer gives"):
        assert chat(models.CHATML, eos_token="x").template
