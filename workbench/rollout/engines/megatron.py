"""The embedded decoder: a KV-cache loop over the policy's own modules, so its weights are never copied and never stale.

Under pipeline parallelism it decodes a copy of the whole depth instead (`workbench.engine.reshard`), which `refill` renews.

Batches are continuous: an answer that has ended leaves its slot at once and a waiting prompt takes it. A prompt's samples share its prefill.
With tensor parallelism the ranks of a group call it together with the same prompts. On a GPU a step's kernels are launched as one (CUDA graphs).
"""

from __future__ import annotations

import contextlib
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from workbench.engine import device, graphs
from workbench.engine.layer import Attend, Heads, Rotary, hidden_states, rotary_tables
from workbench.engine.model import PackedGPT
from workbench.rollout.base import Ingredients, Profile, Prompt, Rollout, Sampling
from workbench.rollout.draw import Draw, draw, kept_tokens
from workbench.rundir.beats import moved

_ROUND = 64
"""The cache's length grows in steps of so many tokens."""
_PREFILL = 16_384
"""Prompts' tokens that go through the layers at once, but for a longer prompt."""
_KEPT = 1 / 16
"""Caches that take no more of the GPU than this stay while the policy trains, and with them what was recorded."""


@dataclass
class Slot:
    """An answer in the making. `length` counts the tokens in its cache, `draws` are its uniform numbers, one a token."""

    prompt: Prompt
    sampling: Sampling
    sample: int
    length: int
    limit: int
    draws: np.ndarray
    tokens: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    kept: list[np.ndarray] = field(default_factory=list)


