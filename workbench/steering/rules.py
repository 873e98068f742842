"""Rules that rate an answer without a model: each takes (prompt messages, response) and gives a rating from 0 to 4, or None where it has none.

A rule's name is the attribute's. One of your own is `path/to/file.py:function`, and may have any scale. Rules rate what can be counted; nothing here
judges whether an answer is good.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from numbers import Real

from workbench.settings import functions

Prompt = Sequence[Mapping[str, str]]
Rule = Callable[[Prompt, str], float | None]

VERBOSITY_WORDS = (16, 25, 33, 42)
"""Words from which an answer is of verbosity 1, 2, 3 and 4: the quintiles of the demo's answers."""
HIGHEST = 4
_WORD = re.compile(r"\S*\w\S*")
_YOU = re.compile(r"\b(?:you|your|yours|yourself|yourselves)\b", re.IGNORECASE)
_I = re.compile(r"\b(?:I|[Mm]e|[Mm]y|[Mm]ine|[Mm]yself)\b")
_ARTICLE = re.compile(r"\s*(?:An?|The)\b")
_QUOTED = re.compile(r"[\"“”„«»]")
_BULLET = re.compile(r"^\s*(?:[-*•–]|\d{1,2}[.)])\s+\S", re.MULTILINE)
_AFTER_THE_END = " \t\n\"'”’)]*_»"


def word_count(response: str) -> int:
    """Words of an answer: what stands between spaces and has a letter or a digit."""
    return len(_WORD.findall(response))


def verbosity(prompt: Prompt, response: str) -> float:
    """How many of `VERBOSITY_WORDS` the answer has in words: 0 below 16 words, 4 from 42 on."""
    return float(sum(word_count(response) >= least for least in VERBOSITY_WORDS))


def quotes(prompt: Prompt, response: str) -> float:
    """4 for an answer with a quotation mark (straight, curly, low or angle; no apostrophe) anywhere, else 0."""
    return float(HIGHEST * (_QUOTED.search(response) is not None))


def address(prompt: Prompt, response: str) -> float:
    """Whether the reader is spoken to: 2 a `you`, `your` or `yourself`, at most 4; 0 without."""
    return float(min(HIGHEST, 2 * len(_YOU.findall(response))))


def first_person(prompt: Prompt, response: str) -> float:
    """4 for an answer that speaks of itself (`I`, `me`, `my`), else 0."""
    return float(HIGHEST * (_I.search(response) is not None))


def article(prompt: Prompt, response: str) -> float:
    """4 for an answer that begins with an article (`A`, `An`, `The`), else 0."""
    return float(HIGHEST * (_ARTICLE.match(response) is not None))


def exclamation(prompt: Prompt, response: str) -> float:
    """4 for an answer with an exclamation mark anywhere, else 0."""
    return float(HIGHEST * ("!" in response))


def bullets(prompt: Prompt, response: str) -> float:
    """Whether the answer is a list: 2 a line that begins as an item does (`-`, `*`, `•`, `1.`, `1)`), at most 4; 0 without."""
    return float(min(HIGHEST, 2 * len(_BULLET.findall(response))))


def question(prompt: Prompt, response: str) -> float:
    """4 for an answer that ends with a question (closing quotes and brackets after it allowed), else 0."""
    return float(HIGHEST * response.rstrip(_AFTER_THE_END).endswith(("?", "？")))


RULES: Mapping[str, Rule] = {rule.__name__: rule for rule in (verbosity, quotes, address, first_person, article, exclamation, bullets, question)}
"""The rules by the names that settings give them."""
RULE = functions.Kind("rule", ("prompt", "response"), "my_rules.py:politeness", RULES)


def find(name: str) -> tuple[str, Rule]:
    """(the attribute's name, the rule) of one of `RULES`, or of `path/to/file.py:function`, whose file is run.

    Raises:
        ValueError: there is no such rule, or it does not take (prompt, response).
    """
    return name.rpartition(":")[2], functions.find(name, RULE)


def find_all(names: Sequence[str]) -> dict[str, Rule]:
    """The rules by their attributes' names, in this order.

    Raises:
        ValueError: as `find`, or two of them rate the same attribute.
    """
    by_attribute: dict[str, Rule] = {}
    for name in names:
        attribute, rule = find(name)
        if attribute in by_attribute:
            raise ValueError(f"two rules rate {attribute}: an attribute has the name of its rule's function, so rename one")
        by_attribute[attribute] = rule
    return by_attribute


def rate(attribute: str, rule: Rule, prompt: Prompt, response: str) -> float | None:
    """What the rule says of an answer; None where it has no rating for it.

    Raises:
        ValueError: what it gives is not a number, NaN or infinite, or it raised; the message names the attribute.
    """
    try:
        value = rule(prompt, response)
    except Exception as error:  # whatever a user's function raises is reported as its own
        raise ValueError(f"the rule of {attribute} raised {type(error).__name__}: {error} (answer: {response[:60]!r})") from error
    if value is None:
        return None
    if not isinstance(value, Real) or not math.isfinite(value):
        raise ValueError(f"the rule of {attribute} gave {value!r}; expected a finite number, or None for an answer that it does not rate")
    return float(value)


def problems(names: Sequence[str]) -> list[str]:
    """What is wrong with the rules' names, from the files' text alone: nothing of them is run."""
    return [problem for name in names for problem in functions.problems(name, RULE)]
