"""The TensorRT-LLM engine's calls, against a strict stand-in for the package. That the package answers so is not shown here."""

from __future__ import annotations

import base64
import pickle
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from tests import models
from tests.rollout import fake_tensorrt_llm as fake
from workbench.rollout.base import Prompt, Sampling
from workbench.rollout.engines import tensorrt_llm
from workbench.rollout.engines.tensorrt_llm import Engine

WORDS = models.tokenizer()
WEIGHTS = {"embed": torch.ones(4, 8), "up": torch.ones(2, 8), "down": torch.ones(2, 4), "norm": torch.ones(8)}


def handles(tensors: tensorrt_llm.Named) -> dict[str, str]:
    """Names and shapes instead of places in GPU memory."""
    return {"GPU-0": base64.b64encode(pickle.dumps([(name, tuple(tensor.shape), tensor.dtype) for name, tensor in tensors])).decode()}


def read(handle: dict[str, str]) -> list[tuple[str, tuple[int, ...], torch.dtype]]:
    return pickle.loads(base64.b64decode(handle["GPU-0"]))


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> fake.World:
    return fake.install(monkeypatch)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Engine]]:
    engines = []

    def make(slots: int = 4) -> Engine:
        engines.append(Engine(tmp_path, WEIGHTS.items, WORDS, slots=slots, max_length=64, handles=handles))
        return engines[-1]

    yield make
    for engine in engines:
        engine.close()


@pytest.mark.parametrize("newer", [False, True])
def test_the_engine_is_made_with_the_extension_for_rl(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, start: Callable[..., Engine], newer: bool
) -> None:
    world = fake.install(monkeypatch, newer)
    start()
    (settings,) = world.settings
    assert settings == {
        "model": str(tmp_path),
        "backend": "pytorch",
        "orchestrator_type": "ray",
        "ray_worker_extension_cls": "tensorrt_llm.llmapi.rlhf_utils.WorkerExtension",
        "tensor_parallel_size": 1,
        "dtype": "bfloat16",
        "sampler_type": "TorchSampler",
        "max_seq_len": 64,
        "max_input_len": 64,
        "max_batch_size": 4,
        "max_num_tokens": 8192,
        "allreduce_strategy": "NCCL",
    }
    assert world.calls == [("setup_async",)]


def test_one_engine_takes_weights_again_and_again(monkeypatch: pytest.MonkeyPatch, world: fake.World, start: Callable[..., Engine]) -> None:
    """Buckets of at most 80 bytes of bf16: 64, 32 + 16, 16 more would be 64, which fits; each refit is finished, then the cache is forgotten."""
    monkeypatch.setattr(tensorrt_llm, "BUCKET_BYTES", 80)
    engine = start()
    for version in (1, 2, 3):
        world.calls.clear()
        engine.update_weights(version)
        assert world.names() == ["update_weights", "update_weights", "collective_rpc", "collective_rpc"]
        bf16 = torch.bfloat16
        assert read(world.calls[0][1]) == [("embed", (4, 8), bf16)]
        assert read(world.calls[1][1]) == [("up", (2, 8), bf16), ("down", (2, 4), bf16), ("norm", (8,), bf16)]
        assert world.calls[2:] == [("collective_rpc", "update_weights", (None,)), ("collective_rpc", "reset_prefix_cache", ())]
        assert len(list(engine.generate([Prompt([5], samples=2)], Sampling(3), version))) == 2
    assert (world.engines, engine.version, engine.profile.refits) == (1, 3, 3)


@pytest.mark.parametrize("plain", [False, True])
def test_answers_come_with_their_own_tokens_logprobs(world: fake.World, start: Callable[..., Engine], plain: bool) -> None:
    """Whether the library gives a number a token, or a table in which another token is likelier."""
    world.plain_logprobs = plain
    prompts = [Prompt([20, 1], key=7, samples=3), Prompt([10, 1, 2], key=8, samples=2, max_tokens=2)]
    engine = start()
    found = list(engine.generate(iter(prompts), Sampling(5, stop_tokens=frozenset({21})), 3))
    assert [(r.key, r.sample, r.tokens, r.finish_reason) for r in found] == [
        (8, 0, [10, 10], "length"),
        (8, 1, [11, 11], "length"),
        (7, 0, [20] * 5, "length"),
        (7, 1, [21], "stop"),
        (7, 2, [22] * 5, "length"),
    ]
    assert all(r.logprobs == [-0.5] * len(r.tokens) for r in found)
    assert (engine.profile.prefill_tokens, engine.profile.decode_tokens) == (5, 15)


def test_what_is_asked_for(world: fake.World, start: Callable[..., Engine]) -> None:
    engine = start()
    sampling = Sampling(5, temperature=1.0, top_k=3, top_p=0.9, stop_tokens=frozenset({9, 2}), stop_strings=("END",))
    for seed in (1, 1, 2):
        list(engine.generate([Prompt([1, 2], key=4, samples=2)], sampling, seed))
    first, again, other = (call[2] for call in world.calls[1:])
    assert world.calls[1][1] == [1, 2]
    assert {**vars(first), "seed": None} == {
        "n": 2,
        "temperature": 1.0,
        "top_k": 3,
        "top_p": 0.9,
        "seed": None,
        "max_tokens": 5,
        "stop_token_ids": [2, 9],
        "stop": ["END"],
        "include_stop_str_in_output": True,
        "detokenize": False,
        "end_id": -1,
        "pad_id": WORDS.pad_token_id or 0,
        "logprobs": 1,
        "logprobs_mode": "raw",
    }
    assert first == again
    assert first.seed != other.seed


