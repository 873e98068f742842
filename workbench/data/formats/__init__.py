"""The formats of rows: one file each, found by its name, each with its schema, how it is recognised, what it reads and its parser.

A preference row serves an algorithm that learns conversations too (its prompt with the chosen answer), and one that learns unpaired answers
(the chosen one is desirable, the rejected one is not). Every row with an answer serves an algorithm that learns from prompts: the answer, of a
pair the chosen one, becomes the column `answer`. Beside any format `system` is the first turn and `tools` are what the conversation may call.
"""

from __future__ import annotations

import importlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from typing import Protocol, cast

from workbench.data.formats import _parts as parts
from workbench.data.formats import _values as values
from workbench.data.formats._nearest import nearest
from workbench.data.formats._parts import Asked, Pairs, Parsed
from workbench.data.formats._values import Raw, brief
from workbench.data.rows import Conversation, Group, Kind, Malformed, Message, Preference, PromptOnly, Rated, RawText, Taught, TextRow, Unpaired
from workbench.settings.naming import module_names

__all__ = ["NAMES", "SCHEMAS", "Asked", "Pairs", "brief", "detect", "find", "parse", "rank"]

NAMES = tuple(module_names("data/formats"))
WANTED: Mapping[Kind, str] = {
    "preference": "a preference row (prompt, chosen, rejected)",
    "conversation": "a conversation, or a preference row",
    "conditioned": "a conversation with ratings of its answers, or a rated row",
    "rated": "a rated row (prompt, response, ratings)",
    "unpaired": "an unpaired row (prompt, response, label), or a preference row",
    "group": "a prompt with the answers that were sampled for some ratings, and their log-probabilities",
    "answered": "a row with an answer",
    "taught": "tokens with a teacher's likeliest ones (knowledge distillation)",
    "prompt": "a prompt, or a row of any other kind",
}
"""What each kind of row is, for people."""
_KINDS = {
    "preference": Preference,
    "conversation": Conversation | RawText,
    "conditioned": Conversation,
    "rated": Rated,
    "unpaired": Unpaired,
    "group": Group,
    "answered": Conversation,
    "taught": Taught,
    "prompt": PromptOnly,
}
KEPT: tuple[Kind, ...] = ("answered", "prompt")
"""Kinds of row that keep the columns which no format reads."""
_SYSTEM, _TOOLS = ("system", "system_prompt", "system_message", "system_instruction", "System"), "tools"
_ASKED = frozenset({"instruction", "input", "context", "history", "choices", "options", "functions", "images", "image", "videos", "video", "audio"})
"""Columns that change what a prompt asks: a format that does not read one refuses the row."""
_MEANING = _ASKED | {"label", "weight"}
"""Columns that change what a row with an answer means, likewise."""


class Format(Protocol):
    """A format's file: its schema for people, what kinds of row it gives, the sets of columns by which it is recognised, and which columns it reads beside
    the prompt's.

    It may also have `WITHOUT`, columns beside which it is not recognised; `COLUMNS`, those it reads that a prompt made of the row keeps; `NEEDS`, the columns
    that a row must have where `KEYS` are fewer; and `fits(row, asked)`, which adds to the number of its keys, or is negative where the values are of another format.
    """

    @property
    def SCHEMA(self) -> str: ...
    @property
    def GIVES(self) -> tuple[Kind, ...]: ...
    @property
    def KEYS(self) -> tuple[frozenset[str], ...]: ...
    @property
    def READS(self) -> frozenset[str]: ...
    def parse(self, row: Raw, asked: Asked) -> Parsed: ...


@cache
def find(name: str) -> Format:
    return cast(Format, importlib.import_module(f"{__name__}.{name}"))


SCHEMAS: Mapping[str, str] = {name: find(name).SCHEMA for name in NAMES}


def detect(rows: Sequence[Raw], asked: Asked) -> str:
    """The format that most of these rows have, by their keys; a column that is null in all of them is not there.

    Raises:
        Malformed: none fits any row, or the one that fits has nothing of the kind; it names the nearest that has, and the `data.columns` that would read
            the first row.
    """
    columns = {key for row in rows for key, value in row.items() if value is not None}
    fitting = [_recognised(values.present(row), columns & set(row), asked) for row in rows]
    votes = Counter(name for name in fitting if name)
    name = max(votes, key=votes.__getitem__) if votes else ""
    if name and (asked.kind == "prompt" or asked.kind in gives(name)):
        return name
    giving = [each for each in NAMES if asked.kind in gives(each) and not _without(find(each)) & columns]
    keys = {each: getattr(find(each), "NEEDS", find(each).KEYS) for each in giving}
    row = values.present(rows[fitting.index(name)] if name else rows[0])
    expected, stands = nearest(keys, row, asked.kind, lambda each, row: rank(each, row, asked)[0] > 0, lambda each, row: _tried(each, row, asked))
    raise Malformed(*((f"{WANTED[asked.kind]}: {expected}", f"{_of(name)} ({stands})") if name else (expected, stands)))


