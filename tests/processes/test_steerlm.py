"""SteerLM's jobs on the tiny model, each on what the one before wrote: rate, condition, ask, score, learn; in another layout, killed and resumed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests import models
from tests.algorithms.runs import finished, steps
from tests.hold import Hold
from workbench import api
from workbench.rundir.store import State
from workbench.settings.composing import SpecError

ATTRIBUTES = "[verbosity,question]"
ROWS = [
    {
        "prompt": [{"role": "system", "content": "Be kind."}, {"role": "user", "content": f"What is {i} and {i}?"}],
        "response": f"It is {2 * i}." if i % 2 else f"It is {2 * i}, I think, is it not?",
        "attributes": {"verbosity": i % 5, **({"question": 4 * (i % 2)} if i % 3 else {})},
        "number": i,
    }
    for i in range(20)
]
OF_ITS_ANSWER = {"response": "A number.", "attributes": {"verbosity": 4, "question": 0}, "ratings": {"verbosity": 3.5}, "helpfulness": 2}
STEERING = f"+data.steering={{attributes: {ATTRIBUTES}}}"
FOUR_RANKS = ("backend.ranks_per_node=4", "model.tensor_parallel=2", "model.pipeline_parallel=2")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("steerlm")
    models.save(made / "model", num_hidden_layers=2)
    (made / "prompts.jsonl").write_text("".join(json.dumps({"prompt": f"What is {i}?", "note": i}) + "\n" for i in range(4)))
    return made


@pytest.fixture(autouse=True)
def there(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKBENCH_RUNS", str(folder / "runs"))
    monkeypatch.setenv("WORKBENCH_CACHE", str(folder / "cache"))


def trained(folder: Path, *words: str) -> api.Run:
    with pytest.MonkeyPatch.context() as monkeypatch:
        return finished(ROWS, folder, monkeypatch, folder / "model", "algorithm.max_steps=2", "checkpoint.every_steps=2", *words)


@pytest.fixture(scope="module")
def attribute_model(folder: Path) -> api.Run:
    return trained(folder, "algorithm=reward_model", "algorithm.objective=ordinal", f"algorithm.attributes={ATTRIBUTES}")


@pytest.fixture(scope="module")
def conditioned(folder: Path) -> api.Run:
    return trained(folder, "algorithm=sft", STEERING)


def job(*words: str) -> api.Run:
    return api.submit(api.compose(["backend.threads_per_rank=1", *words]))


def lines(run: api.Run, name: str) -> list[dict[str, Any]]:
    assert run.wait(240).state == State.COMPLETED, run.status.message
    return [json.loads(line) for line in (run.dir.path / name).read_text().splitlines()]


def annotating(folder: Path, attribute_model: api.Run, *words: str, rows: str = "rows.jsonl") -> api.Run:
    return job("job=annotate", f"job.checkpoint={attribute_model.id}", f"data.train={folder / rows}", "job.rows_per_step=8", *words)


@pytest.fixture(scope="module")
def annotated(folder: Path, attribute_model: api.Run) -> list[dict[str, Any]]:
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setenv("WORKBENCH_RUNS", str(folder / "runs"))
        return lines(annotating(folder, attribute_model, "job.rules=[exclamation]"), "annotated.jsonl")


@pytest.fixture(scope="module")
def asked(folder: Path, conditioned: api.Run) -> api.Run:
    """Answers to four prompts under each level of one attribute, two each."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setenv("WORKBENCH_RUNS", str(folder / "runs"))
        words = ("job.sweep=[verbosity]", "+job.base={question: 0}", "job.samples_per_prompt=2", "job.max_tokens=6", "job.stop_strings=[e]")
        run = job("job=generate", f"job.checkpoint={conditioned.id}", f"data.train={folder / 'prompts.jsonl'}", *words)
        run.wait(240)
        return run


def test_every_answer_is_rated_and_nothing_of_its_row_is_lost(annotated: list[dict[str, Any]]) -> None:
    """The own system prompt, other columns, the given ratings, missing ones still missing, and probabilities that the ratings are the means of."""
    assert [line["number"] for line in annotated] == list(range(20))
    for line, row in zip(annotated, ROWS, strict=True):
        assert (line["prompt"], line["response"], line["ratings"]) == (row["prompt"], row["response"], row["attributes"])
        assert set(line["attributes"]) == {"verbosity", "question", "exclamation"}
        for name in ("verbosity", "question"):
            probabilities = line["probabilities"][name]
            assert sum(probabilities) == pytest.approx(1)
            assert line["expected"][name] == pytest.approx(sum(level * p for level, p in enumerate(probabilities)), abs=1e-5)
            assert line["attributes"][name] == round(line["expected"][name])


