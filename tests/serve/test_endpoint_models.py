"""What an endpoint serves: adapters of a run beside their base on shared weights, attributes as the run was trained on them, two tensor-parallel ranks, and its end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.serve.endpoint import served
from workbench.algorithms import sft
from workbench.data.rows import Message
from workbench.data.steering import conditioned
from workbench.data.targets import FILE, Targets
from workbench.engine import lora
from workbench.engine.checkpoint import Checkpoints
from workbench.engine.reading import Reader
from workbench.engine.step import Policy
from workbench.processes.decoder import Inbox
from workbench.processes.served_models import ids
from workbench.processes.serving import is_over
from workbench.rollout.base import Sampling
from workbench.rollout.live import Ask, Drawn, Echo, Live
from workbench.rundir import store
from workbench.rundir.store import RunDir
from workbench.serve.completions import Refused
from workbench.settings import Checkpoint, Lora, Model, Steering
from workbench.settings.spec import compose

STEERING = Steering(attributes=("verbosity", "humor"), highest=4)
QUESTION = [{"role": "user", "content": "What is the capital of France?"}]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, alone: None) -> tuple[RunDir, dict[int, dict[str, torch.Tensor]]]:
    """A run with two checkpoints of adapters, on a base that two ranks can share, and by step the merged weights."""
    from tests import models

    root = tmp_path_factory.mktemp("endpoint-models")
    base = models.save(root / "base", num_hidden_layers=2)
    settings = Model(source=str(base), lora=Lora(rank=4))
    words = ["algorithm=sft", f"model.source={base}", "model.lora.rank=4", "data.steering={attributes: [verbosity, humor]}"]
    run = store.create(root / "runs", "conditioned", compose(words).to_yaml())
    policy = Policy(settings, sft.Config(), base, 1, sft.OUTPUTS)
    checkpoints, weights = Checkpoints(policy, run.checkpoints, Checkpoint(asynchronous=False)), {}
    for step in (1, 2):
        torch.manual_seed(step)
        with torch.no_grad():
            for name, parameter in policy.chunks[0].named_parameters():
                if "lora_B" in name:
                    parameter.normal_(0, 0.2)
        checkpoints.save(step)
        checkpoints.finish()
        weights[step] = {name: tensor.clone() for name, tensor in lora.merged(policy.chunks).items()}
    Targets.of(STEERING, [{"verbosity": 0, "humor": 4}, {"verbosity": 0, "humor": 4}, {"verbosity": 4}], {}).write(run.path / FILE)
    return run, weights


def test_adapters_on_one_base_share_its_weights(trained: tuple[RunDir, dict[int, dict[str, torch.Tensor]]]) -> None:
    """Each with its own adapters, at no further cost; the base without any."""
    run, weights = trained
    model = compose([f"model.source={run.path.parents[1] / 'base'}", "model.lora.rank=4"]).model
    directory = Path(model.source)
    first = Reader(model, directory, run.checkpoints / "1")
    second = Reader(model, directory, run.checkpoints / "2", first)
    plain = Reader(model.model_copy(update={"lora": Lora(rank=0)}), directory, None, first)
    for step, reader in ((1, first), (2, second)):
        own = lora.merged(reader.chunks)
        assert all(torch.equal(own[name], tensor) for name, tensor in weights[step].items())
    shared = {p.data_ptr() for p in first.model.parameters()}
    assert all(p.data_ptr() in shared for p in plain.model.parameters())
    assert {name for name, p in second.model.named_parameters() if p.data_ptr() not in shared} == {
        name for name, _ in second.model.named_parameters() if "lora_" in name
    }
    assert 0 < second.own_bytes < second.all_bytes / 4 and plain.own_bytes == 0


@pytest.fixture(scope="module")
def live(tiny_model: Path, alone: None) -> Iterator[Live]:
    made = Live(Reader(Model(lora=Lora(rank=0)), tiny_model).model, None, slots=2)
    yield made
    made.close()


def asked(name: str, tokens: list[int], count: int = 6, **more: Any) -> Ask:
    return Ask(tokens, name=name, sampling=Sampling(count, more.pop("temperature", 1.0)), seed=more.pop("seed", 3), **more)


def drained(live: Live) -> dict[str, list[int]]:
    """The tokens of each request's first answer."""
    tokens: dict[str, list[int]] = {}
    while live.busy:
        for event in live.step():
            if isinstance(event, Drawn) and event.sample == 0:
                tokens.setdefault(event.name, []).append(event.token)
    return tokens


