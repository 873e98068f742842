"""Scoring: what each answer of a data set is worth by the rewards of the online algorithms: programs, reward models, judges. A resume continues with the next.

rewarded.jsonl   the rows, each with `reward` (null where a part of it is unknown) and `rewards` by component (`workbench.rundir.annotations`)
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, ClassVar, Literal, Self, cast

from pydantic import Field

from workbench.processes.kinds.annotate import LEFT_OUT
from workbench.processes.kinds.pairs import prompt_key, prompt_of
from workbench.settings import JobConfig
from workbench.settings.online import AnyReward, OnlineConfig

if TYPE_CHECKING:
    from workbench.data.rows import Conversation
    from workbench.models.protocol import Scoring
    from workbench.processes.controls import Controls
    from workbench.processes.rank import Rank
    from workbench.processes.row_job import Made
    from workbench.rollout.experience import Experience


class Config(JobConfig):
    """Score every answer of a data set by rewards."""

    sections = ("model", "data", "watch", "backend")
    doing = "scoring"
    reads = "answered"
    outputs: ClassVar = {"rows": "rewarded.jsonl"}

    name: Literal["reward"] = "reward"
    rewards: dict[str, AnyReward] = Field(
        default={}, description="What an answer is worth: components by name, each of one kind (program, model, judge), weighted."
    )
    prompts_per_step: int = Field(
        default=16, ge=1, le=65536, description="Prompts whose answers are scored before they are saved: what a kill can lose."
    )
    micro_batch_tokens: int = Field(default=4096, ge=16, description="Tokens that a reward model reads at a time: lower it to save memory.")

    @property
    def online(self) -> OnlineConfig:
        """The same rewards as an online algorithm has them, all computed in the job's own processes."""
        return OnlineConfig(name=self.name, rewards=self.rewards, served=(), samples_per_prompt=2, micro_batch_tokens=self.micro_batch_tokens)

    def problems(self) -> list[tuple[str, str]]:
        if not self.rewards:
            return [("rewards", "needs at least one component, such as {concise: {program: workbench/rewards/example.py:concise}}")]
        return self.online.problems()

    def with_absolute_paths(self, absolute: Callable[[str], str]) -> Self:
        return self.model_copy(update={"rewards": {name: reward.with_absolute_paths(absolute) for name, reward in self.rewards.items()}})


class Rewarding:
    """One rank of it. The answers to a prompt are scored together: a judge may compare them."""

    def __init__(self, rank: Rank, controls: Controls):
        from workbench.models.connections import connect_roles
        from workbench.models.protocol import Surroundings
        from workbench.processes.row_job import answered
        from workbench.processes.scoring import Scorer
        from workbench.serve.client import Client

        assert isinstance(rank.spec.job, Config)
        self._rank, self.prompts_per_step = rank, rank.spec.job.prompts_per_step
        self.prompts = _by_prompt(answered(rank))
        spec = rank.spec.model_copy(update={"algorithm": rank.spec.job.online})
        around = Surroundings(rank.run, spec, spec.model.layout, rank.directory)
        role = cast("Scoring", connect_roles(["reward"], around, lambda server: Client(rank.run.path, server))["reward"])
        self._step = 0
        self._scorer = Scorer(role, None, lambda reason: rank.emit("phase", message=reason), lambda: controls.stop_requested(self._step))

    def score(self, start: int, end: int) -> Made:
        """Score the answers to some prompts."""
        from workbench.rollout.experience import mean_rewards

        self._step = start // self.prompts_per_step
        answers = [(number, i, row) for number, rows in enumerate(self.prompts[start:end]) for i, row in enumerate(rows)]
        experiences = self._experiences(answers)
        self._scorer.fill(experiences)
        lines = [_line(row, e) for (_, _, row), e in zip(answers, experiences, strict=True)]
        return lines, {**mean_rewards(experiences), **self._scorer.metrics()}

    def _experiences(self, answers: Sequence[tuple[int, int, Conversation]]) -> list[Experience]:
        """The answers (the prompt's number, the answer's, the row) as the rewards of an online algorithm see them; each ends as one that ended by itself."""
        import numpy as np

        from workbench.data.chat import Encoded
        from workbench.data.packing import Row
        from workbench.data.rows import Malformed, PromptOnly, Unpaired
        from workbench.rollout.experience import Experience

        chat = self._rank.chat
        texts = [Unpaired(row.messages[:-1], row.messages[-1].content, True, row.where, row.tools) for _, _, row in answers]
        made = []
        for (number, i, row), text, result in zip(answers, texts, chat.encode(texts), strict=True):
            if isinstance(result, Malformed):
                raise ValueError(f"{text.where}: expected {result.args[0]}; found {result.args[1]}")
            assert isinstance(result, Encoded)
            columns = _columns(row)
            encoded = Row(result.row.prefix, columns=columns, asked=PromptOnly(text.prompt, columns, row.where, row.tools))
            tokens, prompt = list(result.row.branches[0]), str(chat.tokenizer.decode(list(encoded.prefix)))
            logprobs = np.full(len(tokens), np.nan, np.float32)  # nobody knows at which they were sampled
            made.append(Experience(0, number, i, encoded, tokens, logprobs, "stop", prompt, text.response, []))
        return made


def _by_prompt(rows: Sequence[Conversation]) -> list[list[Conversation]]:
    """The rows with the same prompt together, the prompts in the order in which they come first."""
    prompts: dict[str, list[Conversation]] = {}
    for row in rows:
        if not row.messages[-1].content.strip():
            raise ValueError(f"{row.where}: job=reward scores answers that are text; this one is empty or calls tools alone")
        prompts.setdefault(prompt_key(row), []).append(row)
    return list(prompts.values())


def _columns(row: Conversation) -> dict[str, str]:
    """The row's other columns as text, as a prompt has them for reward programs: a ground truth is their `answer`, where they have no other."""
    columns = {
        name: value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
        for name, value in row.columns.items()
        if name not in LEFT_OUT
    }
    return {"answer": columns["ground_truth"], **columns} if "ground_truth" in columns else columns


def _line(row: Conversation, scored: Experience) -> dict[str, object]:
    columns = {name: value for name, value in row.columns.items() if name not in LEFT_OUT}
    answer = row.messages[-1]
    more = {"tools": list(row.tools) or None, "attributes": dict(answer.ratings) or None}
    given = {name: value for name, value in more.items() if value is not None}
    return {**columns, "prompt": prompt_of(row), "response": answer.content, **given, "reward": scored.reward, "rewards": scored.components}


def work(rank: Rank) -> None:
    """What a rank of this kind of job does."""
    from workbench.processes.row_job import controls_of, over_rows

    controls = controls_of(rank)
    job = Rewarding(rank, controls)
    over_rows(rank, len(job.prompts), job.prompts_per_step, job.score, controls)
