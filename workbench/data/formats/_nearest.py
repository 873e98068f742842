"""For rows of no known format: the nearest one, what it asks for, and the `data.columns` that would read them."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Collection, Mapping

from workbench.data.formats._parts import Raw, present
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
_ANSWERS = ("completion", "response", "answer", "output", "solution", "reply", "target", "assistant", "completions", "outputs", "targets", "label")
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


def nearest(formats: Mapping[str, tuple[frozenset[str], ...]], row: Raw, kind: Kind, fits: Callable[[str, Raw], bool]) -> tuple[str, str]:
    """(what was expected, what stood there) for a row that none of the `formats` recognises, each given by its sets of keys.

    `fits` says whether a row with these keys could be of a format.
    """
    columns = sorted(map(str, present(row)))
    candidates = []
    for name, keys in formats.items():
        for needed in keys:
            named = _named(needed, columns)
            share = sum(1.0 if key in columns else 0.9 for key in named) / len(needed)
            if fits(name, {key: row[named[key]] if key in named else LACKING for key in needed}) and not needed <= set(columns):
                candidates.append(((share, len(named), -len("".join(needed))), name, needed, named))
    if not candidates:
        return f"a row of a format that gives {kind} rows ({', '.join(formats)})", f"keys {columns[:10]}"
    _, name, needed, named = max(candidates, key=lambda candidate: candidate[:2])
    where = {key: named.get(key, LACKING) for key in sorted(needed) if named.get(key) != key}
    lacking = [key for key in sorted(needed) if key not in named]
    mapping = "{" + ", ".join(f"{key}: {column}" for key, column in where.items()) + "}"
    way = f"data.columns={mapping} reads these" if not lacking else f"name the column for {', '.join(lacking)} as in data.columns={mapping}"
    expected = f"columns of a format that gives {kind} rows; the nearest is {name} with {', '.join(sorted(needed))}: {way}; for all else data.map"
    return expected, f"keys {columns[:10]}"


def _named(needed: Collection[str], columns: Collection[str]) -> dict[str, str]:
    """Which column each needed key would be read from: its own, one of a usual name, or one of a name that is close."""
    named = {key: key for key in needed if key in columns}
    for key in sorted(set(needed) - set(named)):
        free = [column for column in columns if column not in named.values()]
        plain = {column.lower(): column for column in free}
        usual = [plain[other] for other in _OTHERS.get(key, ()) if other in plain]
        close = difflib.get_close_matches(key, plain, n=1, cutoff=0.75)
        if usual or close:
            named[key] = usual[0] if usual else plain[close[0]]
    return named