def test_a_request_is_taken_up_while_others_decode(live: Live) -> None:
    """And each gives what it gives alone, drawn in its own way."""
    asks = [asked("a", [5, 9, 40], 9), asked("b", [301, 17], 7, temperature=0.0), asked("c", [60, 61], 5, temperature=0.5, seed=8)]
    alone = {}
    for ask in asks:
        live.add(ask)
        alone |= drained(live)
    live.add(asks[0])
    begun = [live.step() for _ in range(3)]
    live.add(asks[1])
    live.add(asks[2])  # waits for a slot
    later = drained(live)
    together = {**later, "a": [event.token for events in begun for event in events if isinstance(event, Drawn)] + later["a"]}
    assert together == alone
    assert [len(alone[name]) for name in "abc"] == [9, 7, 5]


def test_a_cancelled_request_frees_its_slots_at_once(live: Live) -> None:
    live.add(asked("long", [5, 9, 40], 200, samples=2))
    live.step()
    live.add(asked("next", [301, 17], 3))
    assert {event.name for event in live.step()} == {"long"}
    live.cancel("long")
    assert [event.name for event in live.step()] == ["next"]
    live.cancel("next")
    assert not live.busy


def test_scores_are_of_those_who_asked(live: Live) -> None:
    live.add(asked("plain", [5, 9, 40], 2))
    live.add(asked("scored", [5, 9, 40], 2, top=3, echo=True))
    events = [event for _ in range(2) for event in live.step()]
    (echo,) = (event for event in events if isinstance(event, Echo))
    assert echo.name == "scored" and [len(score.top) for score in echo.scores] == [3, 3]
    drawn = {(event.name, i // 2): event for i, event in enumerate(e for e in events if isinstance(e, Drawn))}
    assert all((event.scored is not None) == (event.name == "scored") for event in drawn.values())
    assert {drawn["plain", i].token == drawn["scored", i].token for i in (0, 1)} == {True}


def test_models_are_called_by_readable_names(trained: tuple[RunDir, Any], tmp_path: Path) -> None:
    run, _ = trained
    folders = [str(tmp_path / "a" / "model"), str(tmp_path / "b" / "model"), str(tmp_path / "mine")]
    assert ids([*folders, "smollm2-135m-instruct", str(run.checkpoints / "2")]) == [
        "a/model",
        "b/model",
        "mine",
        "smollm2-135m-instruct",
        f"{run.id}:2",
    ]
    with pytest.raises(ValueError, match="names .*mine twice"):
        ids([folders[2], folders[2]])


def test_two_ranks_serve_a_base_and_its_adapters(trained: tuple[RunDir, Any]) -> None:
    """The prompts of an answer with attributes are those of a conditioned conversation."""
    run, _ = trained
    base = run.path.parents[1] / "base"
    words = ["model.tensor_parallel=2", "backend.ranks_per_node=2", "job.slots=2"]
    with served(run.path.parents[1], [run.id, f"{run.id}:1", str(base)], *words) as endpoint:
        client = endpoint.client
        listed = {model.id: model for model in client.models()}
        assert list(listed) == [f"{run.id}:2", f"{run.id}:1", "base"]
        targets = listed[f"{run.id}:2"].targets
        assert targets is not None and (targets.steering, targets.counts) == (STEERING, (2, 1))
        assert listed["base"].targets is None
        told = {name: [delta.token_ids for delta in client.stream(name, QUESTION, max_tokens=8)] for name in listed}
        assert len({str(each) for each in told.values()}) == 3
        given = [[delta.token_ids for delta in client.stream(f"{run.id}:2", QUESTION, max_tokens=8, attributes={"verbosity": v})] for v in (0, 4)]
        assert given[0] != given[1]
        turns = conditioned([Message("user", QUESTION[0]["content"], ratings={"verbosity": 4})], STEERING)
        spelled = [{"role": turn.role, "content": turn.content} for turn in turns]
        assert [delta.token_ids for delta in client.stream(f"{run.id}:2", spelled, max_tokens=8)] == given[1]
        for attributes, said in (({"quality": 4}, "verbosity, humor"), ({"verbosity": 5}, "from 0 to 4"), ({}, "a rating")):
            with pytest.raises(Refused, match=said):
                next(client.stream(f"{run.id}:2", QUESTION, attributes=attributes))


def test_an_endpoint_ends_when_nobody_has_asked_for_long() -> None:
    assert [is_over(100.0, last, 60.0) for last in (100.0, 41.0, 39.0)] == [False, False, True]
    assert not is_over(1e9, 0.0, 0.0)


def test_what_waits_when_an_endpoint_ends_is_refused() -> None:
    """Also what comes afterwards."""

    async def ask(inbox: Inbox, then: Callable[[], None]) -> list[Any]:
        asyncio.get_running_loop().call_soon(then)
        return [part async for part in inbox.parts({"op": "answer"})]

    inbox = Inbox()
    refused = [{"kind": "refused", "message": "the endpoint is ending"}]
    assert asyncio.run(ask(inbox, inbox.close)) == refused
    assert asyncio.run(ask(inbox, lambda: None)) == refused
