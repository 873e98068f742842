"""Every metric that a run reports, in one registry: one line a metric, and nothing else to write for it.

`REWARDS = metric("rewards", "Reward", "mean of the answers", "…")` has it drawn in a chart of its own; `VALUES.metric("values_mean", "values", "…")`
in a chart that it shares; a `family` declares those whose names only the run knows, such as `reward/<component>`. Algorithms and engine write the
constants (`{LOSS: loss_B}`), alarms, charts, tables and terminal read what the registry says of them. A name that nobody registered is drawn too,
under its name, without unit and help, and averaged.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum

LEARNING, OPTIMIZER, SPEED, OTHER = GROUPS = ("Learning", "Optimizer", "Speed and memory", "Other")
"""The sections of the Run page, in order."""
_count = itertools.count().__next__


class Averaging(StrEnum):
    """How the values of a step's several updates become the step's."""

    MEAN = "mean"
    SUM = "sum"
    MAX = "max"


@dataclass(frozen=True)
class Chart:
    """Where metrics are drawn. `smooth` says whether a moving average helps; `wide`, whether it takes the page's whole width."""

    key: str
    title: str
    unit: str
    group: str = LEARNING
    smooth: bool = True
    stacked: bool = False
    wide: bool = False
    order: int = field(default_factory=_count)

    def metric(self, name: str, label: str, help: str, averaging: Averaging = Averaging.MEAN) -> Metric:
        """Register a metric that shares this chart. `label` is its name in the legend. Raises ValueError for a name that is taken."""
        return _register(Metric(name, f"{self.title}: {label}", help, self, label, averaging))


class Metric(str):
    """A metric's name, which is its key in events and files, and what is known of it. (`heading` is its title: `str.title` is a method.)

    `brief` is what the terminal's progress line and the headline call it; a metric without one is not in that line. `order` is its place in its chart.
    """

    heading: str
    help: str
    chart: Chart
    label: str
    averaging: Averaging
    brief: str
    order: tuple[int, int]

    def __new__(
        cls,
        name: str,
        heading: str,
        help: str,
        chart: Chart,
        label: str,
        averaging: Averaging = Averaging.MEAN,
        brief: str = "",
        order: tuple[int, int] | None = None,
    ) -> Metric:
        made = super().__new__(cls, name)
        made.heading, made.help, made.chart, made.label, made.averaging, made.brief = heading, help, chart, label, averaging, brief
        made.order = order or (_count(), 0)
        return made

    @property
    def unit(self) -> str:
        return self.chart.unit

    @property
    def group(self) -> str:
        return self.chart.group

    def __reduce__(self) -> tuple[type[str], tuple[str]]:
        """Between processes it is its name alone."""
        return str, (str(self),)


@dataclass(frozen=True)
class Family:
    """Metrics whose names only the run knows: `name` has `{}` in that part's place; in `title` and `help` too.

    All are in one chart, those of `first` before others; with `apart` each has a chart of its own. `label` makes a part's name in the legend.
    """

    name: str
    title: str
    help: str
    chart: Chart
    averaging: Averaging = Averaging.MEAN
    first: Sequence[str] = ()
    label: Callable[[str], str] = str
    apart: bool = False
    order: int = field(default_factory=_count)

    def __call__(self, part: str) -> Metric:
        """The member for this part: `REWARD_OF("helpful")` is `reward/helpful`."""
        name, title = self.name.format(part), self.title.format(self.label(part))
        chart = replace(self.chart, key=name, title=title) if self.apart else self.chart
        label = "train" if self.apart else self.label(part)
        position = self.first.index(part) if part in self.first else len(self.first)
        return Metric(name, title, self.help.format(part), chart, label, self.averaging, order=(self.order, position))

    def part(self, name: str) -> str | None:
        """What stands in a member's name where the family's has `{}`; None for another family's."""
        prefix, _, suffix = self.name.partition("{}")
        inner = name.removeprefix(prefix).removesuffix(suffix)
        return inner if inner and name == f"{prefix}{inner}{suffix}" else None


METRICS: dict[str, Metric] = {}
FAMILIES: list[Family] = []


def metric(
    name: str,
    title: str,
    unit: str,
    help: str,
    *,
    label: str = "train",
    brief: str = "",
    averaging: Averaging = Averaging.MEAN,
    group: str = LEARNING,
    smooth: bool = True,
    wide: bool = False,
    key: str = "",
) -> Metric:
    """Register a metric with a chart of its own, whose key is the metric's name without `key`. Raises ValueError for a name or key that is taken."""
    return _register(Metric(name, title, help, Chart(key or name, title, unit, group, smooth, wide=wide), label, averaging, brief))


