"""Iterated DPO on the tiny model, as the pipeline does it; and `job=reward` by itself: programs, reward models and judges, in any layout, stopped as it waits."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from tests import models
from tests.algorithms.runs import steps
from tests.chat_server import answering
from tests.waiting import until
from workbench import api
from workbench.data.rows import Conversation, Message
from workbench.processes.kinds import reward
from workbench.rundir.store import RunDir, State
from workbench.settings.composing import SpecError

MINE = "def short(prompt, response, row): return -len(response) / 50\n"
TEXTS = [("What is 1?", "One."), ("What is 1?", "It is a number, I think."), ("What is 2?", "Bread is made of it."), ("What is 2?", "Two!")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("iterated")
    models.save(made / "model", num_hidden_layers=2)
    (made / "mine.py").write_text(MINE)
    (made / "prompts.jsonl").write_text("".join(json.dumps({"prompt": f"What is {i}?", "note": i, "reward": 9}) + "\n" for i in range(6)))
    (made / "rows.jsonl").write_text("".join(json.dumps({"prompt": prompt, "response": text}) + "\n" for prompt, text in TEXTS))
    return made


@pytest.fixture(autouse=True)
def there(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKBENCH_RUNS", str(folder / "runs"))
    monkeypatch.setenv("WORKBENCH_CACHE", str(folder / "cache"))


@pytest.fixture(scope="module")
def runs(folder: Path) -> dict[str, RunDir]:
    """The stages of two whole rounds."""
    of_stages = {
        "answers": ("job.max_tokens=8", "job.samples_per_prompt=4", f"data.train={folder / 'prompts.jsonl'}"),
        "rewarded": (f"job.rewards={{short: {{program: '{folder / 'mine.py'}:short'}}}}",),
        "pairs": ("job.truncated=keep",),
        "dpo": (
            "algorithm.global_batch_size=4",
            "algorithm.max_steps=2",
            "algorithm.lr=1e-3",
            "algorithm.warmup_steps=0",
            "data.validation_fraction=0",
        ),
    }
    words = [f"{stage}_{number}.{word}" for stage, own in of_stages.items() for number in (1, 2) for word in own]
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setenv("WORKBENCH_RUNS", str(folder / "runs"))
        monkeypatch.setenv("WORKBENCH_CACHE", str(folder / "cache"))
        item = api.submit_pipeline("iterated_dpo", [f"model.source={folder / 'model'}", "backend.threads_per_rank=1", *words])
        until(lambda: item.status.state.ended, 900, "both rounds")
        assert item.status.state == State.COMPLETED, item.status
        return {stage.name: stage.run.dir for stage in item.status.stages if stage.run}


def lines(run: RunDir, name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run.path / name).read_text().splitlines()]


def test_each_answer_has_its_reward_and_keeps_its_row(runs: dict[str, RunDir]) -> None:
    """The program's, written out here; answers without text, and with what no row may have, are left out."""
    for number in (1, 2):
        answers = [line for line in lines(runs[f"answers_{number}"], "answers.jsonl") if line["response"].strip() and "\0" not in line["response"]]
        assert not any("reward" in line for line in answers)  # that of the data's own answer
        scored = lines(runs[f"rewarded_{number}"], "rewarded.jsonl")
        assert [(line["row"], line["sample"], line["response"], line["note"]) for line in scored] == [
            (line["row"], line["sample"], line["response"], line["note"]) for line in answers
        ]
        for line in scored:
            assert line["reward"] == line["rewards"]["short"] == -len(line["response"]) / 50
            assert line["prompt"] == [{"role": "user", "content": f"What is {line['note']}?"}]
            assert not line.keys() & {"tokens", "logprobs"}


def test_reward_programs_find_the_ground_truth_as_the_answer() -> None:
    """As the prompts of an online algorithm have it; what is no text is JSON."""
    row = Conversation((Message("user", "2 + 2?"), Message("assistant", "5")), columns={"ground_truth": "4", "level": 3, "tokens": [1]})
    assert reward._columns(row) == {"answer": "4", "ground_truth": "4", "level": "3"}


def test_the_pairs_are_the_shortest_and_the_longest_answers(runs: dict[str, RunDir]) -> None:
    for number in (1, 2):
        lengths: dict[str, list[int]] = {}
        for line in lines(runs[f"rewarded_{number}"], "rewarded.jsonl"):
            lengths.setdefault(line["prompt"][0]["content"], []).append(len(line["response"]))
        expected = {prompt: (min(of), max(of)) for prompt, of in lengths.items() if min(of) < max(of)}
        made = lines(runs[f"pairs_{number}"], "pairs.jsonl")
        assert len(expected) > 3
        assert {line["prompt"][0]["content"]: (len(line["chosen"]), len(line["rejected"])) for line in made} == expected
        assert all((line["chosen_reward"], line["rejected_reward"]) == (-len(line["chosen"]) / 50, -len(line["rejected"]) / 50) for line in made)


