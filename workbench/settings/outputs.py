"""What an algorithm wants of a model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Outputs:
    """What a model is asked for; what is not asked for is neither computed nor there (`workbench.engine.batch.Given`).

    An algorithm's file declares it as `OUTPUTS`, a constant or a function of its `Config`. N counts the target tokens.

    Attributes:
        logprobs: the log-probability of each target, [N].
        entropy: the entropy of each prediction, [N].
        top_k: the likeliest `top_k` tokens of each prediction with their log-probabilities and the log of the others' mass, [N, K]; 0: none.
        at: a name in the rows' `arrays`, of tokens [N, K]: their log-probabilities and the log of the others' mass (a teacher's likeliest tokens).
        temperature: that of `top_k` and `at`, which are of softmax(logits / temperature); None: the one at which the targets were drawn.
        scores: K scores by a head that stands in place of the language model's; 0 keeps the language model's.
        per: whether that head reads the last token of each sequence, [S, K], or the token before each target, [N, K] (a value function).

    Raises:
        ValueError: nothing is asked for, or what one model cannot give.
    """

    logprobs: bool = False
    entropy: bool = False
    top_k: int = 0
    at: str | None = None
    temperature: float | None = None
    scores: int = 0
    per: Literal["sequence", "token"] = "sequence"

    def __post_init__(self) -> None:
        vocabulary = self.logprobs or self.entropy or self.top_k or self.at is not None
        if self.top_k < 0 or self.scores < 0:
            raise ValueError(f"top_k={self.top_k} and scores={self.scores} are counts, 0 or more")
        if self.temperature is not None and (self.temperature <= 0 or not (self.top_k or self.at)):
            raise ValueError(f"temperature={self.temperature} is that of top_k and at: a number above 0, with one of them")
        if not vocabulary and not self.scores:
            raise ValueError("these outputs ask for nothing: set logprobs, entropy, top_k, at or scores")
        if vocabulary and self.scores:
            raise ValueError("a score head stands in place of the language model's: ask for scores, or for logprobs, entropy, top_k and at")
        if self.per == "token" and not self.scores:
            raise ValueError("per='token' says where scores are read, and there are none: set scores")

    @property
    def per_sequence(self) -> bool:
        """There is a result for each sequence, not for each target."""
        return self.scores > 0 and self.per == "sequence"
