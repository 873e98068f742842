"""The schemas of rows, each a parser from one JSON object. `SCHEMAS` documents them; a parser raises `Malformed` with what it expected.

A preference row serves an algorithm that learns conversations too (its prompt with the chosen answer), and one that learns unpaired answers
(the chosen one is desirable, the rejected one is not). Every row serves an algorithm that learns from prompts: its answer, of a pair the chosen
one, becomes the column `answer`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import cast

from workbench.data.rows import Conversation, Malformed, Message, Preference, PromptOnly, Rated, Role, TextRow, Unpaired

SCHEMAS = {
    "hh": '{"chosen", "rejected"}: whole transcripts, "\\n\\nHuman: … \\n\\nAssistant: …", equal up to the last answer (Anthropic HH)',
    "preference": '{"prompt", "chosen", "rejected"}: strings, or OpenAI message lists (chosen and rejected may repeat the prompt)',
    "nemo": '{"prompt", "chosen_response", "rejected_response"[, "chosen_reward", "rejected_reward"]}: strings or messages (NeMo-Aligner)',
    "input_output": '{"input", "output"}: strings',
    "messages": '{"messages": [{"role", "content"}]}: OpenAI messages, learnt from every assistant turn',
    "sharegpt": '{"conversations": [{"from", "value"[, "label"]}][, "system"][, "mask"]}: ShareGPT; `mask` names the speaker not learnt from',
    "rated": '{"prompt", "response", and either each rating under its own name (null: not rated), as in HelpSteer, or "attributes": a mapping or '
    '"quality:4,toxicity:0"}; ShareGPT turns whose last has such a "label" are read as rated too (SteerLM)',
    "prompts": '{"prompt", "question" or "text"}: a string or messages; any further columns are kept, as text, for reward programs (GSM8K, NeMo-Aligner)',
    "unpaired": '{"prompt", "completion" or "response", "label" or "preference": true, false, "chosen" or "rejected"} (KTO)',
}
WANTED = {
    "preference": "a preference row (prompt, chosen, rejected)",
    "conversation": "a conversation, or a preference row",
    "rated": "a rated row (prompt, response, ratings)",
    "unpaired": "an unpaired row (prompt, response, label), or a preference row",
    "prompt": "a prompt, or a row of any other kind",
}
"""What each kind of row is, for people."""

_ROLES: dict[str, Role] = {
    "system": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "model": "assistant",
    "bot": "assistant",
}
_TURN = re.compile(r"\n\n(Human|Assistant):")
_RATING = re.compile(r"\s*([^\s:,][^:,]*?)\s*:\s*(-?\d+(?:\.\d+)?)\s*")
_ANSWERS, _LABELS = ("response", "completion"), ("label", "preference")
_ASKED = ("prompt", "question", "text")


def detect(row: Mapping[str, object]) -> str:
    """The format of a row, by its keys. Raises Malformed when none fits."""
    keys = set(row)
    for name, needed in (
        ("nemo", {"prompt", "chosen_response", "rejected_response"}),
        ("preference", {"prompt", "chosen", "rejected"}),
        ("input_output", {"input", "output"}),
        ("messages", {"messages"}),
        ("sharegpt", {"conversations"}),
        *(("unpaired", {"prompt", answer, label}) for answer in _ANSWERS for label in _LABELS),
        ("rated", {"prompt", "response"}),
    ):
        if needed <= keys:
            return name
    if {"chosen", "rejected"} <= keys:
        return "hh" if isinstance(row["chosen"], str) else "preference"
    if keys & set(_ASKED) and not keys & {"chosen", "rejected", *_ANSWERS[1:], "label"}:
        return "prompts"
    raise Malformed("the keys of one of: " + "; ".join(SCHEMAS), f"keys {sorted(map(str, keys))[:10]}")


def parse(row: object, name: str, kind: str, where: str) -> Sequence[TextRow]:
    """A row of format `name`, as the rows of the `kind` that the algorithm wants: two for a pair read as unpaired, else one. Raises Malformed."""
    if not isinstance(row, Mapping):
        raise Malformed("a JSON object", _brief(row))
    labelled = kind == "rated" and name == "sharegpt"
    parsed = (_labelled_conversation if labelled else _PARSERS[name])(row, where)
    if kind == "conversation" and isinstance(parsed, Preference):
        turns = tuple(Message(m.role, m.content, learn=False) for m in parsed.prompt)
        return [Conversation((*turns, Message("assistant", parsed.chosen)), where)]
    if kind == "unpaired" and isinstance(parsed, Preference):
        return [Unpaired(parsed.prompt, answer, desirable, where) for answer, desirable in ((parsed.chosen, True), (parsed.rejected, False))]
    if kind == "prompt" and not isinstance(parsed, PromptOnly):
        return [PromptOnly(_asking(parsed.prompt), {"answer": parsed.answers[0]}, where)]
    if not isinstance(parsed, _KINDS[kind]):
        raise Malformed(WANTED[kind], f"a row of format {name}")
    return [parsed]


def _hh(row: Mapping[str, object], where: str) -> TextRow:
    chosen, rejected = (_transcript(_text(row, key), key) for key in ("chosen", "rejected"))
    if chosen[:-1] != rejected[:-1]:
        raise Malformed("transcripts that are equal up to the last answer", "transcripts that part earlier")
    return Preference(chosen[:-1], chosen[-1].content, rejected[-1].content, where=where)


def _transcript(text: str, key: str) -> tuple[Message, ...]:
    parts = _TURN.split(text if text.startswith("\n\n") else f"\n\n{text}")
    turns = [Message("user" if who == "Human" else "assistant", said.strip()) for who, said in zip(parts[1::2], parts[2::2], strict=True)]
    if parts[0].strip() or len(turns) < 2 or turns[0].role != "user" or turns[-1].role != "assistant":
        raise Malformed(f'{key}: "\\n\\nHuman: … \\n\\nAssistant: …", ending with the assistant', _brief(text))
    merged: list[Message] = []
    for turn in turns:
        _filled(turn.content, f"{key}: a turn")
        if merged and merged[-1].role == turn.role:  # the data has speakers who continue after a blank line
            merged[-1] = Message(turn.role, f"{merged[-1].content}\n\n{turn.content}")
        else:
            merged.append(turn)
    return tuple(merged)


def _preference(row: Mapping[str, object], where: str) -> TextRow:
    if "prompt" in row:
        prompt = _prompt(row["prompt"])
        chosen, rejected = (_answer(_value(row, key), key, prompt) for key in ("chosen", "rejected"))
    else:
        lists = [_messages(_value(row, key), key) for key in ("chosen", "rejected")]
        prompt = lists[0][:-1]
        if lists[1][:-1] != prompt or not prompt:
            raise Malformed("chosen and rejected that share their prompt and differ in the last message", "different prompts, or none")
        chosen, rejected = (_answer([vars(m) for m in messages], key, prompt) for messages, key in zip(lists, ("chosen", "rejected"), strict=True))
    return Preference(prompt, chosen, rejected, where=where)


def _nemo(row: Mapping[str, object], where: str) -> TextRow:
    prompt = _prompt(_value(row, "prompt"))
    chosen, rejected = (_answer(_value(row, key), key, prompt) for key in ("chosen_response", "rejected_response"))
    return Preference(prompt, chosen, rejected, _reward(row, "chosen_reward"), _reward(row, "rejected_reward"), where)


def _input_output(row: Mapping[str, object], where: str) -> TextRow:
    prompt = _filled(_text(row, "input"), "input")
    return Conversation((Message("user", prompt), Message("assistant", _filled(_text(row, "output"), "output"))), where)


def _conversation(row: Mapping[str, object], where: str) -> TextRow:
    messages = _messages(_value(row, "messages"), "messages")
    return _checked(messages, where)


def _sharegpt(row: Mapping[str, object], where: str) -> Conversation:
    turns = _value(row, "conversations")
    if not isinstance(turns, list) or not turns:
        raise Malformed("conversations: a list of turns", _brief(turns))
    silent = str(row.get("mask", "")).lower()
    messages = []
    for i, turn in enumerate(turns):
        if not isinstance(turn, Mapping):
            raise Malformed(f"conversations[{i}]: an object", _brief(turn))
        speaker = _text(turn, "from")
        content = _filled(_text(turn, "value"), f"conversations[{i}].value")
        role = _role(speaker, f"conversations[{i}].from")
        messages.append(Message(role, content, learn=speaker.lower() != silent))
    if row.get("system"):
        messages.insert(0, Message("system", _text(row, "system")))
    return _checked(tuple(messages), where)


def _rated(row: Mapping[str, object], where: str) -> TextRow:
    prompt = _prompt(_value(row, "prompt"))
    response = _answer(_value(row, "response"), "response", prompt)
    if "attributes" in row:
        return Rated(prompt, response, _attributes(row["attributes"], "attributes"), where)
    return Rated(prompt, response, _ratings({name: row[name] for name in row if name not in ("prompt", "response")}, ""), where)


def _labelled_conversation(row: Mapping[str, object], where: str) -> TextRow:
    """SteerLM's training rows: the ratings of the last answer stand in its `label`."""
    messages = _sharegpt({**row, "mask": ""}, where).messages
    last = cast(Sequence[Mapping[str, object]], row["conversations"])[-1]
    return Rated(messages[:-1], messages[-1].content, _attributes(last.get("label"), "the last turn's label"), where)


