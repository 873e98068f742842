"""Distillation: the loss by hand, against transformers, in any packing and layout, and what is refused."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from transformers import AutoModelForCausalLM

from tests import gang, models
from tests.algorithms.batches import taught_batch
from workbench import metrics as M
from workbench.algorithms import Answer, distill
from workbench.data.packing import Row
from workbench.engine import parallel
from workbench.engine.batch import Batch, Given, TopK
from workbench.engine.step import Policy
from workbench.models.protocol import Surroundings
from workbench.models.roles.teacher import TeacherModel
from workbench.settings import Lora, Model, placement
from workbench.settings.composing import SpecError
from workbench.settings.layout import Layout
from workbench.settings.modules import outputs_of
from workbench.settings.outputs import Outputs
from workbench.settings.spec import compose, parse

KINDS = ("forward_kl", "reverse_kl", "jensen_shannon")


def config(**values: Any) -> distill.Config:
    return distill.Config.model_validate({"teacher": {"source": "teacher", "top_k": 5}, "warmup_steps": 0, **values})


def test_the_loss_by_hand() -> None:
    """KL = 0.25 log 2 at the first token, 0 at the second (tests/functional). At temperature 2 it counts four times; half of -log p(token) is added: 1.5 log 2
    and log 2."""
    loss_N, metrics = distill.loss(taught_batch(), config(temperature=2.0, sft_loss_weight=0.5))
    assert loss_N.tolist() == pytest.approx([math.log(2) * 2.5, math.log(2)], abs=1e-6)
    assert metrics[M.TEACHER_DIVERGENCE].tolist() == pytest.approx([0.25 * math.log(2), 0], abs=1e-6)
    assert metrics[M.SFT_LOSS].tolist() == pytest.approx([3 * math.log(2), 2 * math.log(2)], abs=1e-6)
    assert metrics[M.TEACHER_MASS].tolist() == pytest.approx([0.75, 0.75])


def test_the_loss_of_own_answers_by_hand() -> None:
    """As above, without the tokens' own log-probabilities, which are of no data: 4 x 0.25 log 2, and 0."""
    loss_N, metrics = distill.loss_of_own(taught_batch(), config(temperature=2.0, sft_loss_weight=0.5))
    assert loss_N.tolist() == pytest.approx([math.log(2), 0], abs=1e-6)
    assert metrics[M.LOSS] is loss_N
    assert M.SFT_LOSS not in metrics


def generalised_jsd(p: list[float], q: list[float], beta: float) -> float:
    """GKD, eq. 1, of probabilities: beta KL(P || beta P + (1 - beta) Q) + (1 - beta) KL(Q || beta P + (1 - beta) Q)."""
    m = [beta * a + (1 - beta) * b for a, b in zip(p, q, strict=True)]
    return sum(beta * a * math.log(a / c) + (1 - beta) * b * math.log(b / c) for a, b, c in zip(p, q, m, strict=True))


def test_the_loss_of_own_answers_is_the_papers_on_200_random_inputs() -> None:
    """GKD's L_OD (section 3.1): the mean over answers of the mean over their tokens of D(p_T || p_S), here of two answers of four tokens."""
    rng = np.random.default_rng(0)
    for _ in range(200):
        beta = float(rng.uniform(0.05, 0.95))
        p, q = (rng.dirichlet(np.full(6, rng.choice([0.5, 2])), 8) + 1e-6 for _ in range(2))
        p, q = p / p.sum(1, keepdims=True), q / q.sum(1, keepdims=True)
        student, teacher = (torch.tensor(each).log() for each in (q, p))
        given = Given(student[:, 0], at=TopK(torch.arange(5).repeat(8, 1), student[:, :5], student[:, 5]))
        arrays = {"teacher_top_logprobs": teacher[:, :5], "teacher_rest": teacher[:, 5]}
        batch = Batch(given, None, torch.arange(2).repeat_interleave(4), 2, [Row([1], ([2] * 4,)), Row([1], ([3] * 4,))], arrays)
        loss_N, _ = distill.loss_of_own(batch, config(divergence="jensen_shannon", teacher_share=beta))
        answers = [[generalised_jsd(p[i].tolist(), q[i].tolist(), beta) for i in range(start, start + 4)] for start in (0, 4)]
        assert loss_N.mean().item() == pytest.approx(sum(sum(each) / 4 for each in answers) / 2, rel=1e-9)