def parse(row: Raw, name: str, asked: Asked) -> tuple[list[TextRow], set[str]]:
    """A row of format `name`, as the rows of the kind that is asked for (two for a pair read as unpaired), and the columns that were not read.

    Raises:
        Malformed: it is not of that format, has nothing of the kind, or a column that changes its meaning and that the format does not read.
    """
    for key in row:
        values.clean(str(key), "a column's name")
    present = values.present(row)
    of = find(name)
    parsed = of.parse(present, asked)
    made = [parsed] if isinstance(parsed, TextRow) else list(parsed)
    read = {*of.READS, *asked.read, *(asked.ratings if name == "rated" and asked.kind != "prompt" else ()), *_SYSTEM, _TOOLS}
    if any(isinstance(each, Preference) for each in made):
        read |= {*parts.CHOSEN_REWARD, *parts.REJECTED_REWARD}
        made = [_rewarded(each, present, asked) for each in made]
    made = [_opened(each, present) for each in made]
    unread = {key for key in present if key not in read}
    rows = [given for each in made for given in _as_kind(each, name, asked)]
    meaning = _ASKED if asked.kind == "prompt" else _MEANING
    if strange := sorted(key for key in unread & meaning if present[key] not in ("", [], {})):
        way = f"data.columns={{{strange[0]}: null}} leaves it out{', data.map can write it into the prompt' if strange[0] in _ASKED else ''}"
        raise Malformed(f"columns that format {name} reads", f"{strange[0]!r}, which changes what the row means and is not read ({way})")
    if asked.kind in KEPT:
        kept = unread | (present.keys() & getattr(of, "COLUMNS", frozenset())) if asked.kind == "prompt" else unread
        return [_with_columns(each, present, kept) for each in rows], set()
    return rows, unread


def rank(name: str, row: Raw, asked: Asked) -> tuple[int, bool]:
    """How well a row fits a format: by the number of keys that it has of it, then whether the format gives the wanted kind; (0, False): not at all."""
    of = find(name)
    sizes = [len(keys) for keys in of.KEYS if keys <= row.keys()]
    fits = getattr(of, "fits", None)
    if not sizes or _without(of) & row.keys() or (bonus := fits(row, asked) if fits else 0) < 0:
        return 0, False
    return max(sizes) + bonus, asked.kind in gives(name)


def gives(name: str) -> frozenset[Kind]:
    """The kinds of row that a format gives: its own, and what is made of these."""
    kinds: set[Kind] = {*find(name).GIVES}
    if "rated" in kinds:
        kinds.add("conditioned")
    if kinds & {"preference", "conversation", "rated", "unpaired"}:
        kinds.add("answered")
    return frozenset(kinds)


def _recognised(row: Raw, columns: set[str], asked: Asked) -> str:
    """The format that fits a row best, which also has the columns for which only other rows have a value; empty where none does."""
    whole = {**dict.fromkeys(columns), **row}
    best, name = max((rank(name, whole, asked), name) for name in NAMES)
    return name if best[0] else ""


def _tried(name: str, row: Raw, asked: Asked) -> str:
    """Why a format does not read a row; empty where it does."""
    try:
        parse(row, name, replace(asked, unread=set(), read=set(), doubts=set()))
    except Malformed as error:
        return f"expected {error.args[0]}; found {error.args[1]}"
    return ""


def _of(name: str) -> str:
    return f"a row of format {name}, which gives: {', '.join(find(name).GIVES)}"


def _without(of: Format) -> frozenset[str]:
    return getattr(of, "WITHOUT", frozenset())


def _rewarded(row: TextRow, raw: Raw, asked: Asked) -> TextRow:
    """A pair with the rewards that its row has for it."""
    if not isinstance(row, Preference) or row.chosen_reward is not None:
        return row
    rewards = []
    for names in (parts.CHOSEN_REWARD, parts.REJECTED_REWARD):
        key = next((name for name in names if name in raw), None)
        rewards.append(None if key is None else values.number(raw[key], key))
    chosen, rejected = rewards
    if chosen is not None and rejected is not None and chosen < rejected:
        asked.doubts.add("have a rejected answer whose own score is higher than the chosen one's")
    return replace(row, chosen_reward=chosen, rejected_reward=rejected)