def test_ratings_are_those_of_the_exported_model_in_transformers(annotated: list[dict[str, Any]], attribute_model: api.Run, tmp_path: Path) -> None:
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    from workbench.jobs.export import export

    export(attribute_model.dir, tmp_path / "out")
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "out")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    assert model.config.attributes_head["attributes"] == ["verbosity", "question"]
    for line in annotated[:3]:
        text = tokenizer.apply_chat_template([*line["prompt"], {"role": "assistant", "content": line["response"]}], tokenize=False)
        with torch.no_grad():
            scores = model(**tokenizer(text.rstrip("\n"), return_tensors="pt", add_special_tokens=False)).logits[0].view(2, 4)
        above = torch.sigmoid(torch.cat([scores[:, :1], scores[:, :1] - torch.nn.functional.softplus(scores[:, 1:]).cumsum(1)], 1))
        assert np.allclose(above.sum(1), [line["expected"][name] for name in ("verbosity", "question")], atol=1e-4)


def test_four_ranks_rate_alike(folder: Path, attribute_model: api.Run, annotated: list[dict[str, Any]]) -> None:
    there = lines(annotating(folder, attribute_model, "job.rules=[exclamation]", *FOUR_RANKS), "annotated.jsonl")
    for ours, theirs in zip(annotated, there, strict=True):
        for name, probabilities in ours.pop("probabilities").items():
            assert np.allclose(probabilities, theirs["probabilities"][name], atol=1e-5)
        assert ours["attributes"] == theirs["attributes"]


def test_a_killed_job_continues_with_the_next_rows(folder: Path, attribute_model: api.Run, hold: Hold) -> None:
    """Also where the kill left half a line; the files are then equal byte for byte."""
    whole = annotating(folder, attribute_model)
    lines(whole, "annotated.jsonl")
    hold.at(1)
    run = annotating(folder, attribute_model)
    hold.wait(run)
    run.kill()
    part = run.dir.path / "annotated.part"
    assert part.read_bytes().count(b"\n") == 1
    with part.open("ab") as file:
        file.write(b'[{"prompt": ')
    hold.release()
    run.resume()
    lines(run, "annotated.jsonl")
    assert (run.dir.path / "annotated.jsonl").read_bytes() == (whole.dir.path / "annotated.jsonl").read_bytes()
    assert not part.exists()


def test_rules_are_looked_at_before_the_launch_and_named_from_the_root(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "mine.py").write_text("def polite(prompt, response):\n    return 4.0 if 'please' in response else None\n")
    monkeypatch.chdir(folder)
    for name, said in (("verbosty", "there is no rule 'verbosty'; did you mean"), ("mine.py:rude", "has no function 'rude'")):
        with pytest.raises(SpecError, match=said):
            job("job=annotate", f"job.rules=['{name}']", "data=demo")
    spec = api.compose(["job=annotate", "job.rules=['mine.py:polite',verbosity]", "data=demo"]).with_absolute_paths()
    assert spec.job.rules == (f"{folder / 'mine.py'}:polite", "verbosity")  # type: ignore[attr-defined]


def test_nemo_aligners_format_has_whole_ratings_in_its_turns(folder: Path, attribute_model: api.Run) -> None:
    turns = [
        {"from": "User", "value": "Who?"},
        {"from": "Assistant", "value": "Me."},
        {"from": "User", "value": "Why?"},
        {"from": "Assistant", "value": "So."},
    ]
    labelled = [{**turn, "label": None} for turn in turns]
    labelled[1]["label"] = "verbosity:0"  # type: ignore[assignment]
    (folder / "talks.jsonl").write_text(json.dumps({"system": "Brief.", "mask": "User", "type": "VALUE_TO_TEXT", "conversations": labelled}) + "\n")
    (line,) = lines(annotating(folder, attribute_model, "job.write=nemo", "job.turns=rated", rows="talks.jsonl"), "annotated.jsonl")
    assert (line["system"], line["mask"], line["type"]) == ("Brief.", "User", "VALUE_TO_TEXT")
    assert [turn["value"] for turn in line["conversations"]] == [turn["value"] for turn in turns]
    labels = [turn["label"] for turn in line["conversations"]]
    assert labels[0] is labels[2] is labels[3] is None
    assert dict(part.split(":") for part in labels[1].split(",")).keys() == {"verbosity", "question"}


