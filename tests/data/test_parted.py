"""Pairs of conversations that part before their last answer: read, encoded as a shared prefix with a branch each, and learnt on the assistant's turns."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests import models
from tests.algorithms.runs import finished, held_out, steps
from tests.data.templates import chat
from tests.engine.policies import logprobs, policy
from workbench.data.check import sample
from workbench.data.dataset import fingerprint
from workbench.data.packing import Row, pack, targets
from workbench.data.readers import Kind, read
from workbench.data.rows import Conversation, Message, Preference, PromptOnly

TURNS = ("What is 2?", "Bread.", "And 3?", "Paris.")


def said(*texts: str, **last: Any) -> list[dict[str, Any]]:
    """The user and the assistant in turn."""
    turns: list[dict[str, Any]] = [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(texts)]
    turns[-1] |= last
    return turns


CHOSEN, REJECTED = said(*TURNS, "How is bread made?", "By hand."), said(*TURNS[:3], "No.", "Why?", "The capital of France is Paris.")


def read_one(tmp_path: Path, row: dict[str, Any], kind: Kind = "preference", on_bad_row: str = "error") -> list[Any]:
    (tmp_path / "rows.jsonl").write_text(json.dumps(row) + "\n")
    return read(str(tmp_path / "rows.jsonl"), kind, on_bad_row=on_bad_row).rows


def test_what_is_shared_is_the_prompt_and_the_rest_is_kept(tmp_path: Path) -> None:
    """Beside a prompt in a column of its own or without, of NeMo-Aligner's columns too, and of Anthropic's transcripts."""
    transcript = {
        name: "".join(f"\n\n{('Human', 'Assistant')[i % 2]}: {turn['content']}" for i, turn in enumerate(turns))
        for name, turns in (("chosen", CHOSEN), ("rejected", REJECTED))
    }
    rows = [
        {"chosen": CHOSEN, "rejected": REJECTED},
        {"prompt": TURNS[0], "chosen": CHOSEN, "rejected": REJECTED},
        {"prompt": CHOSEN[:3], "chosen_response": CHOSEN, "rejected_response": REJECTED},
        transcript,
    ]
    for row in rows:
        (pair,) = read_one(tmp_path, row)
        assert [turn.content for turn in pair.prompt] == list(TURNS[:3])
        assert [[turn.content for turn in turns] for turns in pair.turns] == [
            ["Paris.", "How is bread made?", "By hand."],
            ["No.", "Why?", "The capital of France is Paris."],
        ]
        assert pair.answers == ("By hand.", "The capital of France is Paris.")
    (plain,) = read_one(tmp_path, {"chosen": said(*TURNS), "rejected": said(*TURNS[:3], "No.")})
    assert plain.turns == ()


@pytest.mark.parametrize(
    ("rejected", "expected"),
    [
        (said(*TURNS, "Why?", "No."), "part in an answer"),
        (said("Hello", *TURNS[1:3], "No."), "part in an answer"),
        (said(*TURNS[:3], "No.", "Why?"), "one assistant message"),
        (said(*TURNS[:3], "No.", weight=0), "an answer to learn from"),
    ],
)
def test_what_does_not_part_in_an_answer_is_refused(rejected: list[dict[str, Any]], expected: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=expected):
        read_one(tmp_path, {"chosen": CHOSEN, "rejected": rejected})


def test_as_other_kinds_of_row(tmp_path: Path) -> None:
    row = {"chosen": CHOSEN, "rejected": REJECTED}
    (conversation,) = read_one(tmp_path, row, "conversation")
    assert isinstance(conversation, Conversation)
    assert [(turn.content, turn.learn) for turn in conversation.messages if turn.role == "assistant"] == [
        ("Bread.", False),
        ("Paris.", True),
        ("By hand.", True),
    ]
    (prompt,) = read_one(tmp_path, row, "prompt")
    assert isinstance(prompt, PromptOnly)
    assert ([turn.content for turn in prompt.prompt], prompt.columns) == (list(TURNS[:3]), {"answer": "Paris."})
    with pytest.raises(ValueError, match="learnt as pairs"):
        read_one(tmp_path, row, "unpaired")


def test_two_that_end_alike_are_no_duplicates(tmp_path: Path) -> None:
    pairs = [read_one(tmp_path, {"chosen": CHOSEN, "rejected": said(*TURNS[:3], other, "Why?", "No.")})[0] for other in ("A.", "B.")]
    assert fingerprint(pairs[0]) != fingerprint(pairs[1])


@pytest.mark.parametrize("template", [models.CHATML, "qwen2_5", "phi3"])
def test_tokens_are_those_of_each_conversation(template: str, tmp_path: Path) -> None:
    """Prefix and branch are the whole conversation's tokens, and what is learnt of a branch is what the conversation learns."""
    of = chat(template)
    (pair,) = read_one(tmp_path, {"chosen": CHOSEN, "rejected": REJECTED})
    row = of.one(pair)
    for i, turns in enumerate(pair.conversations):
        alone = of.one(Conversation(turns))
        assert [*row.prefix, *row.branches[i]] == list(alone.prefix)
        assert [*[False] * len(row.prefix), *row.branch_learn[i]] == [bool(learn) for learn in alone.learn]
    learnt = [of.tokenizer.decode([token for token, learn in zip(row.branches[i], row.branch_learn[i], strict=True) if learn]) for i in (0, 1)]
    assert "Paris." in learnt[0] and "By hand." in learnt[0] and "How" not in learnt[0]
    assert row.branch_learn[0][0] and row.branch_learn[1][0]  # the prompt ends where the answer begins
    shown = sample(pair, of)
    assert shown.chosen is not None
    assert [piece.role for piece in shown.chosen if not piece.learnt and piece.role] == ["user"]


