"""SteerLM 2: the policy moves to the answers that are likelier under the wanted attributes than it says."""

from __future__ import annotations

import torch
from torch import Tensor

from workbench.functional.sequences import count_by_sequence, sum_by_sequence


def softmax_by_group(values_S: Tensor, group_S: Tensor, num_groups: int) -> Tensor:
    """exp(value) of each answer, divided by the sum over its group: log of it, [S]."""
    highest_G = values_S.new_full((num_groups,), -torch.inf).scatter_reduce(0, group_S, values_S, "amax")
    shifted_S = values_S - highest_G[group_S]
    return shifted_S - sum_by_sequence(shifted_S.exp(), group_S, num_groups).log()[group_S]


def steerlm2(
    logprobs_N: Tensor,
    proposal_logprobs_N: Tensor,
    attribute_logprobs_S: Tensor,
    base_logprobs_S: Tensor,
    sequence_N: Tensor,
    group_S: Tensor,
    num_groups: int,
) -> tuple[Tensor, Tensor]:
    """sum_i (w_i - b_i) NLL_i / mean tokens of the group's answers (SteerLM 2.0: HelpSteer2, arXiv 2406.08673, section 5.2, and NeMo-Aligner's normaliser).

    w = softmax over the group of log P(a|x,y) + log P(y|x) - log Q'(y|a,x), the optimal distribution's weights on answers that Q' proposed; b = softmax of
    log Q(y|a,x) - log Q'(y|a,x), those that the policy gives them. Neither is differentiated: the gradient is that of KL(w || b).

    Args:
        logprobs_N: the policy's, of the answers' tokens, their ends included; proposal_logprobs_N: of the policy that sampled them.
        attribute_logprobs_S: log P(a|x,y) of each answer; base_logprobs_S: log P(y|x).
        group_S: which prompt each answer is to.

    Returns:
        loss_G, and KL(w || b) of each group: distance_G.
    """
    answers = len(group_S)
    policy_S, proposal_S = (sum_by_sequence(each_N, sequence_N, answers) for each_N in (logprobs_N, proposal_logprobs_N))
    log_w_S = softmax_by_group(attribute_logprobs_S + base_logprobs_S - proposal_S, group_S, num_groups)
    log_b_S = softmax_by_group(policy_S.detach() - proposal_S, group_S, num_groups)
    tokens_S = count_by_sequence(sequence_N, answers).to(policy_S)
    mean_tokens_G = sum_by_sequence(tokens_S, group_S, num_groups) / sum_by_sequence(torch.ones_like(tokens_S), group_S, num_groups)
    loss_G = sum_by_sequence((log_w_S.exp() - log_b_S.exp()) * -policy_S, group_S, num_groups) / mean_tokens_G
    return loss_G, sum_by_sequence(log_w_S.exp() * (log_w_S - log_b_S), group_S, num_groups)
