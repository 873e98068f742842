"""TensorRT-LLM on this rank's GPU: an engine beside the policy that is built once and takes new weights in place.

The engine is TensorRT-LLM's AsyncLLM, whose worker is a process of its own with the library's own extension for RL
(`tensorrt_llm.llmapi.rlhf_utils.WorkerExtension`). Weights go to it by CUDA IPC: the worker reads the policy's GPU memory, no byte passes
through a file or the host.
"""

from __future__ import annotations

import asyncio
import base64
import pickle
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.multiprocessing.reductions import reduce_tensor
from transformers import PreTrainedTokenizerBase

from workbench.data.tokenizer import decode
from workbench.engine import device, quantisation
from workbench.engine.gather import gathered
from workbench.rollout.base import Ingredients, Profile, Prompt, Rollout, Sampling

BUCKET_BYTES = 512 * 2**20
"""Of weights on their way at a time."""
TAGS = ("model", "kv_cache")
"""What the engine gives back while the policy trains, by TensorRT-LLM's names."""

_INSTEAD = "rollout.name=megatron"

Named = Sequence[tuple[str, Tensor]]


def ipc_handles(tensors: Named) -> dict[str, str]:
    """CUDA IPC handles of tensors on this GPU, by its UUID, as the worker extension reads them.

    They are pickled; the only reader is the worker that this process has started itself.
    """
    gpu = f"GPU-{torch.cuda.get_device_properties(torch.cuda.current_device()).uuid}"
    handles = [(name, reduce_tensor(tensor)) for name, tensor in tensors]
    return {gpu: base64.b64encode(pickle.dumps(handles)).decode()}


