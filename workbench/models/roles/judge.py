"""The judge: verdicts on questions, of a language model here or behind a server, or of an OpenAI-compatible endpoint.

A model here is never sampled from: what counts is the probability that it gives each option as its whole reply, so that its verdicts are the same each time.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from workbench.data.chat import Chat, Encoded
from workbench.data.packing import Row
from workbench.data.rows import Message, PromptOnly
from workbench.models.chat_completions import ChatCompletions, Reply
from workbench.models.endpoint import Arrays, BadRequest, Field
from workbench.models.frozen import frozen, laid_out
from workbench.models.protocol import Answers, Judging, Served, Surroundings, Transport
from workbench.rewards.base import Judge, Verdict, Waiting
from workbench.rewards.kinds.judge import Config
from workbench.settings import AlgorithmConfig, Model
from workbench.settings.online import SamplingConfig, require, sources_of
from workbench.settings.outputs import Outputs
from workbench.settings.placement import Place

if TYPE_CHECKING:
    from workbench.engine.step import Policy

OUTPUTS = Outputs(logprobs=True)
CALL = 32
"""Questions in one request to a server."""
PATIENCE_S = 2.0
"""So long an unfinished answer is waited for before the caller gets an error with what is missing."""


def placement(algorithm: AlgorithmConfig, model: Model) -> Place:
    cfg = require(algorithm, SamplingConfig)
    processes = cfg.judge_server
    return Place(processes.processes, processes.layout, sources_of(cfg.rewards.values(), "judge"), "algorithm.judge_server.processes")


class JudgeModels:
    """The judges that are models, in this gang: every rank makes the same calls. One that several components name is there once."""

    def __init__(self, around: Surroundings):
        from workbench.engine import hf

        cfg = around.online
        self.policies: dict[str, Policy] = {}
        self._chats: dict[str, Chat] = {}
        for source in sources_of(cfg.rewards.values(), "judge"):
            model = laid_out(Model(source=source, precision=around.spec.model.precision), around.layout)
            directory = hf.local_directory(source)
            self._chats[source] = Chat(hf.tokenizer(directory))
            self.policies[source] = frozen(model, directory, cfg.micro_batch_tokens, OUTPUTS)

    def logprobs(self, source: str, questions: Sequence[str], options: Sequence[str]) -> np.ndarray:
        """[Q, W]: each option's log-probability as the beginning of the reply. NaN for a question that the model does not take, or longer than it reads."""
        policy, chat = self.policies[source], self._chats[source]
        longest = getattr(policy.hf_config, "max_position_embeddings", None) or 1 << 30
        # Encoded as a message's text, in which nothing is a special token: an answer cannot end its turn and speak as another.
        replies = tuple(chat.tokenizer.encode(option, add_special_tokens=False, split_special_tokens=True) for option in options)
        asked = chat.encode([PromptOnly((Message("user", question),), {}) for question in questions])
        prompts = [list(each.row.prefix) if isinstance(each, Encoded) else None for each in asked]
        reads = [prompt is not None and len(prompt) + max(map(len, replies)) <= longest for prompt in prompts]
        rows = [Row(prompt, replies) for prompt, fits in zip(prompts, reads, strict=True) if fits and prompt is not None]
        outputs = iter(policy.outputs(rows, OUTPUTS))
        ends = np.cumsum([len(reply) for reply in replies])[:-1]
        found_QW = np.full((len(questions), len(options)), np.nan, np.float32)
        for number, fits in enumerate(reads):
            if fits:
                found_QW[number] = [part.sum() for part in np.split(next(outputs).of("logprobs_N"), ends)]
        return found_QW


def verdicts_of(logprobs_QW: np.ndarray) -> list[Verdict | None]:
    """The options' shares of the probability that they have together."""
    verdicts: list[Verdict | None] = []
    for logprobs_W in logprobs_QW.astype(np.float64):
        weights_W = np.exp(logprobs_W - logprobs_W.max())
        verdicts.append(None if np.isnan(logprobs_W).any() else weights_W / weights_W.sum())
    return verdicts


def read_verdict(reply: str, options: Sequence[str]) -> Verdict | None:
    """The option that stands in the reply's last line as a word of its own; None where there is none, or more than one."""
    lines = [line for line in reply.splitlines() if line.strip()]
    named = {word for word in re.findall(r"\w+", lines[-1]) if word in options} if lines else set()
    return np.array([float(option in named) for option in options]) if len(named) == 1 else None


class Asking(Protocol):
    """One way to a judge."""

    def __call__(self, questions: Sequence[str], options: Sequence[str]) -> list[Verdict | None] | Waiting: ...


class LocalJudge:
    """A model in the policy's own processes."""

    def __init__(self, models: JudgeModels, source: str):
        self._models, self._source = models, source

    def __call__(self, questions: Sequence[str], options: Sequence[str]) -> list[Verdict | None] | Waiting:
        return verdicts_of(self._models.logprobs(self._source, questions, options)) if questions else []


