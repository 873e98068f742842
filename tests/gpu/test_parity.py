"""The layouts on NCCL, as many as there are GPUs for; and one GPU against the CPU."""

from __future__ import annotations

import pytest
import torch

from workbench.bench import parity

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")]

CASES = [case for case in parity.CASES if case.ranks <= torch.cuda.device_count()]


@pytest.mark.skipif(not CASES, reason="needs two GPUs or more")
def test_layouts_on_nccl_equal_one_rank() -> None:
    assert [each for each in parity.run(CASES) if each.worst > parity.LIMIT] == []


def test_one_gpu_equals_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first steps' losses in fp32, without TF32, to 1e-4: the same code on both devices."""
    case = parity.Case("one rank", 1)
    here = parity.measure([case])["one rank"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    there = parity.measure([case])["one rank"]
    assert here.keys() == there.keys()
    for key, found in here.items():
        assert found["loss"] == pytest.approx(there[key]["loss"], rel=1e-4)
        assert found["grad_norm"] == pytest.approx(there[key]["grad_norm"], rel=1e-3)
