"""transformers' generate, for architectures that the embedded decoder does not know: slower, and on a copy of the weights.

Batches are static: prompts are taken `slots` answers at a time, and a batch lasts as long as its longest answer. With tensor parallelism every
rank has the whole model and computes the same.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np
import torch
from torch import Tensor
from transformers import (
    AutoModelForCausalLM,
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    PretrainedConfig,
    PreTrainedTokenizerBase,
    StoppingCriteria,
    StoppingCriteriaList,
    StopStringCriteria,
)

from workbench.engine import device, hf, quantisation
from workbench.engine.gather import gathered
from workbench.engine.model_files import NO_CODE
from workbench.rollout.base import Ingredients, Profile, Prompt, Rollout, Sampling
from workbench.rollout.draw import draw, kept_tokens
from workbench.rundir.beats import moved


class Generating(Protocol):
    """What AutoModelForCausalLM gives, which it types more narrowly."""

    config: PretrainedConfig
    generation_config: GenerationConfig

    def named_parameters(self, *, remove_duplicate: bool = True) -> Iterator[tuple[str, torch.nn.Parameter]]: ...

    def to(self, device: torch.device | str) -> Generating: ...

    def eval(self) -> Generating: ...

    def generate(self, inputs: Tensor, **settings: object) -> object: ...


Asked = tuple[Prompt, int]
"""A prompt and the number of one of its samples."""


def _model(directory: Path, dtype: torch.dtype) -> Generating:
    """The model with the directory's weights; one whose weights are quantised with random ones, until the policy's are copied over them."""
    settings = hf.config(directory)
    if quantisation.of(settings.to_dict()) is None:
        return cast(Generating, AutoModelForCausalLM.from_pretrained(directory, dtype=dtype, use_safetensors=True, **NO_CODE))
    vars(settings).pop("quantization_config")
    return cast(Generating, AutoModelForCausalLM.from_config(settings, dtype=dtype, **NO_CODE))


class Engine:
    """A copy of the policy in transformers. `weights` gives the policy's, by Hugging Face names; `tokenizer` is needed for stop strings only."""

    def __init__(
        self,
        directory: Path,
        weights: Callable[[], Iterable[tuple[str, Tensor]]],
        tokenizer: PreTrainedTokenizerBase | None,
        slots: int = 32,
        dtype: torch.dtype = torch.float32,
    ):
        self.weights, self.tokenizer, self.slots = weights, tokenizer, slots
        self.model = _model(directory, dtype).to(device.current()).eval()
        self.model.generation_config = GenerationConfig()  # the model's own would add to what is asked for (say, a repetition penalty)
        self.profile = Profile()

    @torch.no_grad()
    def generate(self, prompts: Iterable[Prompt], sampling: Sampling, seed: int) -> Iterator[Rollout]:
        """The answers of each batch when its longest has ended. Raises ValueError for stop strings without a tokenizer."""
        if sampling.stop_strings and self.tokenizer is None:
            raise ValueError("stop strings need a tokenizer")
        asked = ((prompt, sample) for prompt in prompts for sample in range(prompt.samples))
        while batch := list(itertools.islice(asked, self.slots)):
            yield from self._answers(batch, sampling, seed)

    @torch.no_grad()
    def update_weights(self, version: int) -> None:
        """Copy the policy's weights over this engine's.

        Raises:
            ValueError: they are not the same model's; the message names the tensor.
        """
        started = time.perf_counter()
        ours = dict(self.model.named_parameters(remove_duplicate=False))
        filled: set[int] = set()
        other: dict[str, Tensor] = {}
        for name, tensor in self.weights():
            if name in ours:
                ours[name].copy_(tensor)
                filled.add(ours[name].data_ptr())
            else:
                other[name] = tensor.to("cpu", copy=True)
        if other:
            filled |= self._convert(other, ours)
        missing = next((name for name, parameter in ours.items() if parameter.data_ptr() not in filled), None)
        if missing:
            raise ValueError(f"weights of version {version} have nothing for {missing}; the engine's model is another one than the policy")
        device.synchronize()
        self.profile.refits += 1
        self.profile.refit_s += time.perf_counter() - started

    def release(self) -> None:
        """The weights leave the GPU; the caches of a batch live no longer than it."""
        self.model.to("cpu")

    def resume(self) -> None:
        self.model.to(device.current())

    def close(self) -> None:
        del self.model

    def _convert(self, other: dict[str, Tensor], ours: dict[str, torch.nn.Parameter]) -> set[int]:
        """Fill what transformers keeps in another shape than files do (a mixture's experts in one tensor): its own loader converts them."""
        loader: Any = type(self.model)
        converted, report = loader.from_pretrained(None, config=self.model.config, state_dict=other, output_loading_info=True, **NO_CODE)
        if report["unexpected_keys"]:
            raise ValueError(f"transformers' {loader.__name__} has no weight {min(report['unexpected_keys'])!r}")
        given = {name: tensor for name, tensor in converted.named_parameters() if name not in report["missing_keys"]}
        for name, tensor in given.items():
            ours[name].copy_(tensor)
        return {ours[name].data_ptr() for name in given}

    def _answers(self, batch: Sequence[Asked], sampling: Sampling, seed: int) -> list[Rollout]:
        """A batch, left padded, through `generate`."""
        started = time.perf_counter()
        lengths = [len(prompt.tokens) for prompt, _ in batch]
        longest = max(lengths)
        limits = [min(sampling.max_tokens, prompt.max_tokens or sampling.max_tokens) for prompt, _ in batch]
        padded = [[*[0] * (longest - len(prompt.tokens)), *prompt.tokens] for prompt, _ in batch]
        real = [[int(i >= longest - length) for i in range(longest)] for length in lengths]
        draws = [np.random.default_rng((seed, prompt.key, sample)).random(limit) for (prompt, sample), limit in zip(batch, limits, strict=True)]
        drawn = _Draw(draws, sampling)
        strings = StopStringCriteria(cast(PreTrainedTokenizerBase, self.tokenizer), list(sampling.stop_strings)) if sampling.stop_strings else None
        ends = _Ends(longest, limits, sampling.stop_tokens, strings)
        self.model.generate(
            torch.tensor(padded, device=device.current()),
            attention_mask=torch.tensor(real, device=device.current()),
            generation_config=GenerationConfig(max_new_tokens=max(limits), do_sample=False, pad_token_id=0),
            logits_processor=LogitsProcessorList([drawn]),
            stopping_criteria=StoppingCriteriaList([ends]),
        )
        tokens, logprobs = torch.stack(drawn.tokens, dim=1).tolist(), torch.stack(drawn.logprobs, dim=1).tolist()
        sizes, stopped = ends.size_B.tolist(), ends.stopped_B.tolist()
        self._count(lengths, sizes, drawn.first_s - started, time.perf_counter() - drawn.first_s)
        return [
            Rollout(
                tokens[i][: sizes[i]],
                logprobs[i][: sizes[i]],
                "stop" if stopped[i] else "length",
                prompt.key,
                sample,
                [kept[i] for kept in drawn.kept[: sizes[i]]] if sampling.kept else None,
            )
            for i, (prompt, sample) in enumerate(batch)
        ]

    def _count(self, lengths: Sequence[int], sizes: Sequence[int], prefill_s: float, decode_s: float) -> None:
        """The first token of each answer comes of its prefill, the others each of a step."""
        decoded = sum(sizes) - len(sizes)
        self.profile.prefill_tokens += sum(lengths)
        self.profile.prefill_s += prefill_s
        self.profile.decode_tokens += decoded
        self.profile.decode_s += decode_s
        self.profile.busy += decoded
        self.profile.slot_steps += self.slots * (max(sizes) - 1)


