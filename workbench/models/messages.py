"""Experiences as the arrays of a request, and back as rows: what NeMo-Aligner's endpoints take, with the prompts' lengths besides.

`tokens` [B, T] are padded on the right, `sequence_lengths` and `prompt_lengths` [B] count each row's, `temperatures` [B] are those at which its answer
was sampled. Values of a token stand at the token's place.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence

import numpy as np

from workbench.data.packing import Row
from workbench.data.rows import Message, PromptOnly
from workbench.rollout.experience import Experience


def request(experiences: Sequence[Experience], arrays: Mapping[str, str] | None = None) -> dict[str, np.ndarray]:
    """The arrays of a request; `arrays` names further ones, and which of an experience's they are."""
    wholes = [[*e.row.prefix, *e.tokens] for e in experiences]
    prompts = [len(e.row.prefix) for e in experiences]
    shape = (len(wholes), max(map(len, wholes)))
    result = {
        "tokens": np.zeros(shape, np.int32),
        "sequence_lengths": np.array([len(w) for w in wholes], np.int32),
        "prompt_lengths": np.array(prompts, np.int32),
        "temperatures": np.array([e.temperature for e in experiences], np.float32),
        **{name: np.zeros(shape, np.float32) for name in arrays or {}},
    }
    for i, (e, whole) in enumerate(zip(experiences, wholes, strict=True)):
        result["tokens"][i, : len(whole)] = whole
        for name, source in (arrays or {}).items():
            result[name][i, prompts[i] : len(whole)] = e.known(source)
    return result


def sequence(row: Row) -> tuple[list[int], np.ndarray]:
    """A row of one sequence, its tokens end to end, and the places in it of its targets. Raises ValueError for a row of several branches."""
    if len(row.branches) > 1:
        raise ValueError(f"a request has a sequence a row, and one has {len(row.branches)} branches")
    start, learnt = (len(row.prefix), row.learnt(0)) if row.branches else (1, np.flatnonzero(np.asarray(row.learn, bool)[1:]))
    return [*row.prefix, *(token for branch in row.branches for token in branch)], start + learnt


def of_rows(rows: Sequence[Row]) -> dict[str, np.ndarray]:
    """The arrays of a request about rows of one sequence each: what comes before a row's first target is its prompt. Raises ValueError as `sequence` does."""
    wholes, places = zip(*map(sequence, rows), strict=True)
    lengths = [len(whole) for whole in wholes]
    tokens = np.zeros((len(wholes), max(lengths)), np.int32)
    for i, whole in enumerate(wholes):
        tokens[i, : len(whole)] = whole
    return {
        "tokens": tokens,
        "sequence_lengths": np.array(lengths, np.int32),
        "prompt_lengths": np.array([targets[0] for targets in places], np.int32),
        "temperatures": np.array([row.temperature for row in rows], np.float32),
    }


def rows(arrays: Mapping[str, np.ndarray], names: Mapping[str, str] | None = None) -> list[Row]:
    """The request as rows: neighbours with the same prompt are its branches. `names` gives the arrays that the rows carry: in the row, in the request."""
    tokens_BT, lengths_B, prompts_B = arrays["tokens"], arrays["sequence_lengths"], arrays["prompt_lengths"]
    temperatures = arrays["temperatures"].tolist()
    prefixes = [tuple(tokens[:prompt].tolist()) for tokens, prompt in zip(tokens_BT, prompts_B, strict=True)]
    result = []
    for (prefix, temperature), places in itertools.groupby(range(len(tokens_BT)), key=lambda i: (prefixes[i], temperatures[i])):
        same = list(places)
        spans = [slice(int(prompts_B[i]), int(lengths_B[i])) for i in same]
        values = {
            name: np.concatenate([arrays[source][i, span] for i, span in zip(same, spans, strict=True)]) for name, source in (names or {}).items()
        }
        branches = tuple(tokens_BT[i, span].tolist() for i, span in zip(same, spans, strict=True))
        result.append(Row(prefix, branches, arrays=values, temperature=temperature))
    return result


def by_token(arrays: Mapping[str, np.ndarray], values: Sequence[np.ndarray]) -> np.ndarray:
    """What was computed of `rows(arrays)`, one value (or array) a target, as [B, T, …] at the tokens' places."""
    flat, at = np.concatenate(values), 0
    kind = flat.dtype if flat.dtype.kind in "iu" else np.float32
    out_BT = np.zeros((*arrays["tokens"].shape, *flat.shape[1:]), kind)
    for i, (length, prompt) in enumerate(zip(arrays["sequence_lengths"], arrays["prompt_lengths"], strict=True)):
        out_BT[i, prompt:length] = flat[at : at + length - prompt]
        at += length - prompt
    return out_BT


def prompt_text(asked: PromptOnly | None) -> str:
    """A prompt's messages and tools as JSON; null where they are not known."""
    if asked is None:
        return "null"
    messages = [{"role": message.role, "content": message.content, "extra": dict(message.extra)} for message in asked.prompt]
    return json.dumps({"messages": messages, "tools": [dict(tool) for tool in asked.tools]})


def prompt_of(text: bytes) -> PromptOnly | None:
    """What `prompt_text` wrote. Raises ValueError for anything else."""
    tree = json.loads(text)
    if tree is None:
        return None
    try:
        messages = tuple(Message(each["role"], each["content"], extra=dict(each["extra"])) for each in tree["messages"])
        tools = tuple(dict(tool) for tool in tree["tools"])
    except (KeyError, TypeError, ValueError):
        raise ValueError(f"got {text[:100]!r}") from None
    if not all(isinstance(message.role, str) and isinstance(message.content, str) for message in messages):
        raise ValueError(f"got {text[:100]!r}")
    return PromptOnly(messages, {}, tools=tools)