def test_the_draws_of_on_policy_steps() -> None:
    """A share of the steps that is the fraction within three standard deviations of 2,000 draws; the same for a step and a seed, whatever came before."""
    for fraction in (0.0, 0.25, 0.5, 1.0):
        cfg = config(on_policy={"fraction": fraction})
        drawn = [distill.on_policy(cfg, step, 7) for step in range(2000)]
        assert abs(sum(drawn) / 2000 - fraction) <= 3 * math.sqrt(fraction * (1 - fraction) / 2000)
        assert [distill.on_policy(cfg, step, 7) for step in (1500, 3)] == [drawn[1500], drawn[3]]
    cfg = config(on_policy={"fraction": 0.5})
    assert [distill.on_policy(cfg, step, 7) for step in range(64)] != [distill.on_policy(cfg, step, 8) for step in range(64)]


def test_a_prompt_is_what_stands_before_the_last_answer() -> None:
    """Tokens 1 to 9, of which 3, 4 and 8, 9 are the assistant's."""
    row = Row(list(range(1, 10)), learn=[False, False, True, True, False, False, False, True, True], columns={"source": "a"})
    prompt = distill.prompt(row)
    assert (list(prompt.prefix), prompt.branches, list(prompt.learn), prompt.columns) == ([1, 2, 3, 4, 5, 6, 7], (), [], {"source": "a"})
    (own,) = distill.answered([prompt], [Answer([5, 6, 2], True)])
    assert (list(own.prefix), own.branches, own.temperature) == ([1, 2, 3, 4, 5, 6, 7], ([5, 6, 2],), 1.0)
    assert distill.of_answers([Answer([5, 6, 2], True), Answer([5], False)]) == {
        M.ON_POLICY: 1.0,
        M.GENERATION_LENGTH: 2.0,
        M.PROPERLY_ENDED: 0.5,
    }


def test_text_without_turns_has_no_prompt() -> None:
    text = [Row([1, 2], learn=[True, True])]
    assert distill.check(text, config()) == []
    with pytest.raises(ValueError, match="text without turns: use conversations"):
        distill.check(text, config(on_policy={"fraction": 0.1}))


def test_what_goes_with_own_answers_and_a_server() -> None:
    for computed in ("once", "in_rows"):
        source = {} if computed == "in_rows" else {"source": "teacher"}
        with pytest.raises(ValidationError, match=rf"on_policy\.fraction=0\.5 with teacher\.computed={computed}.*set teacher\.computed=each_step"):
            config(teacher={"computed": computed, **source}, on_policy={"fraction": 0.5})
    with pytest.raises(ValidationError, match=r"served=\[teacher\] with teacher\.computed=in_rows"):
        config(teacher={"computed": "in_rows"}, served=["teacher"])
    assert config().max_tokens == 0
    assert config(on_policy={"fraction": 0.5, "max_tokens": 40}).max_tokens == 40
    words = ["algorithm=distill", "algorithm.teacher.source=teacher", "data.train=rows.jsonl", "rollout.max_staleness=2"]
    assert compose(words).algorithm == config(teacher={"source": "teacher"}, warmup_steps=10)
    with pytest.raises(SpecError, match=r"rollout\.max_staleness=2: algorithm=distill learns from answers of weights that stand still"):
        compose([*words, "algorithm.on_policy.fraction=0.5"])
    (server,) = placement.servers(config(served=["teacher"], teacher={"source": "teacher", "processes": 2, "tensor_parallel": 2}), Model())
    assert (server.name, server.processes, server.layout, server.sources) == ("teacher", 2, Layout(2), ("teacher",))


