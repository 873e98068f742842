"""Renders chat templates in a process of its own, with a limit on memory and on processor time each: a template is a program of the model's author.

`python -m workbench.data.template_process` answers each line, a `Request` as JSON, with a line: a list with `{"text": …}` or `{"error": …}` for each
of its renderings. The environment is the one that chat templates are written for (https://huggingface.co/docs/transformers/chat_templating): Jinja2's
immutable sandbox with blocks trimmed, loop controls, `generation` blocks, `tojson` as JSON, `raise_exception` and `strftime_now`.
"""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import TypedDict

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace

from workbench.data import limits

MEMORY_BYTES = 512 << 20
MAX_CHARACTERS = 1 << 20
"""What a template may write beside the messages' own texts."""
ERRORS = (jinja2.TemplateError, ArithmeticError, AttributeError, LookupError, MemoryError, RuntimeError, TypeError, ValueError)
"""What a template can raise."""


GENERATION = "\U0010fffc", "\U0010fffd"
"""Marks around what stands in a `generation` block, where a rendering asks for them."""


class Rendering(TypedDict):
    """One text to make of the template. `variables` are further ones that the template knows (`enable_thinking`)."""

    messages: Sequence[Mapping[str, object]]
    add_generation_prompt: bool
    tools: Sequence[Mapping[str, object]] | None
    variables: Mapping[str, object]
    mark_generation: bool


class Request(TypedDict):
    template: str
    names: dict[str, object]
    """The special tokens by their names (`bos_token`), as the template knows them."""
    cpu_s: int
    """Processor time that each rendering may take, in seconds."""
    renderings: Sequence[Rendering]


class _Generation(Extension):
    """`{% generation %}` encloses what an assistant said."""

    def __init__(self, environment: jinja2.Environment):
        super().__init__(environment)
        self.tags = {"generation"}

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        marks = nodes.Name(MARKED, "load")
        return nodes.CallBlock(self.call_method("_enclosed", [marks]), [], [], body).set_lineno(line)

    def _enclosed(self, marked: object, caller: Callable[[], str]) -> str:
        before, after = GENERATION if marked is True else ("", "")
        return f"{before}{caller()}{after}"


MARKED = "workbench_mark_generation"
"""The variable by which a `generation` block knows whether to mark its text."""


class _Namespace(Namespace):
    """Jinja's, closed to names with an underscore in front."""

    def __init__(*args: object, **kwargs: object) -> None:
        given = dict(*args[1:], **kwargs)
        for name in given:
            _check_name(name)
        Namespace.__init__(args[0], given)

    def __setitem__(self, name: str, value: object) -> None:
        _check_name(name)
        super().__setitem__(name, value)


def main() -> int:
    limits.of_memory(MEMORY_BYTES)
    for line in sys.stdin.buffer:
        request: Request = json.loads(line)
        answers = []
        for rendering in request["renderings"]:
            limits.processor_time(request["cpu_s"])
            answers.append(answer(request["template"], rendering, request["names"]))
        sys.stdout.buffer.write(json.dumps(answers).encode() + b"\n")
        sys.stdout.buffer.flush()
    return 0


def answer(template: str, rendering: Rendering, names: Mapping[str, object]) -> dict[str, str]:
    """The text, or why there is none."""
    try:
        text = render(template, rendering, names)
    except ERRORS as error:
        return {"error": f"{type(error).__name__}: {error}"[:1000]}
    allowed = MAX_CHARACTERS + 2 * len(json.dumps(rendering["messages"]))
    return {"text": text} if len(text) <= allowed else {"error": f"it writes {len(text):,} characters for {allowed:,} at most"}


def render(template: str, rendering: Rendering, names: Mapping[str, object]) -> str:
    """The text that a template makes of messages. Raises one of `ERRORS`."""
    variables = {**names, **rendering["variables"], MARKED: rendering["mark_generation"]}
    return _compiled(template).render(
        variables,
        messages=rendering["messages"],
        tools=rendering["tools"],
        documents=None,
        add_generation_prompt=rendering["add_generation_prompt"],
    )


@functools.lru_cache(maxsize=8)
def _compiled(template: str) -> jinja2.Template:
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols])
    environment.filters["tojson"] = _tojson
    own: dict[str, Callable[..., object]] = {
        "raise_exception": _raise,
        "strftime_now": lambda form: datetime.now().strftime(form),
        "dict": _dict,
        "namespace": _Namespace,
    }
    environment.globals.update(own)
    return environment.from_string(template)


def _tojson(
    value: object, ensure_ascii: bool = False, indent: int | None = None, separators: tuple[str, str] | None = None, sort_keys: bool = False
) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _raise(message: str) -> None:
    raise jinja2.TemplateError(message)


def _dict(*args: object, **kwargs: object) -> object:
    """Not the type, whose attributes would lead on."""
    return dict(*args, **kwargs)


def _check_name(name: object) -> None:
    if isinstance(name, str) and name.startswith("_"):
        raise jinja2.exceptions.SecurityError(f"a namespace has no name with an underscore in front, got {name!r}")


if __name__ == "__main__":
    sys.exit(main())
