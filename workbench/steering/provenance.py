"""Who rated what: which models and rules measured some answers, and which rated the rows that the answering model was trained on.

A model that rated the training rows is a poor judge of what was learnt from them: its faults are in both. So the two are told apart by the runs that they are
from, back through all runs that the weights or the training rows came from.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from workbench.data.targets import FILE, Targets
from workbench.rundir import opening
from workbench.rundir.store import RunDir
from workbench.settings import stored

Tree = Mapping[str, object]
DEEPEST = 32
"""Runs in a row that are followed."""


@dataclass(frozen=True)
class Provenance:
    """`measured_by`: what rated each attribute of the answers. `annotators`: the models that rated training rows, by the ids of their runs.

    `targets`: the ratings of the answering model's own training rows, where its run has them.
    """

    measured_by: Mapping[str, str]
    annotators: frozenset[str]
    targets: Targets | None

    @property
    def warnings(self) -> list[str]:
        """By name, each measuring model that rated training rows as well."""
        both = sorted({by for by in self.measured_by.values() if by.partition(":")[0] in self.annotators})
        return [
            f"{by} measured {', '.join(name for name, judge in self.measured_by.items() if judge == by)}, and rated the training rows as well: its errors"
            " are in both. Measure with an attribute model from another run, or with a rule"
            for by in both
        ]


def trace(annotated: Path) -> Provenance:
    """Of the answers in a file: where it is no file of a run's folder, nothing is known.

    Raises:
        Unreadable: a run's files are damaged.
    """
    run = _run_of(str(annotated))
    tree = _spec(run)
    measured_by = _judges(tree)
    answering = _run_of(_text(_section(_spec(_run_of(_text(_section(tree, "data"), "train"))), "job"), "checkpoint"))
    annotators = frozenset(judge for judge in _annotators(answering) if judge)
    targets = None
    if answering is not None and opening.is_file(answering.path / FILE):
        targets = Targets.read(answering.path / FILE)
    return Provenance(measured_by, annotators, targets)


def _judges(tree: Tree) -> dict[str, str]:
    """What a job that annotates rates each attribute with: `rule NAME`, or the checkpoint as `run:step`."""
    job = _section(tree, "job")
    if job.get("name") != "annotate":
        return {}
    rules = job.get("rules")
    by_rule = {str(rule).rpartition(":")[2]: f"rule {rule}" for rule in (rules if isinstance(rules, list) else [])}
    model = _run_of(_text(job, "checkpoint"))
    if model is None:
        return by_rule
    attributes = _section(_spec(model), "algorithm").get("attributes")
    step = Path(_text(job, "checkpoint")).name
    return {**{str(name): f"{model.id}:{step}" for name in (attributes if isinstance(attributes, list) else [])}, **by_rule}


def _annotators(run: RunDir | None) -> Iterator[str]:
    """The runs of the models that rated rows which this run learnt from, or that the weights it began with learnt from."""
    waiting, seen = [run] if run else [], set[str]()
    while waiting and len(seen) < DEEPEST:
        here = waiting.pop()
        if here.id in seen:
            continue
        seen.add(here.id)
        tree = _spec(here)
        if _section(tree, "job").get("name") == "annotate":
            yield from (judge.partition(":")[0] for judge in _judges(tree).values() if not judge.startswith("rule "))
        named = [_text(_section(tree, "data"), "train"), _text(_section(tree, "model"), "source"), _text(_section(tree, "job"), "checkpoint")]
        waiting += [other for name in named if (other := _run_of(name))]


def _run_of(name: str) -> RunDir | None:
    """The run in whose folder a file, a checkpoint or an exported model lies; None for what lies in no run's."""
    path = Path(name)
    if not name or not path.is_absolute():
        return None
    return next(
        (RunDir(parent) for parent in path.parents if opening.is_file(parent / "status.json") and opening.is_file(parent / "spec.yaml")), None
    )


def _spec(run: RunDir | None) -> Tree:
    return stored.spec_tree(run) if run else {}


def _section(tree: Tree, name: str) -> Tree:
    section = tree.get(name)
    return cast(Tree, section) if isinstance(section, Mapping) else {}


def _text(tree: Tree, name: str) -> str:
    value = tree.get(name)
    return value if isinstance(value, str) else ""