def _opened(row: TextRow, raw: Raw) -> TextRow:
    """The row with the system's turn and the tools that stand in columns of their own."""
    if isinstance(row, Taught):
        return row
    key = values.first_of(_SYSTEM, raw, _SYSTEM[0])
    said = values.string(raw.get(key, ""), key)
    if others := [name for name in _SYSTEM if name in raw and raw[name] != said]:
        raise Malformed(f"one system turn (data.columns={{{others[0]}: null}} leaves one out)", f"{key!r} and {others[0]!r}, which differ")
    tools = parts.tools(raw[_TOOLS], _TOOLS) if _TOOLS in raw else ()
    if isinstance(row, RawText):
        if said.strip() or tools:
            raise Malformed("raw text alone", f"{key if said.strip() else _TOOLS!r} beside it")
        return row
    turns = row.messages if isinstance(row, Conversation) else row.prompt
    if said.strip():
        system = Message("system", values.filled(said, key))
        if turns[0].role == "system" and turns[0].content != system.content:
            raise Malformed("one system turn", f"another one in the column {key!r}")
        turns = (system, *(turns[1:] if turns[0].role == "system" else turns))
    if isinstance(row, Conversation):
        return replace(row, messages=turns, tools=tools)
    return replace(row, prompt=turns, tools=tools)


def _as_kind(row: TextRow, name: str, asked: Asked) -> list[TextRow]:
    kind = asked.kind
    if isinstance(row, Preference) and row.turns and kind != "preference":
        return _as_kind_of_turns(row, kind)
    if kind == "conversation" and isinstance(row, Preference):
        turns = tuple(replace(turn, learn=False) for turn in row.prompt)
        return [Conversation((*turns, Message("assistant", row.chosen)), row.where, row.tools)]
    if kind == "unpaired" and isinstance(row, Preference):
        both = ((row.chosen, True), (row.rejected, False))
        return [Unpaired(row.prompt, answer, desirable, row.where, row.tools) for answer, desirable in both]
    if kind == "prompt" and not isinstance(row, PromptOnly | RawText | Taught):
        columns = {} if isinstance(row, Unpaired) and not row.desirable else {"answer": row.answers[0]}
        return [PromptOnly(parts.asking(row.prompt), columns, row.where, row.tools)]
    if kind == "conditioned" and isinstance(row, Conversation) and not any(turn.ratings for turn in row.messages):
        raise Malformed(WANTED[kind], "a conversation without ratings")
    if kind in ("conditioned", "answered") and not isinstance(row, RawText | PromptOnly | Conversation | Taught):
        ratings = row.attributes if isinstance(row, Rated) else {}
        turns = tuple(replace(turn, learn=False) for turn in row.prompt)
        answers = dict.fromkeys(row.answers) if kind == "answered" else row.answers[:1]
        if kind == "answered" or isinstance(row, Rated):
            return [Conversation((*turns, Message("assistant", answer, ratings=ratings)), row.where, row.tools) for answer in answers]
    if not isinstance(row, _KINDS[kind]):
        raise Malformed(WANTED[kind], _of(name))
    return [row]


def _as_kind_of_turns(row: Preference, kind: Kind) -> list[TextRow]:
    """As `_as_kind`, of conversations that part before their last answer."""
    if kind in ("conversation", "answered"):
        made = [Conversation(turns, row.where, row.tools) for turns in row.conversations]
        return list(made[:1] if kind == "conversation" else made)
    if kind == "prompt":
        first = row.turns[0][0].content  # none where it only calls tools
        return [PromptOnly(parts.asking(row.prompt), {"answer": first} if first else {}, row.where, row.tools)]
    raise Malformed(WANTED[kind], "conversations that part before their last answer, which are learnt as pairs (algorithm=dpo, for example)")


def _with_columns(row: TextRow, raw: Raw, kept: set[str]) -> TextRow:
    """A prompt with these columns as text; a ground truth is its answer, where it has no other. A row with an answer has them as they are."""
    if isinstance(row, Conversation):
        return replace(row, columns={name: value for name, value in raw.items() if name in kept})
    assert isinstance(row, PromptOnly)
    columns = {**row.columns, **{name: values.as_text(value, name) for name, value in raw.items() if name in kept}}
    if "ground_truth" in columns:
        columns.setdefault("answer", columns["ground_truth"])
    return replace(row, columns=columns)
