"""Single answers, each wanted or not, as KTO learns from them."""

from workbench.data.formats._answers import answered
from workbench.data.formats._parts import PROMPT, Asked, Parsed, question
from workbench.data.formats._values import Raw, brief, first_of, value
from workbench.data.rows import Kind, Malformed, Unpaired

SCHEMA = '{"prompt", "completion" or "response", "label" or "preference": true, false, 1, 0, "chosen" or "rejected"} (KTO)'
ANSWERS, LABELS = ("response", "completion"), ("label", "preference")
WANTED, UNWANTED = (True, 1, 1.0, "chosen"), (False, 0, 0.0, "rejected")
GIVES: tuple[Kind, ...] = ("unpaired", "prompt")
KEYS = tuple(frozenset({key, answer, label}) for key in PROMPT for answer in ANSWERS for label in LABELS)
READS = frozenset({*ANSWERS, *LABELS})
COLUMNS = frozenset(LABELS)


def fits(row: Raw, asked: Asked) -> int:
    return 2


def parse(row: Raw, asked: Asked) -> Parsed:
    label = first_of(LABELS, row, LABELS[0])
    wanted = value(row, label)
    if not isinstance(wanted, bool | int | float | str) or wanted not in (*WANTED, *UNWANTED):
        raise Malformed(f'{label}: true, false, 1, 0, "chosen" or "rejected"', brief(wanted))
    prompt, (said,) = answered(row, (first_of(ANSWERS, row, ANSWERS[0]),), question(row, asked), asked)
    return Unpaired(prompt, said, wanted in WANTED, asked.where)
