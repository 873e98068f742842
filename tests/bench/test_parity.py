"""Every layout that gloo can run computes what one rank does."""

from workbench.bench import parity


def test_every_layout_equals_one_rank() -> None:
    cases = [case for case in parity.CASES if not parity.possible(case)]
    found = parity.run(cases)
    assert len(found) == sum(len(case.algorithms) for case in cases) * len(parity.PACKINGS)
    assert [each for each in found if each.worst > parity.LIMIT] == []
    assert {each.case for each in found if each.algorithm in parity.MORE} == {"TP2 PP2"}
    assert {"DP2", "DP2 ZeRO-1 overlapped", "TP2", "TP2 SP", "PP2", "PP2 VPP2", "CP2", "EP2", "TP2 PP2"} <= {each.case for each in found}