class Engine:
    """One AsyncLLM. `weights` gives the policy's, by Hugging Face names; prompt and answer have at most `max_length` tokens together.

    Raises:
        ValueError: TensorRT-LLM is not installed, or this rank's GPU is not the first one it sees (the worker takes that one).
    """

    def __init__(
        self,
        directory: Path,
        weights: Callable[[], Iterable[tuple[str, Tensor]]],
        tokenizer: PreTrainedTokenizerBase,
        slots: int = 32,
        max_length: int = 4096,
        dtype: torch.dtype = torch.bfloat16,
        cache_share: float = 0.3,
        handles: Callable[[Named], dict[str, str]] = ipc_handles,
    ):
        try:
            tensorrt_llm = import_module("tensorrt_llm")
            settings = import_module("tensorrt_llm.llmapi")
        except ImportError as error:
            from workbench.machines.doctor import TENSORRT_LLM

            raise ValueError(
                f"rollout.name=tensorrt_llm needs an NVIDIA GPU and the package tensorrt-llm ({error}): {TENSORRT_LLM}; rollout.name=megatron needs neither"
            ) from error
        if torch.cuda.is_available() and torch.cuda.current_device():
            raise ValueError(
                "rollout.name=tensorrt_llm: its worker takes the first GPU; start each rank with its own GPU alone in CUDA_VISIBLE_DEVICES"
            )
        self.weights, self.tokenizer, self.slots, self.max_length, self.dtype, self.handles = weights, tokenizer, slots, max_length, dtype, handles
        self.profile = Profile()
        self.version = 0
        self._asleep = False
        self._sampling_params = tensorrt_llm.SamplingParams
        self._processed = _processed()
        self._loop = asyncio.new_event_loop()
        self.llm = self._loop.run_until_complete(
            _started(
                tensorrt_llm.AsyncLLM,
                model=str(directory),
                backend="pytorch",
                orchestrator_type="ray",
                ray_worker_extension_cls="tensorrt_llm.llmapi.rlhf_utils.WorkerExtension",
                tensor_parallel_size=1,
                dtype=str(dtype).removeprefix("torch."),
                sampler_type="TorchSampler",  # the only one that gives the sampled tokens' log-probabilities
                max_seq_len=max_length,
                max_input_len=max_length,  # 1024 without it
                max_batch_size=slots,
                max_num_tokens=max(8192, max_length),
                kv_cache_config=settings.KvCacheConfig(enable_block_reuse=True, free_gpu_memory_fraction=cache_share),
                allreduce_strategy="NCCL",
                **_sleeps(),
            )
        )

    def generate(self, prompts: Iterable[Prompt], sampling: Sampling, seed: int) -> Iterator[Rollout]:
        """The answers to each prompt when its last sample has ended. About `slots` answers are asked for at a time.

        The draws are TensorRT-LLM's own: they depend on the batch.

        Raises:
            ValueError: a prompt and its answer would be longer than the engine's `max_length`.
            RuntimeError: an answer ended neither by a stop nor by its length, or has no log-probabilities.
        """
        waiting = iter(prompts)
        asked: dict[asyncio.Task[Any], Prompt] = {}
        try:
            while True:
                while sum(prompt.samples for prompt in asked.values()) < self.slots and (prompt := next(waiting, None)):
                    asked[self._loop.create_task(self._ask(prompt, sampling, seed))] = prompt
                if not asked:
                    return
                started = time.perf_counter()
                done, _ = self._loop.run_until_complete(asyncio.wait(asked, return_when=asyncio.FIRST_COMPLETED))
                self.profile.decode_s += time.perf_counter() - started
                for task in done:
                    yield from self._rollouts(asked.pop(task), task.result(), sampling)
        finally:
            for task in asked:
                task.cancel()
            if asked:
                self._loop.run_until_complete(asyncio.gather(*asked, return_exceptions=True))

    def update_weights(self, version: int) -> None:
        """The policy's weights in place of the engine's, a bucket at a time. What the cache knows of the old ones is forgotten."""
        self._wake()
        started = time.perf_counter()
        self._loop.run_until_complete(self._refit())
        self.version = version
        self.profile.refits += 1
        self.profile.refit_s += time.perf_counter() - started

    def release(self) -> None:
        if not self._asleep:
            self._loop.run_until_complete(self.llm.release(list(TAGS)))
            self._asleep = True

    def resume(self) -> None:
        """Memory back; and the weights, since the library may have let them go with it."""
        if self._asleep:
            self.update_weights(self.version)

    def close(self) -> None:
        self.llm.shutdown()
        self._loop.close()

    def _wake(self) -> None:
        if self._asleep:
            self._loop.run_until_complete(self.llm.resume(list(TAGS)))
            self._asleep = False

    async def _refit(self) -> None:
        for bucket in _buckets(self.weights(), self.dtype):
            device.synchronize()
            await self.llm.update_weights(self.handles(bucket))
        await self.llm.collective_rpc("update_weights", args=(None,))
        await self.llm.collective_rpc("reset_prefix_cache")

    async def _ask(self, prompt: Prompt, sampling: Sampling, seed: int) -> Any:
        params = self._sampling_params(**self._fields(prompt, sampling, seed))
        return await self.llm.generate_async(inputs=list(prompt.tokens), sampling_params=params)

    def _fields(self, prompt: Prompt, sampling: Sampling, seed: int) -> dict[str, Any]:
        """A prompt's SamplingParams. Greedy answers are all the same, and the library refuses to give several."""
        self.check(sampling)
        limit = min(sampling.max_tokens, prompt.max_tokens or sampling.max_tokens)
        if len(prompt.tokens) + limit > self.max_length:
            raise ValueError(
                f"prompt {prompt.key} has {len(prompt.tokens)} tokens and asks for {limit}; the engine holds max_length={self.max_length}"
            )
        greedy = sampling.temperature == 0
        drawn = {
            "n": prompt.samples,
            "temperature": float(sampling.temperature),
            "top_p": sampling.top_p,
            "top_k": sampling.top_k,
            "seed": int(np.random.SeedSequence((seed, prompt.key)).generate_state(1)[0]),
        }
        return {
            **({"n": 1, "temperature": 0.0} if greedy else drawn),
            "max_tokens": limit,
            "stop_token_ids": sorted(sampling.stop_tokens) or None,
            "stop": list(sampling.stop_strings) or None,
            "include_stop_str_in_output": True,
            "detokenize": False,
            "end_id": -1,
            "pad_id": self.tokenizer.pad_token_id or 0,
            "logprobs": 1,
            **({"logprobs_mode": self._processed} if sampling.temperature not in (0, 1) else {}),
        }

    def check(self, sampling: Sampling) -> None:
        """The library reports log-probabilities of softmax(logits), or (in versions that have the mode) of what it drew from, but not from which tokens.

        Raises:
            ValueError: the sampling wants others.
        """
        cut = sampling.top_k > 0 or sampling.top_p < 1
        asked = f"temperature={sampling.temperature:g} top_k={sampling.top_k} top_p={sampling.top_p:g}"
        if sampling.kept:
            raise ValueError(f"rollout.name=tensorrt_llm does not say which tokens {asked} kept: set algorithm.logprobs_of=policy, or {_INSTEAD}")
        if sampling.temperature not in (0, 1) and (cut or self._processed is None):
            without = "with top_k or top_p" if cut else "in the version installed here"
            raise ValueError(f"rollout.name=tensorrt_llm has no log-probabilities at {asked} {without}: set algorithm.temperature=1, or {_INSTEAD}")

    def _rollouts(self, prompt: Prompt, output: Any, sampling: Sampling) -> Iterator[Rollout]:
        completions = list(output.outputs) * (prompt.samples if sampling.temperature == 0 else 1)
        self.profile.prefill_tokens += len(prompt.tokens)
        for sample, completion in enumerate(completions):
            rollout = self._rollout(prompt, sample, completion, sampling)
            self.profile.decode_tokens += len(rollout.tokens)
            yield rollout

    def _rollout(self, prompt: Prompt, sample: int, completion: Any, sampling: Sampling) -> Rollout:
        if completion.finish_reason not in ("stop", "length"):
            raise RuntimeError(f"TensorRT-LLM ended an answer with {completion.finish_reason!r}; expected stop or length (see its worker's log)")
        tokens, logprobs = list(completion.token_ids), completion.logprobs
        if logprobs is None or len(logprobs) != len(tokens):
            raise RuntimeError(f"TensorRT-LLM gave {len(logprobs or ())} log-probabilities for {len(tokens)} tokens; expected one each")
        values = [float(entry[token].logprob if isinstance(entry, dict) else entry) for token, entry in zip(tokens, logprobs, strict=True)]
        size = self._end(tokens, sampling.stop_strings)
        stopped = size is not None or completion.finish_reason == "stop"
        return Rollout(tokens[:size], values[:size], "stop" if stopped else "length", prompt.key, sample)

    def _end(self, tokens: Sequence[int], strings: Sequence[str]) -> int | None:
        """How many tokens there are up to the first stop string. The library sees one only where its tokens are those that it has alone."""
        if not strings or not _says(decode(self.tokenizer, tokens), strings):
            return None
        return next(size for size in range(1, len(tokens) + 1) if _says(decode(self.tokenizer, tokens[:size]), strings))


