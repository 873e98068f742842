"""A reward model: a sequence classifier with one trained score, asked in its own tokens, and read as transformers reads it."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast

from workbench.data.chat import Chat, Encoded
from workbench.data.packing import Row
from workbench.data.rows import Unpaired
from workbench.models.frozen import frozen
from workbench.rewards.base import Finished
from workbench.settings import Model
from workbench.settings.outputs import Outputs

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from workbench.engine.step import Policy

OUTPUTS = Outputs(scores=1)


class RewardModel:
    """In this gang: every rank makes the same calls.

    A model whose tokens and chat template are the policy's reads the tokens that the policy gave. Any other is asked about the prompt's messages and the
    answer's text, by its own template, with the end of a turn after the answer, as texts end that reward models are trained on.

    Raises:
        ValueError: the model has no trained score head, or one for several scores; or neither the policy's tokens nor a chat template.
    """

    def __init__(self, model: Model, directory: Path, of_policy: Path, micro_batch_tokens: int):
        from workbench.engine import hf, preconditions

        preconditions.check_score_head(directory, 1)
        tokenizer = hf.tokenizer(directory)
        self._own = None if _same_tokens(tokenizer, hf.tokenizer(of_policy)) else Chat(tokenizer)
        if self._own and not tokenizer.chat_template:
            raise ValueError(
                f"the reward model {directory} has other tokens than the policy and no chat template to put the policy's prompts and answers into; add its"
                " chat_template.jinja, or take a reward model with the policy's tokens"
            )
        self.policy: Policy = frozen(model, directory, micro_batch_tokens, OUTPUTS)
        self._longest = preconditions.context_length(self.policy.hf_config.to_dict())
        self._padding = cast("int | None", getattr(self.policy.hf_config, "pad_token_id", None))

    def score(self, answers: Sequence[Finished]) -> list[float | None]:
        """The answers' scores; None for one that its template does not take, or that is longer, with its prompt, than the model reads."""
        tokens = self._tokens(answers)
        reads = [pair is not None and (self._longest is None or sum(map(len, pair)) <= self._longest) for pair in tokens]
        rows = _rows([(a.prompt_index, *pair) for a, pair, fits in zip(answers, tokens, reads, strict=True) if fits and pair])
        scores = (float(score) for given in (self.policy.outputs(rows) if rows else ()) for score in given.of("scores_SK")[:, 0])
        return [next(scores) if fits else None for fits in reads]

    def _tokens(self, answers: Sequence[Finished]) -> list[tuple[tuple[int, ...], tuple[int, ...]] | None]:
        """(prompt, answer) as the model reads them, up to the last token that is not its padding: there transformers takes the score."""
        if self._own is None:
            return [self._unpadded(tuple(answer.prefix), tuple(answer.tokens)) for answer in answers]
        rows: list[Unpaired] = []
        for answer in answers:
            if answer.asked is None:
                raise ValueError(
                    f"the reward model {self.policy.directory} has other tokens than the policy, and the messages of a prompt are not known"
                )
            rows.append(Unpaired(answer.asked.prompt, answer.response, True, answer.asked.where, answer.asked.tools))
        encoded = [each.row if isinstance(each, Encoded) else None for each in self._own.encode(rows)]
        return [row and self._unpadded(tuple(row.prefix), tuple(row.branches[0])) for row in encoded]

    def _unpadded(self, prefix: tuple[int, ...], tokens: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[int, ...]]:
        whole = (*prefix, *tokens)
        end = next((last for last in range(len(whole), 1, -1) if whole[last - 1] != self._padding), len(whole))
        at = min(len(prefix), end - 1)
        return whole[:at], whole[at:end]


def _same_tokens(one: PreTrainedTokenizerBase, other: PreTrainedTokenizerBase) -> bool:
    """Whether two models write the same conversation in the same tokens."""
    return one.get_vocab() == other.get_vocab() and one.chat_template == other.chat_template


def _rows(texts: Sequence[tuple[int, tuple[int, ...], tuple[int, ...]]]) -> list[Row]:
    """A prompt with its answers as branches, which share its prefix. `texts` are (the prompt's number, prompt, answer)."""
    return [Row(prefix, tuple(answer for _, _, answer in same)) for (_, prefix), same in itertools.groupby(texts, key=lambda text: text[:2])]