def test_a_conditioned_model_says_on_what_and_is_asked_so(conditioned: api.Run, asked: api.Run, folder: Path) -> None:
    tree = json.loads((conditioned.dir.path / "attributes.json").read_text())
    assert tree["steering"]["attributes"] == ["verbosity", "question"]
    assert sum(tree["counts"]) == tree["rows"] > 10
    assert [None in vector for vector in tree["vectors"]].count(True) > 0
    answers = lines(asked, "answers.jsonl")
    assert [(each["row"], each["requested"]["verbosity"], each["sample"]) for each in answers[:4]] == [(0, 0, 0), (0, 0, 1), (0, 1, 0), (0, 1, 1)]
    assert len(answers) == 4 * 5 * 2
    assert all(each["prompt"] == [{"role": "user", "content": f"What is {each['note']}?"}] and each["requested"]["question"] == 0 for each in answers)
    (folder / "answered.jsonl").write_text("".join(json.dumps({"prompt": f"What is {i}?", "note": i, **OF_ITS_ANSWER}) + "\n" for i in range(4)))
    drawn = job("job=generate", f"job.checkpoint={conditioned.id}", f"data.train={folder / 'answered.jsonl'}", "job.drawn=3", "job.max_tokens=2")
    known = [
        {name: rating for name, rating in zip(("verbosity", "question"), vector, strict=True) if rating is not None} for vector in tree["vectors"]
    ]
    answers = lines(drawn, "answers.jsonl")
    assert len(answers) == 12
    assert all(each["requested"] in known for each in answers)
    assert all(int(each["note"]) == each["row"] and each.keys().isdisjoint({"answer", *OF_ITS_ANSWER.keys() - {"response"}}) for each in answers)
    assert {each["ground_truth"] for each in answers} == {"A number."} != {each["response"] for each in answers}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "set job.targets, job.sweep or job.drawn, or job.unconditioned=true"),
        (("job.targets=[{verbosity: 9}]",), "expected verbosity from 0 to 4"),
        (("job.targets=[{wit: 1}]",), "expected ratings of verbosity, question"),
    ],
)
def test_what_a_conditioned_model_does_not_know_is_refused(words: tuple[str, ...], said: str, conditioned: api.Run, folder: Path) -> None:
    run = job("job=generate", f"job.checkpoint={conditioned.id}", f"data.train={folder / 'prompts.jsonl'}", *words)
    assert run.wait(240).state == State.FAILED
    assert said in run.status.message


def test_a_round_of_steerlm2(folder: Path, attribute_model: api.Run, conditioned: api.Run, asked: api.Run) -> None:
    """Rated and scored answers become groups, whose log-probabilities are the base model's; four ranks learn from them as one does."""
    rated = annotating(folder, attribute_model, "data.on_bad_row=skip", rows=f"runs/{asked.id}/answers.jsonl")  # some are empty
    for line in lines(rated, "annotated.jsonl"):
        likelihood = sum(np.log(line["probabilities"][name][int(rating)]) for name, rating in line["requested"].items())
        assert line["log(P(a|x,y))"] == pytest.approx(likelihood, abs=1e-4)
    scored = job("job=logprobs", "job.write=steerlm2", f"model.source={folder / 'model'}", f"data.train={rated.dir.path / 'annotated.jsonl'}")
    groups = lines(scored, "scored.jsonl")
    check_base(groups, folder)
    exported = job("job=export", f"job.checkpoint={conditioned.id}")
    assert exported.wait(240).state == State.COMPLETED, exported.status.message
    assert (exported.dir.path / "export" / "attributes.json").is_file()
    words = ("algorithm=steerlm2", f"model.source={exported.dir.path / 'export'}", f"data.train={scored.dir.path / 'scored.jsonl'}", STEERING)
    settings = ("algorithm.max_steps=2", "algorithm.global_batch_size=4", "algorithm.warmup_steps=0", "algorithm.adam_eps=1e-4", "algorithm.lr=1e-3")
    runs = [job(*words, *settings, "validation.every_steps=0", *layout) for layout in ((), FOUR_RANKS)]
    one, four = ([step["loss"] for step in steps(run)] for run in runs if run.wait(240).state == State.COMPLETED)
    assert len(one) == 2
    assert np.allclose(one, four, rtol=1e-4, atol=1e-6)


def check_base(groups: list[Mapping[str, Any]], folder: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    assert groups
    assert all(len(group["responses"]) == 2 for group in groups)
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder / "model"), AutoTokenizer.from_pretrained(folder / "model")
    group = groups[0]
    messages = [{"role": "user", "content": group["prompt_turns"][0]["value"]}]
    asked = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    for answer in group["responses"]:
        text = tokenizer.apply_chat_template([*messages, {"role": "assistant", "content": answer["value"]}], tokenize=False).rstrip("\n")
        prompt, whole = (tokenizer(each, add_special_tokens=False)["input_ids"] for each in (asked, text))
        with torch.no_grad():
            logprobs_TV = model(torch.tensor([whole])).logits[0].log_softmax(-1)
        total = sum(logprobs_TV[i - 1, whole[i]].item() for i in range(len(prompt), len(whole)))
        assert answer["log(P(y|x))"] == pytest.approx(total, abs=1e-3)