@pytest.mark.parametrize(
    "sampling, modes, said",
    [
        (Sampling(5, temperature=0.5), False, "no log-probabilities at temperature=0.5 top_k=0 top_p=1 in the version installed here"),
        (Sampling(5, temperature=0.5, top_k=3), True, "no log-probabilities at temperature=0.5 top_k=3 top_p=1 with top_k or top_p"),
        (Sampling(5, top_p=0.9, kept=True), True, "does not say which tokens temperature=1 top_k=0 top_p=0.9 kept"),
    ],
)
def test_log_probabilities_of_another_distribution_are_refused(
    world: fake.World, start: Callable[..., Engine], monkeypatch: pytest.MonkeyPatch, sampling: Sampling, modes: bool, said: str
) -> None:
    """What the library reports must be of what it drew from; a temperature goes with the mode that says so, in versions that have it."""
    if not modes:
        monkeypatch.delitem(sys.modules, "tensorrt_llm.sampling_params")
    engine = start()
    with pytest.raises(ValueError, match=said):
        list(engine.generate([Prompt([1, 2])], sampling, 0))
    if modes:
        list(engine.generate([Prompt([1, 2])], Sampling(5, temperature=0.5), 0))
        assert world.calls[-1][2].logprobs_mode == "processed"


def test_greedy_answers_are_asked_for_once(world: fake.World, start: Callable[..., Engine]) -> None:
    found = list(start().generate([Prompt([5], samples=3)], Sampling(2, temperature=0), 0))
    assert [(r.sample, r.tokens) for r in found] == [(0, [5, 5]), (1, [5, 5]), (2, [5, 5])]
    assert [(call[2].n, call[2].temperature, call[2].top_k) for call in world.calls[1:]] == [(1, 0.0, None)]


def test_prompts_are_taken_as_there_is_room(world: fake.World, start: Callable[..., Engine]) -> None:
    """Four places, prompts of two samples: two prompts at a time, so that another engine may have the rest of the queue."""
    taken = []

    def queue() -> Iterator[Prompt]:
        for key in range(6):
            taken.append(key)
            yield Prompt([3], key, samples=2)

    answers = start().generate(queue(), Sampling(2), 0)
    next(answers)
    assert taken == [0, 1]
    assert len(list(answers)) == 11
    assert world.most_in_flight == 4


def test_answers_that_nobody_waits_for_are_called_off(world: fake.World, start: Callable[..., Engine]) -> None:
    engine = start()
    answers: Any = engine.generate([Prompt([1], 0), Prompt([200], 1)], Sampling(2), 0)
    assert next(answers).key == 0
    answers.close()
    assert len(list(engine.generate([Prompt([1])], Sampling(2), 0))) == 1


def test_a_stop_string_cuts_where_the_library_saw_none(world: fake.World, start: Callable[..., Engine]) -> None:
    (a,) = WORDS.encode("a", add_special_tokens=False)
    (found,) = start().generate([Prompt([a])], Sampling(6, stop_strings=("aaa",)), 0)
    assert (found.tokens, len(found.logprobs), found.finish_reason) == ([a] * 3, 3, "stop")


def test_memory_is_given_back_and_the_weights_with_it(world: fake.World, start: Callable[..., Engine]) -> None:
    """A refit needs the memory, so it wakes the engine; waking without one sends the weights again."""
    engine = start()
    world.calls.clear()
    refit = ["update_weights", "collective_rpc", "collective_rpc"]
    engine.release()
    engine.update_weights(1)
    engine.resume()
    assert world.names() == ["release", "resume", *refit]
    assert world.calls[0] == ("release", ["model", "kv_cache"])
    assert world.calls[1] == ("resume", ["model", "kv_cache"])
    world.calls.clear()
    engine.release()
    engine.release()
    engine.resume()
    engine.resume()
    assert world.names() == ["release", "resume", *refit]
    assert engine.version == 1


@pytest.mark.parametrize(("reason", "match"), [("cancelled", "'cancelled'; expected stop or length"), (None, "max_length=64")])
def test_what_cannot_be_learnt_from_is_refused(world: fake.World, start: Callable[..., Engine], reason: str | None, match: str) -> None:
    world.finish_reason = reason
    with pytest.raises((RuntimeError, ValueError), match=match):
        list(start().generate([Prompt([5])], Sampling(2 if reason else 64), 0))


def test_without_the_package_the_user_is_told_how_to_get_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt_llm", None)
    with pytest.raises(ValueError, match=r"needs an NVIDIA GPU and the package tensorrt-llm .*: pip install tensorrt-llm"):
        Engine(tmp_path, WEIGHTS.items, WORDS)


@pytest.mark.gpu
def test_handles_name_this_gpu_and_every_tensor() -> None:
    found = tensorrt_llm.ipc_handles([("a", torch.ones(3, device="cuda")), ("b", torch.ones(2, 2, device="cuda"))])
    (name,) = found
    assert name.startswith("GPU-")
    assert [(key, callable(rebuild)) for key, (rebuild, _) in pickle.loads(base64.b64decode(found[name]))] == [("a", True), ("b", True)]
