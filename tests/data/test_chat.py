"""Tokens: exact at the boundary of prompt and answer, and of what is learnt."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests import models
from workbench.data.chat import Chat
from workbench.data.check import CheckReport, browse, check, sample
from workbench.data.dataset import fit, load, with_mismatched
from workbench.data.packing import Row, batch_indices, deal, into_microbatches, pack, targets
from workbench.data.readers import DataError
from workbench.data.rows import Conversation, Message, Preference, Rated, Unpaired
from workbench.settings import Data

TOKENIZER = models.tokenizer()
CHAT = Chat(TOKENIZER)
SPECIAL = {TOKENIZER.convert_tokens_to_ids(token) for token in ("<|im_start|>", "<|im_end|>")}
END = TOKENIZER.convert_tokens_to_ids("<|im_end|>")
TALK = Conversation(
    (Message("system", "Be kind."), Message("user", "Hello"), Message("assistant", "Hi!"), Message("user", "Bye"), Message("assistant", "So long."))
)


def learnt(row: Row) -> str:
    return TOKENIZER.decode([token for token, learn in zip(row.prefix, row.learn, strict=True) if learn])


def test_preference() -> None:
    row = CHAT.one(Preference((Message("user", "2 + 2?"),), "4", "five", 1.0, None))
    assert TOKENIZER.decode(row.prefix) == "<|im_start|>user\n2 + 2?<|im_end|>\n<|im_start|>assistant\n"
    assert [TOKENIZER.decode(branch) for branch in row.branches] == ["4<|im_end|>", "five<|im_end|>"]
    assert row.values == {"chosen_reward": 1.0}


def test_rated_and_unpaired() -> None:
    prompt = (Message("user", "2 + 2?"),)
    rated = CHAT.one(Rated(prompt, "4", {"humor": 0.5}))
    wanted, unwanted = (CHAT.one(Unpaired(prompt, "4", desirable)) for desirable in (True, False))
    pair = CHAT.one(Preference(prompt, "4", "five"))
    for row in (rated, wanted, unwanted):
        assert (row.prefix, row.branches) == (pair.prefix, pair.branches[:1])
    assert (rated.values, wanted.values, unwanted.values) == ({"humor": 0.5}, {"desirable": 1.0}, {"desirable": 0.0})


def test_mismatched_answers_by_hand() -> None:
    """Prompts 1, 1, 2, answers 10, 11, 12. Each gets the next answer to another prompt: 12, 12 (not 11's own prompt again), then round to 10."""
    rows = [Row([1], ([10, 0],)), Row([1], ([11, 0],)), Row([2], ([12, 0],))]
    assert [row.branches[1] for row in with_mismatched(rows, rows, 99)] == [[12, 0], [12, 0], [10, 0]]
    assert [row.branches[1] for row in with_mismatched(rows, rows, 2)] == [[12], [12], [10]]
    assert [row.branches[0] for row in with_mismatched(rows, rows, 2)] == [row.branches[0] for row in rows]
    with pytest.raises(DataError, match="at least two different prompts"):
        with_mismatched(rows[:1], rows[:2], 99)


def test_unpaired_rows_are_loaded_with_another_prompts_answer(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(json.dumps({"prompt": f"p {i}", "chosen": f"yes {i}", "rejected": f"no {i}"}) for i in range(20)))
    found = load(Data(train=str(path), validation_fraction=0.2), "unpaired", CHAT)
    assert len(found.train) + len(found.validation) == found.report.rows == 40
    donors = {tuple(row.branches[0]): tuple(row.prefix) for row in found.train}
    for row in found.train + found.validation:
        assert donors[tuple(row.branches[1])] != tuple(row.prefix)
    assert {row.values["desirable"] for row in found.train} == {0.0, 1.0}


def test_conversation_learns_the_assistant_only() -> None:
    row = CHAT.one(TALK)
    rendered = TOKENIZER.apply_chat_template([{"role": m.role, "content": m.content} for m in TALK.messages], tokenize=False)
    assert TOKENIZER.decode(row.prefix) + "\n" == rendered
    assert learnt(row) == "Hi!<|im_end|>So long.<|im_end|>"


def test_turns_not_to_be_learnt() -> None:
    silent = Conversation(tuple(Message(m.role, m.content, learn=m.content != "Hi!") for m in TALK.messages))
    assert learnt(CHAT.one(silent)) == "So long.<|im_end|>"


@given(*2 * [st.text(st.characters(max_codepoint=0xFFFFF, exclude_categories=["Cs"]), min_size=1, max_size=40)])
def test_any_text_stays_text(question: str, answer: str) -> None:
    """Whatever a text spells, it decodes to itself, and the only special tokens are the template's four."""
    row = CHAT.one(Conversation((Message("user", question + "<|im_end|>"), Message("assistant", answer + "<|im_start|>"))))
    assert sum(token in SPECIAL for token in row.prefix) == 4
    texts = "".join(TOKENIZER.decode([t for t, learn in zip(row.prefix, row.learn, strict=True) if learn]).rsplit("<|im_end|>", 1))
    assert texts == answer + "<|im_start|>"


def test_the_embedded_tokenizer() -> None:
    """SmolLM2's own template, with its default system prompt, token by token as transformers applies it."""
    from workbench.engine import hf

    tokenizer = hf.tokenizer(hf.local_directory(hf.EMBEDDED))
    messages = [{"role": "user", "content": "How is bread made?"}]
    row = Chat(tokenizer).one(Preference((Message("user", "How is bread made?"),), "Slowly.", "No."))
    assert list(row.prefix) == tokenizer.apply_chat_template(messages, add_generation_prompt=True)["input_ids"]
    assert [tokenizer.decode(branch) for branch in row.branches] == ["Slowly.<|im_end|>", "No.<|im_end|>"]


def test_without_a_template() -> None:
    bare = models.tokenizer()
    bare.chat_template = None
    with pytest.raises(ValueError, match="no chat template"):
        Chat(bare).one(TALK)


def test_a_template_that_drops_a_turn() -> None:
    odd = models.tokenizer()
    odd.chat_template = "{{ messages[-1]['content'] }}"
    with pytest.raises(ValueError, match="keeps every turn.* leaves out"):
        Chat(odd).one(TALK)


def test_overlength() -> None:
    """A prompt of 10 and answers of 3 and 5 make 15: at 12 the prompt loses its first 3 tokens; at 5 no prompt would be left."""
    row = Row(list(range(10)), ((1, 2, 3), (1, 2, 3, 4, 5)))
    counts: Counter[str] = Counter()
    cut = fit(row, 12, "truncate_left", "f:1", counts)
    assert cut is not None
    assert list(cut.prefix) == list(range(3, 10))
    assert fit(row, 15, "drop", "f:1", counts) is row
    assert fit(row, 12, "drop", "f:1", counts) is None
    assert fit(row, 5, "truncate_left", "f:1", counts) is None
    assert counts == {"truncated": 1, "dropped": 2}
    with pytest.raises(DataError, match=r"f:1: 15 tokens, data\.max_length is 12"):
        fit(row, 12, "error", "f:1", counts)
    talk = Row(list(range(6)), learn=[False, False, False, True, True, True])
    cut = fit(talk, 4, "truncate_left", "f:1", counts)
    assert cut is not None
    assert (list(cut.prefix), list(cut.learn)) == ([2, 3, 4, 5], [False, True, True, True])
    assert fit(talk, 3, "truncate_left", "f:1", counts) is None


def test_split_and_report(tmp_path: Path) -> None:
    """Held out by prompt: every row of a prompt is on one side, and the split does not depend on the order."""
    rows = [{"prompt": f"p {i % 40}", "chosen": f"a {i}", "rejected": "b"} for i in range(120)] + [
        {"prompt": "p 0", "chosen": "a 0", "rejected": "b"}
    ]
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    data = Data(train=str(path), validation_fraction=0.3)
    found = load(data, "preference", CHAT)
    train, held = ({tuple(row.prefix) for row in part} for part in (found.train, found.validation))
    assert train.isdisjoint(held)
    assert 5 <= len(held) <= 20
    report = found.report
    assert (report.rows, report.duplicates, report.train + report.validation) == (121, 1, 121)
    path.write_text("\n".join(map(json.dumps, rows[::-1])))
    assert {tuple(row.prefix) for row in load(data, "preference", CHAT).validation} == held


def test_check_round_trips(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(
        "\n".join(
            [json.dumps({"prompt": "a", "chosen": "b", "rejected": "b"}), "{", json.dumps({"prompt": "a", "chosen": "c" * 90, "rejected": "d"})]
        )
    )
    report = check(str(path), "preference", CHAT, max_length=40)
    assert (report.rows, report.bad, report.too_long, report.identical_pairs, report.repeated_prompts) == (2, 1, 1, 1, 1)
    assert sum(n for _, _, n in report.histogram) == 2
    assert CheckReport.model_validate_json(report.model_dump_json()) == report
    assert browse(str(path), "preference", CHAT, 1, 5).rows[0].where == f"{path}:3"


def test_samples_say_what_was_said_of_an_answer() -> None:
    prompt = (Message("user", "Hello"),)
    rated = sample(Rated(prompt, "Hi!", {"helpfulness": 3, "humor": 0.5}), CHAT)
    assert (rated.note, rated.chosen) == ("helpfulness 3, humor 0.5", None)
    assert "".join(piece.text for piece in rated.pieces if piece.learnt) == "Hi!<|im_end|>"
    assert sample(Unpaired(prompt, "Hi!", False), CHAT).note == "undesirable"


def test_samples_show_what_is_learnt() -> None:
    found = sample(TALK, CHAT)
    assert "".join(piece.text for piece in found.pieces if piece.learnt) == "Hi!<|im_end|>So long.<|im_end|>"


def test_pack_by_hand() -> None:
    """Two rows: prompt [1, 2] with answers [3] and [4, 5]; conversation [6, 7, 8] learning 7 and 8."""
    packed = pack([Row([1, 2], ((3,), (4, 5))), Row([6, 7, 8], learn=[False, True, True])])
    assert packed.tokens_T.tolist() == [1, 2, 3, 4, 5, 6, 7, 8]
    assert packed.positions_T.tolist() == [0, 1, 2, 2, 3, 0, 1, 2]
    assert packed.source_N.tolist() == [1, 1, 3, 5, 6]
    assert packed.target_N.tolist() == [3, 4, 5, 7, 8]
    assert packed.sequence_N.tolist() == [0, 1, 1, 2, 2]


@given(st.lists(st.integers(1, 50), min_size=1, max_size=40), st.integers(1, 4), st.integers(10, 100))
def test_every_row_once(lengths: list[int], ranks: int, tokens: int) -> None:
    """Dealt over ranks and into microbatches, each row is computed exactly once, within the room there is."""
    rows = [Row([1] * n, learn=[True] * n) for n in lengths]
    shares = [deal(rows, ranks, rank) for rank in range(ranks)]
    assert sorted(id(row) for share in shares for row in share) == sorted(map(id, rows))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1
    for share in shares:
        groups = into_microbatches(share, tokens)
        assert sorted(id(row) for group in groups for row in group) == sorted(map(id, share))
        assert all(len(group) == 1 or sum(row.num_tokens for row in group) <= tokens for group in groups)


@given(st.integers(1, 30), st.integers(1, 12), st.integers(0, 5))
def test_epochs_are_permutations(num_rows: int, batch: int, seed: int) -> None:
    stream = np.concatenate([batch_indices(num_rows, batch, step, seed) for step in range(-(-2 * num_rows // batch))])
    assert sorted(stream[:num_rows]) == list(range(num_rows))
    assert sorted(stream[num_rows : 2 * num_rows]) == list(range(num_rows))


def test_targets_are_the_packs() -> None:
    row = Row([6, 7, 8], learn=[True, False, True])
    assert targets(row).tolist() == pack([row]).target_N.tolist() == [8]
