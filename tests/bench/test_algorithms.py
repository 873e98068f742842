"""The table over all algorithms: the toy task by hand, an entry for each algorithm there is, and real runs of two."""

from __future__ import annotations

import io
import json
import random
from pathlib import Path
from typing import get_args

import pytest
from rich.console import Console

from tests import command_line
from workbench.algorithms.dpo import Config as Dpo
from workbench.bench import toy
from workbench.bench.algorithms import Bench, Outcome, Result, render
from workbench.bench.entries import ENTRIES, REWARD, Entry
from workbench.data.readers import Kind, read
from workbench.metrics import find
from workbench.rundir.listing import list_runs
from workbench.settings.modules import algorithm_names
from workbench.settings.spec import compose

READ_AS: dict[toy.DataKind, Kind] = {"demonstrations": "conversation", "pairs": "preference", "labels": "unpaired", "prompts": "prompt"}


def outcome(before: float, after: float) -> Outcome:
    return Outcome(0, "run", "workbench run", 1.0, before, after, None)


def test_every_algorithm_and_every_loss_of_dpos_has_an_entry() -> None:
    assert {entry.algorithm for entry in ENTRIES} == set(algorithm_names())
    losses = {word.partition("=")[2] for entry in ENTRIES for word in entry.overrides if word.startswith("algorithm.preference_loss=")}
    assert losses | {"dpo"} == {*get_args(Dpo.model_fields["preference_loss"].annotation)}
    assert len({entry.name for entry in ENTRIES}) == len(ENTRIES)


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.name)
def test_every_entry_is_an_experiment(entry: Entry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its overrides are settings that there are, its metrics are registered, and it learns from its own kind of data."""
    monkeypatch.setattr(Bench, "_teacher", lambda self, seed: tmp_path / "teacher")
    monkeypatch.setattr(Bench, "_groups", lambda self, seed: tmp_path / "groups.jsonl")
    (tmp_path / "model").mkdir()
    experiment = compose(Bench(tmp_path, None, Console()).overrides(entry, 2))
    assert (experiment.algorithm.name, experiment.algorithm.max_steps, experiment.seed) == (entry.algorithm, entry.steps, 2)
    assert Path(experiment.data.train).stem == entry.data
    assert all(find(name) for name in (entry.metric, entry.also) if name not in (None, REWARD))


def test_the_rule_by_hand() -> None:
    assert [toy.reward(text) for text in ("aeiou", "xyz", "bead", "", "Ab-e")] == [1.0, 0.0, 0.5, 0.0, 0.5]  # an upper-case letter is none


def test_the_rule_makes_the_data(tmp_path: Path) -> None:
    """Each kind is read whole, as what it is meant to be; the same seed gives the same files; no prompt is on both sides."""
    for folder, seed in (("a", 0), ("b", 0), ("c", 1)):
        toy.write(tmp_path / folder, seed)
    for kind, read_as in READ_AS.items():
        for name, count in ((kind, toy.TRAINED_ON), (f"{kind}_held_out", toy.HELD_OUT)):
            path = tmp_path / "a" / f"{name}.jsonl"
            assert len(read(str(path), read_as).rows) == count * (2 if kind == "labels" else 1)
            assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes() != (tmp_path / "c" / path.name).read_bytes()
    pairs = [json.loads(line) for line in (tmp_path / "a" / "pairs.jsonl").read_text().splitlines()]
    assert all(pair["chosen_reward"] == toy.reward(pair["chosen"]) > toy.reward(pair["rejected"]) == pair["rejected_reward"] for pair in pairs)
    prompts = {name: (tmp_path / "a" / f"{name}.jsonl").read_text().splitlines() for name in ("prompts", "prompts_held_out")}
    assert len({*prompts["prompts"], *prompts["prompts_held_out"]}) == toy.TRAINED_ON + toy.HELD_OUT


def test_the_best_candidate_is_better_than_the_worst() -> None:
    rng = random.Random(0)
    for _ in range(200):
        best, worst = toy.ranked(rng, "word")[1:]
        assert toy.reward(best) > toy.reward(worst) and toy.SHORTEST <= min(len(best), len(worst)) <= max(len(best), len(worst)) <= toy.LONGEST


def test_groups_by_hand(tmp_path: Path) -> None:
    """Half vowels: log P(a|x,y) = 8 (0.5 - 1) = -4. Left out: an answer given before, one that was cut off, one with another special token, an empty one, a single one."""

    def line(prompt: str, response: str, logprobs: list[float], finish_reason: str = "stop") -> toy.Answer:
        return {"prompt": [{"role": "user", "content": prompt}], "response": response, "finish_reason": finish_reason, "logprobs": logprobs}

    (group,) = made = toy.groups(
        [
            line("p", "ab", [-1.0, -2.0, -0.5]),
            line("p", "aa", [-1.0, -1.0, -0.25]),
            line("p", "ab", [-9.0, -9.0, -9.0]),
            line("p", "ee", [-1.0, -1.0], "length"),
            line("p", "ii", [-1.0, -1.0, -1.0, -1.0]),
            line("p", "", [-3.0]),
            line("q", "oo", [-1.0, -1.0, -1.0]),
        ]
    )
    assert group["responses"] == [
        {"from": "Assistant", "value": "ab", "log(P(a|x,y))": -4.0, "log(P(y|x))": -3.5},
        {"from": "Assistant", "value": "aa", "log(P(a|x,y))": 0.0, "log(P(y|x))": -2.25},
    ]
    toy.lines(tmp_path / "groups.jsonl", made)
    assert len(read(str(tmp_path / "groups.jsonl"), "group").rows) == 1


def test_a_rise_is_set_against_the_spread_of_the_seeds() -> None:
    """Rises of 0.25 and 0.5: more than 0.125 apart at the end, not more than 0.25."""
    near, far = (Result(ENTRIES[0], [outcome(0.25, 0.5), outcome(0.25 - less, 0.75 - less)]) for less in (0.125, 0.0))
    assert (near.smallest_rise, near.spread, near.passes) == (0.25, 0.125, True)
    assert (far.smallest_rise, far.spread, far.passes) == (0.25, 0.25, False)
    assert not Result(ENTRIES[0], [outcome(0.5, 0.5)]).passes


def test_the_table_names_what_it_shows() -> None:
    """A row of an entry with another metric: all columns, the metric by its heading, and the overrides."""
    entry = next(entry for entry in ENTRIES if entry.name == "kto")
    printed = io.StringIO()
    render([Result(entry, [Outcome(0, "run", "workbench run", None, 0.25, 0.75, (0.5, 0.875))])], None, Console(width=240, file=printed))
    (row,) = [line for line in printed.getvalue().splitlines() if "Accuracy" in line]
    cells = ["kto", "labels", "60", "–", "reward", "0.250", "0.750", "0.750 to 0.750", "0.500", "0.000", "Accuracy 0.500 to 0.875"]
    assert [cell.strip() for cell in row.strip("│ ").split("│")] == cells


def test_two_algorithms_are_run_and_found_again(tmp_path: Path) -> None:
    """What is printed is what the runs' files tell; a second call launches nothing, one with other settings is refused."""
    out = tmp_path / "out"
    arguments = ("bench", "algorithms", "--only", "grpo", "--only", "reward_model", "--seeds", "1", "--out", str(out))
    done = command_line.workbench(*arguments, "--steps", "2", "--json")
    found = json.loads(done.stdout)
    assert [each["name"] for each in found] == ["grpo", "reward_model"], done.stderr
    assert done.returncode == (not all(each["passes"] for each in found))
    ran = {run.id: run for run in list_runs(out / "runs")}
    assert len(ran) == 4  # two that learn, and the answers of one before and after
    for each in found:
        (result,) = each["outcomes"]
        assert result["seconds"] > 0 and f"algorithm={each['name']}" in result["command"]
        assert each["smallest_rise"] == result["after"] - result["before"] and each["spread"] == 0
        assert ran[result["run"]].status.step == 2
    answers = [run.path / "answers.jsonl" for run in reversed(ran.values()) if (run.path / "answers.jsonl").exists()]
    texts = [[json.loads(line)["response"] for line in path.read_text().splitlines()] for path in answers]
    assert [len(each) for each in texts] == [4 * toy.HELD_OUT] * 2
    shares = [sum(sum(map(text.count, "aeiou")) / max(1, len(text)) for text in each) / len(each) for each in texts]
    assert shares == pytest.approx([found[0]["outcomes"][0][when] for when in ("before", "after")])
    held_out = [event["metrics"]["accuracy"] for event in ran[found[1]["outcomes"][0]["run"]].events() if event["kind"] == "validation"]
    assert held_out == [found[1]["outcomes"][0][when] for when in ("before", "after")]
    again = command_line.workbench(*arguments, "--steps", "2")
    assert again.returncode == done.returncode and "workbench run algorithm=grpo" in again.stdout
    assert len(list_runs(out / "runs")) == 4
    other = command_line.workbench(*arguments, "--steps", "3")
    assert other.returncode == 2 and "algorithm.max_steps" in other.stderr


def test_an_unknown_entry_is_refused() -> None:
    done = command_line.workbench("bench", "algorithms", "--only", "gpro")
    assert done.returncode == 2 and "there is no entry 'gpro'" in done.stderr
