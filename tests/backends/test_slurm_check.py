"""What scontrol says of nodes, and whether they have what a batch script asks for; SLURM's own words in place of its commands."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.backends.slurm_commands import GOLDEN, PARTITION, Commands, node, survey
from workbench.backends import _slurm_check, _slurm_nodes, slurm
from workbench.backends.base import Finding, Partition, Task


def script(**settings: object) -> str:
    task = Task(Path("/shared/runs/x"), ("worker",), ("python", "-m", "driver"), slurm.Config(**settings))  # type: ignore[arg-type]
    return slurm.script(task, Path("/home/ada"))


def fit(text: str, *texts: str, working: int = 1, ranks_per_node: int = 1) -> list[Finding]:
    first, *others = _slurm_check.wanted(text)
    parts = [replace(first, working=working, ranks_per_node=ranks_per_node), *(replace(part, server="critic") for part in others)]
    return [each for part in parts for each in _slurm_check.fit(part, survey(*texts))]


def fit_settings(settings: dict[str, Any]) -> list[Finding]:
    return fit(script(**settings), working=settings.get("num_nodes", 1), ranks_per_node=settings.get("ranks_per_node", 1))


def test_nodes_and_partitions() -> None:
    down = node("n3", "DOWN*+DRAIN", reason=" Reason=disk full, see ticket 7 [root@2026-11-25T10:00:00]")
    first, second, third = _slurm_nodes.nodes(node("n1") + node("n2", "MIXED", 40, 3) + down)
    assert (first.name, first.state, first.usable, first.cpus, first.load, first.memory_mib) == ("n1", "idle", True, 96, 3.27, 1_000_000)
    assert (first.partitions, first.features, first.gpus, first.gpu_kind) == (("h100", "all"), ("h100", "ib"), 8, "h100")
    assert (second.cpus_used, second.gpus_used, second.memory_used_mib) == (40, 3, 40_000)
    assert (third.usable, third.state, third.reason) == (False, "down*, drain", "disk full, see ticket 7")
    text = PARTITION.format(name="h100", default="YES", limit="1-00:00:00", state="UP") + PARTITION.format(
        name="old", default="NO", limit="UNLIMITED", state="DOWN"
    )
    assert _slurm_nodes.partitions(text) == (Partition("h100", True, True, "1-00:00:00"), Partition("old", False, False, "UNLIMITED"))


def test_an_older_scontrol_that_does_not_tell_of_gpus_in_use() -> None:
    text = node("n1").replace("GresUsed=gpu:h100:0(IDX:0-0) ", "").replace("CPUEfctv=96 ", "")
    (found,) = _slurm_nodes.nodes(text)
    assert (found.gpus, found.gpus_used) == (8, None)


@pytest.mark.parametrize(
    ("gres", "expected"),
    [
        ("(null)", (0, "")),
        ("gpu", (1, "")),
        ("gpu:2", (2, "")),
        ("gpu:a100:4(S:0-1)", (4, "a100")),
        ("gpu:a100_3g.40gb:2,gpu:a100:1,nvme:5", (3, "a100_3g.40gb")),
        ("gpu:(null):0(IDX:N/A)", (0, "")),
        ("gres:gpu:8", (8, "")),
    ],
)
def test_gpus_of_a_gres(gres: str, expected: tuple[int, str]) -> None:
    assert _slurm_nodes.count_gpus(gres) == expected


def test_what_a_script_asks_for_is_read_from_it() -> None:
    actor, critic = _slurm_check.wanted((GOLDEN / "slurm_actor_8_critic_4.sh").read_text())
    assert (actor.nodes, actor.cpus, actor.memory_mib, actor.gpus, actor.partition) == (8, 96, 895 * 1024, 8, "h100")
    assert (critic.nodes, critic.gpus, critic.partition, critic.constraint, critic.time_limit) == (4, 4, "a100", "a100", "12:00:00")
    assert actor.options == ("--partition=h100", "--account=align", "--qos=long", "--constraint=h100&ib")
    (small,) = _slurm_check.wanted((GOLDEN / "slurm_1_node_cpu.sh").read_text())
    assert (small.nodes, small.cpus, small.memory_mib, small.gpus, small.partition) == (1, 8, None, 0, None)


def test_a_layout_that_fits_is_told_with_the_room_there_is() -> None:
    (found,) = fit((GOLDEN / "slurm_8_nodes_8_gpus.sh").read_text(), working=8, ranks_per_node=8)
    assert (found.level, found.message) == ("ok", "9 nodes of partition h100 with 8 GPUs, 96 CPUs, 895.0 GiB each: 9 fit, 9 of them idle")


@pytest.mark.parametrize(
    ("settings", "key", "told"),
    [
        (
            {"partition": "h100", "gpus_per_node": 16, "ranks_per_node": 16},
            "backend.gpus_per_node",
            "no node of partition h100 has 16 GPUs, 16 CPUs",
        ),
        ({"partition": "h100", "cpus_per_node": 128}, "backend.cpus_per_node", "has 128 CPUs: too few CPUs"),
        ({"partition": "h100", "memory": "2TiB"}, "backend.memory", "has 1 CPU, 2048.0 GiB: too little memory"),
        ({"partition": "h100", "num_nodes": 12, "gpus_per_node": 8, "ranks_per_node": 8}, "backend.num_nodes", "partition h100 has 9 such"),
        ({"partition": "cpu", "gpus_per_node": 8, "ranks_per_node": 8}, "backend.gpus_per_node", "backend.partition=h100"),
        (
            {"partition": "h100", "constraint": "a100"},
            "backend.constraint",
            "none has the feature a100; what fits: the features there are h100, ib",
        ),
        ({"partition": "cpu", "ranks_per_node": 4, "threads_per_rank": 8}, "backend.cpus_per_node", "no node of partition cpu has 32 CPUs"),
    ],
)
def test_a_layout_that_does_not_fit_is_refused_with_what_would(settings: dict[str, Any], key: str, told: str) -> None:
    (found,) = fit_settings(settings)
    assert (found.level, found.key) == ("error", key)
    assert told in found.message
    for offer in found.message.partition("; what fits: ")[2].split("; or "):  # what is offered does fit
        words = dict(word.removeprefix("backend.").split("=") for word in offer.partition(" (")[0].split() if word.startswith("backend."))
        if words and "constraint" not in settings:
            changed = {**settings, **{k: v if k in ("partition", "memory") else int(v) for k, v in words.items()}}
            assert [each.level for each in fit_settings(changed)] == ["ok"], offer


def test_more_ranks_than_there_is_room_for_names_the_most_that_fit() -> None:
    (found,) = fit_settings({"partition": "h100", "num_nodes": 12, "gpus_per_node": 8, "ranks_per_node": 8})
    assert "backend.num_nodes=9 backend.ranks_per_node=8 backend.gpus_per_node=8 backend.cpus_per_node=8 (72 ranks in place of 96)" in found.message


def test_spares_keep_their_place_in_what_is_offered() -> None:
    settings = {"partition": "h100", "num_nodes": 8, "spare_nodes": 2, "gpus_per_node": 8, "ranks_per_node": 8}
    (found,) = fit_settings(settings)
    assert "backend.num_nodes=7 backend.ranks_per_node=8" in found.message


def test_a_servers_nodes_are_named_by_their_own_settings() -> None:
    actor, critic = fit(script(partition="h100", critic={"nodes": 2, "partition": "cpu"}))
    assert (actor.level, critic.level, critic.name, critic.key) == ("ok", "error", "critic's nodes", "backend.critic.nodes")
    assert "what fits: backend.critic.partition=h100; or backend.critic.partition=all" in critic.message


def test_nodes_that_are_down_are_a_warning_with_their_reason() -> None:
    (found,) = fit(script(partition="h100", num_nodes=2), node("n1"), node("n2", "DRAIN", reason=" Reason=fan [root@2026-11-25T10:00:00]"))
    assert found.level == "warning"
    assert "only 1 of those that fit take jobs now; not n2 (drain: fan)" in found.message


def test_partition_and_time_limit() -> None:
    (found,) = fit(script(partition="h200"))
    assert (found.key, found.message) == ("backend.partition", "there is no partition h200; there are: h100, all, cpu")
    limit, nodes = fit(script(partition="h100", time_limit="2-12"))
    assert (limit.level, limit.key, nodes.level) == ("error", "backend.time_limit", "ok")
    assert "backend.time_limit=1-00:00:00" in limit.message
    assert [each.level for each in fit(script(time_limit="9-0"))] == ["ok"]  # the default partition has no limit


@pytest.mark.parametrize(
    ("words", "expected"), [("30", 30), ("4:30", 4.5), ("4:00:00", 240), ("2-12", 3600), ("1-00:30:00", 1470), ("UNLIMITED", None)]
)
def test_minutes(words: str, expected: float | None) -> None:
    assert _slurm_check.minutes(words) == expected


def test_options_that_a_cluster_lacks_are_found_out(commands: Commands) -> None:
    commands("sbatch", "slurm 22.05.8\n")
    commands("srun", "  --overlap  --het-group=value\n")
    assert _slurm_check._commands((GOLDEN / "slurm_actor_8_critic_4.sh").read_text()).message == "22.05.8; srun has --overlap, --het-group"
    found = _slurm_check._commands((GOLDEN / "slurm_pyxis.sh").read_text())
    assert (found.level, found.key) == ("error", "backend.container_runtime")
    assert "has no --container-image; it comes with Pyxis" in found.message
    commands("sbatch", "slurm 19.05.5\n")
    assert _slurm_check._commands("").level == "error"


def test_the_estimate_is_sbatchs(commands: Commands, tmp_path: Path) -> None:
    told = "sbatch: Job 7 to start at 2026-11-25T21:30:00 using 8 processors on nodes n[1-2] in partition h100\n"
    (tmp_path / "sbatch").write_text(f"#!/bin/sh\necho $1 >> {tmp_path}/words; cat $2 > {tmp_path}/script\nprintf '%s' '{told}' >&2\n")
    (tmp_path / "sbatch").chmod(0o700)
    assert _slurm_check.estimate("#!/bin/sh\n# it's this\n", {}) == Finding(
        "start", "ok", "SLURM expects 2026-11-25 21:30:00 on n[1-2] of h100, if it were submitted now"
    )
    assert ((tmp_path / "words").read_text(), (tmp_path / "script").read_text()) == ("--test-only\n", "#!/bin/sh\n# it's this\n")
    (tmp_path / "sbatch").write_text("#!/bin/sh\necho 'sbatch: error: invalid account' >&2\necho 'allocation failure: no' >&2\nexit 1\n")
    found = _slurm_check.estimate("", {})
    assert (found.level, found.message) == ("error", "sbatch --test-only: invalid account; allocation failure: no")