def test_what_goes_together() -> None:
    with pytest.raises(ValidationError, match="at temperature 1 alone"):
        config(temperature=2.0, teacher={"computed": "in_rows"})
    with pytest.raises(ValidationError, match=r"leave teacher\.source out"):
        config(teacher={"computed": "in_rows", "source": "teacher"})
    assert [key for key, _ in distill.Config().problems()] == ["teacher.source"]
    assert config(teacher={"computed": "in_rows"}).problems() == config().problems() == []
    assert config().with_absolute_paths(lambda path: f"/here/{path}").teacher.source == "/here/teacher"
    assert distill.ROWS(config(teacher={"computed": "in_rows"})) == "taught"
    assert outputs_of(config(temperature=2.0)) == Outputs(logprobs=True, at="teacher_tokens", temperature=2.0)


def test_a_teacher_that_the_layout_does_not_fit_is_refused_before_the_launch(tmp_path: Path) -> None:
    models.save(tmp_path / "student", num_hidden_layers=2)
    models.save(tmp_path / "teacher", num_hidden_layers=3)
    words = [f"model.source={tmp_path / 'student'}", f"algorithm.teacher.source={tmp_path / 'teacher'}", "data.train=rows.jsonl"]
    with pytest.raises(SpecError, match=r"algorithm\.teacher\.source=.*pipeline_parallel x virtual_pipeline=2 does not divide the model's 3 layers"):
        compose(["algorithm=distill", *words, "model.pipeline_parallel=2", "backend.ranks_per_node=2"])


def rows(count: int = 6, vocabulary: int = 250) -> list[Row]:
    """Conversations with several learnt parts."""
    rng = np.random.default_rng(1)
    lengths = rng.integers(4, 40, count)
    return [Row(rng.integers(3, vocabulary, n).tolist(), learn=[False, True, *(rng.random(n - 2) < 0.6)]) for n in lengths.tolist()]


def teacher_of(folder: Path, top_k: int, temperature: float = 1.0, layout: Layout | None = None) -> TeacherModel:
    """The model in `folder/teacher`, for the student in `folder/student`."""
    data = {"train": "rows.jsonl"}
    spec = parse({"algorithm": {"name": "distill"}, "data": data, "backend": {"name": "local"}, "model": {"source": str(folder / "student")}})
    around = Surroundings(run=None, spec=spec, layout=layout or Layout(), directory=folder / "student")  # pyright: ignore[reportArgumentType]
    return TeacherModel(around, str(folder / "teacher"), Outputs(top_k=top_k, temperature=temperature))


