"""Words and names that STYLE forbids: each is printed with file:line and what to write instead. Exit 1 on any.

Names are those that Python code defines: functions, classes, arguments, variables, attributes; not a class's annotated fields, whose names may
be keys of stored or printed JSON. Prose is what a reader sees: docstrings, comments, texts in the code, Markdown. A space in a pattern stands
for any white space, a line break included.
"""

import ast
import re
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[1]
CODE = ("workbench", "backends", "app")
PROSE = ("README.md", "CONTRIBUTING.md", "SECURITY.md", "docs/**/*.md")


def names(source: str) -> Iterator[tuple[int, str]]:
    """The names that `source` defines, each with its line."""
    nodes = list(ast.walk(ast.parse(source)))
    fields = {id(part.target) for node in nodes if isinstance(node, ast.ClassDef) for part in node.body if isinstance(part, ast.AnnAssign)}
    for node in nodes:
        if id(node) in fields:
            continue
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name) | ast.arg(arg=name):
                yield node.lineno, name
            case ast.Name(id=name, ctx=ast.Store()) | ast.Attribute(attr=name, ctx=ast.Store()):
                yield node.lineno, name
            case ast.MatchAs(name=str(name)) | ast.ExceptHandler(name=str(name)) | ast.alias(asname=str(name)):
                yield node.lineno, name


def texts(path: Path) -> Iterator[tuple[int, str]]:
    """The comments and strings of a Python file, each with its first line; any other file as it is."""
    if path.suffix != ".py":
        yield 1, path.read_text()
        return
    with path.open("rb") as file:
        for token in tokenize.tokenize(file.readline):
            if token.type in (tokenize.COMMENT, tokenize.STRING):
                yield token.start[0], token.string


def problems(path: Path, rules: dict[str, dict[str, str]]) -> Iterator[tuple[int, str]]:
    """What `rules` forbid in the file: (line, what is wrong and what to write instead)."""
    if path.suffix == ".py":
        for line, name in names(path.read_text()):
            for pattern, instead in rules["names"].items():
                if re.fullmatch(pattern, name.strip("_")):
                    yield line, f"name {name}: {instead}"
    for first, text in texts(path):
        for pattern, instead in rules["prose"].items():
            for match in re.finditer(pattern.replace(" ", r"\s+"), text, re.IGNORECASE):
                yield first + text.count("\n", 0, match.start()), f'"{" ".join(match[0].split())}": {instead}'


def main(root: Path = ROOT) -> int:
    """Check the project's code and Markdown below `root`."""
    rules = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text())
    # workbench/{app,backends} are links to what is checked as itself
    code = sorted({path.resolve() for folder in CODE for path in (root / folder).rglob("*.py")})
    wrong = [(path, *each) for path in [*code, *sorted(file for glob in PROSE for file in root.glob(glob))] for each in sorted(problems(path, rules))]
    for path, line, what in wrong:
        print(f"{path.relative_to(root)}:{line}: {what}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
