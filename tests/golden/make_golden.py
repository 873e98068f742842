"""Makes `values.npz`: what TRL and NeMo-Aligner's formulas give for 200 random inputs each. `inputs` is what `tests/functional/test_golden.py` computes from.

    pip download --no-deps trl==1.16.0 && unzip trl-1.16.0*.whl -d WHEEL
    PYTHONPATH=WHEEL:. python tests/golden/make_golden.py

TRL's values come from its own code: methods of its trainers, called on a stand-in for the trainer, and the lines of longer methods that compute a loss
or advantages, run by themselves. NeMo-Aligner's are written here from the papers and its documentation, in numpy.
"""

from __future__ import annotations

import inspect
import textwrap
from collections import defaultdict
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

CASES, PAIRS, TOKENS, GROUPS, SAMPLES = 200, 3, 5, 2, 4
ANSWERS = GROUPS * SAMPLES
PATH = Path(__file__).parent / "values.npz"
Arrays = dict[str, np.ndarray]


def inputs() -> Arrays:
    """By name, the first axis the case: multiples of 1/1000 in what is stored, so that they compress."""
    rng = np.random.default_rng(0)

    def logprobs(*shape: int) -> np.ndarray:
        return -rng.gamma(1.5, 0.8, (CASES, *shape)) - 0.01

    def lengths(*shape: int) -> np.ndarray:
        return rng.integers(1, TOKENS + 1, (CASES, *shape))

    pairs, answers = logprobs(2 * PAIRS, TOKENS), logprobs(ANSWERS, TOKENS)
    drawn: Arrays = {
        "pair_lengths": lengths(2 * PAIRS),
        "pair_policy": pairs,
        "pair_reference": pairs + rng.normal(0, 0.5, pairs.shape),
        "pair_rewards": rng.normal(0, 1, (CASES, 2 * PAIRS)),
        "wanted": rng.integers(0, 2, (CASES, 2 * PAIRS)),
        "beta": rng.uniform(0.02, 1, CASES),
        "eta": rng.uniform(0.2, 2, CASES),
        "smoothing": rng.uniform(0.05, 0.45, CASES),
        "weights": rng.uniform(0.5, 2, (CASES, 2)),
        "kl": rng.uniform(0, 2, CASES),
        "lengths": lengths(ANSWERS),
        "old": answers,
        "policy": answers + rng.normal(0, 0.4, answers.shape),
        "reference": answers + rng.normal(0, 0.6, answers.shape),
        "rewards": np.where(rng.random((CASES, 1)) < 0.1, 1.0, rng.normal(0, 1, (CASES, ANSWERS))),
        "ended": rng.random((CASES, ANSWERS)) < 0.75,
        "values": rng.normal(0, 1, (CASES, ANSWERS, TOKENS)),
        "new_values": rng.normal(0, 1, (CASES, ANSWERS, TOKENS)),
        "scores": rng.normal(2, 1, (CASES, ANSWERS, 3)),
        "ratings": np.where(rng.random((CASES, ANSWERS, 3)) < 0.3, -1, rng.integers(0, 5, (CASES, ANSWERS, 3))),
    }
    return {name: np.round(1000 * array).astype(np.int32) for name, array in drawn.items()}


def read() -> tuple[Arrays, Arrays]:
    """The inputs as floats, and the golden values by name [200, …]."""
    with np.load(PATH) as stored:
        given = {name.removeprefix("in/"): stored[name] / 1000 for name in stored.files if name.startswith("in/")}
        return given, {name: stored[name] for name in stored.files if not name.startswith("in/")}


# --- TRL


class Trainer(SimpleNamespace):
    """What TRL's methods read of a trainer on one process, without regularisers that are not asked for."""

    def __init__(self, **settings: Any):
        accelerator = SimpleNamespace(
            device="cpu",
            num_processes=1,
            gather=lambda values: values,
            gather_for_metrics=lambda values: values,
            reduce=lambda values, **_: values,
            unwrap_model=lambda model: model,
        )
        neutral = {
            "model": SimpleNamespace(training=True),
            "_metrics": defaultdict(lambda: defaultdict(list)),
            "aux_loss_enabled": False,
            "current_gradient_accumulation_steps": 1,
        }
        super().__init__(accelerator=accelerator, **(neutral | settings))


def lines(function: Callable[..., object], begin: str, end: str) -> str:
    """A function's lines from the first that begins with `begin` up to the next that begins with `end`, which is left out."""
    source = inspect.getsource(function).splitlines()
    first = next(i for i, line in enumerate(source) if line.strip().startswith(begin))
    last = next(i for i in range(first, len(source)) if source[i].strip().startswith(end))
    return textwrap.dedent("\n".join(source[first:last]))