def taught(teacher: TeacherModel, given: list[Row]) -> list[Row]:
    columns = teacher.columns(given)
    return [dataclasses.replace(row, arrays={name: values[i] for name, values in columns.items()}) for i, row in enumerate(given)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A student and a teacher of another depth."""
    made = tmp_path_factory.mktemp("both")
    models.save(made / "student", num_hidden_layers=2)
    models.save(made / "teacher", num_hidden_layers=4)
    return made


def student(folder: Path, cfg: distill.Config, **settings: Any) -> Policy:
    return Policy(Model(lora=Lora(rank=0), **settings), cfg, folder / "student", 10, distill.OUTPUTS(cfg))


def logits(folder: Path, name: str, row: Row) -> torch.Tensor:
    """The whole vocabulary's at a row's targets [N, V], by transformers."""
    model = AutoModelForCausalLM.from_pretrained(folder / name, dtype=torch.float32)
    with torch.no_grad():
        whole = model(torch.tensor([list(row.prefix)])).logits[0, :-1]
    return whole[torch.tensor(np.flatnonzero(np.asarray(row.learn)[1:]))]


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize("kind", KINDS)
def test_the_whole_vocabulary_and_less(folder: Path, kind: Any) -> None:
    """With every token the divergence is that of transformers' whole distributions at the temperature; with five it is below, and so with one."""
    given, cfg = rows(3), config(divergence=kind, temperature=1.5)
    policy = student(folder, cfg)
    both = [torch.cat([logits(folder, name, row) for row in given]).double().div(1.5).softmax(1) for name in ("teacher", "student")]
    p, q = both
    m = (p + q) / 2
    first = {"forward_kl": (p, q), "reverse_kl": (q, p)}
    pairs = [first[kind]] if kind in first else [(p, m), (q, m)]
    whole = torch.stack([(a * (a / b).log()).sum(1) for a, b in pairs]).mean().item()
    found = [
        policy.evaluate(taught(teacher_of(folder, k, 1.5), given), distill.loss)[M.TEACHER_DIVERGENCE] for k in (1, 5, policy.hf_config.vocab_size)
    ]
    assert found[2] == pytest.approx(whole, rel=1e-4)
    assert 0 < found[0] < found[1] < found[2]


@pytest.mark.usefixtures("alone")
def test_packed_equals_row_by_row(folder: Path) -> None:
    """All rows in one microbatch, and each in one of its own: the same loss and the same gradient."""
    results = []
    for tokens in (4096, 16):
        cfg = config(micro_batch_tokens=tokens, sft_loss_weight=0.3, temperature=2.0)
        policy = student(folder, cfg)
        given = taught(teacher_of(folder, 5, 2.0), rows())
        results.append([policy.update(given, distill.loss, step, 0) for step in range(2)])
    for packed, apart in zip(*results, strict=True):
        for name in (M.LOSS, M.TEACHER_DIVERGENCE, M.SFT_LOSS, M.TEACHER_MASS, M.GRAD_NORM):
            assert packed[name] == pytest.approx(apart[name], rel=1e-4), name


@pytest.mark.usefixtures("alone")
def test_a_policy_that_is_its_teacher_learns_nothing(folder: Path) -> None:
    own = Policy(Model(lora=Lora(rank=0)), config(), folder / "teacher", 10, distill.OUTPUTS(config()))
    given = taught(teacher_of(folder, 5), rows())
    metrics = own.update(given, distill.loss, 0, 0)
    assert abs(metrics[M.LOSS]) < 1e-6
    assert metrics[M.GRAD_NORM] < 1e-4
    assert student(folder, config()).evaluate(given, distill.loss)[M.LOSS] > 0.01


@pytest.mark.usefixtures("alone")
def test_what_another_teacher_is_refused_for(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "student").symlink_to(folder / "student")
    words = models.tokenizer()
    words.add_tokens(["another"])
    models.save(tmp_path / "teacher", vocab_size=len(words))
    words.save_pretrained(tmp_path / "teacher")
    with pytest.raises(ValueError, match=r"algorithm\.teacher\.source=.*teacher has another vocabulary than the policy.*'another' is token"):
        teacher_of(tmp_path, 5)
    with pytest.raises(ValueError, match="top_k=100000"):
        teacher_of(folder, 100_000)


def measure(folder: Path) -> None:
    """Two updates of what the teacher tells in this layout, left by one rank, compared with by the others."""
    sizes = {"tensor_parallel": parallel.tensor_size(), "pipeline_parallel": parallel.pipeline_size()}
    layout = Layout(parallel.tensor_size(), parallel.pipeline_size())
    cfg = config(lr=1e-3, adam_eps=1e-4, micro_batch_tokens=60, temperature=1.5, divergence="jensen_shannon", sft_loss_weight=0.2)
    policy = student(folder, cfg, **sizes, sequence_parallel=parallel.tensor_size() > 1)
    given = taught(teacher_of(folder, 7, 1.5, layout), rows())
    updates = [policy.update(given, distill.loss, step, 0) for step in range(3)]
    flat = {
        f"{name} {step}": update[name] for step, update in enumerate(updates) for name in (M.LOSS, M.TEACHER_DIVERGENCE, M.TEACHER_MASS, M.GRAD_NORM)
    }
    flat |= {f"{i} {name}": values for i, row in enumerate(given) for name, values in row.arrays.items()}
    if not (folder / "one.npz").exists():
        np.savez(folder / "one.npz", **flat)
    for name, expected in np.load(folder / "one.npz").items():
        np.testing.assert_allclose(flat[name], expected, atol=1e-4, rtol=1e-4, err_msg=name)


@pytest.mark.usefixtures("alone")
def test_two_by_two_ranks_equal_one(tmp_path: Path) -> None:
    """TP2 x PP2: the vocabulary's rows are shared by two ranks, and the likeliest tokens are chosen among both's."""
    models.save(tmp_path / "student", num_hidden_layers=2)
    models.save(tmp_path / "teacher", num_hidden_layers=4)
    measure(tmp_path)
    gang.run(measure, tmp_path, Layout(tensor=2, pipeline=2))
