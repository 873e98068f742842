"""The embedded decoder for requests that come one by one: they are taken up while others decode, each is drawn in its own way, and tokens are given as they are drawn."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

import torch
from torch import Tensor

from workbench.engine import graphs
from workbench.engine.model import PackedGPT
from workbench.rollout.base import Prompt, Sampling
from workbench.rollout.engines.megatron import Engine, Slot, within_budget

Finish = Literal["stop", "length"]
_SCORED = 128
"""Of a prompt's tokens so many get their logits at once."""


@dataclass(frozen=True, kw_only=True)
class Ask(Prompt):
    """A request. Its answers are a function of tokens, sampling and seed, whatever it is called and whatever is answered beside it.

    `top` asks for each token's log-probability and those of so many of the likeliest; `echo` for those of the prompt's tokens too. All are under
    softmax(logits), before temperature, top-k and top-p.
    """

    name: str
    sampling: Sampling
    seed: int
    top: int | None = None
    echo: bool = False


@dataclass(frozen=True)
class Scored:
    """A token's log-probability, and (token, log-probability) of the likeliest, the likeliest first."""

    logprob: float
    top: tuple[tuple[int, float], ...]


@dataclass(frozen=True)
class Drawn:
    """The next token of an answer to the request `name`."""

    name: str
    sample: int
    token: int
    finish_reason: Finish | None
    scored: Scored | None


@dataclass(frozen=True)
class Echo:
    """What is wanted of the prompt's tokens, from the second on."""

    name: str
    scores: tuple[Scored, ...]


class Live(Engine):
    """One model's decoder with its requests. With tensor parallelism the ranks of a group make the same calls."""

    def __init__(self, model: PackedGPT, tokenizer: Any, slots: int, record: bool = graphs.POSSIBLE):
        super().__init__(model, tokenizer, slots, record=record)
        model.eval()
        self._active: list[Slot] = []
        self._asked: deque[Ask] = deque()
        self._echoes: list[Echo] = []
        self._scores: dict[int, Scored] = {}

    @property
    def busy(self) -> bool:
        return bool(self._active or self._asked)

    def add(self, ask: Ask) -> None:
        """A request waits until there are slots for all its samples, those before it first."""
        assert 1 <= ask.samples <= self.slots and ask.tokens, "who asks has checked it"
        self._asked.append(ask)

    def cancel(self, name: str) -> None:
        """The request is given up: its slots are free."""
        self._asked = deque(ask for ask in self._asked if ask.name != name)
        for i in reversed(range(len(self._active))):
            if _ask(self._active[i]).name == name:
                self._leave(self._active, i)

    @torch.no_grad()
    def step(self) -> list[Drawn | Echo]:
        """Take up what waits, if there is room, else draw one more token of every answer."""
        if not self._active and self._recorder:
            self._recorder.bound_to([*self.model.parameters()])
        if taken := self._taken():
            before = len(self._active)
            for together in within_budget(taken):
                asks = cast("list[Ask]", together)
                self._begin(self._active, asks, [ask.sampling for ask in asks], [ask.seed for ask in asks])
            drawn = self._active[before:]
        else:
            self._step(self._active)
            drawn = list(self._active)
        ended: dict[int, Finish] = {id(rollout.tokens): rollout.finish_reason for rollout in self._settle(self._active)}
        echoes, self._echoes = self._echoes, []
        scores, self._scores = self._scores, {}
        return [*echoes, *(_drawn(slot, ended.get(id(slot.tokens)), scores.get(id(slot))) for slot in drawn)]

    def _taken(self) -> list[Prompt]:
        room, taken = self.slots - len(self._active), list[Prompt]()
        while self._asked and self._asked[0].samples <= room:
            taken.append(self._asked.popleft())
            room -= taken[-1].samples
        return taken

    def _reads_logits(self, active: Sequence[Slot]) -> bool:
        return any(_ask(slot).top is not None for slot in active)

    def _draw(self, slots: Sequence[Slot], logits_SV: Tensor) -> None:
        super()._draw(slots, logits_SV)
        places = [i for i, slot in enumerate(slots) if _ask(slot).top is not None]
        if places:
            chosen = [slots[i] for i in places]
            count = max(_ask(slot).top or 0 for slot in chosen)
            scored = _scored(logits_SV[places], [slot.tokens[-1] for slot in chosen], count)
            self._scores |= {id(slot): Scored(s.logprob, s.top[: _ask(slot).top]) for slot, s in zip(chosen, scored, strict=True)}

    def _prefilled(self, taken: Sequence[Prompt], hidden_TD: Tensor) -> None:
        start = 0
        for ask in cast("Sequence[Ask]", taken):
            count = len(ask.tokens)
            if ask.echo:
                self._echoes.append(Echo(ask.name, tuple(self._of_prompt(ask, hidden_TD[start : start + count]))))
            start += count

    def _of_prompt(self, ask: Ask, hidden_TD: Tensor) -> Iterator[Scored]:
        for start in range(0, len(ask.tokens) - 1, _SCORED):
            targets = ask.tokens[start + 1 : start + 1 + _SCORED]
            yield from _scored(self._logits(hidden_TD[start : start + len(targets)]), targets, ask.top or 0)


def _scored(logits_NV: Tensor, tokens: Sequence[int], top: int) -> list[Scored]:
    logprobs_NV = logits_NV.log_softmax(-1)
    of_tokens = logprobs_NV.gather(1, torch.tensor(tokens, device=logits_NV.device)[:, None])[:, 0].tolist()
    if not top:
        return [Scored(logprob, ()) for logprob in of_tokens]
    values, ids = (each.tolist() for each in logprobs_NV.topk(min(top, logprobs_NV.shape[1])))
    return [Scored(logprob, tuple(zip(*pairs, strict=True))) for logprob, *pairs in zip(of_tokens, ids, values, strict=True)]


def _ask(slot: Slot) -> Ask:
    return cast(Ask, slot.prompt)


def _drawn(slot: Slot, reason: Finish | None, scored: Scored | None) -> Drawn:
    return Drawn(_ask(slot).name, slot.sample, slot.tokens[-1], reason, scored)