class RemoteJudge:
    """A model behind a server: the first rank asks."""

    def __init__(self, transport: Transport, name: str, source: str):
        self._call, self._name, self._source = transport.call, name, source
        self._asked: tuple[Sequence[str], list[Future[Arrays]]] | None = None

    def __call__(self, questions: Sequence[str], options: Sequence[str]) -> list[Verdict | None] | Waiting:
        from workbench.engine import parallel

        return parallel.from_first(self._ask(questions, options) if parallel.rank() == 0 else [])

    def _ask(self, questions: Sequence[str], options: Sequence[str]) -> list[Verdict | None] | Waiting:
        if self._asked is None or self._asked[0] != questions:
            parts = [questions[start : start + CALL] for start in range(0, len(questions), CALL)]
            fixed = {"source": _texts([self._source]), "options": _texts(options)}
            self._asked = questions, [self._call("judge", questions=_texts(part), **fixed) for part in parts]
        futures = self._asked[1]
        if missing := len(wait(futures, PATIENCE_S).not_done):
            return Waiting(f"the judge of {self._name}: {len(futures) - missing} of {len(futures)} requests answered")
        self._asked = None
        return [verdict for future in futures for verdict in verdicts_of(future.result()["logprobs"])]


class JudgeAtUrl:
    """An OpenAI-compatible endpoint: the first rank asks. Its failures are waited for; a question that it refuses, or a reply without a verdict, has none."""

    def __init__(self, config: Config, name: str):
        from workbench.engine import parallel

        self._name, self._url = name, config.url
        self._asked: tuple[Sequence[str], list[Future[Reply]]] | None = None
        self._chat = _chat(config, name) if parallel.rank() == 0 else None

    def __call__(self, questions: Sequence[str], options: Sequence[str]) -> list[Verdict | None] | Waiting:
        from workbench.engine import parallel

        return parallel.from_first(self._ask(self._chat, questions, options) if self._chat else [])

    def _ask(self, chat: ChatCompletions, questions: Sequence[str], options: Sequence[str]) -> list[Verdict | None] | Waiting:
        if self._asked is None or self._asked[0] != questions:
            self._asked = questions, [chat.ask(question) for question in questions]
        futures = self._asked[1]
        done, missing = wait(futures, PATIENCE_S)
        if broken := next((error for future in done if (error := future.exception())), None):
            raise ValueError(f"reward {self._name}: the judge at {broken}") from broken
        if missing:
            trouble = f" ({chat.trouble})" if chat.trouble else ""
            return Waiting(f"the judge of {self._name} at {self._url}: {len(done)} of {len(futures)} questions answered{trouble}")
        self._asked = None
        replies = [future.result() for future in futures]
        if replies and all(reply.refused for reply in replies):
            raise ValueError(f"reward {self._name}: the judge at {self._url} refuses every question: {replies[0].refused}")
        return [read_verdict(reply.text or "", options) for reply in replies]


def _chat(config: Config, name: str) -> ChatCompletions:
    """Raises ValueError where the key's variable is not set."""
    assert config.url is not None
    key = os.environ.get(config.api_key_env) if config.api_key_env else None
    if config.api_key_env and not key:
        raise ValueError(f"reward {name}: judge.api_key_env={config.api_key_env} is not set in the run's environment; export it before the launch")
    return ChatCompletions(config.url, config.url_model, key, config.reply_tokens, config.timeout_s, config.give_up_after_s, config.concurrency)


@dataclass(frozen=True)
class Judges:
    """The judges of the reward's components, by the component."""

    by_component: Mapping[str, Judge]
    transport: Transport | None = None

    def of(self, component: str) -> Judge:
        return self.by_component[component]


def _configs(around: Surroundings) -> dict[str, Config]:
    return {name: reward.settings for name, reward in around.online.rewards.items() if isinstance(reward.settings, Config)}


def local(around: Surroundings) -> Judging:
    models = JudgeModels(around)
    return Judges({name: LocalJudge(models, cfg.model) if cfg.model else JudgeAtUrl(cfg, name) for name, cfg in _configs(around).items()})


def remote(around: Surroundings, transport: Transport) -> Judging:
    configs = _configs(around).items()
    return Judges({name: RemoteJudge(transport, name, cfg.model) if cfg.model else JudgeAtUrl(cfg, name) for name, cfg in configs}, transport)


class Server:
    """`judge`: the log-probability of each option as the reply to each question, [Q, W], by the model called `source`."""

    constant = True

    def __init__(self, around: Surroundings):
        self.judges = JudgeModels(around)

    def endpoints(self) -> Mapping[str, Answers]:
        inputs = (Field("source", bytes, 1), Field("questions", bytes, 1), Field("options", bytes, 1))
        return {"judge": Answers(inputs, (Field("logprobs", np.float32, 2),), self.judge)}

    def models(self) -> Sequence[Policy]:
        return list(self.judges.policies.values())

    def judge(self, arrays: Arrays) -> Arrays:
        try:
            (source,), questions, options = ([bytes(text).decode() for text in arrays[name]] for name in ("source", "questions", "options"))
        except ValueError as error:
            raise BadRequest(f"source: one text; questions, options: UTF-8; {error}") from None
        if source not in self.judges.policies:
            raise BadRequest(f"there is no judge {source!r}; there are: {', '.join(self.judges.policies)}")
        if not questions or len(options) < 2 or not all(options):
            raise BadRequest("questions: one or more; options: two or more, none empty")
        return {"logprobs": self.judges.logprobs(source, questions, options)}


def _texts(texts: Sequence[str]) -> np.ndarray:
    return np.array([text.encode() for text in texts], np.object_)


def serve(around: Surroundings) -> Served:
    return Server(around)
