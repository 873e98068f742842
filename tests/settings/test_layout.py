"""Which layouts fit a model, and what is said of those that do not."""

from __future__ import annotations

import pytest

from workbench.settings.composing import SpecError
from workbench.settings.layout import Layout, Shape, check, nearest, problems
from workbench.settings.spec import compose

SMOLLM = Shape(layers=30, heads=9, query_groups=3, ffn=1536)


@pytest.mark.parametrize(
    ("layout", "world", "said"),
    [
        (Layout(tensor=2), 2, "tensor_parallel=2 does not divide the model's 9 attention heads"),
        (Layout(tensor=9), 9, "tensor_parallel=9 does not divide the model's 3 key-value heads"),
        (Layout(pipeline=4), 4, "pipeline_parallel x virtual_pipeline=4 does not divide the model's 30 layers"),
        (Layout(pipeline=2, virtual=4), 2, "=8 does not divide the model's 30 layers"),
        (Layout(virtual=2), 2, "virtual_pipeline=2 needs pipeline_parallel"),
        (Layout(tensor=3), 4, "tensor x pipeline x context = 3 ranks, and 4 is no multiple"),
        (Layout(expert=2), 2, "expert_parallel=2 does not divide the model's 0 experts"),
        (Layout(pipeline=2, expert=2), 2, "expert_parallel=2 does not divide the 1 ranks"),
    ],
)
def test_what_does_not_fit_is_refused(layout: Layout, world: int, said: str) -> None:
    with pytest.raises(ValueError, match="Nearest that fit") as refused:
        check(layout, world, SMOLLM)
    assert said in str(refused.value)
    for other in nearest(layout, world, SMOLLM):
        assert not problems(other, world, SMOLLM)


def test_nearest_comes_first() -> None:
    """Two stages instead of four on four ranks; three ranks a matrix where two do not divide nine heads."""
    assert nearest(Layout(pipeline=4), 4, SMOLLM)[0] == Layout(pipeline=2)
    assert Layout(tensor=3) in nearest(Layout(tensor=2), 6, SMOLLM)


def test_what_fits() -> None:
    for layout, world in ((Layout(tensor=3, pipeline=2), 6), (Layout(context=2), 4), (Layout(pipeline=3, virtual=5), 3)):
        check(layout, world, SMOLLM)
    check(Layout(expert=4), 8, Shape(layers=4, heads=8, query_groups=4, ffn=64, experts=8))


def test_the_settings_are_checked() -> None:
    with pytest.raises(SpecError, match="1 is no multiple"):
        compose(["experiment=dpo_demo", "model.tensor_parallel=2"])
    with pytest.raises(SpecError, match="sequence_parallel needs tensor_parallel"):
        compose(["experiment=dpo_demo", "model.sequence_parallel=true"])
    with pytest.raises(SpecError, match="2 does not divide the model's 9 attention heads.*Nearest that fit: .*pipeline_parallel=2"):
        compose(["experiment=dpo_demo", "model.tensor_parallel=2", "backend.ranks_per_node=2"])
    fits = compose(["experiment=dpo_demo", "model.tensor_parallel=3", "backend.ranks_per_node=6"])
    assert fits.model.layout.ranks == 3
