"""The teacher behind a server: what it is asked about rows, and that it tells what the same teacher in the process tells."""

from __future__ import annotations

from concurrent.futures import Future
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests import models
from workbench.data.packing import Row, targets
from workbench.models import messages
from workbench.models.endpoint import Arrays, Endpoint
from workbench.models.protocol import Surroundings
from workbench.models.roles import teacher
from workbench.processes.server import check
from workbench.rundir.store import RunDir
from workbench.settings.layout import Layout
from workbench.settings.spec import parse

CONVERSATION = Row([5, 6, 7, 8, 9], learn=[False, False, True, False, True])
ANSWERED = Row([5, 6], ([7, 8, 2],), temperature=0.5)


def test_rows_as_a_request() -> None:
    """The conversation's first target is its third token; the answer's is the first after its prompt."""
    arrays = messages.of_rows([CONVERSATION, ANSWERED])
    assert {name: array.tolist() for name, array in arrays.items()} == {
        "tokens": [[5, 6, 7, 8, 9], [5, 6, 7, 8, 2]],
        "sequence_lengths": [5, 5],
        "prompt_lengths": [2, 2],
        "temperatures": [1.0, 0.5],
    }
    check(arrays, vocabulary=10, longest=5)
    for row in (CONVERSATION, ANSWERED):
        tokens, places = messages.sequence(row)
        assert [tokens[i] for i in places] == targets(row).tolist()
    with pytest.raises(ValueError, match="one has 2 branches"):
        messages.of_rows([Row([5], ([6], [7]))])


class Direct:
    """A transport whose server is in this process: requests are checked as a server checks them."""

    def __init__(self, served: Any):
        ((self.name, answers),) = served.endpoints().items()
        self.endpoint = Endpoint(self.name, answers.inputs, answers.outputs, answers.compute)
        self.asked: list[int] = []

    def call(self, endpoint: str, **arrays: Any) -> Future[Arrays]:
        assert endpoint == self.name
        self.asked.append(len(arrays["tokens"]))
        self.endpoint.check(arrays)
        check(arrays, vocabulary=1000, longest=60)
        done: Future[Arrays] = Future()
        done.set_result(self.endpoint.answer(arrays))
        return done

    def traffic(self) -> dict[str, float]:
        return {}


def conversations(count: int) -> list[Row]:
    rng = np.random.default_rng(0)
    lengths = rng.integers(4, 40, count)
    return [Row(rng.integers(3, 250, n).tolist(), learn=[False, True, *(rng.random(n - 2) < 0.6)]) for n in lengths.tolist()]


@pytest.mark.usefixtures("alone")
def test_behind_a_server_it_tells_what_it_tells_in_the_process(tmp_path: Path) -> None:
    """Of conversations in three requests and of answers, at a temperature of its own, which is not the answers'."""
    models.save(tmp_path / "student", num_hidden_layers=2)
    models.save(tmp_path / "teacher", num_hidden_layers=3)
    algorithm = {"name": "distill", "temperature": 1.5, "served": ["teacher"], "teacher": {"source": str(tmp_path / "teacher"), "top_k": 4}}
    spec = parse({"algorithm": algorithm, "data": {"train": "x.jsonl"}, "backend": {"name": "local"}, "model": {"source": str(tmp_path / "student")}})
    around = Surroundings(RunDir(tmp_path / "run"), spec, Layout(), tmp_path / "student")
    transport = Direct(teacher.serve(around))
    given = [*conversations(40), *(Row([5, 6, i], ([7, 8, 2],)) for i in range(3))]
    served = teacher.RemoteTeacher(transport).columns(given)
    here = teacher.LocalTeacher(teacher._asked(around)).columns(given)
    assert transport.asked == [16, 16, 11]
    assert served.keys() == here.keys() == {"teacher_tokens", "teacher_top_logprobs", "teacher_rest"}
    for name, rows in here.items():
        for ours, theirs in zip(served[name], rows, strict=True):
            np.testing.assert_allclose(ours, theirs, atol=1e-5, err_msg=name)


def test_another_vocabulary_is_refused_before_a_server_is_asked(tmp_path: Path) -> None:
    models.save(tmp_path / "student", num_hidden_layers=1)
    words = models.tokenizer()
    words.add_tokens(["another"])
    models.save(tmp_path / "teacher", num_hidden_layers=1, vocab_size=len(words))
    words.save_pretrained(tmp_path / "teacher")
    teacher.check_vocabulary("same", tmp_path / "student", tmp_path / "student")
    with pytest.raises(ValueError, match=r"algorithm\.teacher\.source=other has another vocabulary than the policy.*'another' is token"):
        teacher.check_vocabulary("other", tmp_path / "teacher", tmp_path / "student")
