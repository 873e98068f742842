"""Which metrics are drawn together, under which name and in which unit. A metric that is not here is drawn all the same."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from workbench.views import text


@dataclass(frozen=True)
class Chart:
    """One chart: the metrics it shows and their names in its legend."""

    key: str
    title: str
    unit: str
    series: tuple[tuple[str, str], ...]
    stacked: bool = False
    group: str = "Learning"
    smooth: bool = True


STEERLM = ("quality", "toxicity", "humor", "creativity", "helpfulness", "correctness", "coherence", "complexity", "verbosity")
ENDPOINTS = ("critic_infer", "critic_train", "reward_model", "reference_logprobs")
CHARTS = (
    Chart("reward", "Reward", "mean of the answers", (("rewards", "train"),)),
    Chart("init_kl", "KL to the reference", "nats an answer", (("init_policy_kl", "answer"),)),
    Chart("loss", "Loss", "nats", (("loss", "train"),)),
    Chart("entropy", "Entropy", "nats a token", (("entropy", "policy"),)),
    Chart("ratio", "Ratio to the old policy", "", (("ppo_ratio", "ratio"), ("ppo_ratio_clamped", "clamped"))),
    Chart("clip_fraction", "Clipped tokens", "share", (("clip_fraction", "clipped"),)),
    Chart("lengths", "Answer length", "tokens", (("response_lengths", "answers"),)),
    Chart("ended", "Answers that ended", "share", (("fraction_of_samples_properly_ended", "ended"),)),
    Chart("critic", "Critic", "loss", (("critic_loss", "loss"),)),
    Chart("explained", "Explained variance", "share of the returns'", (("explained_variance", "critic"),)),
    Chart("values", "Values and returns", "mean", (("values_mean", "values"), ("returns_mean", "returns"))),
    Chart("advantages", "Advantages", "mean and deviation", (("advantages_mean", "mean"), ("advantages_std", "deviation"))),
    Chart("mismatch", "Rollout engine against trainer", "nats a token", (("logprob_mismatch_mean", "mean"), ("logprob_mismatch_max", "largest"))),
    Chart("accuracy", "Accuracy", "share of pairs, or of rows", (("accuracy", "train"),)),
    Chart("margin", "Reward margin", "chosen − rejected", (("rewards_margin", "train"),)),
    Chart(
        "rewards", "Rewards", "score, or β · log-ratio to the reference", (("rewards_chosen_mean", "chosen"), ("rewards_rejected_mean", "rejected"))
    ),
    Chart("logprobs", "Log-probability", "nats an answer", (("logprobs_chosen", "chosen"), ("logprobs_rejected", "rejected"))),
    Chart("loss_terms", "Loss terms", "nats", (("preference_loss", "preference"), ("sft_loss", "SFT"))),
    Chart("kl", "KL", "nats an answer", (("kl", "to the reference"),)),
    Chart("mae", "Rating error", "mean absolute", (("mae", "all"), *((f"mae_{name}", name) for name in STEERLM))),
    Chart("rank", "Rank agreement", "Spearman", tuple((f"spearman_{name}", name) for name in STEERLM)),
    Chart("ece", "Calibration error", "expected, share", (("ece", "held out"),)),
    Chart("scores", "Scores", "mean and standard deviation", (("rewards_all_mean", "mean"), ("rewards_all_std", "deviation"))),
    Chart("length", "Score and length", "correlation", (("length_pearson", "Pearson"), ("length_spearman", "Spearman"))),
    Chart(
        "length_accuracy",
        "Accuracy by length",
        "share of pairs",
        (("accuracy_longer_chosen", "longer chosen"), ("accuracy_shorter_chosen", "shorter chosen")),
    ),
    Chart("sample_lengths", "Length of the sampled answers", "tokens", (("answer_tokens_mean", "answers"),)),
    Chart("samples_ended", "Sampled answers that ended", "share", (("answers_ended", "ended"),)),
    Chart("grad_norm", "Gradient norm", "L2, before clipping", (("grad_norm", "norm"),), group="Optimizer"),
    Chart("lr", "Learning rate", "", (("lr", "rate"),), group="Optimizer", smooth=False),
    Chart("throughput", "Throughput", "tokens / s", (("tokens_per_s", "tokens"),), group="Speed and memory"),
    Chart(
        "generation",
        "Generation",
        "tokens / s",
        (("prefill_tokens_per_s", "prefill"), ("decode_tokens_per_s", "decode")),
        group="Speed and memory",
    ),
    Chart("occupancy", "Decoder's slots in use", "share", (("batch_occupancy", "in use"),), group="Speed and memory"),
    Chart("samples", "Rows", "rows / s", (("samples_per_s", "rows"),), group="Speed and memory"),
    Chart(
        "time",
        "Time of a step",
        "s",
        (("time_data_s", "data"), ("time_forward_backward_s", "forward and backward"), ("time_optimizer_s", "optimizer")),
        stacked=True,
        group="Speed and memory",
    ),
    Chart("step_time", "Whole step", "s", (("step_time_s", "step"),), group="Speed and memory"),
    Chart("wire", "Requests on the wire", "s", tuple((f"wire_{name}_s", name) for name in ENDPOINTS), group="Speed and memory"),
    Chart("served", "Requests in the servers", "s", tuple((f"server_{name}_s", name) for name in ENDPOINTS), group="Speed and memory"),
    Chart("memory", "Peak memory", "GiB", (("peak_memory_gib", "peak"),), group="Speed and memory", smooth=False),
)
PHASE_PARTS = {"generate": ("refit",), "train": ("data", "forward_backward", "optimizer")}
"""Phases of a step (`time_<phase>_s`) that are measured within another."""
UNITS = {"_s": "s", "_gib": "GiB", "_per_s": "1 / s"}
GROUPS = ("Learning", "Optimizer", "Speed and memory", "Other")


def charts(metrics: Iterable[str]) -> list[Chart]:
    """The charts for these metrics, in the groups' order: the known ones, then one for each that nobody foresaw."""
    names = list(dict.fromkeys(metrics))
    known = {name for chart in CHARTS for name, _ in chart.series}
    found = [replace(c, series=tuple(s for s in c.series if s[0] in names)) for c in CHARTS if any(name in names for name, _ in c.series)]
    phases = [name for name in names if name.startswith("time_") and name.endswith("_s") and name not in known]
    other = [name for name in names if name not in known and name not in phases]
    if phases:
        within = {f"time_{part}_s" for whole, parts in PHASE_PARTS.items() if f"time_{whole}_s" in names for part in parts}  # stacked: none twice
        found = [_with_phases(chart, phases, within) if chart.key == "time" else chart for chart in found]
        if not any(chart.key == "time" for chart in found):
            found.append(_with_phases(Chart("time", "Time of a step", "s", (), True, "Speed and memory"), phases, within))
    found += [Chart(name, label(name), _unit(name), ((name, "train"),), group="Other") for name in other]
    return sorted(found, key=lambda chart: GROUPS.index(chart.group))


def label(metric: str) -> str:
    """A metric's name for people: its chart's title, with its part of a shared chart."""
    for chart in CHARTS:
        for name, part in chart.series:
            if name == metric:
                return chart.title if len(chart.series) == 1 else f"{chart.title}: {part}"
    return text.title(metric)


def unit(metric: str) -> str:
    """The unit on a metric's axis."""
    return next((chart.unit for chart in CHARTS if any(name == metric for name, _ in chart.series)), _unit(metric))


def _unit(metric: str) -> str:
    return next((UNITS[end] for end in ("_per_s", "_gib", "_s") if metric.endswith(end)), "")


def _with_phases(chart: Chart, phases: list[str], within: set[str]) -> Chart:
    more = [(name, text.title(name.removeprefix("time_").removesuffix("_s")).lower()) for name in phases]
    return replace(chart, series=tuple(series for series in (*chart.series, *more) if series[0] not in within))
