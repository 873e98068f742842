"""The rooms of the house, and who may call whom."""

from __future__ import annotations

from collections import defaultdict

import pytest

from tests.rooms import LEVEL, NOT_IN, ONLY_IN, OTHER_ENVIRONMENTS, ROOT, SOURCES, imported, room

EDGES = [(name, target, f"{path.relative_to(ROOT)}:{line}") for name, path in SOURCES.items() for target, line in imported(name, path)]


def test_every_room_has_its_place() -> None:
    rooms = {room(name) for name in SOURCES} - {"workbench"}
    assert not rooms - LEVEL.keys(), f"say in LEVELS where these stand: {sorted(rooms - LEVEL.keys())}"


def test_imports_run_from_the_top_down() -> None:
    wrong = [
        f"{place} imports {target}"
        for name, target, place in EDGES
        if (here := room(name)) in LEVEL and (there := room(target)) in LEVEL and here != there and LEVEL[there] < LEVEL[here]
    ]
    assert not wrong, "\n".join(wrong)


def test_rooms_of_one_level_import_each_other_one_way() -> None:
    between = {(room(name), room(target)) for name, target, _ in EDGES}
    both = sorted((a, b) for a, b in between if a < b and (b, a) in between)
    assert not both, both


def test_no_circles_between_modules() -> None:
    edges: dict[str, set[str]] = defaultdict(set)
    for name, target, _ in EDGES:
        if target in SOURCES and name not in (target, "workbench"):  # the package itself loads its rooms when they are asked for
            edges[name].add(target)
    done: set[str] = set()

    def walk(name: str, way: tuple[str, ...]) -> None:
        assert name not in way, " -> ".join((*way[way.index(name) :], name))
        if name not in done:
            for target in sorted(edges[name]):
                walk(target, (*way, name))
            done.add(name)

    for name in list(edges):
        walk(name, ())


@pytest.mark.parametrize("package", ONLY_IN)
def test_a_package_is_imported_in_its_room_alone(package: str) -> None:
    wrong = [
        place
        for name, target, place in EDGES
        if target.split(".")[0] == package and room(name) != ONLY_IN[package] and name not in OTHER_ENVIRONMENTS
    ]
    assert not wrong, wrong


def test_few_modules_stand_loose() -> None:
    loose = {name for name in SOURCES if name.count(".") == 1 and name.startswith("workbench.") and SOURCES[name].name != "__init__.py"}
    assert loose <= {"workbench.api", "workbench.metrics"}, loose


@pytest.mark.parametrize("where", NOT_IN)
def test_what_a_room_does_without(where: str) -> None:
    wrong = [place for name, target, place in EDGES if room(name) == where and target.split(".")[0] in NOT_IN[where]]
    assert not wrong, wrong
