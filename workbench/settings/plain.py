"""YAML as settings are kept in run folders: JSON's types and nothing else, so that no text of another's makes dates, objects or trees without end."""

from __future__ import annotations

import yaml

DEEPEST = 32
"""Levels of a mapping in a mapping; settings have five."""


class _Loader(yaml.SafeLoader):
    """Without aliases, tags and timestamps."""

    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        event = self.peek_event()
        if isinstance(event, yaml.AliasEvent) or getattr(event, "tag", None) is not None:
            raise yaml.YAMLError(f"line {event.start_mark.line + 1}: no aliases and no tags are read here")
        self.depth += 1
        if self.depth > DEEPEST:
            raise yaml.YAMLError(f"line {event.start_mark.line + 1}: nested more than {DEEPEST} levels deep")
        try:
            return super().compose_node(parent, index)
        finally:
            self.depth -= 1


_TIMESTAMP = "tag:yaml.org,2002:timestamp"
_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != _TIMESTAMP] for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def load(text: str) -> object:
    """What a YAML text holds. Raises ValueError with the cause and the line."""
    try:
        return yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        raise ValueError(f"no YAML: {' '.join(str(error).split())}") from None
    except ValueError as error:  # a number of more digits than Python reads
        raise ValueError(f"no YAML: {error}") from None


def load_mapping(text: str) -> dict[str, object]:
    """The mapping that a YAML text holds. Raises ValueError as `load`, and for another thing."""
    resolvers = load(text)
    if not isinstance(resolvers, dict):
        raise ValueError("empty" if resolvers is None else f"expected a mapping of settings, got {str(resolvers)[:40]!r}")
    return resolvers
