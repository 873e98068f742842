"""NeMo-Aligner's rows of knowledge distillation: tokens, and a teacher's likeliest tokens with their logits at each of them."""

from __future__ import annotations

import numpy as np

from workbench.data.formats._parts import Asked, Parsed
from workbench.data.formats._values import Raw, brief, value
from workbench.data.rows import Kind, Malformed, Taught

_NAMES = ("tokens", "labels", "loss_mask", "topk_logits", "topk_token_ids", "log_sum_exp_logits")
SCHEMA = (
    '{"tokens": [T numbers], "labels": [T], the token after each, "loss_mask": [T], 1 where it is learnt, "topk_logits": [T lists of K], "topk_token_ids": [T lists'
    " of K], \"log_sum_exp_logits\": [T]}: the teacher's, in the policy's tokens (NeMo-Aligner's knowledge distillation)"
)
GIVES: tuple[Kind, ...] = ("taught",)
KEYS = (frozenset(_NAMES[:5]),)
READS = frozenset(_NAMES)
LEAST_REST = 2.0**-24
"""The least mass of all other tokens: what fp32 loses of a sum that is near 1."""
_BEYOND = 0.02
"""By how much the likeliest tokens' mass may pass 1 (in nats): logits are rounded."""


def fits(row: Raw, asked: Asked) -> int:
    return 3


def parse(row: Raw, asked: Asked) -> Parsed:
    """The padding after the last learnt token is left out, and so is what the teacher says of tokens that are not learnt."""
    tokens_T, labels_T = (_whole(_array(row, key, 1), key) for key in _NAMES[:2])
    mask_T = _array(row, "loss_mask", 1)
    if not np.isin(mask_T, (0, 1)).all():
        raise Malformed("loss_mask: zeros and ones", brief(row["loss_mask"]))
    learnt_N = np.flatnonzero(mask_T)
    if not len(learnt_N):
        raise Malformed("loss_mask: a one somewhere", "zeros alone")
    last = int(learnt_N[-1])
    logits_TK, ids_TK = _array(row, "topk_logits", 2), _whole(_array(row, "topk_token_ids", 2), "topk_token_ids")
    total_T = _array(row, "log_sum_exp_logits", 1)
    lengths = {key: len(each) for key, each in zip(_NAMES, (tokens_T, labels_T, mask_T, logits_TK, ids_TK, total_T), strict=True)}
    if len(set(lengths.values())) > 1:
        raise Malformed("lists of one length", ", ".join(f"{key} of {length}" for key, length in lengths.items()))
    if logits_TK.shape != ids_TK.shape:
        raise Malformed("topk_logits and topk_token_ids with as many tokens at a place", f"{logits_TK.shape[1]} and {ids_TK.shape[1]}")
    if (labels_T[:last] != tokens_T[1 : last + 1]).any():
        at = int(np.flatnonzero(labels_T[:last] != tokens_T[1 : last + 1])[0])
        raise Malformed("labels: the token after each", f"labels[{at}] is {labels_T[at]}, and tokens[{at + 1}] is {tokens_T[at + 1]}")
    logprobs_NK = logits_TK[learnt_N] - total_T[learnt_N, None]
    ids_NK = ids_TK[learnt_N]
    ordered_NK = np.sort(ids_NK, axis=1)
    if (ordered_NK[:, 1:] == ordered_NK[:, :-1]).any():
        raise Malformed("topk_token_ids: each token once at a place", "one that is there twice")
    whole_N = np.logaddexp.reduce(logprobs_NK, axis=1)
    if whole_N.max() > _BEYOND:
        at = int(learnt_N[whole_N.argmax()])
        raise Malformed(
            "log_sum_exp_logits: of all logits, so no less than that of the topk_logits",
            f"{total_T[at]:.4f} at place {at}, where that of the topk_logits is {total_T[at] + whole_N.max():.4f}",
        )
    rest_N = np.log(np.maximum(-np.expm1(np.minimum(whole_N, 0)), LEAST_REST))
    learn = np.concatenate([[False], mask_T[: last + 1] == 1]).tolist()
    whole = (*tokens_T[: last + 1].tolist(), int(labels_T[last]))
    teacher = (ids_NK.astype(np.int32), logprobs_NK.astype(np.float32), rest_N.astype(np.float32))
    return Taught(whole, tuple(learn), *teacher, where=asked.where)


def _array(row: Raw, key: str, axes: int) -> np.ndarray:
    """Finite numbers with so many axes; further axes of one entry are dropped."""
    wanted = f"{key}: a list of {'lists of ' * (axes - 1)}finite numbers"
    try:
        array = np.asarray(value(row, key), np.float64)
    except (TypeError, ValueError):
        raise Malformed(wanted, brief(row[key])) from None
    while array.ndim > axes and array.shape[-1] == 1:
        array = array[..., 0]
    if array.ndim != axes or not array.size or not np.isfinite(array).all():
        raise Malformed(wanted, brief(row[key]))
    return array


def _whole(array: np.ndarray, key: str) -> np.ndarray:
    if (array != np.floor(array)).any() or array.min() < 0:
        raise Malformed(f"{key}: numbers of tokens, 0 or more", f"{array[(array != np.floor(array)) | (array < 0)][0]:g}")
    return array.astype(np.int64)