def run(code: str, module: Any, wanted: str, **names: Any) -> Any:
    scope = {**vars(module), **names}
    exec(code, scope)
    return scope[wanted]


def trl(given: Arrays) -> Arrays:
    import torch

    dpo, kto, grpo, rloo, reward = (import_module(f"trl.trainer.{name}_trainer") for name in ("dpo", "kto", "grpo", "rloo", "reward"))
    orpo, cpo = (import_module(f"trl.experimental.{name}.{name}_trainer") for name in ("orpo", "cpo"))
    kto_lines = lines(kto.KTOTrainer._compute_loss, "# Chosen losses", 'self._metrics[mode]["kl"]')
    reward_lines = lines(reward.RewardTrainer.compute_loss, 'if "margin" in inputs', "if self.args.center")
    group_lines = lines(grpo.GRPOTrainer._generate_and_score_completions, "mean_grouped_rewards = torch.nanmean", "elif self.multi")
    rloo_lines = lines(rloo.RLOOTrainer._generate_and_score_completions, "grouped_rewards = rewards.view", "# Normalize advantages")
    found: dict[str, list[Any]] = defaultdict(list)
    for case in range(CASES):
        now = {name: torch.as_tensor(array[case], dtype=torch.float64) for name, array in given.items()}
        beta = float(now["beta"])
        for name in ("sigmoid", "hinge", "ipo", "sigmoid_norm"):
            found[f"trl/dpo_{name}"].append(_dpo(dpo.DPOTrainer, name, now, beta))
        mask = _mask(now["pair_lengths"])
        sums, ratios = (now["pair_policy"] * mask).sum(1), ((now["pair_policy"] - now["pair_reference"]) * mask).sum(1)
        wanted, zeros = now["wanted"] > 0, torch.zeros_like
        sides = {"chosen_logps": ratios[wanted], "ref_chosen_logps": zeros(ratios[wanted])}
        sides |= {"rejected_logps": ratios[~wanted], "ref_rejected_logps": zeros(ratios[~wanted])}
        weights = {"desirable_weight": float(now["weights"][0]), "undesirable_weight": float(now["weights"][1])}
        trainer = Trainer(loss_type="kto", beta=beta, **weights)
        found["trl/kto"].append(run(kto_lines, kto, "losses", self=trainer, kl=now["kl"], **sides).mean())
        means = sums / now["pair_lengths"]
        odds = orpo.ORPOTrainer.odds_ratio_loss(Trainer(beta=beta), means[0::2].float(), means[1::2].float())[0]
        found["trl/orpo_odds"].append(odds.mean())
        contrast = Trainer(loss_type="sigmoid", beta=beta, label_smoothing=0.0, alpha=0.0)
        likelihood = -sums[0::2].sum() / now["pair_lengths"][0::2].sum()  # TRL's cross-entropy: the mean over the chosen tokens
        found["trl/cpo"].append(cpo.CPOTrainer.cpo_loss(contrast, sums[0::2], sums[1::2])[0].mean() + likelihood)
        simple = Trainer(loss_type="simpo", beta=beta, simpo_gamma=float(now["eta"]), label_smoothing=0.0, alpha=0.0)
        found["trl/simpo"].append(cpo.CPOTrainer.cpo_loss(simple, means[0::2], means[1::2])[0].mean())
        chosen = {"rewards_chosen": now["pair_rewards"][0::2], "rewards_rejected": now["pair_rewards"][1::2]}
        found["trl/ranking"].append(run(reward_lines, reward, "loss", inputs={}, **chosen))
        found["trl/ranking_margin"].append(run(reward_lines, reward, "loss", inputs={"margin": now["eta"]}, **chosen))
        for name in ("grpo", "bnpo"):
            found[f"trl/{name}"].append(_grpo(grpo.GRPOTrainer, name, now, beta))
        scorable = now["rewards"].where(now["ended"] > 0, torch.nan)
        for scale in ("group", "none"):
            code = f"if True:\n{textwrap.indent(group_lines, '    ')}\nadvantages = torch.nan_to_num(advantages, nan=0.0)"
            names = {"self": Trainer(scale_rewards=scale), "num_generations": SAMPLES, "rewards": scorable}
            found[f"trl/advantages_{scale}"].append(run(code, grpo, "advantages", **names))
        code = f"{rloo_lines}\nadvantages = torch.nan_to_num(advantages, nan=0.0)"
        found["trl/advantages_rloo"].append(run(code, rloo, "advantages", num_generations=SAMPLES, rewards=scorable))
    return {name: np.array([np.asarray(value, np.float64) for value in values]) for name, values in found.items()}


