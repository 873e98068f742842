"""UltraFeedback's scored completions."""

from workbench.data.formats._answers import ranked
from workbench.data.formats._parts import Asked, Parsed, question
from workbench.data.formats._values import Raw, filled, first_of, number, objects, text, value
from workbench.data.rows import Kind

SCHEMA = '{"instruction" or "prompt", "completions": [{"response", "overall_score"}]}: the best against the worst, or every pair with data.pairs=all (UltraFeedback)'
SCORES = ("overall_score", "score", "rating")
GIVES: tuple[Kind, ...] = ("preference", "conversation", "unpaired", "prompt")
KEYS = tuple(frozenset({key, "completions"}) for key in ("instruction", "prompt"))
READS = frozenset({"completions"})


def fits(row: Raw, asked: Asked) -> int:
    return 2 if isinstance(row["completions"], list) else -1


def parse(row: Raw, asked: Asked) -> Parsed:
    said = []
    for i, each in enumerate(objects(value(row, "completions"), "completions")):
        key = first_of(SCORES, each, SCORES[0])
        said.append((number(value(each, key), f"completions[{i}].{key}"), filled(text(each, "response"), f"completions[{i}].response")))
    return ranked(question(row, asked), said, asked)
