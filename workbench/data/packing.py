"""Rows of tokens laid end to end, so that no padding is computed and a shared prefix is computed once.

A `Row` is a tree: a prefix, and the branches that continue it. A conversation is a prefix alone; a preference pair is a prompt with two
branches; n samples of one prompt are a prompt with n branches. The branches see the prefix and themselves, never each other, so every
log-probability equals that of the branch computed as a sequence of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from workbench.data.rows import PromptOnly


@dataclass(frozen=True)
class Kept:
    """The tokens that each of N targets was drawn among, where top-k or top-p left others out: `tokens` end to end, `counts_N` of each target."""

    tokens: np.ndarray
    counts_N: np.ndarray

    @property
    def starts(self) -> np.ndarray:
        """Where each target's tokens begin, and where the last one's end: [N + 1]."""
        return np.concatenate([[0], np.cumsum(self.counts_N)])

    def of(self, places: np.ndarray) -> Kept:
        """Those of some targets, in ascending order."""
        return Kept(self.tokens[np.repeat(np.isin(np.arange(len(self.counts_N)), places), self.counts_N)], self.counts_N[places])

    @staticmethod
    def joined(parts: Sequence[Kept]) -> Kept:
        return Kept(np.concatenate([part.tokens for part in parts]), np.concatenate([part.counts_N for part in parts]))


@dataclass(frozen=True)
class Row:
    """One training row. `learn` marks the prefix tokens whose log-probability is wanted; of a branch those of all its tokens are, or with `branch_learn` of
    those that it marks: where a branch has others' turns.

    `values` are the row's scalars by name, `branch_values` one number a branch by name, `columns` its texts that are not learnt from; `asked` is a prompt as it was read,
    which models with other tokens are asked about. `reference_logprobs_N` are the reference policy's
    log-probabilities of the row's targets, in their order, where an algorithm needs them; `arrays` are further values of the targets, by
    name (advantages, returns).

    `temperature` and `kept` say how sampled branches were drawn: log-probabilities and entropies of the row's targets are those of that distribution.
    """

    prefix: Sequence[int]
    branches: tuple[Sequence[int], ...] = ()
    learn: Sequence[bool] = ()
    values: Mapping[str, float] = field(default_factory=dict)
    columns: Mapping[str, str] = field(default_factory=dict)
    asked: PromptOnly | None = None
    branch_values: Mapping[str, Sequence[float]] = field(default_factory=dict)
    reference_logprobs_N: np.ndarray | None = None
    arrays: Mapping[str, np.ndarray] = field(default_factory=dict)
    temperature: float = 1.0
    kept: Kept | None = None
    branch_learn: tuple[Sequence[bool], ...] = ()

    @property
    def num_tokens(self) -> int:
        return len(self.prefix) + sum(map(len, self.branches))

    def learnt(self, branch: int) -> np.ndarray:
        """The places in a branch whose log-probability is wanted, ascending."""
        return np.flatnonzero(np.asarray(self.branch_learn[branch], bool)) if self.branch_learn else np.arange(len(self.branches[branch]))


def learnt_spans(row: Row) -> list[tuple[int, int]]:
    """Where each part of a row without branches that is learnt begins, and the place after its last token. One that begins at 0 has no prompt."""
    edges = np.flatnonzero(np.diff(np.asarray(row.learn, np.int8), prepend=0, append=0))
    return list(zip(edges[0::2].tolist(), edges[1::2].tolist(), strict=True))


@dataclass(frozen=True)
class Tree:
    """Where one row lies in a pack: it starts at `start`, its prefix first, then each branch."""

    start: int
    prefix: int
    branches: tuple[int, ...]


@dataclass(frozen=True)
class Pack:
    """One microbatch. T tokens, N targets, S sequences (one a branch; a row without branches is one sequence).

    `source_N` is the place whose hidden state predicts `target_N`; `sequence_N` is the sequence each target belongs to, in the order of
    the rows and of their branches; `last_S` is the place of each sequence's last token. `temperature_N` and `kept` say how each target was drawn; None:
    at temperature 1, and among all tokens.
    """

    tokens_T: np.ndarray
    positions_T: np.ndarray
    prefix_trees: tuple[Tree, ...]
    source_N: np.ndarray
    target_N: np.ndarray
    sequence_N: np.ndarray
    last_S: np.ndarray
    rows: tuple[Row, ...]
    temperature_N: np.ndarray | None = None
    kept: Kept | None = None

    @property
    def num_sequences(self) -> int:
        return len(self.last_S)


def pack(rows: Sequence[Row]) -> Pack:
    """Lay the rows end to end, in their order."""
    tokens: list[np.ndarray] = []
    positions: list[np.ndarray] = []
    prefix_trees: list[Tree] = []
    sources: list[np.ndarray] = []
    sequences: list[np.ndarray] = []
    last: list[int] = []
    start = 0
    for row in rows:
        prefix = len(row.prefix)
        tokens.append(np.asarray(row.prefix, np.int64))
        positions.append(np.arange(prefix))
        if not row.branches:
            learnt = np.flatnonzero(np.asarray(row.learn, bool)[1:])
            sources.append(start + learnt)
            sequences.append(np.full(len(learnt), len(last)))
            last.append(start + prefix - 1)
        at = start + prefix
        for number, branch in enumerate(row.branches):
            learnt = row.learnt(number)
            tokens.append(np.asarray(branch, np.int64))
            positions.append(np.arange(prefix, prefix + len(branch)))
            sources.append(np.concatenate([[start + prefix - 1], np.arange(at, at + len(branch) - 1)])[learnt])
            sequences.append(np.full(len(learnt), len(last)))
            at += len(branch)
            last.append(at - 1)
        prefix_trees.append(Tree(start, prefix, tuple(map(len, row.branches))))
        start = at
    tokens_T = np.concatenate(tokens)
    kept = [row.kept for row in rows if row.kept is not None]
    assert len(kept) in (0, len(rows)), "all rows of a microbatch were drawn among kept tokens, or none"
    return Pack(
        tokens_T=tokens_T,
        positions_T=np.concatenate(positions),
        prefix_trees=tuple(prefix_trees),
        source_N=np.concatenate(sources),
        target_N=np.concatenate([targets(row) for row in rows]),
        sequence_N=np.concatenate(sequences),
        last_S=np.array(last, np.int64),
        rows=tuple(rows),
        temperature_N=_temperatures(rows),
        kept=Kept.joined(kept) if kept else None,
    )


def _temperatures(rows: Sequence[Row]) -> np.ndarray | None:
    """Of each target; None where all are 1."""
    if all(row.temperature == 1 for row in rows):
        return None
    return np.concatenate([np.full(len(targets(row)), row.temperature, np.float32) for row in rows])


BLANK = Pack(
    tokens_T=np.zeros(1, np.int64),
    positions_T=np.zeros(1, np.int64),
    prefix_trees=(Tree(0, 1, ()),),
    source_N=np.zeros(0, np.int64),
    target_N=np.zeros(0, np.int64),
    sequence_N=np.zeros(0, np.int64),
    last_S=np.zeros(0, np.int64),
    rows=(),
)
"""A microbatch of no row, for ranks that wait for others."""


def targets(row: Row) -> np.ndarray:
    """The tokens of a row whose log-probabilities are wanted, in the order of `Pack.target_N`. A prompt, with nothing to learn, has none."""
    if row.branches:
        return np.concatenate([np.asarray(branch, np.int64)[row.learnt(number)] for number, branch in enumerate(row.branches)])
    return np.asarray(row.prefix, np.int64)[1:][np.flatnonzero(np.asarray(row.learn, bool)[1:])]


def into_microbatches(rows: Sequence[Row], tokens: int) -> list[list[Row]]:
    """Rows grouped so that no group exceeds `tokens` (a longer row is a group of its own): first fit, longest first, in n log n steps."""
    groups: list[list[Row]] = []
    room = _Room(len(rows), tokens)
    for row in sorted(rows, key=lambda row: -row.num_tokens):
        size = row.num_tokens
        group = room.first(size) if size <= tokens else len(groups)
        if group == len(groups):
            groups.append([])
        groups[group].append(row)
        room.take(group, size)
    return groups


class _Room:
    """What is left in each of `count` groups that begin with `tokens`, as a tree of maxima: node i is above 2i and 2i + 1, the groups are its leaves."""

    def __init__(self, count: int, tokens: int):
        self._leaves = 1 << max(0, count - 1).bit_length()
        self._most = [tokens] * (2 * self._leaves)

    def first(self, size: int) -> int:
        """The first group in which so many tokens have room; there is one."""
        node = 1
        while node < self._leaves:
            node = 2 * node if self._most[2 * node] >= size else 2 * node + 1
        return node - self._leaves

    def take(self, group: int, size: int) -> None:
        node = group + self._leaves
        self._most[node] -= size
        while node := node // 2:
            self._most[node] = max(self._most[2 * node], self._most[2 * node + 1])


def deal(rows: Sequence[Row], ranks: int, rank: int) -> list[Row]:
    """This rank's equal share of a global batch: dealt longest first, back and forth, so that each gets about the same work."""
    order = sorted(range(len(rows)), key=lambda i: (-rows[i].num_tokens, i))
    return [rows[i] for position, i in enumerate(order) if (position % ranks if position // ranks % 2 == 0 else ranks - 1 - position % ranks) == rank]


@dataclass(frozen=True)
class Coverage:
    """How a run's steps go over its rows. `never` are the rows that no step learns from, `last_pass` those that the last, partial pass leaves out,
    `repeated` the draws of a row after its first."""

    drawn: int
    never: int
    last_pass: int
    repeated: int


def coverage(num_rows: int, batch_size: int, steps: int) -> Coverage:
    """Of the batches that `batch_indices` draws."""
    drawn = batch_size * steps
    return Coverage(drawn, max(0, num_rows - drawn), -drawn % num_rows, max(0, drawn - num_rows))


def batch_indices(num_rows: int, batch_size: int, step: int, seed: int) -> np.ndarray:
    """The rows of optimizer step `step` (from 0): a function of its arguments alone, so a resumed run continues with the same data.

    Each epoch is a fresh permutation; a batch may span the end of one and the start of the next.
    """
    places = np.arange(step * batch_size, (step + 1) * batch_size)
    epochs = places // num_rows
    chosen = np.empty(batch_size, np.int64)
    for epoch in np.unique(epochs):
        here = epochs == epoch
        chosen[here] = np.random.default_rng((seed, int(epoch))).permutation(num_rows)[places[here] % num_rows]
    return chosen