def _attributes(value: object, key: str) -> dict[str, float]:
    """Ratings from a mapping, or from `quality:4,toxicity:0`."""
    if isinstance(value, Mapping):
        return _ratings(value, f"{key}.")
    matches = [_RATING.fullmatch(part) for part in value.split(",")] if isinstance(value, str) else [None]
    pairs = [(match[1], match[2]) for match in matches if match]
    if len(pairs) < len(matches) or len(dict(pairs)) < len(pairs):
        raise Malformed(f'{key}: a mapping of numbers, or text such as "quality:4,toxicity:0" that names each once', _brief(value))
    return {name: float(number) for name, number in pairs}


def _ratings(values: Mapping[str, object], key: str) -> dict[str, float]:
    read = {name: _finite(value, f"{key}{name}", "a finite number, or null") for name, value in values.items() if value is not None}
    if not read:
        raise Malformed("at least one rating" + (f" in {key.rstrip('.')}" if key else " beside prompt and response"), f"{list(values)[:10]}")
    return read


def _unpaired(row: Mapping[str, object], where: str) -> TextRow:
    prompt = _prompt(_value(row, "prompt"))
    answer, label = (next((key for key in keys if key in row), keys[0]) for keys in (_ANSWERS, _LABELS))
    wanted = _value(row, label)
    if not isinstance(wanted, bool) and wanted not in ("chosen", "rejected"):
        raise Malformed(f'{label}: true, false, "chosen" or "rejected"', _brief(wanted))
    return Unpaired(prompt, _answer(_value(row, answer), answer, prompt), wanted in (True, "chosen"), where)


