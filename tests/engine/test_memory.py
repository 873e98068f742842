"""What is never held in memory at once: the other shards of a model that is read, the logits of a batch."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from transformers import LlamaConfig

from tests import gang
from workbench.engine import hf, parallel
from workbench.engine.loading import load_weights
from workbench.engine.model import build, named_parameters
from workbench.engine.vocabulary import target_logprobs
from workbench.settings import Lora, Model
from workbench.settings.layout import Layout

MIB = 2**20
SLACK = 96 * MIB
"""What the reading itself may take: one tensor before and after it is cut, and the allocator's rounding."""


class Taken:
    """Resident memory from here on: the largest, less what there was."""

    def __init__(self) -> None:
        Path("/proc/self/clear_refs").write_text("5")  # the kernel forgets the largest so far
        self._before = self._read("VmRSS")

    def bytes(self) -> int:
        return self._read("VmHWM") - self._before

    @staticmethod
    def _read(name: str) -> int:
        line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(name))
        return int(line.split()[1]) * 1024


def sharded_model(folder: Path, gib: float, shards: int = 4) -> int:
    """A model of so many GiB in fp32, its layers dealt over equal shards. Returns the size of the largest."""
    config = LlamaConfig(
        vocab_size=1024, hidden_size=1024, intermediate_size=2816, num_hidden_layers=1, num_attention_heads=16, num_key_value_heads=8
    )
    per_layer = 4 * (1024 * 1024 * 2 + 1024 * 512 * 2 + 3 * 1024 * 2816)
    config.num_hidden_layers = layers = max(shards, round(gib * 2**30 / per_layer) // shards * shards)
    config.save_pretrained(folder)
    hidden, kv, ffn = 1024, 512, 2816
    shapes = {"self_attn.q_proj": (hidden, hidden), "self_attn.k_proj": (kv, hidden), "self_attn.v_proj": (kv, hidden)}
    shapes |= {"self_attn.o_proj": (hidden, hidden), "mlp.gate_proj": (ffn, hidden), "mlp.up_proj": (ffn, hidden), "mlp.down_proj": (hidden, ffn)}
    for shard in range(shards):
        tensors = {}
        for i in range(shard * layers // shards, (shard + 1) * layers // shards):
            tensors |= {f"model.layers.{i}.{name}.weight": torch.full(shape, float(i)) for name, shape in shapes.items()}
            tensors |= {f"model.layers.{i}.{name}.weight": torch.ones(hidden) for name in ("input_layernorm", "post_attention_layernorm")}
        if shard == 0:
            tensors["model.embed_tokens.weight"] = torch.ones(1024, hidden)
        if shard == shards - 1:
            tensors |= {"model.norm.weight": torch.ones(hidden), "lm_head.weight": torch.ones(1024, hidden)}
        save_file(tensors, folder / f"model-{shard + 1:05d}-of-{shards:05d}.safetensors", metadata={"format": "pt"})
    return max(path.stat().st_size for path in folder.glob("*.safetensors"))


def read(folder: Path) -> None:
    directory = folder / "model"
    chunks = build(hf.config(directory), Model(tensor_parallel=parallel.tensor_size(), lora=Lora(rank=0)))
    torch.ones(1024, 1024) @ torch.ones(1024, 1024)  # what torch sets up at its first product is not the reading's
    taken = Taken()
    load_weights(named_parameters(chunks), directory, False, parallel.tensor_rank(), parallel.tensor_size())
    most = taken.bytes()
    partition = sum(parameter.nbytes for _, parameter in named_parameters(chunks))
    last = dict(named_parameters(chunks))[f"decoder.layers.{len(chunks[0].decoder.layers) - 1}.mlp.linear_fc2.weight"]
    assert last.unique().tolist() == [len(chunks[0].decoder.layers) - 1]
    (folder / f"rank{parallel.rank()}.json").write_text(json.dumps({"taken": most, "partition": partition}))


@pytest.mark.parametrize("gib", [0.5, pytest.param(3.0, marks=pytest.mark.slow)])
def test_reading_takes_a_shard_and_the_ranks_own_part(tmp_path: Path, gib: float) -> None:
    (tmp_path / "model").mkdir()
    shard = sharded_model(tmp_path / "model", gib)
    gang.run(read, tmp_path, Layout(tensor=2))
    for rank in range(2):
        found = json.loads((tmp_path / f"rank{rank}.json").read_text())
        print(f"rank {rank}: {found['taken'] / MIB:.0f} MiB for a part of {found['partition'] / MIB:.0f} and a shard of {shard / MIB:.0f} MiB")
        assert found["taken"] < shard + found["partition"] + SLACK


def test_logprobs_take_less_than_a_third_of_the_naive_ones_memory(tmp_path: Path) -> None:
    """Forward and backward at a vocabulary of 49,152 and 2,048 tokens, with learnt output weights."""
    ours, naive = (measured(tmp_path, which) for which in ("ours", "naive"))
    print(f"log-probabilities: {ours / MIB:.0f} MiB; of all logits at once: {naive / MIB:.0f} MiB")
    assert ours < naive / 3


def measured(folder: Path, which: str) -> int:
    (folder / "which").write_text(which)
    gang.run(logprob_step, folder, Layout())
    return int((folder / "taken").read_text())


def logprob_step(folder: Path) -> None:
    naive = (folder / "which").read_text() == "naive"
    torch.manual_seed(0)
    hidden = torch.randn(2048, 64, requires_grad=True)
    weight = torch.randn(49152, 64, requires_grad=True)
    target = torch.randint(49152, (2048,))
    hidden.grad, weight.grad = torch.zeros_like(hidden), torch.zeros_like(weight)
    (hidden @ weight[:8].T).sum().backward()
    taken = Taken()
    if naive:
        logprobs = (hidden @ weight.T).log_softmax(-1).gather(1, target[:, None])[:, 0]
    else:
        logprobs = target_logprobs(hidden, weight, target)
    logprobs.sum().backward()
    (folder / "taken").write_text(str(taken.bytes()))
