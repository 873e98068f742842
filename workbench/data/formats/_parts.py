"""What the formats share: turns and prompts, each read from a row's values or refused with `Malformed`."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, cast

from workbench.data.formats._ratings import attributes as ratings_of
from workbench.data.formats._values import Raw, as_text, brief, clean, filled, first_of, keys, objects, present, string, text, value
from workbench.data.rows import EXTRA, Kind, Malformed, Message, Role, TextRow

Parsed = TextRow | Sequence[TextRow]
Pairs = Literal["extremes", "all"]

PROMPT = ("prompt", "question", "instruction")
"""The columns that hold a prompt, in the order in which they are looked for."""
INPUTS = ("input", "context")
"""What stands below an instruction in the same turn."""
CHOSEN_REWARD, REJECTED_REWARD = (
    tuple(form.format(of) for form in ("{}_reward", "{}_score", "{}_rating", "{}-rating", "score_{}", "reward_{}", "rating_{}"))
    for of in ("chosen", "rejected")
)

_ROLES: dict[str, Role] = {
    **dict.fromkeys(("system", "developer"), "system"),
    **dict.fromkeys(("user", "human", "prompter"), "user"),
    **dict.fromkeys(("assistant", "gpt", "chatgpt", "model", "bot", "ai", "bing", "bard", "claude"), "assistant"),
    **dict.fromkeys(("tool", "function", "observation", "ipython", "tool_response", "function_response"), "tool"),
}
_FUNCTION_CALL = "function_call"
_UNSUPPORTED = (_FUNCTION_CALL, "audio", "images", "image", "videos", "video", "refusal", "thinking", "reasoning", "train_detail")
"""Keys of a turn that change what it says, and that nothing here reads."""
RATED = ("attributes", "label")
"""Keys of a turn that hold its ratings."""
_LEARNT = ("weight", "train", "loss", "trainable")
"""Keys of a turn that say whether it is learnt."""
_TURN = re.compile(r"\n\n(Human|Assistant):")
_NEMO_TURN = re.compile(r"\n<extra_id_1>(User|Assistant)\n")
_TRANSCRIPT = re.compile(r"\s*Human:")


@dataclass(frozen=True)
class Asked:
    """What a row is read for: rows of a `kind`, from the place `where`.

    `pairs` says which of several ranked answers are paired, `ratings` which columns are ratings beside those known by name. `unread` collects the
    keys of turns that were not read, `read` the columns that `question` did, and `doubts` what is likely not meant: the predicate of "rows …".
    """

    kind: Kind
    where: str
    pairs: Pairs = "extremes"
    ratings: frozenset[str] = frozenset()
    unread: set[str] = field(default_factory=set)
    read: set[str] = field(default_factory=set)
    doubts: set[str] = field(default_factory=set)


# --- turns


def messages(given: object, key: str, asked: Asked, silent: str = "") -> tuple[Message, ...]:
    """The turns of a list, in OpenAI's form or ShareGPT's; empty system turns are left out.

    An assistant's turn that opens the conversation, or whose weight is 0, is not to be learnt, nor are those of the speaker `silent`.
    """
    if not isinstance(given := listed(given), list) or not given:
        raise Malformed(f"{key}: a string or a list of messages", brief(given))
    turns = [turn for i, item in enumerate(given) if (turn := message(item, f"{key}[{i}]", asked, silent))]
    if not turns:
        raise Malformed(f"{key}: a turn beside the system's", "an empty system turn alone")
    asking = next((i for i, turn in enumerate(turns) if turn.role in ("user", "tool")), 0)
    return tuple(replace(turn, learn=False) if i < asking and turn.role == "assistant" else turn for i, turn in enumerate(turns))


def listed(given: object) -> object:
    """A list that is written as JSON text; else what is given."""
    if not isinstance(given, str) or not given.lstrip().startswith("["):
        return given
    try:
        return json.loads(given)
    except (ValueError, RecursionError):
        return given


def message(item: object, key: str, asked: Asked, silent: str = "") -> Message | None:
    """One turn, or None for a system's that says nothing."""
    if not isinstance(item, Mapping):
        raise Malformed(f"{key}: a message object", brief(item))
    turn = present(cast(Raw, item))
    for name in turn:
        clean(name, f"{key}: a key")
    speaker_key = "from" if "from" in turn and "role" not in turn else "role"
    content_key = first_of(
        ("value", "content") if speaker_key == "from" else ("content", "value"), turn, "value" if speaker_key == "from" else "content"
    )
    speaker = string(value(turn, speaker_key), f"{key}.{speaker_key}")
    if speaker == _FUNCTION_CALL:
        return _calling(turn, f"{key}.{content_key}", content_key)
    if unsupported := [name for name in _UNSUPPORTED if turn.get(name)]:
        raise Malformed(f"{key}: a turn without {unsupported[0]}, which is not supported", keys(turn))
    said = role(speaker, f"{key}.{speaker_key}")
    extra = {name: _extra(turn[name], f"{key}.{name}", name) for name in EXTRA if turn.get(name)}
    said_text = "" if content_key not in turn and "tool_calls" in extra else content(value(turn, content_key), f"{key}.{content_key}")
    if said == "system" and not said_text.strip():
        return None
    if said != "tool" and not (said == "assistant" and "tool_calls" in extra):
        filled(said_text, f"{key}.{content_key}")
    weighed = _weighed(turn, key)
    ratings = _rated(turn, key) if asked.kind in ("conditioned", "answered", "rated") and said == "assistant" else {}
    if weighed and said != "assistant":
        asked.unread.update(f"{name} (of a {said}'s turn)" for name in _LEARNT if name in turn)
    asked.unread.update(set(turn) - {speaker_key, content_key, *_LEARNT, *extra, *(RATED if ratings else ())})
    return Message(said, said_text, weighed and speaker.lower() != silent, extra, ratings)