def _prompts(row: Mapping[str, object], where: str) -> TextRow:
    key = next((key for key in _ASKED if key in row), _ASKED[0])
    columns = {name: _as_text(value, name) for name, value in row.items() if name != key and value is not None}
    return PromptOnly(_prompt(_value(row, key), key), columns, where)


def _as_text(value: object, key: str) -> str:
    """A text as it is, anything else as JSON; what JSON has not (a date of a parquet file) as Python shows it."""
    if isinstance(value, str):
        return value
    try:
        return json.dumps(value, ensure_ascii=False, default=str)
    except (RecursionError, ValueError, TypeError) as error:
        raise Malformed(f"{key}: a value that can be written as text", f"{type(value).__name__}: {error}") from error


_KINDS = {"preference": Preference, "conversation": Conversation, "rated": Rated, "unpaired": Unpaired, "prompt": PromptOnly}
_PARSERS: dict[str, Callable[[Mapping[str, object], str], TextRow]] = {
    "hh": _hh,
    "preference": _preference,
    "nemo": _nemo,
    "input_output": _input_output,
    "messages": _conversation,
    "sharegpt": _sharegpt,
    "rated": _rated,
    "prompts": _prompts,
    "unpaired": _unpaired,
}


def _checked(messages: tuple[Message, ...], where: str) -> Conversation:
    if messages[-1].role != "assistant" or not any(m.learn for m in messages if m.role == "assistant"):
        raise Malformed("a conversation that ends with an assistant's turn to learn from", f"one that ends with {messages[-1].role}")
    return Conversation(messages, where)


