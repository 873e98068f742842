"""Reads a data source with a model's tokenizer: `python -m workbench.processes.check_data` takes a `Question` as JSON and prints the answer as JSON.

It is a process of its own, so that whoever asks (the app) loads no tokenizer. What is wrong with the source goes to standard error, with exit
code 2.
"""

from __future__ import annotations

import sys

from pydantic import BaseModel

from workbench.data.check import CheckReport, Page
from workbench.data.readers import Kind


class Question(BaseModel):
    """What to look at: `source` as rows of a `kind`, in the tokens of a `model`; lengths are in tokens.

    With `rows`, the number of the first row and how many, those rows instead of a report on all.
    """

    source: str
    kind: Kind
    format: str = "auto"
    model: str = "smollm2-135m-instruct"
    max_length: int = 1024
    rows: tuple[int, int] | None = None


def answer(question: Question) -> CheckReport | Page:
    """Raises ValueError: there is no such source, not one good row in it, or no such model."""
    from workbench.data import check
    from workbench.engine import hf

    tokenizer = hf.tokenizer(hf.local_directory(question.model))
    if question.rows:
        return check.browse(question.source, question.kind, tokenizer, *question.rows, question.format)
    return check.check(question.source, question.kind, tokenizer, format=question.format, max_length=question.max_length)


def main() -> int:
    try:
        print(answer(Question.model_validate_json(sys.stdin.read())).model_dump_json())
    except (ValueError, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
