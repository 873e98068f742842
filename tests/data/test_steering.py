"""Conversations that say their ratings: where they stand, NeMo-Aligner's template to the letter, what is learnt, and the file that tells of it."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest

from tests import models
from workbench.data.chat import Chat
from workbench.data.rows import Conversation, Group, Malformed, Message, Preference, PromptOnly, Rated
from workbench.data.steering import attribute_string, conditioned
from workbench.data.targets import FILE, Targets
from workbench.rundir.opening import Unreadable
from workbench.settings import Steering

STEERING = Steering(attributes=("quality", "humor"))
TALK = Conversation(
    (
        Message("system", "Be brief."),
        Message("user", "Who?"),
        Message("assistant", "Me.", ratings={"quality": 4, "humor": 2.5, "other": 1}),
        Message("user", "Why?"),
        Message("assistant", "So.", ratings={"humor": 0}),
    )
)


def shown(chat: Chat, row: Conversation | PromptOnly | Rated) -> tuple[str, list[str]]:
    """The whole text, and the parts that are learnt."""
    pieces = [piece for part in chat.pieces(row) for piece in part]
    texts = [(str(chat.tokenizer.decode(piece.tokens)), piece.learn) for piece in pieces]
    learnt: list[str] = []
    for i, (text, learn) in enumerate(texts):
        if learn and i and texts[i - 1][1]:
            learnt[-1] += text
        elif learn:
            learnt.append(text)
    return "".join(text for text, _ in texts), learnt


def with_extra_ids() -> Chat:
    tokenizer = copy.deepcopy(models.tokenizer())
    tokenizer.add_special_tokens({"additional_special_tokens": [f"<extra_id_{i}>" for i in range(3)]})
    return Chat(tokenizer, None, STEERING.model_copy(update={"layout": "nemo"}))


def test_the_attribute_string() -> None:
    """In the declared order, whole numbers without a point, those that are missing left out."""
    assert attribute_string({"humor": 0.0, "quality": 4}, STEERING) == "quality:4,humor:0"
    assert attribute_string({"humor": 2.5}, STEERING) == "humor:2.5"
    for ratings, said in (({"wit": 1}, "one of wit"), ({"humor": 5}, "5"), ({}, "none")):
        with pytest.raises(Malformed) as error:
            attribute_string(ratings, STEERING)
        assert error.value.args[1] == said


def test_under_system_the_last_answer_decides_and_the_own_system_prompt_stays() -> None:
    text, learnt = shown(Chat(models.tokenizer(), None, STEERING), TALK)
    assert "Be brief.\n\nhumor:0" in text
    assert [part.strip() for part in learnt] == [learnt[0].strip()]
    assert learnt[0].startswith("So.")
    alike = Conversation((*TALK.messages[:2], Message("assistant", "Me.", ratings={"humor": 0}), *TALK.messages[3:]))
    assert len(shown(Chat(models.tokenizer(), None, STEERING), alike)[1]) == 2


def test_under_user_each_question_has_its_own() -> None:
    text, learnt = shown(Chat(models.tokenizer(), None, STEERING.model_copy(update={"layout": "user"})), TALK)
    assert "Who?\n\nquality:4,humor:2.5" in text
    assert "Why?\n\nhumor:0" in text
    assert [part[:3] for part in learnt] == ["Me.", "So."]


def test_under_answer_each_rated_answer_begins_with_its_own_which_is_not_learnt() -> None:
    chat = Chat(models.tokenizer(), None, STEERING.model_copy(update={"layout": "answer"}))
    text, learnt = shown(chat, TALK)
    assert "quality:4,humor:2.5\nMe." in text and "humor:0\nSo." in text
    assert [part[:3] for part in learnt] == ["Me.", "So."]
    prompt = (Message("user", "Who?"), Message("assistant", "Me."), Message("user", "Why?", ratings={"humor": 0}))
    asked = str(chat.tokenizer.decode(chat.prompt(prompt)))
    assert asked.endswith("humor:0\n")
    row = chat.one(Conversation((*prompt[:2], Message("user", "Why?"), Message("assistant", "So.", ratings={"humor": 0}))))
    assert row.prefix[: len(chat.prompt(prompt))] == chat.prompt(prompt)  # trained as it is sampled
    assert not any(row.learn[: len(chat.prompt(prompt))]) and all(row.learn[len(chat.prompt(prompt)) :])
    group = chat.one(Group(prompt, ("So.", "Well."), (-1.0, -2.0), (-3.0, -4.0)))
    assert list(group.prefix) == chat.prompt(prompt) and len(group.branches) == 2


def test_nemo_aligners_template_to_the_letter() -> None:
    chat = with_extra_ids()
    assert shown(chat, TALK) == (
        "<extra_id_0>System\nBe brief.\n<extra_id_1>User\nWho?\n<extra_id_1>Assistant\n<extra_id_2>quality:4,humor:2.5\nMe.\n"
        "<extra_id_1>User\nWhy?\n<extra_id_1>Assistant\n<extra_id_2>humor:0\nSo.\n<extra_id_1>",
        ["Me.\n<extra_id_1>", "So.\n<extra_id_1>"],
    )
    asked = chat.prompt([Message("user", "Who?", ratings={"quality": 1})])
    assert chat.tokenizer.decode(asked) == "<extra_id_0>System\n\n<extra_id_1>User\nWho?\n<extra_id_1>Assistant\n<extra_id_2>quality:1\n"
    rated = Rated((Message("user", "Who?"),), "Me.", {"quality": 1})
    assert shown(chat, rated)[0] == "<extra_id_0>System\n\n<extra_id_1>User\nWho?\n<extra_id_1>Assistant\nMe.\n<extra_id_2>"
    assert chat.end_token == chat.tokenizer.convert_tokens_to_ids("<extra_id_1>")
    assert chat.notes == []


def test_nemo_aligners_template_needs_its_tokens() -> None:
    with pytest.raises(ValueError, match="the tokenizer has no such token: take layout system or user"):
        Chat(models.tokenizer(), None, STEERING.model_copy(update={"layout": "nemo"}))


def test_prompts_and_rows_without_ratings_stay_as_they_are() -> None:
    plain, steered = Chat(models.tokenizer()), Chat(models.tokenizer(), None, STEERING)
    prompt = (Message("user", "Who?"),)
    for row in (PromptOnly(prompt, {}), Preference(prompt, "Me.", "No."), Rated(prompt, "Me.", {"quality": 1})):
        assert steered.one(row) == plain.one(row) or isinstance(row, PromptOnly)
        assert steered.one(row).prefix == plain.one(row).prefix
    asked = PromptOnly((Message("user", "Who?", ratings={"quality": 1}),), {})
    assert steered.one(asked).prefix != plain.one(asked).prefix
    assert steered.one(asked).asked == asked  # what a judge is asked about has no ratings in its text


@pytest.mark.parametrize(
    ("turns", "expected"),
    [
        ((Message("user", "a"), Message("assistant", "b", ratings={"other": 1})), "a conversation with ratings"),
        ((Message("user", "a"), Message("assistant", "b", ratings={"humor": 9})), "humor from 0 to 4"),
    ],
)
def test_what_cannot_be_said_is_a_malformed_row(turns: tuple[Message, ...], expected: str) -> None:
    (result,) = Chat(models.tokenizer(), None, STEERING).encode([Conversation(turns)])
    assert isinstance(result, Malformed)
    assert result.args[0].startswith(expected)


def test_an_answer_without_a_question() -> None:
    with pytest.raises(Malformed) as error:
        conditioned([Message("assistant", "b", ratings={"humor": 1})], STEERING.model_copy(update={"layout": "user"}))
    assert error.value.args[0] == "a question before each rated answer"


def test_the_attributes_of_a_model_are_written_and_read(tmp_path: Path) -> None:
    known = Targets.of(STEERING, [{"quality": 4.0}, {"humor": 0.0, "quality": 1.0}, {"quality": 4.0}], {"a": 1})
    assert (known.vectors, known.counts, known.rows) == (((4.0, None), (1.0, 0.0)), (2, 1), 3)
    known.write(tmp_path / FILE)
    assert Targets.read(tmp_path / FILE) == known == Targets.beside(tmp_path)
    assert Targets.beside(tmp_path / "none") is None
    tree = json.loads((tmp_path / FILE).read_text())
    for change, said in (({"vectors": [[1.0]]}, "do not fit the attributes"), ({"format": 2}, "less than or equal to 1"), ({"x": 1}, "Extra inputs")):
        (tmp_path / FILE).write_text(json.dumps({**tree, **change}))
        with pytest.raises(Unreadable, match=said):
            Targets.read(tmp_path / FILE)