def test_the_second_round_begins_where_the_first_ended(runs: dict[str, RunDir]) -> None:
    """It samples from the first round's model and has it as reference: its first loss is log 2, as the first round's own."""
    first, second = (api.Run(runs[f"dpo_{number}"]) for number in (1, 2))
    assert second.spec.model.source == str(runs["model_1"].path / "export")
    for run in (first, second):
        before, after = steps(run)
        assert before["loss"] == pytest.approx(math.log(2), abs=1e-5)
        assert after["rewards_margin"] != 0
    assert [line["response"] for line in lines(runs["answers_1"], "answers.jsonl")] != [
        line["response"] for line in lines(runs["answers_2"], "answers.jsonl")
    ]
    weights = [(runs[f"model_{number}"].path / "export" / "model.safetensors").read_bytes() for number in (1, 2)]
    assert weights[0] != weights[1]


def rewarding(folder: Path, rewards: str, *words: str) -> api.Run:
    shared = (f"model.source={folder / 'model'}", f"data.train={folder / 'rows.jsonl'}", "backend.threads_per_rank=1")
    return api.submit(api.compose(["job=reward", f"job.rewards={rewards}", *shared, *words]))


def test_a_reward_model_and_a_judge_in_any_layout(folder: Path, tiny_reward: Path) -> None:
    """The model's score is transformers' own of the whole conversation; the judge's win rates of two answers sum to 1; the reward is the weighted sum."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    judge = models.save(folder / "judge", max_position_embeddings=4096, num_hidden_layers=2)
    rewards = f"{{liked: {{model: {tiny_reward}, weight: 2}}, helpful: {{judge: {{model: {judge}}}}}}}"
    layouts = ((), ("backend.ranks_per_node=4", "model.tensor_parallel=2", "job.prompts_per_step=1"))
    alone, shared = (rewarding(folder, rewards, *layout) for layout in layouts)
    for run in (alone, shared):
        assert run.wait(240).state == State.COMPLETED, run.status.message
    model, tokenizer = AutoModelForSequenceClassification.from_pretrained(tiny_reward), AutoTokenizer.from_pretrained(tiny_reward)
    ours, theirs = lines(alone.dir, "rewarded.jsonl"), lines(shared.dir, "rewarded.jsonl")
    assert [(line["prompt"][0]["content"], line["response"]) for line in ours] == TEXTS
    for line, other in zip(ours, theirs, strict=True):
        text = tokenizer.apply_chat_template([*line["prompt"], {"role": "assistant", "content": line["response"]}], tokenize=False).rstrip("\n")
        with torch.no_grad():
            score = model(**tokenizer(text, return_tensors="pt", add_special_tokens=False)).logits[0, 0].item()
        assert line["rewards"]["liked"] == pytest.approx(score, abs=1e-4)
        assert line["reward"] == pytest.approx(2 * line["rewards"]["liked"] + line["rewards"]["helpful"])
        assert other["rewards"] == pytest.approx(line["rewards"], abs=1e-4)
    assert [ours[i]["rewards"]["helpful"] + ours[i + 1]["rewards"]["helpful"] for i in (0, 2)] == [1, 1]
    (step,) = steps(alone)
    assert step["rewards"] == pytest.approx(sum(line["reward"] for line in ours) / 4)
    assert 0 <= step["judge_undecided"] <= 1


def test_it_is_stopped_while_it_waits_for_a_judge_and_resumed(folder: Path) -> None:
    """The judge at a URL is out of order. After the resume it answers, and every row is there once."""
    with answering(lambda question: "4", [(500, b"loading", {})] * 10_000) as server:
        run = rewarding(folder, f"{{nice: {{judge: {{url: '{server.url}', mode: scored}}}}}}", "job.prompts_per_step=1")
        until(lambda: any("waiting for the judge" in event.get("message", "") for event in run.events() if event["kind"] == "phase"), run=run)
        run.stop()
        assert run.wait(240).state == State.STOPPED
        assert not (run.dir.path / "rewarded.jsonl").exists()
        server.failures.clear()
        run.resume()
        assert run.wait(240).state == State.COMPLETED, run.status.message
    assert [(line["response"], line["reward"]) for line in lines(run.dir, "rewarded.jsonl")] == [(text, 0.75) for _, text in TEXTS]


@pytest.mark.parametrize(
    ("rewards", "said"),
    [
        ("{}", "job.rewards: needs at least one component"),
        ("{a: {program: nowhere.py:f}}", "job.rewards.a.program: there is no"),
        ("{a: {model: ./nowhere}}", "job.rewards.a.model: there is no ./nowhere"),
        ("{a: {program: brevty}}", "did you mean 'brevity'"),
    ],
)
def test_a_wrong_reward_is_refused_before_the_launch(rewards: str, said: str, folder: Path) -> None:
    with pytest.raises(SpecError, match=said):
        rewarding(folder, rewards)
