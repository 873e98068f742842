"""How far a student's distribution is from a teacher's, both known at K tokens and for all others together.

The others are one bucket: log of their summed probability. By the data-processing inequality a divergence of the buckets is at most that of the whole
vocabularies, and equal to it where K is the whole vocabulary, or where the two distribute the bucket alike.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def divergence(
    student_NK: Tensor, student_rest_N: Tensor, teacher_NK: Tensor, teacher_rest_N: Tensor, kind: str, teacher_share: float = 0.5
) -> Tensor:
    """One value a prediction, in nats, between P, the teacher's K + 1 probabilities, and Q, the student's.

    `forward_kl` is KL(P || Q) (Hinton et al., arXiv 1503.02531, up to P's entropy), `reverse_kl` is KL(Q || P), and `jensen_shannon`, with b the teacher's share,
    b KL(P || M) + (1 - b) KL(Q || M) with M = b P + (1 - b) Q (GKD: Agarwal et al., arXiv 2306.13649, section 2).

    Args:
        student_NK: log-probabilities of K tokens, with gradient; `student_rest_N` the log of all other tokens' mass, -inf where there are none.
        teacher_NK: the teacher's log-probabilities of the same tokens, likewise.

    Returns:
        divergence_N; infinite where KL is: one has mass where the other has none.
    """
    student = torch.cat([student_NK, student_rest_N[:, None]], dim=1)
    teacher = torch.cat([teacher_NK, teacher_rest_N[:, None]], dim=1)
    nobody = student.isneginf() & teacher.isneginf()
    student, teacher = student.masked_fill(nobody, 0.0), teacher.masked_fill(nobody, 0.0)
    if kind == "forward_kl":
        return _kl(teacher, student)
    if kind == "reverse_kl":
        return _kl(student, teacher)
    assert kind == "jensen_shannon", kind
    middle = torch.logaddexp(teacher + math.log(teacher_share), student + math.log1p(-teacher_share))
    return teacher_share * _kl(teacher, middle) + (1 - teacher_share) * _kl(student, middle)


def _kl(first: Tensor, second: Tensor) -> Tensor:
    """sum p (log p - log q) over the last axis; a probability of 0 adds nothing, in value and gradient."""
    none = first.isneginf()
    return (first.exp() * (first.masked_fill(none, 0.0) - second.masked_fill(none, 0.0))).sum(-1)