def test_a_single_turn_is_encoded_as_before() -> None:
    of, prompt = chat(), (Message("user", TURNS[0]),)
    row = of.one(Preference(prompt, "Bread.", "No."))
    assert row.branch_learn == ()
    assert targets(row).tolist() == [*row.branches[0], *row.branches[1]]


def test_targets_of_a_branch_with_others_turns() -> None:
    """Tokens 1 2 | 3 4 5 | 6: of the first branch 3 and 5 are learnt. 3 is predicted at place 1, 5 at that of 4 (3), 6 at place 1."""
    row = Row([1, 2], ([3, 4, 5], [6]), branch_learn=([True, False, True], [True]))
    packed = pack([row])
    assert packed.tokens_T.tolist() == [1, 2, 3, 4, 5, 6]
    assert packed.target_N.tolist() == targets(row).tolist() == [3, 5, 6]
    assert packed.source_N.tolist() == [1, 3, 1]
    assert packed.sequence_N.tolist() == [0, 0, 1]


@pytest.mark.usefixtures("alone")
def test_log_probabilities_are_those_of_each_conversation_alone(tiny_model: Path) -> None:
    rng = np.random.default_rng(0)
    prefix, first, second = (rng.integers(3, 250, n).tolist() for n in (7, 9, 5))
    masks = ([True, True, False, False, True, True, False, True, True], [True, False, False, True, True])
    of = policy(tiny_model)
    (whole,) = logprobs(of, [Row(prefix, (first, second), branch_learn=masks)])
    alone = [Row([*prefix, *branch], learn=[*[False] * 7, *mask]) for branch, mask in zip((first, second), masks, strict=True)]
    np.testing.assert_allclose(whole, np.concatenate(logprobs(of, alone)), atol=1e-5)


def test_dpo_and_cpo_learn_from_them_in_any_layout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = models.save(tmp_path / "even", num_hidden_layers=2)
    rows = [
        {"chosen": said(f"What is {i}?", "Bread.", "How?", "By hand."), "rejected": said(f"What is {i}?", "Paris.", "Why is it so?", "Paris. Paris.")}
        for i in range(20)
    ]
    layout = ("model.tensor_parallel=2", "model.pipeline_parallel=2", "backend.ranks_per_node=4")
    for algorithm in ("dpo", "cpo"):
        words = (f"algorithm={algorithm}", "algorithm.max_steps=3", "validation.samples=0")
        one, four = finished(rows, tmp_path, monkeypatch, model, *words), finished(rows, tmp_path, monkeypatch, model, *words, *layout)
        for ours, theirs in zip(steps(four), steps(one), strict=True):
            for name in ("loss", "grad_norm", "rewards_margin"):
                assert ours[name] == pytest.approx(theirs[name], rel=1e-3, abs=1e-5), (algorithm, name)
        assert held_out(one)[-1]["rewards_margin"] > held_out(one)[0]["rewards_margin"]