def _mask(lengths: Any) -> Any:
    import torch

    return (torch.arange(TOKENS) < lengths[:, None]).double()


def _dpo(trainer: Any, name: str, now: dict[str, Any], beta: float) -> Any:
    """TRL's loss of the pairs, chosen answers first; a prompt of one token stands before each."""
    import torch

    order = [*range(0, 2 * PAIRS, 2), *range(1, 2 * PAIRS, 2)]
    mask = _mask(now["pair_lengths"])[order]
    policy, reference = (now[f"pair_{each}"][order] * mask for each in ("policy", "reference"))

    def model(log_probs: Any) -> Callable[..., Any]:
        zeros = torch.zeros_like(log_probs)  # of what is only logged
        return lambda **_: SimpleNamespace(log_probs=log_probs, entropy=zeros, mean_logits=zeros, is_top1=zeros > 0)

    settings = {
        "loss_types": [name],
        "loss_weights": [1.0],
        "beta": beta,
        "f_divergence_type": "reverse_kl",
        "ld_alpha": None,
        "use_weighting": False,
    }
    self = Trainer(**settings, precompute_ref_logps=True, _total_train_tokens=0, _tp_size=1, state=SimpleNamespace(num_input_tokens_seen=0))
    halves = {f"ref_{side}_logps": part for side, part in zip(("chosen", "rejected"), reference.sum(1).chunk(2), strict=True)}
    whole = torch.cat([torch.zeros(2 * PAIRS, 1), mask], 1).long()
    given = {"completion_mask": whole, "input_ids": whole, "attention_mask": torch.ones_like(whole), **halves}
    called = model(policy)
    self.model = SimpleNamespace(training=True)
    return trainer._compute_loss(self, called, given, False)


def _grpo(trainer: Any, name: str, now: dict[str, Any], beta: float) -> Any:
    """TRL's loss, clipped on both sides of the ratio and for negative advantages, with a KL term. The rewards stand for advantages."""
    import torch

    mask, zeros = _mask(now["lengths"]), torch.zeros(ANSWERS, TOKENS)
    args = SimpleNamespace(delta=1.5, use_bias_correction_kl=False)
    settings = {"loss_type": name, "beta": beta, "epsilon_low": 0.1, "epsilon_high": 0.3, "importance_sampling_level": "token"}
    off = {"top_entropy_quantile": 1.0, "off_policy_mask_threshold": None, "use_vllm": False, "_entropy_bonus_enabled": False}
    self = Trainer(**settings, **off, args=args, use_adaptive_entropy=False)
    self._get_per_token_logps_and_entropies = lambda *_, **__: (now["policy"], zeros, None)
    ids = mask.long()
    prompts = {"prompt_ids": ids[:, :1], "prompt_mask": ids[:, :1], "completion_ids": ids, "completion_mask": ids}
    arrays = {"advantages": now["rewards"], "old_per_token_logps": now["old"], "ref_per_token_logps": now["reference"]}
    return trainer._compute_loss(self, None, {**prompts, **arrays})


# --- NeMo-Aligner


def nemo(given: Arrays) -> Arrays:
    """Of all cases at once."""
    mask = np.arange(TOKENS) < given["pair_lengths"][..., None]
    ratios = ((given["pair_policy"] - given["pair_reference"]) * mask).sum(-1)
    beta, eta, smoothing = (given[name][:, None] for name in ("beta", "eta", "smoothing"))
    learnt = beta * (ratios[:, 0::2] - ratios[:, 1::2])
    target = eta * (given["pair_rewards"][:, 0::2] - given["pair_rewards"][:, 1::2])
    scores, margin = given["pair_rewards"][:, 0::2] - given["pair_rewards"][:, 1::2], given["eta"][:, None]
    present = given["ratings"] >= 0
    squares = np.where(present, (given["scores"] - given["ratings"]) ** 2, 0)
    return {
        "nemo/dpo": _mean(np.log1p(np.exp(-learnt))),
        "nemo/cdpo": _mean((1 - smoothing) * np.log1p(np.exp(-learnt)) + smoothing * np.log1p(np.exp(learnt))),
        "nemo/ipo": _mean((learnt / beta - 1 / (2 * beta)) ** 2),
        "nemo/rpo_sq": _mean((learnt - target) ** 2),
        "nemo/rpo_fwd_kl": _mean(_bernoulli_kl(_sigmoid(learnt), _sigmoid(target))),
        "nemo/rpo_bwd_kl": _mean(_bernoulli_kl(_sigmoid(target), _sigmoid(learnt))),
        "nemo/ranking_scaled": _mean(margin * np.log1p(np.exp(-scores))),
        "nemo/regression": squares.sum((1, 2)) / present.sum((1, 2)),
        **_policy_gradient(given),
    }