def _prompt(value: object, key: str = "prompt") -> tuple[Message, ...]:
    if isinstance(value, str):
        return (Message("user", _filled(value, key)),)
    return _asking(_messages(value, key))


def _asking(messages: tuple[Message, ...]) -> tuple[Message, ...]:
    if not messages or messages[-1].role != "user":
        raise Malformed(
            "a prompt that ends with a user's turn", f"one that ends with {messages[-1].role}" if messages else "an answer without a prompt"
        )
    return messages


def _answer(value: object, key: str, prompt: tuple[Message, ...]) -> str:
    """A string, or messages whose last is the assistant's; what precedes it must be the prompt again."""
    if isinstance(value, str):
        return _filled(value, key)
    messages = _messages(value, key)
    if messages[-1].role != "assistant" or messages[:-1] not in ((), prompt):
        raise Malformed(f"{key}: one assistant message, after the prompt or alone", f"{len(messages)} messages that are not")
    return messages[-1].content


def _messages(value: object, key: str) -> tuple[Message, ...]:
    if not isinstance(value, list) or not value:
        raise Malformed(f"{key}: a string or a list of messages", _brief(value))
    messages = []
    for i, item in enumerate(value):
        if not isinstance(item, Mapping):
            raise Malformed(f"{key}[{i}]: a message object", _brief(item))
        content = _filled(_text(item, "content"), f"{key}[{i}].content")
        messages.append(Message(_role(_text(item, "role"), f"{key}[{i}].role"), content))
    return tuple(messages)


def _role(name: str, key: str) -> Role:
    if name.lower() not in _ROLES:
        raise Malformed(f"{key}: one of {', '.join(sorted(_ROLES))}", _brief(name))
    return _ROLES[name.lower()]


def _reward(row: Mapping[str, object], key: str) -> float | None:
    value = row.get(key)
    return None if value is None else _finite(value, key)


def _finite(value: object, key: str, expected: str = "a finite number") -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value or abs(value) == float("inf"):
        raise Malformed(f"{key}: {expected}", _brief(value))
    return float(value)


def _value(row: Mapping[str, object], key: str) -> object:
    if key not in row:
        raise Malformed(f"the key {key!r}", f"keys {sorted(map(str, row))[:10]}")
    return row[key]


def _text(row: Mapping[str, object], key: str) -> str:
    value = _value(row, key)
    if not isinstance(value, str):
        raise Malformed(f"{key}: a string", _brief(value))
    return value


def _filled(text: str, key: str) -> str:
    if not text.strip():
        raise Malformed(f"{key}: text", "an empty string" if not text else "white space only")
    if "\0" in text:
        raise Malformed(f"{key}: text without NUL characters", f"one at character {text.index(chr(0))}")
    if any("\ud800" <= c <= "\udfff" for c in text):
        raise Malformed(f"{key}: valid Unicode", "half of a surrogate pair")
    return text


def _brief(value: object) -> str:
    """What was found, short: the type, and the beginning of the value."""
    text = repr(value)
    return f"{type(value).__name__} {text[:60]}{'…' if len(text) > 60 else ''}"
