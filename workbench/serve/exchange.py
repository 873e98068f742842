"""One HTTP request about answers: what the decoder is asked, and its parts as OpenAI's objects, whole or as chunks of a stream."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from workbench.serve.offered import Offered
from workbench.serve.pieces import Finish, Piece, Score, Writer, chat_logprobs, completion_logprobs
from workbench.serve.questions import COMPLETION_TOKENS, ChatRequest, CompletionRequest, HttpError
from workbench.serve.streaming import Asking


@dataclass
class _Choice:
    """What has come of one answer."""

    writer: Writer
    text: str = ""
    tokens: list[int] = field(default_factory=list)
    scores: list[Score | None] = field(default_factory=list)
    offsets: list[int] = field(default_factory=list)
    finish: Finish | None = None
    ended: bool = False
    """Whether the decoder has ended it: a stop string that the decoder does not see ends the text sooner."""

    def take(self, piece: Piece) -> None:
        self.text += piece.text
        self.tokens.append(piece.token)
        self.scores.append(piece.score)
        self.offsets.append(piece.offset)
        self.finish = piece.finish

    def emptied(self) -> _Choice:
        """The same, as what has come since was; nothing has come yet."""
        made = _Choice(self.writer, self.text, self.tokens, self.scores, self.offsets, self.finish)
        self.text, self.tokens, self.scores, self.offsets = "", [], [], []
        return made


class Exchange:
    """The asks of a request and their answers. Raises HttpError for what is wrong with it."""

    def __init__(self, model: Offered, request: ChatRequest | CompletionRequest, prompts: Sequence[Sequence[int]]):
        self.model, self.request, self.prompts = model, request, prompts
        self.chat = isinstance(request, ChatRequest)
        self.top = request.top if isinstance(request, ChatRequest) else request.logprobs
        self.echo = isinstance(request, CompletionRequest) and bool(request.echo)
        self.samples = request.n or 1
        if self.samples > model.slots:
            raise HttpError(400, f"n={self.samples}: {model.id} gives at most {model.slots} answers at a time (job.slots)", "n")
        wanted = request.max_tokens
        if isinstance(request, ChatRequest):
            if wanted is not None and request.max_completion_tokens is not None:
                raise HttpError(400, "max_tokens and max_completion_tokens are the same: send one of them", "max_tokens")
            wanted = request.max_completion_tokens if wanted is None else wanted
        elif wanted is None:
            wanted = COMPLETION_TOKENS
        self.stops, seed = request.stops, request.seed
        self.seed = secrets.randbits(63) if seed is None else seed % 2**64
        self.limits = [model.room(prompt, wanted) for prompt in prompts]
        self.id = f"{'chatcmpl' if self.chat else 'cmpl'}-{secrets.token_hex(12)}"
        self.created = int(time.time())
        self.choices = [_Choice(Writer(model.decode, self.stops)) for _ in range(len(prompts) * self.samples)]
        self.drawn = 0

    @property
    def ahead(self) -> bool:
        """Whether all is said, though the decoder still draws."""
        return all(choice.writer.finished for choice in self.choices) and not all(choice.ended for choice in self.choices)

    @property
    def names(self) -> list[str]:
        """What the asks are called, by prompt."""
        return [f"{self.id}-{i}" for i in range(len(self.prompts))]

    def ask(self, number: int) -> dict[str, Any]:
        """What the decoder is asked about a prompt."""
        request = self.request
        return {
            "op": "answer",
            "name": self.names[number],
            "model": self.model.id,
            "tokens": list(self.prompts[number]),
            "max_tokens": max(1, self.limits[number]),
            "temperature": 1.0 if request.temperature is None else request.temperature,
            "top_p": request.top_p or 1.0,
            "top_k": request.top_k or 0,
            "stops": list(self.stops),
            "seed": self.seed,
            "samples": self.samples,
            "top": self.top,
            "echo": self.echo and self.top is not None,
        }

    async def changes(self, asking: Asking) -> AsyncGenerator[int, None]:
        """The numbers of the choices that something came of, as it comes, until every answer has ended. Raises Broken."""
        queue: asyncio.Queue[tuple[int, Mapping[str, Any] | Exception | None]] = asyncio.Queue()

        async def read(number: int) -> None:
            try:
                async for part in asking.parts(self.ask(number)):
                    queue.put_nowait((number, part))
                queue.put_nowait((number, None))
            except Exception as error:  # raised where the parts are read
                queue.put_nowait((number, error))

        tasks = [asyncio.create_task(read(i)) for i in range(len(self.prompts))]
        try:
            left = len(tasks)
            while left:
                number, part = await queue.get()
                if isinstance(part, Exception):
                    raise part
                if part is None:
                    left -= 1
                    continue
                for choice in self._take(number, part):
                    yield choice
        finally:
            for task in tasks:
                task.cancel()

    def _take(self, number: int, part: Mapping[str, Any]) -> Sequence[int]:
        own = range(number * self.samples, (number + 1) * self.samples)
        match part["kind"]:
            case "echo":
                for i in own:
                    self._echo(i, part["scores"])
                return own
            case "token":
                index = own[part["sample"]]
                choice = self.choices[index]
                choice.ended = part["finish"] is not None
                if choice.writer.finished:  # its text has ended sooner
                    return ()
                if self.limits[number] == 0:
                    choice.finish = part["finish"] and "length"
                    choice.writer.finished = True
                    return (index,)
                self.drawn += 1
                piece = choice.writer.add(part["token"], part["finish"], _score(part["token"], part["score"]))
                choice.take(piece)
                return (index,)
            case _:
                raise HttpError(400, part["message"])

    def begin_echo(self) -> None:
        """Where the prompts are to be given back, without their log-probabilities."""
        if self.echo and self.top is None:
            for i in range(len(self.choices)):
                self._echo(i, ())

    def _echo(self, index: int, scores: Sequence[Any]) -> None:
        choice, prompt = self.choices[index], self.prompts[index // self.samples]
        choice.text = self.prompt_text(index // self.samples)
        if self.top is not None:
            offset = 0
            for token in prompt:
                choice.offsets.append(offset)
                offset += len(self.model.name(token))
            choice.scores = [None, *(_score(token, each) for token, each in zip(prompt[1:], scores, strict=True))]
        choice.writer.shift(len(choice.text))

    def prompt_text(self, number: int) -> str:
        """As it was sent."""
        assert isinstance(self.request, CompletionRequest)
        given = self.request.prompts[number]
        return given if isinstance(given, str) else "".join(self.model.name(token) for token in given)

    def whole(self) -> dict[str, Any]:
        """The completion, when all answers have ended."""
        kind = "chat.completion" if self.chat else "text_completion"
        choices = [self._object(i, choice, streamed=False, first=True) for i, choice in enumerate(self.choices)]
        return {**self._head(kind), "choices": choices, "usage": self.usage, **self._prompt_ids(chat_only=True)}

    def chunk(self, index: int, first: bool) -> dict[str, Any] | None:
        """What has come of a choice since; None where that is nothing to tell."""
        choice = self.choices[index]
        if not (choice.text or choice.tokens or choice.finish or choice.scores):
            return None
        kind = "chat.completion.chunk" if self.chat else "text_completion"
        made = self._object(index, choice.emptied(), streamed=True, first=first)
        return {**self._head(kind), "choices": [made], **(self._prompt_ids(chat_only=True) if first else {})}

    def last_chunk(self) -> dict[str, Any]:
        """With the tokens' number, for who wants it."""
        return {**self._head("chat.completion.chunk" if self.chat else "text_completion"), "choices": [], "usage": self.usage}

    @property
    def usage(self) -> dict[str, int]:
        prompt = sum(map(len, self.prompts))
        return {"prompt_tokens": prompt, "completion_tokens": self.drawn, "total_tokens": prompt + self.drawn}

    def _head(self, kind: str) -> dict[str, Any]:
        return {"id": self.id, "object": kind, "created": self.created, "model": self.model.id}

    def _prompt_ids(self, chat_only: bool) -> dict[str, Any]:
        wanted = self.request.return_token_ids and self.chat == chat_only
        return {"prompt_token_ids": list(self.prompts[0])} if wanted and self.chat else {}

    def _object(self, index: int, choice: _Choice, streamed: bool, first: bool) -> dict[str, Any]:
        name, prompt = self.model.name, self.prompts[index // self.samples]
        made: dict[str, Any] = {"index": index, "finish_reason": choice.finish, "logprobs": None}
        if self.chat:
            message = {"role": "assistant"} if first else {}
            made["delta" if streamed else "message"] = {**message, "content": choice.text, **({} if streamed else {"refusal": None})}
        else:
            made["text"] = choice.text
        if self.top is not None:
            if self.chat:
                made["logprobs"] = chat_logprobs([score for score in choice.scores if score], name)
            else:
                echoed = list(prompt) if len(choice.scores) > len(choice.tokens) else []
                made["logprobs"] = completion_logprobs(choice.scores, [*echoed, *choice.tokens], choice.offsets, name)
        if self.request.return_token_ids:
            made["token_ids"] = choice.tokens
            if not self.chat and first:
                made["prompt_token_ids"] = list(prompt)
        return made


def _score(token: int, given: Any) -> Score | None:
    return None if given is None else Score(token, given[0], [(int(each), logprob) for each, logprob in given[1]])
