"""The embedded decoder: a KV-cache loop over the policy's own modules, so its weights are never copied and never stale.

With tensor parallelism the ranks of a group call it together with the same prompts.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from workbench.engine import device
from workbench.engine.model import PackedGPT
from workbench.rollout.base import Rollout, Sampling


class MegatronRollout:
    """Batched decoding of one model. Prompts are padded on the left; sequences that have ended leave the batch."""

    def __init__(self, model: PackedGPT):
        self.model = model
        self.config = model.config

    @torch.no_grad()
    def generate(self, prompts: Sequence[Sequence[int]], sampling: Sampling, seed: int) -> list[Rollout]:
        if not prompts:
            return []
        self.model.eval()
        with _whole_sequences(self.model):
            return self._generate(prompts, sampling, seed)

    def _generate(self, prompts: Sequence[Sequence[int]], sampling: Sampling, seed: int) -> list[Rollout]:
        generator = torch.Generator(device.current()).manual_seed(seed)
        longest = max(map(len, prompts))
        tokens_BT = torch.tensor([[0] * (longest - len(p)) + list(p) for p in prompts], device=device.current())
        real_BT = torch.tensor([[False] * (longest - len(p)) + [True] * len(p) for p in prompts], device=device.current())
        cache: list[tuple[Tensor, Tensor]] = []
        answers: list[list[int]] = [[] for _ in prompts]
        logprobs: list[list[float]] = [[] for _ in prompts]
        alive = list(range(len(prompts)))
        position_BT = (real_BT.cumsum(1) - 1).clamp(min=0)
        logits_BV = self._forward(tokens_BT, position_BT, real_BT, cache)
        while True:
            token_B, logprob_B = _draw(logits_BV, sampling.temperature, generator)
            for i, token, logprob in zip(alive, token_B.tolist(), logprob_B.tolist(), strict=True):
                answers[i].append(token)
                logprobs[i].append(logprob)
            go_on = [j for j, i in enumerate(alive) if answers[i][-1] not in sampling.stop_tokens and len(answers[i]) < sampling.max_tokens]
            if not go_on:
                break
            if len(go_on) < len(alive):
                alive = [alive[j] for j in go_on]
                cache[:] = [(key[go_on], value[go_on]) for key, value in cache]
                token_B, position_BT, real_BT = token_B[go_on], position_BT[go_on], real_BT[go_on]
            position_BT = position_BT[:, -1:] + 1
            real_BT = F.pad(real_BT, (0, 1), value=True)
            logits_BV = self._forward(token_B[:, None], position_BT, real_BT, cache)
        stops = sampling.stop_tokens
        return [Rollout(a, p, "stop" if a[-1] in stops else "length") for a, p in zip(answers, logprobs, strict=True)]

    def _forward(self, tokens_BT: Tensor, position_BT: Tensor, real_BK: Tensor, cache: list[tuple[Tensor, Tensor]]) -> Tensor:
        """Logits of the last token, fp32 [B, V]. `real_BK` marks the keys that are no padding, those of the cache first."""
        decoder = self.model.decoder
        queries, keys = tokens_BT.shape[1], real_BK.shape[1]
        mask = real_BK[:, None, None, :].expand(-1, 1, queries, -1)
        if queries > 1:  # a padding query sees itself, so that its softmax is defined
            causal = torch.ones(queries, keys, dtype=torch.bool, device=mask.device).tril(keys - queries)
            mask = (mask & causal) | torch.eye(queries, keys, dtype=torch.bool, device=mask.device)
        angle = position_BT[:, :, None].float() * self.model.inv_freq.to(position_BT.device)
        angle = torch.cat([angle, angle], dim=-1)[:, None]
        hidden = self.model.embedding.word_embeddings(tokens_BT)
        rotary = angle.cos().to(hidden.dtype), angle.sin().to(hidden.dtype)
        for i, layer in enumerate(decoder.layers):
            hidden = hidden + self._attention(layer.self_attention, layer.input_layernorm(hidden), rotary, mask, cache, i)
            hidden = hidden + layer.mlp(layer.pre_mlp_layernorm(hidden))[0]
        last_BD = decoder.final_layernorm(hidden[:, -1])
        return self.model.logits(last_BD).float()

    def _attention(self, attention, hidden_BTD, rotary, mask, cache, i: int) -> Tensor:  # type: ignore[no-untyped-def]
        config = self.config
        assert config.num_query_groups
        groups, dim = config.num_query_groups // config.tensor_model_parallel_size, config.kv_channels
        heads = config.num_attention_heads // config.num_query_groups
        batch, length = hidden_BTD.shape[:2]
        mixed, _ = attention.linear_qkv(hidden_BTD)
        mixed = mixed.view(batch, length, groups, heads + 2, dim)
        query = _rotate(mixed[..., :heads, :].reshape(batch, length, -1, dim).transpose(1, 2), rotary)
        key = _rotate(mixed[..., heads, :].transpose(1, 2), rotary)
        value = mixed[..., heads + 1, :].transpose(1, 2)
        if i < len(cache):
            key, value = torch.cat([cache[i][0], key], dim=2), torch.cat([cache[i][1], value], dim=2)
            cache[i] = (key, value)
        else:
            cache.append((key, value))
        out = F.scaled_dot_product_attention(query, key, value, attn_mask=mask, enable_gqa=heads > 1)
        return attention.linear_proj(out.transpose(1, 2).reshape(batch, length, -1))[0]


@contextlib.contextmanager
def _whole_sequences(model: torch.nn.Module) -> Iterator[None]:
    """Within: tensor-parallel layers take every token, though they share the tokens in training (sequence parallelism)."""
    marks = ("sequence_parallel", "reduce_scatter_embeddings")
    marked = [(module, mark) for module in model.modules() for mark in marks if getattr(module, mark, False) is True]
    for module, mark in marked:
        setattr(module, mark, False)
    try:
        yield
    finally:
        for module, mark in marked:
            setattr(module, mark, True)


def _rotate(x: Tensor, rotary: tuple[Tensor, Tensor]) -> Tensor:
    """RoPE (Su et al., arXiv 2104.09864) in the half-split layout that Hugging Face and megatron use."""
    cos, sin = rotary
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat([-second, first], dim=-1) * sin


def _draw(logits_BV: Tensor, temperature: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """A token for each row, and its log-probability at temperature 1."""
    logprobs_BV = logits_BV.log_softmax(-1)
    if temperature == 0:
        token_B = logits_BV.argmax(-1)
    else:
        token_B = torch.multinomial((logits_BV / temperature).softmax(-1), 1, generator=generator)[:, 0]
    return token_B, logprobs_BV.gather(1, token_B[:, None])[:, 0]
