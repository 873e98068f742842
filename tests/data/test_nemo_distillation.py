"""NeMo-Aligner's rows of knowledge distillation: what is read of them, and what is refused."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests import models
from tests.data.rows import write
from workbench.data import check
from workbench.data.chat import Chat
from workbench.data.dataset import load
from workbench.data.formats import nemo_distillation
from workbench.data.readers import DataError, read
from workbench.data.rows import Taught
from workbench.settings import Data

ROW: dict[str, Any] = {
    "tokens": [5, 6, 7, 8, 0],
    "labels": [6, 7, 8, 9, 0],
    "loss_mask": [0.0, 1.0, 0.0, 1.0, 0.0],
    "topk_logits": [[0, 0], [math.log(4), math.log(2)], [0, 0], [math.log(3), 0.0], [0, 0]],
    "topk_token_ids": [[0, 1], [7, 8], [0, 1], [9, 4], [0, 1]],
    "log_sum_exp_logits": [1, math.log(8), 1, math.log(4), 1],
}


def test_what_is_learnt_is_read(tmp_path: Path) -> None:
    """Five places, padded. At the second the teacher gives 7 and 8 the logits log 4 and log 2 of log 8 in all: 1/2, 1/4 and 1/4 for the rest; at the fourth
    3/4 and 1/4, which leaves nothing, or what fp32 can tell."""
    (row,) = read(write(tmp_path, {**ROW, "index": 3}), "taught").rows
    assert isinstance(row, Taught)
    assert (row.tokens, row.learn) == ((5, 6, 7, 8, 9), (False, False, True, False, True))
    assert row.teacher_tokens_NK.tolist() == [[7, 8], [9, 4]]
    assert np.exp(row.teacher_logprobs_NK) == pytest.approx(np.array([[0.5, 0.25], [0.75, 0.25]]), abs=1e-6)
    assert np.exp(row.teacher_rest_N) == pytest.approx([0.25, nemo_distillation.LEAST_REST])
    encoded = Chat(models.tokenizer()).one(row)
    assert (list(encoded.prefix), list(encoded.learn)) == ([5, 6, 7, 8, 9], list(row.learn))
    assert encoded.arrays["teacher_tokens"] is row.teacher_tokens_NK


def test_a_number_in_a_list_of_its_own(tmp_path: Path) -> None:
    (row,) = read(write(tmp_path, {**ROW, "log_sum_exp_logits": [[each] for each in ROW["log_sum_exp_logits"]]}), "taught").rows
    assert isinstance(row, Taught) and np.exp(row.teacher_rest_N[0]) == pytest.approx(0.25)


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "no total": ({"log_sum_exp_logits": None}, "the key 'log_sum_exp_logits'"),
    "a short list": ({"loss_mask": [0, 1, 0, 1]}, "lists of one length; found tokens of 5, labels of 5, loss_mask of 4"),
    "nothing to learn": ({"loss_mask": [0] * 5}, "a one somewhere"),
    "half a token": ({"loss_mask": [0, 0.5, 0, 1, 0]}, "zeros and ones"),
    "other labels": ({"labels": [6, 7, 3, 9, 0]}, r"labels\[2\] is 3, and tokens\[3\] is 8"),
    "a total below its parts": ({"log_sum_exp_logits": [1, 1, 1, 2, 1]}, "1.0000 at place 1, where that of the topk_logits is 1.7918"),
    "a token twice": ({"topk_token_ids": [[0, 1], [7, 7], [0, 1], [9, 4], [0, 1]]}, "each token once at a place"),
    "as many ids as logits": ({"topk_token_ids": [[0]] * 5}, "with as many tokens at a place; found 2 and 1"),
    "a negative token": ({"tokens": [5, 6, -7, 8, 0]}, "tokens: numbers of tokens, 0 or more; found -7"),
    "a ragged list": ({"topk_logits": [[0, 0], [1], [0, 0], [0, 0], [0, 0]]}, "topk_logits: a list of lists of finite numbers"),
    "no number": ({"log_sum_exp_logits": [1, float("nan"), 1, 2, 1]}, "finite numbers"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_row_is_refused_by_name(tmp_path: Path, name: str) -> None:
    changes, message = REFUSED[name]
    with pytest.raises(DataError, match=rf"rows\.jsonl:2: expected.*{message}"):
        read(write(tmp_path, ROW, {**ROW, **changes}), "taught", "nemo_distillation")


def test_no_other_algorithm_reads_it_and_this_one_reads_no_other(tmp_path: Path) -> None:
    source = write(tmp_path, ROW)
    for kind in ("conversation", "prompt", "answered"):
        with pytest.raises(DataError, match="of format nemo_distillation, which gives: taught"):
            read(source, kind)
    with pytest.raises(DataError, match="tokens with a teacher's likeliest ones"):
        read(write(tmp_path, {"prompt": "p", "completion": "a"}, name="other.jsonl"), "taught")


def test_it_is_held_out_and_truncated_and_checked(tmp_path: Path) -> None:
    """Held out by the tokens before what is learnt; of a row that is too long tokens on the left are left out, and what the teacher tells stays."""
    rows = [{**ROW, "tokens": [n, *ROW["tokens"][1:]]} for n in range(5, 45)]
    source, chat = write(tmp_path, *rows), Chat(models.tokenizer())
    loaded = load(Data(train=source, validation_fraction=0.3, max_length=8), "taught", chat)
    assert 0 < loaded.report.validation < 40
    assert [list(prompt) for prompt in loaded.validation_prompts] == [list(row.prefix[:2]) for row in loaded.validation]
    long = {key: ([value[0]] * 6 + value) for key, value in ROW.items()}
    long["labels"][:6], long["tokens"][:7] = [5] * 6, [5] * 7
    cut = load(
        Data(train=write(tmp_path, long, name="long.jsonl"), validation_fraction=0, max_length=8, overlength="truncate_left"), "taught", chat
    ).train[0]
    assert (len(cut.prefix), cut.arrays["teacher_tokens"].tolist()) == (8, [[7, 8], [9, 4]])
    report = check.check(source, "taught", chat)
    assert (report.rows, report.bad, report.answer_tokens, report.refused) == (40, 0, 80, "")
    assert [(piece.learnt, piece.role) for piece in report.samples[0].pieces] == [(False, ""), (True, ""), (False, ""), (True, "")]