class Engine:
    """Batched decoding of one model with up to `slots` answers at a time. `tokenizer` is needed for stop strings only.

    With `record` a GPU launches a step's kernels as one, where the model allows it.
    """

    def __init__(
        self, model: PackedGPT, tokenizer: Any = None, slots: int = 32, refill: Callable[[], None] | None = None, record: bool = graphs.POSSIBLE
    ):
        self.model, self.tokenizer, self.slots, self._refill = model, tokenizer, slots, refill
        self.config = model.config
        self.profile = Profile()
        self._keys: list[Tensor] = []
        self._values: list[Tensor] = []
        self._rotary: Rotary | None = None
        self._heads = Heads.of(self.config)
        # Experts wait for the device to count their tokens, and tensor-parallel ranks for each other.
        recordable = self._heads.alone and self.config.num_moe_experts is None
        self._recorder = graphs.Recorder(self._next) if record and recordable else None

    @torch.no_grad()
    def generate(self, prompts: Iterable[Prompt], sampling: Sampling, seed: int) -> Iterator[Rollout]:
        self.model.eval()
        if self._recorder:
            self._recorder.bound_to([*self.model.parameters()])
        waiting = _Waiting(prompts, self.slots)
        active: list[Slot] = []
        with _whole_sequences(self.model):
            while True:
                free = self.slots - len(active)
                if free and (not active or free >= max(1, self.slots // 8)) and (taken := waiting.take(free)):
                    for together in within_budget(taken):
                        self._begin(active, together, [sampling] * len(together), [seed] * len(together))
                elif active:
                    self._step(active)
                else:
                    return
                yield from self._settle(active)

    def update_weights(self, version: int) -> None:
        """Nothing to do where the weights are the policy's own."""
        started = time.perf_counter()
        if self._refill:
            self._refill()
            device.synchronize()  # another thread may decode next, in another stream
        self.profile.refits += 1
        self.profile.refit_s += time.perf_counter() - started

    def release(self) -> None:
        if self._recorder and sum(cache.nbytes for cache in (*self._keys, *self._values)) <= _KEPT * device.memory_bytes():
            return
        self.close()

    def resume(self) -> None: ...

    def close(self) -> None:
        self._keys, self._values = [], []
        if self._recorder:
            self._recorder.forget()

    def _begin(self, active: list[Slot], taken: Sequence[Prompt], samplings: Sequence[Sampling], seeds: Sequence[int]) -> None:
        """Prefill the prompts, laid end to end without padding, put each one's keys and values into a slot a sample, and draw the first tokens."""
        started = time.perf_counter()
        here = device.current()
        lengths = [len(prompt.tokens) for prompt in taken]
        limits = [min(each.max_tokens, prompt.max_tokens or each.max_tokens) for prompt, each in zip(taken, samplings, strict=True)]
        self._reserve(max(length + limit for length, limit in zip(lengths, limits, strict=True)), active)
        tokens_1T = torch.tensor([[token for prompt in taken for token in prompt.tokens]], device=here)
        positions_1T = torch.cat([torch.arange(length) for length in lengths])[None].to(here)
        rows = [row for row, prompt in enumerate(taken) for _ in range(prompt.samples)]
        attend = self._prefilling(lengths, rows, len(active))
        hidden_1TD = self._hidden(tokens_1T, positions_1T, attend)
        self._prefilled(taken, hidden_1TD[0])
        last_P = torch.tensor(lengths, device=here).cumsum(0) - 1
        logits_SV = self._logits(hidden_1TD[0, last_P])[torch.tensor(rows, device=here)]
        first = len(active)
        for row, prompt in enumerate(taken):
            for sample in range(prompt.samples):
                number = _first_sample(prompt) + sample
                draws = np.random.default_rng((seeds[row], prompt.key, number)).random(limits[row])
                active.append(Slot(prompt, samplings[row], number, lengths[row], limits[row], draws))
        self._draw(active[first:], logits_SV)
        moved()
        self.profile.prefill_tokens += sum(lengths)
        self.profile.prefill_s += time.perf_counter() - started

    def _prefilling(self, lengths: Sequence[int], rows: Sequence[int], first: int) -> Attend:
        """Attention of prompts that lie end to end, all together: each filled up to the longest. `rows` has each new slot's prompt.

        A slot may get more than its length: what lies beyond is never looked at.
        """
        longest, here = max(lengths), device.current()
        rows_S = torch.tensor(rows, device=here)
        place_T = torch.cat([row * longest + torch.arange(length) for row, length in enumerate(lengths)]).to(here)

        def filled(packed: Tensor) -> Tensor:  # [1, H, T, d] to [P, H, longest, d]
            out = packed.new_zeros(len(lengths) * longest, packed.shape[1], packed.shape[3])
            out[place_T] = packed[0].transpose(0, 1)
            return out.view(len(lengths), longest, *out.shape[1:]).transpose(1, 2)

        def attend(i: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
            query, key, value = filled(query), filled(key), filled(value)
            for cache, new in ((self._keys[i], key), (self._values[i], value)):
                cache[first : first + len(rows), :, :longest] = new[rows_S]
            out = _causal(query, key, value).transpose(1, 2).flatten(0, 1)
            return out[place_T].transpose(0, 1)[None]

        return attend

    def _step(self, active: list[Slot]) -> None:
        """One more token for every answer in the making."""
        started = time.perf_counter()
        rows, longest = len(active), max(slot.length for slot in active) + 1
        together = None if self._reads_logits(active) else _common(active)
        recorder = self._recorder if together else None
        if recorder:  # a few shapes, each recorded once
            rows, longest = min(_power_of_two(rows), self.slots), min(_stepped(longest), self._keys[0].shape[2])
        filled = [0] * (rows - len(active))
        last_2B = torch.tensor([[slot.tokens[-1] for slot in active] + filled, [slot.length for slot in active] + filled], device=device.current())
        if together is None:
            self._draw(active, self._next_logits(longest, last_2B))
        else:
            token_B, logprob_B = (recorder or self._next)((longest, _law(together)), last_2B, self._uniform(active, rows))
            _append(active, Draw(token_B.long(), logprob_B))
        for slot in active:
            slot.length += 1
        moved()
        self.profile.decode_tokens += len(active)
        self.profile.busy += len(active)
        self.profile.slot_steps += self.slots
        self.profile.decode_s += time.perf_counter() - started

    def _next(self, key: tuple[int, Sampling], last_2B: Tensor, uniform_B: Tensor) -> Tensor:
        """The next token of each slot, and its log-probability [2, B], from its last one and the length of its cache, which grows by that.

        `key` has the longest cache that is looked at and how to draw.
        """
        longest, sampling = key
        token_B, logprob_B, _ = draw(self._next_logits(longest, last_2B), sampling, uniform_B)
        return torch.stack([token_B.double(), logprob_B.double()])

    def _next_logits(self, longest: int, last_2B: Tensor) -> Tensor:
        """The logits [B, V] of each slot's next token; its cache grows by its last one."""
        token_B, length_B = last_2B
        count = len(token_B)
        rows_B = torch.arange(count, device=token_B.device)
        unseen_BL = torch.arange(longest, device=token_B.device) > length_B[:, None]
        mask = torch.zeros_like(unseen_BL, dtype=self._keys[0].dtype).masked_fill_(unseen_BL, -torch.inf)[:, None, None]

        def attend(i: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
            keys, values = self._keys[i], self._values[i]
            keys[rows_B, :, length_B] = key[:, :, 0]
            values[rows_B, :, length_B] = value[:, :, 0]
            groups = keys.shape[1]
            grouped = query.view(count, groups, -1, query.shape[-1])  # the heads of a group as its queries: no key is repeated
            out = F.scaled_dot_product_attention(grouped, keys[:count, :, :longest], values[:count, :, :longest], attn_mask=mask)
            return out.reshape(count, -1, 1, query.shape[-1])

        hidden_B1D = self._hidden(token_B[:, None], length_B[:, None], attend)
        return self._logits(hidden_B1D[:, -1])

    def _prefilled(self, taken: Sequence[Prompt], hidden_TD: Tensor) -> None:
        """Called with the last hidden states of prompts that lie end to end."""

    def _reads_logits(self, active: Sequence[Slot]) -> bool:
        """Whether `_draw` is to see the logits of these answers' next tokens."""
        return False

    def _draw(self, slots: Sequence[Slot], logits_SV: Tensor) -> None:
        """Each slot's next token, those that are drawn alike together."""
        if all(slot.sampling is slots[0].sampling for slot in slots):
            _append(slots, draw(logits_SV, slots[0].sampling, self._uniform(slots, len(slots))))
            return
        alike: dict[Sampling, list[int]] = {}
        for i, slot in enumerate(slots):
            alike.setdefault(_law(slot.sampling), []).append(i)
        for law, places in alike.items():
            chosen = [slots[i] for i in places]
            _append(chosen, draw(logits_SV[torch.tensor(places, device=logits_SV.device)], law, self._uniform(chosen, len(chosen))))

    def _uniform(self, slots: Sequence[Slot], rows: int) -> Tensor:
        """Each slot's next uniform number, and zeros up to `rows`."""
        numbers = [slot.draws[len(slot.tokens)] for slot in slots]
        return torch.tensor(numbers + [0.0] * (rows - len(slots)), dtype=torch.float32, device=device.current())

    def _settle(self, active: list[Slot]) -> Iterator[Rollout]:
        """The answers that have ended leave their slots."""
        for i in reversed(range(len(active))):
            slot, sampling = active[i], active[i].sampling
            stopped = slot.tokens[-1] in sampling.stop_tokens or self._said_stop(slot, sampling.stop_strings)
            if not stopped and len(slot.tokens) < slot.limit:
                continue
            self._leave(active, i)
            reason = "stop" if stopped else "length"
            yield Rollout(slot.tokens, slot.logprobs, reason, slot.prompt.key, slot.sample, slot.kept if sampling.kept else None)

    def _leave(self, active: list[Slot], i: int) -> None:
        """The slot is free; the last one's cache moves into the gap."""
        slot, moved = active[i], active.pop()
        if moved is not slot:
            active[i] = moved
            for cache in (*self._keys, *self._values):
                cache[i, :, : moved.length] = cache[len(active), :, : moved.length]

    def _said_stop(self, slot: Slot, strings: Sequence[str]) -> bool:
        if not strings:
            return False
        if self.tokenizer is None:
            raise ValueError("stop strings need a tokenizer")
        tail = self.tokenizer.decode(slot.tokens[-(max(map(len, strings)) + 4) :])
        return any(string in tail for string in strings)

    def _reserve(self, length: int, active: list[Slot]) -> None:
        """Caches that hold `length` tokens in every slot; what the active ones have so far is kept."""
        if self._keys and self._keys[0].shape[2] >= length:
            return
        if self._recorder:
            self._recorder.forget()
        heads = self._heads
        shape = (self.slots, heads.groups, -(-length // _ROUND) * _ROUND, heads.dim)
        dtype = self.model.embedding.word_embeddings.weight.dtype
        for caches in (self._keys, self._values):
            old = list(caches)
            caches[:] = [torch.zeros(shape, dtype=dtype, device=device.current()) for _ in self.model.decoder.layers]
            for new, was in zip(caches, old, strict=False):
                new[: len(active), :, : was.shape[2]] = was[: len(active)]
        self._rotary = rotary_tables(self.model, shape[2], dtype, device.current())

    def _hidden(self, tokens_BT: Tensor, positions_BT: Tensor, attend: Attend) -> Tensor:
        """The last hidden states [B, T, D]; `attend` keeps and uses the caches."""
        assert self._rotary is not None
        return hidden_states(self.model, self._heads, tokens_BT, positions_BT, self._rotary, attend)

    def _logits(self, hidden_BD: Tensor) -> Tensor:
        return self.model.logits(hidden_BD).float()


def build(of: Ingredients) -> Engine:
    """On the policy's own modules; on a copy of the whole depth under pipeline parallelism, and where it generates beside training.

    Raises:
        ValueError: expert parallelism.
    """
    settings = of.policy.settings
    if settings.expert_parallel > 1:
        raise ValueError("the embedded decoder has no expert parallelism: set model.expert_parallel=1")
    if settings.pipeline_parallel > 1 or of.beside_training:
        from workbench.engine.reshard import Whole

        whole = Whole(of.policy, of.group)
        return Engine(whole.model, of.tokenizer, of.slots, whole.refill)
    return Engine(of.policy.chunks[0], of.tokenizer, of.slots)


def _append(slots: Sequence[Slot], drawn: Draw) -> None:
    """The slots' next tokens; there may be more drawn than slots."""
    for slot, token, logprob in zip(slots, drawn.token_B.tolist(), drawn.logprob_B.tolist(), strict=False):
        slot.tokens.append(token)
        slot.logprobs.append(logprob)
    if drawn.kept_BV is not None:
        for slot, kept in zip(slots, kept_tokens(drawn.kept_BV), strict=True):
            slot.kept.append(kept)


def _common(active: Sequence[Slot]) -> Sampling | None:
    """How all of them are drawn, where that is one way, and one with a fixed shape: what is kept has none."""
    together = active[0].sampling
    return together if not together.kept and all(slot.sampling is together for slot in active) else None


def _power_of_two(count: int) -> int:
    return 1 << (count - 1).bit_length()


def _stepped(length: int) -> int:
    """The next of 128, 256, … 1024, 1280, 1536, …: the eighths of the next power of two, so that at most a quarter is looked at in vain."""
    step = max(128, _power_of_two(length) // 8)
    return -(-length // step) * step


def _law(sampling: Sampling) -> Sampling:
    """What of it decides a draw."""
    return replace(sampling, max_tokens=0, stop_tokens=frozenset(), stop_strings=())


def within_budget(prompts: Sequence[Prompt]) -> Iterator[list[Prompt]]:
    """The prompts in groups of at most _PREFILL tokens."""
    together: list[Prompt] = []
    for prompt in prompts:
        if together and sum(len(each.tokens) for each in (*together, prompt)) > _PREFILL:
            yield together
            together = []
        together.append(prompt)
    yield together


class _Waiting:
    """The prompts that are still to come, taken when there is room for all their samples; more samples than slots are taken in turns."""

    def __init__(self, prompts: Iterable[Prompt], slots: int):
        self._prompts, self._slots = iter(prompts), slots
        self._next: deque[Prompt] = deque()

    def take(self, room: int) -> list[Prompt]:
        taken: list[Prompt] = []
        while room > 0:
            if not self._next:
                prompt = next(self._prompts, None)
                if prompt is None:
                    break
                starts = range(0, prompt.samples, self._slots)
                self._next.extend(_Part(**{**vars(prompt), "samples": min(self._slots, prompt.samples - s)}, first=s) for s in starts)
            if self._next[0].samples > room:
                break
            taken.append(self._next.popleft())
            room -= taken[-1].samples
        return taken


@dataclass(frozen=True)
class _Part(Prompt):
    """Some of a prompt's samples, from number `first` on."""

    first: int = 0


def _first_sample(prompt: Prompt) -> int:
    return prompt.first if isinstance(prompt, _Part) else 0


def _causal(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    return F.scaled_dot_product_attention(query, key, value, is_causal=True, enable_gqa=query.shape[1] != key.shape[1])


@contextlib.contextmanager
def _whole_sequences(model: torch.nn.Module) -> Iterator[None]:
    """Within: tensor-parallel layers take every token, though they share the tokens in training (sequence parallelism)."""
    marks = ("sequence_parallel", "reduce_scatter_embeddings")
    marked = [(module, mark) for module in model.modules() for mark in marks if getattr(module, mark, False) is True]
    for module, mark in marked:
        setattr(module, mark, False)
    try:
        yield
    finally:
        for module, mark in marked:
            setattr(module, mark, True)