class _Draw(LogitsProcessor):
    """Draws each row's token by its own uniform numbers, and leaves `generate` no other choice.

    `generate` itself draws by one generator for the whole batch, so that an answer would depend on its neighbours.
    """

    def __init__(self, draws: Sequence[np.ndarray], sampling: Sampling):
        self.tokens: list[Tensor] = []
        self.logprobs: list[Tensor] = []
        self.kept: list[list[np.ndarray]] = []
        self.first_s = 0.0
        self._sampling = sampling
        longest = max(map(len, draws))
        uniform_BT = np.stack([np.pad(row, (0, longest - len(row))) for row in draws])
        self._uniform_BT = torch.tensor(uniform_BT, dtype=torch.float32, device=device.current())

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        if not self.tokens:
            device.synchronize()
            self.first_s = time.perf_counter()
        token_B, logprob_B, kept_BV = draw(scores.float(), self._sampling, self._uniform_BT[:, min(len(self.tokens), self._uniform_BT.shape[1] - 1)])
        moved()
        self.tokens.append(token_B)
        self.logprobs.append(logprob_B)
        if kept_BV is not None:
            self.kept.append(kept_tokens(kept_BV))
        return torch.full_like(scores, -torch.inf).scatter(1, token_B[:, None], 0.0)


class _Ends(StoppingCriteria):
    """Where each row ends: at a stop token, at a stop string in the answer (in the prompt it does not count), or at its own limit."""

    def __init__(self, prompt_length: int, limits: Sequence[int], stop_tokens: frozenset[int], strings: StopStringCriteria | None):
        here = device.current()
        self._prompt_length, self._strings = prompt_length, strings
        self._limit_B = torch.tensor(limits, device=here)
        self._stops = torch.tensor(sorted(stop_tokens), dtype=torch.long, device=here)
        self.size_B = torch.zeros(len(limits), dtype=torch.long, device=here)
        self.stopped_B = torch.zeros(len(limits), dtype=torch.bool, device=here)
        self._ended_B = torch.zeros(len(limits), dtype=torch.bool, device=here)

    def __call__(self, input_ids: torch.LongTensor, scores: tuple[Tensor] | None, **_: object) -> torch.BoolTensor:
        answer_BT = input_ids[:, self._prompt_length :]
        said_B = torch.isin(answer_BT[:, -1], self._stops)
        if self._strings:
            said_B |= self._strings(cast(torch.LongTensor, answer_BT), scores)
        self.stopped_B |= said_B & ~self._ended_B
        self.size_B += ~self._ended_B
        self._ended_B |= said_B | (answer_BT.shape[1] >= self._limit_B)
        return cast(torch.BoolTensor, self._ended_B.clone())


def build(of: Ingredients) -> Engine:
    """On a copy of the policy's weights, gathered from all ranks."""
    return Engine(of.directory, lambda: gathered(of.policy.weights(), of.policy.hf_config), of.tokenizer, of.slots)
