"""For rows that no format of the wanted kind reads: the nearest one, what it asks for, and the `data.columns` that would read them."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass

from workbench.data.formats._values import Raw, present
from workbench.data.rows import Kind

PROMPTS = (
    "prompt",
    "question",
    "instruction",
    "query",
    "problem",
    "input",
    "user",
    "human",
    "request",
    "text",
    "task",
    "message",
    "inputs",
    "source",
)
_ANSWERS = (
    "completion",
    "response",
    "answer",
    "output",
    "solution",
    "final_answer",
    "reply",
    "target",
    "assistant",
    "completions",
    "outputs",
    "targets",
    "label",
)
_CHOSEN = (
    "chosen",
    "preferred",
    "accepted",
    "better",
    "winner",
    "positive",
    "good",
    "chosen_response",
    "response_chosen",
    "answer_chosen",
    "preferred_answer",
    "response_j",
)
_REJECTED = (
    "rejected",
    "dispreferred",
    "worse",
    "loser",
    "negative",
    "bad",
    "rejected_response",
    "response_rejected",
    "answer_rejected",
    "rejected_answer",
    "response_k",
)
_OTHERS: Mapping[str, tuple[str, ...]] = {
    **dict.fromkeys(("prompt", "question", "instruction", "input"), PROMPTS),
    **dict.fromkeys(("completion", "response", "answer", "output"), _ANSWERS),
    **dict.fromkeys(("chosen", "chosen_response"), _CHOSEN),
    **dict.fromkeys(("rejected", "rejected_response"), _REJECTED),
    "messages": ("conversation", "conversations", "dialog", "dialogue", "chat", "turns"),
    "text": ("content", "document", "body", "story", "article"),
    "label": ("is_good", "desirable", "thumbs_up", "liked", "wanted"),
}
"""Names that other files have for a column of ours."""
LACKING = "…"
"""Stands for a column that is not there."""
_NUMBERED = re.compile(r"(.*[a-z])_?(\d+|(?<=_)[a-z])")
"""A name with the number or the letter of one of several answers."""


@dataclass(frozen=True)
class _Candidate:
    """A format that could be meant: the keys that it needs, the column that each may be read from, and why this does not read the row."""

    name: str
    needed: frozenset[str]
    named: Mapping[str, str]
    exact: int
    reason: str

    @property
    def whole(self) -> bool:
        return len(self.named) == len(self.needed)

    @property
    def rank(self) -> tuple[bool, float, int, int]:
        share = (self.exact + 0.7 * (len(self.named) - self.exact)) / len(self.needed)
        return self.whole and not self.reason, share, len(self.named), -len("".join(self.needed))

    def way(self) -> str:
        """What reads the row as this format, or what is lacking."""
        where = {key: self.named.get(key, LACKING) for key in sorted(self.needed) if self.named.get(key) != key}
        mapping = "{" + ", ".join(f"{key}: {column}" for key, column in where.items()) + "}"
        if not self.whole:
            lacking = [key for key in sorted(self.needed) if key not in self.named]
            return f"name the column for {', '.join(lacking)} as in data.columns={mapping}"
        change = f"data.columns={mapping}" if where else f"data.format={self.name}"
        return f"{change} does not read these ({self.reason})" if self.reason else f"{change} reads these"


def nearest(
    formats: Mapping[str, tuple[frozenset[str], ...]],
    row: Raw,
    kind: Kind,
    fits: Callable[[str, Raw], bool],
    tried: Callable[[str, Raw], str],
) -> tuple[str, str]:
    """(what was expected, what stood there) for a row that is of none of the `formats`, each given by its sets of keys.

    `fits` says whether a row with these keys could be of a format, `tried` why it does not read a row: nothing where it does.
    """
    columns = sorted(map(str, present(row)))
    candidates = list(_candidates(formats, row, columns, fits, tried))
    if not candidates:
        return f"a row of a format that gives {kind} rows ({', '.join(formats)})", f"keys {columns[:10]}"
    best = max(candidates, key=lambda candidate: candidate.rank)
    keys = ", ".join(sorted(best.needed))
    expected = f"columns of a format that gives {kind} rows; the nearest is {best.name} with {keys}: {best.way()}; for all else data.map"
    return expected, f"keys {columns[:10]}"


def _candidates(
    formats: Mapping[str, tuple[frozenset[str], ...]],
    row: Raw,
    columns: Collection[str],
    fits: Callable[[str, Raw], bool],
    tried: Callable[[str, Raw], str],
) -> Iterator[_Candidate]:
    for name, keys in formats.items():
        for needed in keys:
            named = _named(needed, columns)
            if not fits(name, {key: row[named[key]] if key in named else LACKING for key in needed}):
                continue
            changed = {key: column for key, column in named.items() if key != column}
            kept = {key: value for key, value in row.items() if key not in changed and key not in changed.values()}
            whole = len(named) == len(needed)
            reason = tried(name, kept | {key: row[column] for key, column in changed.items()}) if whole else ""
            yield _Candidate(name, needed, named, len(named) - len(changed), reason)


def _named(needed: Collection[str], columns: Collection[str]) -> dict[str, str]:
    """Which column each needed key would be read from: its own, one of a usual name, or one of a name that is close; numbered ones in their order."""
    named = {key: key for key in needed if key in columns} | _numbered(needed, columns)
    for key in sorted(set(needed) - set(named)):
        if _NUMBERED.fullmatch(key):
            continue
        free = [column for column in columns if column not in named.values()]
        plain = {column.lower(): column for column in free}
        usual = [plain[other] for other in _OTHERS.get(key, ()) if other in plain]
        close = difflib.get_close_matches(key, plain, n=1, cutoff=0.75)
        if usual or close:
            named[key] = usual[0] if usual else plain[close[0]]
    return named


def _numbered(needed: Collection[str], columns: Collection[str]) -> dict[str, str]:
    """The columns for `response_0` and `response_1`: as many, of an answer's name, with other numbers or with letters."""
    keys = sorted(key for key in needed if _NUMBERED.fullmatch(key))
    by_stem: dict[str, list[tuple[int, str, str]]] = {}
    for column in columns:
        if match := _NUMBERED.fullmatch(column.lower()):
            by_stem.setdefault(match[1], []).append((len(match[2]), match[2], column))
    for stem in sorted(by_stem, key=lambda stem: _ANSWERS.index(stem) if stem in _ANSWERS else len(_ANSWERS)):
        if stem in _ANSWERS and len(by_stem[stem]) == len(keys):
            return dict(zip(keys, (column for _, _, column in sorted(by_stem[stem])), strict=True))
    return {}