def _rated(turn: Raw, key: str) -> Mapping[str, float]:
    """The ratings that a turn has, as SteerLM's `label` or as `attributes`."""
    name = first_of(RATED, turn, "")
    return ratings_of(turn[name], f"{key}.{name}") if name and turn[name] not in ("", {}) else {}


def _calling(turn: Raw, key: str, content_key: str) -> Message:
    """A turn that is one call of a tool, written as JSON."""
    try:
        call = json.loads(text(turn, content_key))
    except ValueError:
        call = None
    if not isinstance(call, dict) or not {"name", "arguments"} <= set(call):
        raise Malformed(f'{key}: a call as JSON, {{"name", "arguments"}}', brief(turn[content_key]))
    return Message("assistant", "", extra={"tool_calls": [{"type": "function", "function": _extra(call, key, "function")}]})


def content(given: object, key: str) -> str:
    """A turn's text: a string, or parts of text, which are joined."""
    if not isinstance(given, list):
        return clean(string(given, key), key)
    parts = []
    for i, part in enumerate(given):
        of = part.get("type") if isinstance(part, Mapping) else "text"
        said = part.get("text") if isinstance(part, Mapping) else part
        if of != "text" or not isinstance(said, str):
            raise Malformed(f"{key}[{i}]: a part of type text; other parts are not supported", brief(of if of != "text" else part))
        parts.append(clean(said, f"{key}[{i}]"))
    return "".join(parts)


def role(name: str, key: str) -> Role:
    if name.lower() not in _ROLES:
        raise Malformed(f"{key}: one of {', '.join(sorted(_ROLES))}", brief(name))
    return _ROLES[name.lower()]


def tools(given: object, key: str) -> tuple[Mapping[str, object], ...]:
    """The tools of a conversation: a list of objects, or the same as JSON text."""
    if isinstance(given, str):
        try:
            given = json.loads(given) if given.strip() else []
        except (ValueError, RecursionError):
            raise Malformed(f"{key}: a list of tools, or one as JSON", brief(given)) from None
    if not isinstance(given, list) or not all(isinstance(tool, Mapping) for tool in given):
        raise Malformed(f"{key}: a list of tools, or one as JSON", brief(given))
    as_text(given, key)
    return tuple(given)


def _extra(given: object, key: str, name: str) -> object:
    """What a turn has beside its text, where a template can take it."""
    if name == "tool_calls":
        for call in objects(given, key):
            as_text(call, key)
    elif isinstance(given, Mapping):
        as_text(given, key)
    else:
        clean(string(given, key), key)
    return given


def _weighed(turn: Raw, key: str) -> bool:
    """Whether the turn is learnt, as its `weight`, `train`, `loss` and `trainable` say."""
    for name in _LEARNT:
        if turn.get(name) not in (None, 0, 1):
            raise Malformed(f"{key}.{name}: 0 or 1, false or true", brief(turn[name]))
    return all(bool(turn.get(name, True)) for name in _LEARNT)


# --- prompts


