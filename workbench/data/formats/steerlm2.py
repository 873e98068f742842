"""NeMo-Aligner's rows of SteerLM 2: a prompt with the ratings that were asked for, and the answers that were sampled for them."""

from __future__ import annotations

from workbench.data.formats._parts import Asked, Parsed, messages
from workbench.data.formats._ratings import attributes
from workbench.data.formats._values import Raw, filled, number, objects, text, value
from workbench.data.rows import Group, Kind, Malformed

ATTRIBUTES, BASE, PROPOSAL = "log(P(a|x,y))", "log(P(y|x))", "log(Q(y|a,x))"
SCHEMA = (
    f'{{"prompt_turns": [{{"from", "value"}}], "label": "quality:4,…", "responses": [{{"from", "value", "{ATTRIBUTES}", "{BASE}"}}][, "system"]}} (SteerLM 2);'
    f" {PROPOSAL} is computed by the run"
)
GIVES: tuple[Kind, ...] = ("group", "prompt")
KEYS = (frozenset({"prompt_turns", "responses"}),)
READS = frozenset({"prompt_turns", "responses", "label"})


def fits(row: Raw, asked: Asked) -> int:
    return 3


def parse(row: Raw, asked: Asked) -> Parsed:
    turns = messages(value(row, "prompt_turns"), "prompt_turns", asked)
    if turns[-1].role != "user":
        raise Malformed("prompt_turns that end with the user's", f"the {turns[-1].role}'s")
    asking = turns[-1].__class__(turns[-1].role, turns[-1].content, ratings=attributes(value(row, "label"), "label"))
    said, scores = [], []
    for i, each in enumerate(objects(value(row, "responses"), "responses")):
        said.append(filled(text(each, "value"), f"responses[{i}].value"))
        scores.append([number(value(each, name), f"responses[{i}].{name}") for name in (ATTRIBUTES, BASE)])
        asked.unread.update(set(each) - {"from", "value", ATTRIBUTES, BASE, PROPOSAL})
    if len(said) < 2:
        raise Malformed("two responses or more: the loss compares them", f"{len(said)}")
    of_attributes, of_base = zip(*scores, strict=True)
    return Group((*turns[:-1], asking), tuple(said), of_attributes, of_base, asked.where)