def family(
    name: str,
    title: str,
    help: str,
    chart: Chart,
    averaging: Averaging = Averaging.MEAN,
    first: Sequence[str] = (),
    label: Callable[[str], str] = str,
    apart: bool = False,
) -> Family:
    """Register a family. Raises ValueError for a name that is taken."""
    if any(each.name == name for each in FAMILIES):
        raise ValueError(f"the metrics {name!r} are registered already")
    FAMILIES.append(Family(name, title, help, chart, averaging, first, label, apart))
    return FAMILIES[-1]


def find(name: str) -> Metric | None:
    """What is registered under a name, by itself or as a family's member."""
    if known := METRICS.get(name):
        return known
    return next((each(part) for each in FAMILIES if (part := each.part(name)) is not None), None)


def combined(parts: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The metrics of a step's updates as one, each as its `averaging` says; those that nobody registered are averaged.

    A part that lacks a metric of the first part is left out of that one.
    """
    return {name: _as_one(name, [part[name] for part in parts if name in part]) for name in parts[0]}


def brief(metrics: Mapping[str, object]) -> str:
    """A step's leading metrics in one line: those that have a brief name."""
    return "  ".join(f"{metric.brief} {number(metrics[metric])}" for metric in METRICS.values() if metric.brief and metric in metrics)


def number(value: object) -> str:
    """A metric's value for a terminal or a log; NaN and the infinities may be texts."""
    return f"{value:,.4g}" if isinstance(value, int | float) else "" if value is None else str(value)


def _as_one(name: str, values: Sequence[float]) -> float:
    import numpy as np

    known = find(name)
    if known is None or known.averaging == Averaging.MEAN:
        return float(np.mean(values))
    return sum(values) if known.averaging == Averaging.SUM else max(values)


def _register(made: Metric) -> Metric:
    if made in METRICS:
        raise ValueError(f"the metric {made!r} is registered already, as {METRICS[made].heading!r}")
    if other := next((each for each in METRICS.values() if each.chart.key == made.chart.key and each.chart != made.chart), None):
        raise ValueError(f"the chart of {made!r} has the key {made.chart.key!r}, which that of {other!r} has: give another `key`")
    METRICS[made] = made
    return made


def _phase(name: str) -> str:
    return "forward and backward" if name == "forward_backward" else name.replace("_", " ").replace("logprobs", "log-probs")


STEERLM = ("quality", "toxicity", "humor", "creativity", "helpfulness", "correctness", "coherence", "complexity", "verbosity")
"""The attributes of SteerLM (Dong et al., arXiv 2310.05344)."""
_ENDPOINTS = ("critic_infer", "critic_train", "reward_model", "reference_logprobs")
_SUM, _MAX = Averaging.SUM, Averaging.MAX

# Learning from rollouts. The names are NeMo-Aligner's where it has the number.
REWARDS = metric("rewards", "Reward", "mean of the answers", "An answer's components, weighted and added up.", key="reward", brief="reward")
INIT_POLICY_KL = metric("init_policy_kl", "KL to the reference", "nats a token", "The mean over an answer's tokens.", label="policy", brief="KL")
LOSS = metric("loss", "Loss", "nats", "What the optimizer minimises: the mean over tokens, pairs or answers.", brief="loss", wide=True)
ENTROPY = metric("entropy", "Entropy", "nats a token", "How undecided the policy is at a token of its answers; near 0 all are alike.", label="policy")
_RATIO = Chart("ratio", "Ratio to the old policy", "")
PPO_RATIO = _RATIO.metric("ppo_ratio", "ratio", "A token's probability now over that when it was sampled; 1: unchanged.")
PPO_RATIO_CLAMPED = _RATIO.metric("ppo_ratio_clamped", "clamped", "The ratio within 1 - clip_low and 1 + clip_high.")
CLIP_FRACTION = metric("clip_fraction", "Clipped tokens", "share", "Tokens whose ratio is beyond the clip, which teach nothing.", label="clipped")
GENERATION_LENGTH = metric("generation_length", "Answer length", "tokens", "Mean tokens of an answer, its end token included.", label="answers")
PROPERLY_ENDED = metric("fraction_of_samples_properly_ended", "Answers that ended", "share", "The others met max_tokens.", label="ended")
CRITIC_LOSS = metric("critic_loss", "Critic", "loss", "Half the squared error of the critic's values, clipped (value_clip).", label="loss")
EXPLAINED_VARIANCE = metric("explained_variance", "Explained variance", "share of the returns'", "1: the critic foresees them.", label="critic")
_VALUES = Chart("values", "Values and returns", "mean")
VALUES_MEAN = _VALUES.metric("values_mean", "values", "What the critic expects from a token on.")
RETURNS_MEAN = _VALUES.metric("returns_mean", "returns", "What the critic is to learn: rewards less KL penalty from a token on, by GAE.")
_ADVANTAGES = Chart("advantages", "Advantages", "mean and deviation")
ADVANTAGES_MEAN = _ADVANTAGES.metric("advantages_mean", "mean", "How much better than expected the tokens were; near 0 where it is whitened.")
ADVANTAGES_STD = _ADVANTAGES.metric("advantages_std", "deviation", "How far the tokens' advantages spread: 0 teaches nothing.")
_MISMATCH = Chart("mismatch", "Rollout engine against trainer", "nats a token")
LOGPROB_MISMATCH_MEAN = _MISMATCH.metric("logprob_mismatch_mean", "mean", "Difference of the engine's and the trainer's log-probabilities.")
LOGPROB_MISMATCH_MAX = _MISMATCH.metric("logprob_mismatch_max", "largest", "The largest such difference of the step's tokens.", _MAX)
_BEST = Chart("best", "Reward of the best and the worst answer", "mean of the prompts")
REWARDS_BEST = _BEST.metric("rewards_best", "best", "Of the prompts that are learnt from: the chosen answer of each.")
REWARDS_WORST = _BEST.metric("rewards_worst", "worst", "Of the prompts that are learnt from: the answer of the lowest reward.")
_LEFT_OUT = Chart("left_out", "Prompts with nothing to choose", "share of prompts")
PROMPTS_TIED = _LEFT_OUT.metric("prompts_tied", "ties", "All of its answers' rewards are equal.")
PROMPTS_ALIKE = _LEFT_OUT.metric("prompts_alike", "same text", "Best and worst answer have the same text; not learnt from.")
PROMPTS_UNRATED = _LEFT_OUT.metric("prompts_unrated", "too few", "Fewer than two answers have a reward and are not masked; not learnt from.")

# Learning from data.
ACCURACY = metric("accuracy", "Accuracy", "share of pairs, or of rows", "Where the preferred answer is ahead; a tie counts half.", brief="accuracy")
REWARDS_MARGIN = metric("rewards_margin", "Reward margin", "chosen − rejected", "Mean difference of a pair's rewards.", brief="reward margin")
_REWARDS = Chart("rewards", "Rewards", "score, or β · log-ratio to the reference")
REWARDS_CHOSEN_MEAN = _REWARDS.metric("rewards_chosen_mean", "chosen", "Mean over the chosen, or desirable, answers.")
REWARDS_REJECTED_MEAN = _REWARDS.metric("rewards_rejected_mean", "rejected", "Mean over the rejected, or undesirable, answers.")
REWARDS_ACTUAL_MEAN = _REWARDS.metric("rewards_actual_mean", "data's answers", "SPIN: mean over the answers that the data has.")
REWARDS_GENERATED_MEAN = _REWARDS.metric("rewards_generated_mean", "opponent's", "SPIN: mean over the answers that the opponent gave.")
OPPONENT_WIN_RATE = metric("opponent_win_rate", "Opponent's wins", "share of pairs", "Its answer has the higher reward.", label="opponent")
_LOGPROBS = Chart("logprobs", "Log-probability", "nats an answer")
LOGPROBS_CHOSEN = _LOGPROBS.metric("logprobs_chosen", "chosen", "Of a chosen answer; a token's mean with length_normalized.")
LOGPROBS_REJECTED = _LOGPROBS.metric("logprobs_rejected", "rejected", "Of a rejected answer; a token's mean with length_normalized.")
_LOSS_TERMS = Chart("loss_terms", "Loss terms", "nats")
PREFERENCE_LOSS = _LOSS_TERMS.metric("preference_loss", "preference", "The part of the loss that prefers the chosen answer.")
SFT_LOSS = _LOSS_TERMS.metric("sft_loss", "SFT", "Negative log-likelihood of the chosen answer, or of a learnt token (distill), before its weight.")
TEACHER_DIVERGENCE = metric("teacher_divergence", "Divergence from the teacher", "nats a token", "Of distill.", label="policy", brief="divergence")
ON_POLICY = metric("on_policy", "Own answers", "share of steps", "1: the step learnt from the policy's own answers (distill).", label="steps")
TEACHER_MASS = metric("teacher_mass", "Mass of the teacher's likeliest tokens", "share", "The rest is one bucket.", label="teacher")
KL = metric("kl", "KL", "nats an answer", "KTO's z0: the estimated KL to the reference, from mismatched answers.", label="to the reference")
_MAE = Chart("mae", "Rating error", "mean absolute")
MAE = _MAE.metric("mae", "all", "Between predicted and given ratings, all attributes together.")
MAE_OF = family("mae_{}", "Rating error: {}", "Between predicted and given ratings of {}.", _MAE, first=STEERLM)
_ECE = Chart("ece_of", "Calibration error by attribute", "expected, share")
_RANK = Chart("rank", "Rank agreement", "Spearman")
SPEARMAN_OF = family("spearman_{}", "Rank agreement: {}", "Rank correlation of predicted and given ratings of {}.", _RANK, first=STEERLM)
RATING_OF = family("rated_{}", "Rating: {}", "Mean rating given to answers, of {}.", Chart("rating", "Ratings given", "mean"), first=STEERLM)
ECE_OF = family("ece_{}", "Calibration error: {}", "How far the likeliest rating's probability and truth are apart, of {}.", _ECE, first=STEERLM)
DISTANCE = metric("steerlm2_distance", "Distance to the wanted answers", "KL(w || b), nats", "SteerLM 2.", label="held by w")
ECE = metric("ece", "Calibration error", "expected, share", "How far sure and right are apart (Naeini et al. 2015).", label="held out")
_SCORES = Chart("scores", "Scores", "mean and standard deviation")
REWARDS_ALL_MEAN = _SCORES.metric("rewards_all_mean", "mean", "Over all held-out answers, chosen and rejected.")
REWARDS_ALL_STD = _SCORES.metric("rewards_all_std", "deviation", "How far the scores of all held-out answers spread.")
_LENGTH = Chart("length", "Score and length", "correlation")
LENGTH_PEARSON = _LENGTH.metric("length_pearson", "Pearson", "Of an answer's score with its tokens: far from 0, length is what pays.")
LENGTH_SPEARMAN = _LENGTH.metric("length_spearman", "Spearman", "The same of the ranks.")
_BY_LENGTH = Chart("length_accuracy", "Accuracy by length", "share of pairs")
ACCURACY_LONGER_CHOSEN = _BY_LENGTH.metric("accuracy_longer_chosen", "longer chosen", "Of the pairs whose chosen answer is the longer one.")
ACCURACY_SHORTER_CHOSEN = _BY_LENGTH.metric("accuracy_shorter_chosen", "shorter chosen", "Of the pairs whose chosen answer is the shorter one.")
ANSWER_TOKENS_MEAN = metric("answer_tokens_mean", "Length of the sampled answers", "tokens", "Greedy, to held-out prompts.", label="answers")
ANSWERS_ENDED = metric("answers_ended", "Sampled answers that ended", "share", "The others met validation.sample_tokens.", label="ended")

# The optimizer.
GRAD_NORM = metric("grad_norm", "Gradient norm", "L2, before clipping", "NaN: the update was left out.", label="norm", group=OPTIMIZER)
LR = metric("lr", "Learning rate", "", "After warm-up and decay.", label="rate", group=OPTIMIZER, smooth=False)

# Speed and memory.
TOKENS_PER_S = metric("tokens_per_s", "Throughput", "tokens / s", "In training, all ranks.", label="tokens", brief="tokens / s", group=SPEED)
_GENERATION = Chart("generation", "Generation", "tokens / s", SPEED)
PREFILL_TOKENS_PER_S = _GENERATION.metric("prefill_tokens_per_s", "prefill", "Prompt tokens that the first rank's engine reads.")
DECODE_TOKENS_PER_S = _GENERATION.metric("decode_tokens_per_s", "decode", "Answer tokens that the first rank's engine samples.")
BATCH_OCCUPANCY = metric("batch_occupancy", "Decoder's slots in use", "share", "Low: few answers are left to decode.", label="in use", group=SPEED)
SAMPLES_PER_S = metric("samples_per_s", "Rows", "rows / s", "Rows of the global batch by the update's seconds.", label="rows", group=SPEED)
_TIME = Chart("time", "Time of a step", "s", SPEED, stacked=True)
TIME_OF = family("time_{}_s", "Time of a step: {}", "Seconds in {}.", _TIME, _SUM, ("data", "forward_backward", "optimizer"), _phase)
EXPORT_DIFFERENCE = metric("export_difference", "Export", "", "Largest difference of logits or scores: engine and transformers.", label="difference")
STEP_TIME_S = metric("step_time_s", "Whole step", "s", "From one step's end to the next's.", label="step", averaging=_SUM, group=SPEED)
_WIRE = Chart("wire", "Requests on the wire", "s", SPEED)
WIRE_OF = family("wire_{}_s", "Requests on the wire: {}", "Seconds that requests to {} spent on their way.", _WIRE, _SUM, _ENDPOINTS)
_SERVED = Chart("served", "Requests in the servers", "s", SPEED)
SERVER_OF = family("server_{}_s", "Requests in the servers: {}", "Seconds that requests to {} waited and ran there.", _SERVED, _SUM, _ENDPOINTS)
PEAK_MEMORY_GIB = metric("peak_memory_gib", "Peak memory", "GiB", "The largest rank's.", label="peak", averaging=_MAX, group=SPEED, smooth=False)

# What is seldom looked at.
ROLLOUT_SIZE = metric("rollout_size", "Rollout size", "", "Answers sampled in the step.", averaging=_SUM, group=OTHER)
REWARDS_STD = metric("rewards_std", "Rewards std", "", "Standard deviation of the answers' rewards.", group=OTHER)
JUDGE_UNDECIDED = metric("judge_undecided", "Undecided judge", "share", "Comparisons that the order decided, or without a verdict.", group=OTHER)
REWARDS_UNKNOWN = metric("rewards_unknown", "Unknown rewards", "share", "Answers without a known reward, left out of learning.", group=OTHER)
REWARD_OF = family("reward/{}", "Reward/{}", "The component {}, before its weight.", Chart("components", "Reward", "", OTHER), apart=True)
PROMPT_LENGTHS = metric("prompt_lengths", "Prompt lengths", "", "Mean tokens of a prompt.", group=OTHER)
RESPONSE_LENGTHS = metric("response_lengths", "Response lengths", "", "Mean tokens of a prompt and its answer together.", group=OTHER)
KL_PER_ANSWER = metric("kl_per_answer", "KL per answer", "", "To the reference, in nats: summed over an answer's tokens.", group=OTHER)
STALENESS = metric("staleness", "Staleness", "", "Updates between the sampling of an answer and learning from it.", group=OTHER)
RETURNS_STD = metric("returns_std", "Returns std", "", "Standard deviation of the returns that the critic learns.", group=OTHER)
CRITIC_GRAD_NORM = metric("critic_grad_norm", "Critic grad norm", "", "L2 norm of the critic's gradients, before clipping.", group=OTHER)
ITERATION = metric("iteration", "Iteration", "", "SPIN: which time the policy plays against its former self.", group=OTHER, smooth=False)
SQUARED_ERROR = metric("squared_error", "Squared error", "", "Of the critic's values, not clipped.", group=OTHER)
KL_COEFFICIENT = metric("kl_coefficient", "KL coefficient", "", "Weight of the KL penalty, as a change or kl_target made it.", group=OTHER)
SAMPLER_S = metric("sampler_s", "Sampler (s)", "s", "Seconds that sampling ahead took, beside training.", averaging=_SUM, group=OTHER)
LOGPROBS = metric("logprobs", "Log-probs", "", "Mean log-probability of a learnt token, in nats.", group=OTHER, key="logprob")

_BETTER_LARGER = (
    *(
        REWARDS,
        REWARDS_BEST,
        REWARDS_WORST,
        REWARDS_MARGIN,
        REWARDS_CHOSEN_MEAN,
        LOGPROBS,
        LOGPROBS_CHOSEN,
        EXPLAINED_VARIANCE,
        PROPERLY_ENDED,
        ANSWERS_ENDED,
    ),
    *(ACCURACY, ACCURACY_LONGER_CHOSEN, ACCURACY_SHORTER_CHOSEN),
)


def better_larger(name: str) -> bool:
    """Whether the larger of two values of a metric is the better one; of those of which neither is, the smaller is taken to be."""
    return name in _BETTER_LARGER or any(each.part(name) is not None for each in (REWARD_OF, SPEARMAN_OF))