def prompt(given: object, key: str, asked: Asked) -> tuple[Message, ...]:
    """Messages, a transcript of a human and an assistant that the assistant is to continue, or a text as the user's turn."""
    if isinstance(given, str):
        if _NEMO_TURN.search(given):
            return _nemo_turns(filled(given, key), key)
        return _opened_transcript(filled(given, key), key) if _TRANSCRIPT.match(given) else (Message("user", filled(given, key)),)
    return asking(messages(given, key, asked))


def asking(turns: tuple[Message, ...]) -> tuple[Message, ...]:
    """The turns, where an assistant's may follow."""
    if not turns or turns[-1].role not in ("user", "tool"):
        ending = f"one that ends with {turns[-1].role}" if turns else "an answer without a prompt"
        raise Malformed("a prompt that ends with a user's turn", ending)
    return turns


def question(row: Raw, asked: Asked) -> tuple[Message, ...]:
    """The prompt of a row, in whichever column it stands, below the `history` where there is one; an instruction with what belongs to it below it."""
    key = first_of(PROMPT, row, PROMPT[0])
    turns = prompt(value(row, key), key, asked)
    asked.read.update((key, "history", *(INPUTS if key == "instruction" else ())))
    if key == "instruction":
        below = [filled(given, name) for name in INPUTS if name in row and (given := text(row, name)).strip()]
        turns = (*turns[:-1], replace(turns[-1], content="\n\n".join((turns[-1].content, *below))))
    elif unread := [name for name in INPUTS if row.get(name)]:
        way = f"data.columns={{instruction: {key}}} puts it below the prompt, {{{unread[0]}: null}} leaves it out"
        raise Malformed(f"no {unread[0]!r} beside {key!r} ({way})", keys(row))
    return (*history(row), *turns)


def history(row: Raw) -> tuple[Message, ...]:
    """The earlier turns of Alpaca's rows: a list of [question, answer]."""
    given = row.get("history", [])
    if not isinstance(given, list) or not all(isinstance(turn, list) and len(turn) == 2 for turn in given):
        raise Malformed("history: a list of [question, answer]", brief(given))
    said = [(filled(string(one, f"history[{i}]"), f"history[{i}]"), j) for i, turn in enumerate(given) for j, one in enumerate(turn)]
    return tuple(Message("assistant" if j else "user", one) for one, j in said)


def transcript(given: str, key: str) -> tuple[Message, ...]:
    """The turns of "\\n\\nHuman: … \\n\\nAssistant: …", ending with the assistant's."""
    parts = _TURN.split(given if given.startswith("\n\n") else f"\n\n{given}")
    turns = [Message("user" if who == "Human" else "assistant", said.strip()) for who, said in zip(parts[1::2], parts[2::2], strict=True)]
    if parts[0].strip() or len(turns) < 2 or turns[0].role != "user" or turns[-1].role != "assistant":
        raise Malformed(f'{key}: "\\n\\nHuman: … \\n\\nAssistant: …", ending with the assistant', brief(given))
    merged: list[Message] = []
    for turn in turns:
        filled(turn.content, f"{key}: a turn")
        if merged and merged[-1].role == turn.role:  # the data has speakers who continue after a blank line
            merged[-1] = Message(turn.role, f"{merged[-1].content}\n\n{turn.content}")
        else:
            merged.append(turn)
    return tuple(merged)


def _nemo_turns(given: str, key: str) -> tuple[Message, ...]:
    """A question of several turns as HelpSteer 1 and 2 write it: the user's first, `<extra_id_1>Assistant` and `<extra_id_1>User` before the others."""
    parts = _NEMO_TURN.split(given)
    turns = [
        Message("user" if who == "User" else "assistant", filled(said, f"{key}: a turn"))
        for who, said in zip(["User", *parts[1::2]], parts[::2], strict=True)
    ]
    if any(turn.role == following.role for turn, following in itertools.pairwise(turns)):
        raise Malformed(f"{key}: turns of User and Assistant in turn", brief(given))
    return asking(tuple(turns))


def is_transcript(given: object) -> bool:
    return isinstance(given, str) and bool(_TRANSCRIPT.match(given))


def _opened_transcript(given: str, key: str) -> tuple[Message, ...]:
    """A transcript that ends where the assistant begins. A text that only starts like one is the user's turn."""
    if not given.rstrip().endswith("\n\nAssistant:"):
        return (Message("user", given),)
    return asking(transcript(f"\n\n{given.strip()} …", key)[:-1])
