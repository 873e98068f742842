"""Conversations that say how their answers are to be: ratings by attribute, as text (SteerLM, arXiv 2310.05344)."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from workbench.data.rows import Malformed, Message
from workbench.settings import Steering


def attribute_string(ratings: Mapping[str, float], steering: Steering) -> str:
    """`quality:4,toxicity:0`: the attributes that are rated, in the declared order; a whole number without a point, others as they are.

    Raises:
        Malformed: none of the attributes is rated, one that is not declared is, or a rating lies outside the scale.
    """
    if unknown := [name for name in ratings if name not in steering.attributes]:
        raise Malformed(f"ratings of {', '.join(steering.attributes)} (data.steering.attributes)", f"one of {unknown[0]}")
    for name, rating in ratings.items():
        if not steering.lowest <= rating <= steering.highest:
            raise Malformed(f"{name} from {steering.lowest} to {steering.highest} (data.steering)", f"{rating:g}")
    rated = [f"{name}:{ratings[name]:g}" for name in steering.attributes if name in ratings]
    if not rated:
        raise Malformed(f"a rating of {', '.join(steering.attributes)} (data.steering.attributes)", "none")
    return ",".join(rated)


def declared(message: Message, steering: Steering) -> Message:
    """The turn with those of its ratings that are declared: a data set may have more."""
    if all(name in steering.attributes for name in message.ratings):
        return message
    return dataclasses.replace(message, ratings={name: value for name, value in message.ratings.items() if name in steering.attributes})


def conditioned(messages: Sequence[Message], steering: Steering) -> tuple[Message, ...]:
    """The turns as the model is asked: the ratings of the assistant's turns, and those that a question's answer is asked for, as text.

    A row's own system prompt stays. Under `system` there is one setting for the whole conversation, that of its last rated turn. An answer that is
    asked for otherwise, or has no ratings, is not learnt.

    Raises:
        Malformed: as `attribute_string` does, or no turn has ratings.
    """
    texts = {i: attribute_string(message.ratings, steering) for i, message in enumerate(messages) if message.ratings}
    if not texts:
        raise Malformed("a conversation with ratings (data.steering)", "one without")
    last = texts[max(texts)]
    asked_for = {i for i, text in texts.items() if steering.layout != "system" or text == last}
    result = [
        dataclasses.replace(message, learn=message.learn and (message.role != "assistant" or i in asked_for)) for i, message in enumerate(messages)
    ]
    if steering.layout == "system":
        if result[0].role == "system":
            return (_with_line(result[0], last), *result[1:])
        return (Message("system", last), *result)
    if steering.layout == "answer":
        for i, text in texts.items():
            result[i] = dataclasses.replace(result[i], given=f"{text}\n")
            if result[i].role == "assistant":
                result[i] = dataclasses.replace(result[i], content=result[i].given + result[i].content)
        return tuple(result)
    for i, text in texts.items():
        asking = next((k for k in range(i, -1, -1) if result[k].role == "user"), None)
        if asking is None:
            raise Malformed("a question before each rated answer", f"turn {i + 1} of {len(result)} without one")
        if steering.layout == "user":
            result[asking] = _with_line(result[asking], text)
        else:
            result[asking] = dataclasses.replace(result[asking], extra={**result[asking].extra, "attributes": text})
    return tuple(result)


def _with_line(message: Message, line: str) -> Message:
    return dataclasses.replace(message, content=f"{message.content}\n\n{line}" if message.content else line)


def answer_to(prompt: Sequence[Message], text: str) -> Message:
    """An answer to a prompt, after what it is given to begin with."""
    given = prompt[-1].given
    return Message("assistant", given + text, given=given)
