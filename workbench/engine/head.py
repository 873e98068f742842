"""The last layer: what is wanted of the vocabulary, or scores.

The output layer may be split over tensor-parallel ranks; see `workbench.engine.vocabulary`.
"""

from __future__ import annotations

import torch
import torch.distributed as dist
import torch.nn.functional as F
from megatron.core.tensor_parallel import gather_from_tensor_model_parallel_region
from torch import Tensor, nn

from workbench.engine import columns
from workbench.engine.batch import Given
from workbench.engine.drawn import Drawn, at_temperature
from workbench.engine.vocabulary import logprobs_at, target_logprobs, target_logprobs_and_entropy, top_k
from workbench.settings.outputs import Outputs


class VocabularyHead(nn.Module):
    """In place of megatron's output layer, whose weights it takes over (None where the embedding's serve).

    It is called as a module, so that megatron, which hangs the gathering of updated weights on the call, has gathered them.
    """

    def __init__(self, weight_VD: nn.Parameter | None, num_tokens: int, rank: int, group: dist.ProcessGroup):
        super().__init__()
        assert num_tokens < columns.EXACT, "token numbers travel as fp32"
        self.weight = weight_VD
        self.num_tokens, self.rank, self.group = num_tokens, rank, group

    def forward(
        self,
        hidden_ND: Tensor,
        shared_VD: Tensor | None,
        wanted: Outputs | None = None,
        target_N: Tensor | None = None,
        at_NK: Tensor | None = None,
        drawn: Drawn | None = None,
    ) -> Tensor:
        """What is wanted of each prediction, as `workbench.engine.columns` joins it; all logits [N, V] where nothing in particular is.

        `drawn` is the distribution that the targets were drawn from, where that is another than softmax(logits). Top-k and named tokens are of that one too,
        unless `wanted.temperature` says another.

        Raises:
            ValueError: top-k or named tokens are wanted of targets that were drawn among kept tokens.
        """
        weight_VD = self.weight if shared_VD is None else shared_VD
        assert weight_VD is not None
        if wanted is None:
            return gather_from_tensor_model_parallel_region(hidden_ND @ weight_VD.T, self.group)[..., : self.num_tokens]
        first = self.rank * len(weight_VD)
        # Without the rows for tokens that there are not.
        weight_VD = weight_VD[: max(0, self.num_tokens - first)]
        spread = drawn if wanted.temperature is None else at_temperature(wanted.temperature, len(hidden_ND))
        if spread is not None and spread.kept is not None and (wanted.top_k or at_NK is not None):
            raise ValueError("of answers drawn among kept tokens (top_k, top_p) there are no other tokens' log-probabilities: set logprobs_of=policy")
        logprobs_N, entropy_N = None, None
        if wanted.entropy:
            assert target_N is not None
            logprobs_N, entropy_N = target_logprobs_and_entropy(hidden_ND, weight_VD, target_N, first=first, group=self.group, drawn=drawn)
        elif wanted.logprobs:
            assert target_N is not None
            logprobs_N = target_logprobs(hidden_ND, weight_VD, target_N, first=first, group=self.group, drawn=drawn)
        given = Given(
            logprobs_N=logprobs_N if wanted.logprobs else None,
            entropy_N=entropy_N,
            top_k=top_k(hidden_ND, weight_VD, wanted.top_k, first=first, group=self.group, drawn=spread) if wanted.top_k else None,
            at=None if at_NK is None else logprobs_at(hidden_ND, weight_VD, at_NK, first=first, group=self.group, drawn=spread),
        )
        return columns.joined(given)


class ScoreHead(nn.Linear):
    """hidden [S, D] to scores_SK, in fp32. It starts at N(0, 1 / (D + 1)) (Stiennon et al., arXiv 2009.01325, appendix B.1)."""

    def __init__(self, hidden_size: int, num_scores: int, seed: int):
        super().__init__(hidden_size, num_scores, bias=False)
        with torch.no_grad():
            self.weight.normal_(0, (hidden_size + 1) ** -0.5, generator=torch.Generator().manual_seed(seed))

    def forward(self, input: Tensor) -> Tensor:
        return F.linear(input.float(), self.weight.float())
