"""fp32 products by oneDNN are those by torch, and torch's own come back."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from workbench.engine import products


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[torch.Size]]:
    """The shapes of what oneDNN was asked to multiply, whatever this CPU is."""
    shapes: list[torch.Size] = []
    onednn = products._onednn

    def multiply(left: Tensor, *rest: object) -> Tensor:
        shapes.append(left.shape)
        return onednn(left, *rest)  # type: ignore[no-any-return]

    monkeypatch.setattr(products, "slow", lambda: True)
    monkeypatch.setattr(products, "_onednn", multiply)
    with products.stock():
        products.exchange()
        yield shapes
    monkeypatch.undo()
    with products.stock():  # ends with what there was before
        pass


def test_a_layer_and_its_gradients(asked: list[torch.Size]) -> None:
    x, weight, bias = (torch.randn(*shape, requires_grad=True) for shape in ((64, 9, 192), (320, 192), (320,)))

    def gradients() -> list[Tensor]:
        return [out := F.linear(x, weight, bias), *torch.autograd.grad(out.square().sum(), (x, weight, bias))]

    ours = gradients()
    assert sorted(asked) == [(320, 576), (576, 192), (576, 320)]
    with products.stock():
        theirs = gradients()
    assert len(asked) == 3
    assert all(_off(mine, known) < 1e-6 for mine, known in zip(ours, theirs, strict=True))


@pytest.mark.parametrize("lay", ["rows", "columns", "every other row", "part of each row", "one row again and again"])
def test_however_the_factors_lie(asked: list[torch.Size], lay: str) -> None:
    whole = torch.randn(1200, 1200)
    left = {
        "rows": whole[:300, :].contiguous(),
        "columns": whole[:, :300].contiguous().t(),
        "every other row": whole[:600:2],
        "part of each row": whole[5:305, 7:607],
        "one row again and again": whole[:1].expand(300, -1),
    }[lay]
    right = torch.randn(left.shape[1], 64)
    for factor in (right, right.t().contiguous().t()):
        assert _off(left @ factor, left.double() @ factor.double()) < 1e-6
    assert len(asked) == 2


def test_what_is_small_or_not_fp32_or_more_than_a_product_is_torchs(asked: list[torch.Size]) -> None:
    small, large = torch.randn(8, 8), torch.randn(400, 400)
    assert torch.equal(small @ small, torch.mm(small, small, out=torch.empty(8, 8)))
    wide = large.double()
    assert torch.equal(wide @ wide, torch.mm(wide, wide, out=torch.empty_like(wide)))
    assert _off(torch.addmm(large, large, large, beta=2, alpha=3), 2 * wide + 3 * (wide @ wide)) < 1e-6
    assert (torch.zeros(0, 8) @ small).shape == (0, 8)
    assert asked == []


def _off(ours: Tensor, known: Tensor) -> float:
    """The size of the difference, as a share of what is known."""
    ours, known = ours.detach().double(), known.detach().double()
    return float((ours - known).norm() / known.norm())
