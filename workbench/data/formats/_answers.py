"""Answers, and what is made of a prompt with them: conversations and pairs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from workbench.data.formats._parts import Asked, asking, listed, messages
from workbench.data.formats._values import Raw, filled, keys, value
from workbench.data.rows import Conversation, Malformed, Message, Preference, PromptOnly, Rated, TextRow

ONE_ANSWER = ("answer", "completion", "response")
"""Columns of which a row has one."""


def answered(row: Raw, names: Sequence[str], asked_for: tuple[Message, ...], asked: Asked) -> tuple[tuple[Message, ...], list[str]]:
    """The prompt with what the answers' own messages put before them, and the answers in the columns `names`.

    An answer is a string, or messages whose last is the assistant's; those before it are the same in all of them, and agree with the prompt.
    """
    answers = [_answer(value(row, name), name, asked) for name in names]
    contexts = [context for context, _ in answers if context]
    if any(context != contexts[0] for context in contexts):
        raise Malformed(f"{' and '.join(names)} that share their prompt and part in an answer", "different prompts")
    whole = _agreed(asked_for, contexts[0], names[0]) if contexts else asked_for
    if not whole:
        raise Malformed("a prompt, in a column of its own or before the answers", keys(row))
    return asking(whole), [said for _, said in answers]


def check_one_answer(row: Raw, asked: Asked) -> None:
    """Raises Malformed where several columns may each be the answer and differ, as a reference and a model's; who reads the prompt alone need not care."""
    there = [name for name in ONE_ANSWER if row.get(name)]
    if asked.kind != "prompt" and any(row[name] != row[there[0]] for name in there):
        raise Malformed("one answer", f"{' and '.join(map(repr, there))}, which differ (data.columns={{{there[0]}: null}} leaves one out)")


def preferred(row: Raw, names: Sequence[str], asked_for: tuple[Message, ...], asked: Asked) -> Preference:
    """The pair in the columns `names`, of which both are text, messages that differ in the last, or conversations that part in an earlier answer."""
    whole = [messages(turns, name, asked) for name in names if isinstance(turns := listed(row.get(name)), list) and turns]
    if len(whole) == 2 and (parted := conversations(whole[0], whole[1])):
        prompt, turns = parted
        prompt = asking(_agreed(asked_for, prompt, names[0]))
        return Preference(prompt, turns[0][-1].content, turns[1][-1].content, where=asked.where, turns=turns)
    prompt, (chosen, rejected) = answered(row, names, asked_for, asked)
    return Preference(prompt, chosen, rejected, where=asked.where)


Parted = tuple[tuple[Message, ...], tuple[tuple[Message, ...], tuple[Message, ...]]]


def conversations(chosen: tuple[Message, ...], rejected: tuple[Message, ...]) -> Parted | None:
    """What two conversations share, and how each continues from the answer in which they part; None where that is the last of both, or none of the assistant's.

    Raises:
        Malformed: one has nothing to learn after that.
    """
    shared = next(
        (i for i, (a, b) in enumerate(zip(chosen, rejected, strict=False)) if (a.role, a.content, a.extra) != (b.role, b.content, b.extra)), 0
    )
    turns = chosen[shared:], rejected[shared:]
    if not shared or max(map(len, turns)) == 1 or any(each[0].role != "assistant" or each[-1].role != "assistant" for each in turns):
        return None
    for name, each in zip(("chosen", "rejected"), turns, strict=True):
        if not any(turn.learn for turn in each if turn.role == "assistant"):
            raise Malformed(f"{name}: an answer to learn from after what both share", "turns of weight 0 alone")
    return chosen[:shared], turns


def _agreed(given: tuple[Message, ...], context: tuple[Message, ...], key: str) -> tuple[Message, ...]:
    """The longer of the prompt and an answer's context: they are the same turns, with or without the system's, or the prompt is one of the user's."""
    plain, other = ([(turn.role, turn.content) for turn in turns if turn.role != "system"] for turns in (given, context))
    if not given or plain == other:
        return context if len(context) >= len(given) else given
    if len(plain) == 1 and plain[0] in other:
        return context
    raise Malformed(f"{key}: one assistant message, after the prompt or alone", f"{len(context) + 1} messages that are not")


def _answer(given: object, key: str, asked: Asked) -> tuple[tuple[Message, ...], str]:
    """(the turns before the answer, the answer)."""
    if isinstance(given, str):
        return (), filled(given, key)
    turns = messages([given] if isinstance(given, Mapping) else given, key, asked)
    last = turns[-1]
    if last.role != "assistant":
        raise Malformed(f"{key}: one assistant message, after the prompt or alone", f"{len(turns)} messages that are not")
    if last.extra:
        raise Malformed(f"{key}: an answer that is text alone", f"one with {', '.join(last.extra)}")
    if not last.learn:
        raise Malformed(f"{key}: an answer to learn from", "one of weight 0")
    return turns[:-1], last.content


def conversation(turns: tuple[Message, ...], where: str) -> Conversation:
    """The turns, where there is something to learn."""
    if turns[-1].role != "assistant" or not any(turn.learn for turn in turns if turn.role == "assistant"):
        ending = f"one that ends with {turns[-1].role}" if turns[-1].role != "assistant" else "none that is"
        raise Malformed("a conversation that ends with an assistant's turn to learn from", ending)
    if all(turn.role in ("system", "assistant") for turn in turns):
        raise Malformed("a conversation with a user's turn", f"{len(turns)} turns without one")
    return Conversation(turns, where)


def prompt_or_conversation(turns: tuple[Message, ...], asked: Asked) -> TextRow:
    """Turns that end with the user's are a prompt, where one is asked for."""
    if asked.kind == "prompt" and turns[-1].role != "assistant":
        return PromptOnly(asking(turns), {}, asked.where)
    return conversation(turns, asked.where)


def rated(turns: tuple[Message, ...], asked: Asked) -> list[TextRow]:
    """Each answer of a conversation that has ratings, with what was said before it."""
    made: list[TextRow] = []
    for i, turn in enumerate(turns):
        if not turn.ratings:
            continue
        if turn.extra:
            raise Malformed("an answer that is text alone", f"one with {', '.join(turn.extra)}")
        if not turns[:i]:
            raise Malformed("a prompt before an answer that is rated", f"{len(turns)} turns, the first of them the assistant's")
        made.append(Rated(asking(turns[:i]), turn.content, turn.ratings, asked.where))
    if not made:
        raise Malformed("an assistant's turn with ratings (`label` or `attributes`)", f"{len(turns)} turns without")
    return made


def ranked(prompt: tuple[Message, ...], answers: Sequence[tuple[float, str]], asked: Asked, as_rewards: bool = True) -> list[TextRow]:
    """Pairs of answers with a score each, the higher the better: best against worst, or all that differ in score."""
    order = sorted(answers, key=lambda answer: -answer[0])
    every = asked.pairs == "all" and asked.kind in ("preference", "unpaired")
    pairs = [(order[0], order[-1])] if not every else [(a, b) for i, a in enumerate(order) for b in order[i + 1 :]]
    made = [
        Preference(prompt, a, b, high if as_rewards else None, low if as_rewards else None, asked.where)
        for (high, a), (low, b) in pairs
        if high > low
    ]
    if not made:
        raise Malformed("two answers that differ in rank or score", f"{len(answers)} answers")
    return list(made)