async def _started(make: Callable[..., Any], **settings: Any) -> Any:
    """The engine, made where an event loop runs, as its own tasks want."""
    llm = make(**settings)
    await llm.setup_async()
    return llm


def _sleeps() -> dict[str, Any]:
    """The setting that lets memory be released: a switch in TensorRT-LLM 1.2, a configuration later."""
    try:
        later = getattr(import_module("tensorrt_llm.llmapi.llm_args"), "SleepConfig", None)
    except ImportError:
        later = None
    return {"sleep_config": later()} if later else {"enable_sleep": True}


def _processed() -> Any:
    """The mode that reports log-probabilities of the distribution drawn from; None in versions without it."""
    try:
        modes = getattr(import_module("tensorrt_llm.sampling_params"), "LogprobMode", None)
    except ImportError:
        return None
    return getattr(modes, "PROCESSED", None)


def _buckets(weights: Iterable[tuple[str, Tensor]], dtype: torch.dtype) -> Iterator[list[tuple[str, Tensor]]]:
    """The weights in groups of at most BUCKET_BYTES, or of one that is larger."""
    bucket: list[tuple[str, Tensor]] = []
    size = 0
    for name, tensor in weights:
        cast = tensor.detach().to(dtype).contiguous()
        if bucket and size + cast.nbytes > BUCKET_BYTES:
            yield bucket
            bucket, size = [], 0
        bucket.append((name, cast))
        size += cast.nbytes
    if bucket:
        yield bucket


def _says(text: str, strings: Sequence[str]) -> bool:
    return any(string in text for string in strings)


def build(of: Ingredients) -> Engine:
    """On a copy of the policy's weights, gathered from all ranks."""
    if quantisation.of(of.policy.hf_config.to_dict()) is not None:
        raise ValueError(
            f"rollout.name=tensorrt_llm: {of.directory} has quantised weights, which TensorRT-LLM would compute with; use rollout.name=megatron"
        )
    engine = Engine(of.directory, lambda: gathered(of.policy.weights(), of.policy.hf_config), of.tokenizer, of.slots)
    if of.sampling:
        engine.check(of.sampling)
    return engine
