"""A strict stand-in for the package tensorrt_llm: it knows the calls of workbench/rollout/tensorrt_llm.py, writes them down, and refuses any other."""

from __future__ import annotations

import asyncio
import sys
import types
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal

import pytest


@dataclass(frozen=True, kw_only=True)
class KvCacheConfig:
    enable_block_reuse: bool
    free_gpu_memory_fraction: float


@dataclass(frozen=True)
class SleepConfig:
    restore_modes: dict[str, str] | None = None


@dataclass(frozen=True, kw_only=True)
class SamplingParams:
    max_tokens: int
    stop_token_ids: list[int] | None
    stop: list[str] | None
    include_stop_str_in_output: Literal[True]
    detokenize: Literal[False]
    end_id: int
    pad_id: int
    logprobs: int
    temperature: float
    logprobs_mode: Literal["raw", "processed"] = "raw"
    n: int = 1
    top_p: float | None = None
    top_k: int | None = None
    seed: int | None = None

    def __post_init__(self) -> None:
        assert self.n == 1 or not (self.top_k is None and self.top_p is None), "greedy decoding does not allow multiple returns"


class LogprobMode(StrEnum):
    RAW = "raw"
    PROCESSED = "processed"


@dataclass
class Logprob:
    logprob: float
    rank: int


@dataclass
class Completion:
    token_ids: list[int]
    logprobs: Sequence[Any] | None
    finish_reason: str | None


@dataclass
class Output:
    outputs: list[Completion]


@dataclass
class World:
    """What was called, and how the fake answers: a prompt that begins with t gets, for its sample s, the token t + s up to its limit."""

    calls: list[tuple[Any, ...]] = field(default_factory=list)
    settings: list[dict[str, Any]] = field(default_factory=list)
    engines: int = 0
    plain_logprobs: bool = False
    finish_reason: str | None = None
    in_flight: int = 0
    most_in_flight: int = 0

    def names(self) -> list[str]:
        return [call[0] for call in self.calls]


def install(monkeypatch: pytest.MonkeyPatch, newer: bool = False) -> World:
    """Put the package into sys.modules; `newer` has SleepConfig instead of enable_sleep."""
    world = World()

    class AsyncLLM:
        def __init__(
            self,
            *,
            model: str,
            backend: str,
            orchestrator_type: str,
            ray_worker_extension_cls: str,
            tensor_parallel_size: int,
            dtype: str,
            sampler_type: str,
            max_seq_len: int,
            max_input_len: int,
            max_batch_size: int,
            max_num_tokens: int,
            kv_cache_config: KvCacheConfig,
            allreduce_strategy: str,
            **sleep: Any,
        ):
            given = dict(locals())
            asyncio.get_running_loop()
            assert isinstance(kv_cache_config, KvCacheConfig)
            assert sleep == ({"sleep_config": SleepConfig()} if newer else {"enable_sleep": True})
            world.settings.append({name: given[name] for name in given if name not in ("self", "world", "newer", "kv_cache_config", "sleep")})
            world.engines += 1
            self._ready, self._asleep, self._open = False, False, False

        async def setup_async(self) -> None:
            assert not self._ready
            self._ready = True
            world.calls.append(("setup_async",))

        async def generate_async(self, *, inputs: list[int], sampling_params: SamplingParams) -> Output:
            assert self._ready and not self._asleep and not self._open, "asked while asleep, or within a refit"
            assert isinstance(inputs, list) and isinstance(sampling_params, SamplingParams)
            world.calls.append(("generate_async", inputs, sampling_params))
            world.in_flight += sampling_params.n
            world.most_in_flight = max(world.most_in_flight, world.in_flight)
            await asyncio.sleep(0.001 * inputs[0])
            world.in_flight -= sampling_params.n
            return Output([self._completion(inputs[0] + s, sampling_params) for s in range(sampling_params.n)])

        def _completion(self, token: int, params: SamplingParams) -> Completion:
            reason = "stop" if token in (params.stop_token_ids or ()) else "length"
            tokens = [token] * (1 if reason == "stop" else params.max_tokens)
            likelier = {0: Logprob(-0.1, 1)}
            entries = [-0.5 if world.plain_logprobs else {**likelier, token: Logprob(-0.5, 2)} for _ in tokens]
            return Completion(tokens, entries, world.finish_reason or reason)

        async def update_weights(self, weights: dict[str, str]) -> None:
            assert self._ready and not self._asleep, "the memory of the weights is not there"
            self._open = True
            world.calls.append(("update_weights", weights))

        async def collective_rpc(self, method: str, args: tuple[Any, ...] = ()) -> list[Any]:
            assert not self._asleep
            if method == "update_weights":
                assert args == (None,) and self._open
                self._open = False
            else:
                assert (method, args, self._open) == ("reset_prefix_cache", (), False)
            world.calls.append(("collective_rpc", method, args))
            return [None]

        async def release(self, tags: list[str]) -> None:
            assert not self._asleep and world.in_flight == 0
            self._asleep = True
            world.calls.append(("release", tags))

        async def resume(self, tags: list[str]) -> None:
            assert self._asleep
            self._asleep = False
            world.calls.append(("resume", tags))

        def shutdown(self) -> None:
            world.calls.append(("shutdown",))

    modules = {
        "tensorrt_llm": {"AsyncLLM": AsyncLLM, "SamplingParams": SamplingParams},
        "tensorrt_llm.sampling_params": {"LogprobMode": LogprobMode},
        "tensorrt_llm.llmapi": {"KvCacheConfig": KvCacheConfig},
        "tensorrt_llm.llmapi.llm_args": {"SleepConfig": SleepConfig} if newer else {},
    }
    for name, content in modules.items():
        module = types.ModuleType(name)
        vars(module).update(content)
        monkeypatch.setitem(sys.modules, name, module)
    return world