def _policy_gradient(given: Arrays) -> Arrays:
    mask = np.arange(TOKENS) < given["lengths"][..., None]
    ended, rewards = given["ended"] > 0, given["rewards"]
    kl = given["old"] - given["reference"]
    per_answer = np.array([[kl[c, a, : int(n)].mean() for a, n in enumerate(given["lengths"][c])] for c in range(CASES)])
    with_kl = rewards - given["beta"][:, None] * per_answer
    baseline = np.zeros_like(with_kl)
    for case in range(CASES):
        for group in range(GROUPS):
            span = range(group * SAMPLES, (group + 1) * SAMPLES)
            for own in span:
                others = [with_kl[case, i] for i in span if ended[case, i] and i != own]
                alone = sum(ended[case, i] for i in span) <= 1
                baseline[case, own] = with_kl[case, own] if alone or not ended[case, own] else np.mean(others)
    advantages, returns = _gae(given, kl, mask)
    learnt = (mask & ended[..., None]).astype(float)
    ratio = np.exp(given["policy"] - given["old"])
    surrogate = -np.minimum(ratio * given["values"], np.clip(ratio, 0.8, 1.2) * given["values"])
    clipped = given["values"] + np.clip(given["new_values"] - given["values"], -0.2, 0.2)
    critic = 0.5 * np.maximum((clipped - returns) ** 2, (given["new_values"] - returns) ** 2)
    return {
        "nemo/advantages_rloo": with_kl - baseline,
        "nemo/ppo_advantages": _whitened(advantages, np.where(learnt.sum((1, 2), keepdims=True) > 1, learnt, mask)),
        "nemo/ppo_returns": returns,
        "nemo/ppo_loss": (surrogate * mask).sum((1, 2)) / mask.sum((1, 2)),
        "nemo/critic_loss": (critic * mask).sum((1, 2)) / mask.sum((1, 2)),
        "nemo/kl_abs": np.abs(kl) * mask,
        "nemo/init_policy_kl": per_answer.mean(1),
    }


def _gae(given: Arrays, kl: np.ndarray, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Advantages and returns of gamma 0.9, lambda 0.8: the reward at an answer's last token, minus beta x KL at each."""
    advantages = np.zeros_like(kl)
    for case in range(CASES):
        for answer, length in enumerate(given["lengths"][case].astype(int)):
            rewards = -given["beta"][case] * kl[case, answer, :length]
            rewards[-1] += given["rewards"][case, answer]
            values = np.append(given["values"][case, answer, :length], 0)
            deltas = rewards + 0.9 * values[1:] - values[:-1]
            advantages[case, answer, :length] = [sum((0.9 * 0.8) ** (j - i) * deltas[j] for j in range(i, length)) for i in range(length)]
    return advantages, (advantages + given["values"]) * mask


def _whitened(values: np.ndarray, mask: np.ndarray) -> np.ndarray:
    count = mask.sum((1, 2), keepdims=True)
    mean = (values * mask).sum((1, 2), keepdims=True) / count
    variance = ((values - mean) ** 2 * mask).sum((1, 2), keepdims=True) / count
    return (values - mean) / np.sqrt(variance + 1e-8) * mask


def _mean(values: np.ndarray) -> np.ndarray:
    return values.mean(1)


def _sigmoid(values: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-values))


def _bernoulli_kl(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    return p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q))


def main() -> None:
    stored = inputs()
    given = {name: array / 1000 for name, array in stored.items()}
    golden = trl(given) | nemo(given)
    assert all(np.isfinite(values).all() for values in golden.values())
    compact = {name: values.astype(np.float32) for name, values in golden.items()}
    narrow = {f"in/{name}": array.astype(np.int16) if np.abs(array).max() < 2**15 else array for name, array in stored.items()}
    np.savez_compressed(PATH, **narrow, **compact)
    print(f"{PATH}: {PATH.stat().st_size:,} bytes, {len(golden)} formulas")


if __name__ == "__main__":
    main()
