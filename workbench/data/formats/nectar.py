"""Nectar's ranked answers."""

from workbench.data.formats._answers import ranked
from workbench.data.formats._parts import Asked, Parsed, question
from workbench.data.formats._values import Raw, filled, number, objects, text, value
from workbench.data.rows import Kind

SCHEMA = '{"prompt", "answers": [{"answer", "rank"}]}: the best against the worst, or every pair with data.pairs=all (Nectar)'
GIVES: tuple[Kind, ...] = ("preference", "conversation", "unpaired", "prompt")
KEYS = (frozenset({"prompt", "answers"}),)
READS = frozenset({"answers"})


def fits(row: Raw, asked: Asked) -> int:
    answers = row["answers"]
    return 2 if isinstance(answers, list) and answers and isinstance(answers[0], dict) and "rank" in answers[0] else -1


def parse(row: Raw, asked: Asked) -> Parsed:
    answers = objects(value(row, "answers"), "answers")
    said = [
        (-number(value(each, "rank"), f"answers[{i}].rank"), filled(text(each, "answer"), f"answers[{i}].answer")) for i, each in enumerate(answers)
    ]
    return ranked(question(row, asked), said, asked, as_rewards=False)
