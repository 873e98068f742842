"""Reads a data source with a model's tokenizer: `python -m workbench.processes.check_data` takes a `Question` as JSON and prints the answer as JSON.

It is a process of its own, with a limit on memory, so that whoever asks (the app, the command line) loads no tokenizer, and whatever is in the
source or in the model's files spoils nothing but this. What is wrong with the source goes to standard error, with exit code `TOLD`.
"""

from __future__ import annotations

import sys

from pydantic import BaseModel, JsonValue

from workbench.data import limits as resources
from workbench.data.check import CheckReport, Page
from workbench.data.limits import Limits
from workbench.data.readers import Changes, Kind

TOLD = 2
"""The exit code with which the standard error is a message for the user."""
MESSAGE_CHARACTERS = 10_000
MORE_MEMORY = "`workbench data check --memory` gives it more"


class Question(BaseModel):
    """What to look at: `source` as rows of a `kind`, in the tokens of a `model`; lengths are in tokens.

    With `rows`, the number of the first row and how many, those rows instead of a report on all.
    """

    source: str
    kind: Kind
    format: str = "auto"
    model: str = "smollm2-135m-instruct"
    template_kwargs: dict[str, JsonValue] = {}
    max_length: int = 1024
    rows: tuple[int, int] | None = None
    limits: Limits = Limits()
    changes: Changes = Changes()
    on_bad_row: str = "error"
    memory_bytes: int


def answer(question: Question) -> CheckReport | Page:
    """Raises ValueError: there is no such source, not one good row in it, or no such model."""
    from workbench.data import check
    from workbench.data.chat import Chat
    from workbench.engine import hf

    chat = Chat(hf.tokenizer(hf.local_directory(question.model)), question.template_kwargs)
    if question.rows:
        return check.browse(question.source, question.kind, chat, *question.rows, question.format, question.limits, question.changes)
    asked = (question.format, question.max_length, question.limits, question.changes, question.on_bad_row)
    return check.check(question.source, question.kind, chat, *asked)


def main() -> int:
    question = Question.model_validate_json(sys.stdin.read())
    resources.of_memory(question.memory_bytes)
    try:
        print(answer(question).model_dump_json())
    except (ValueError, OSError) as error:
        print(str(error)[:MESSAGE_CHARACTERS], file=sys.stderr)
    except MemoryError:
        print(f"{question.source}: checking it takes more than {question.memory_bytes / 2**30:g} GiB of memory; {MORE_MEMORY}", file=sys.stderr)
    else:
        return 0
    return TOLD


if __name__ == "__main__":
    sys.exit(main())
