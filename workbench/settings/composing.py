"""From `conf/` and words of the command line to a tree of settings, by Hydra, and back. Nothing is checked but the names of the choices."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator, Sequence
from typing import cast

from workbench.settings.modules import find_job
from workbench.settings.naming import nearest
from workbench.settings.shipped import CONF
from workbench.settings.upgrade import Tree

SHOWN = 80
_hydra_state = threading.Lock()  # Hydra keeps its state in the process, and every browser session and view is a thread


class SpecError(ValueError):
    """A setting is wrong. `problems` holds one (dotted key, what is wrong) a line of the message."""

    def __init__(self, problems: Sequence[tuple[str, str]]):
        self.problems = list(problems)
        super().__init__("\n".join(f"{key}: {what}" if key else what for key, what in self.problems))

    def _render_traceback_(self) -> list[str]:
        """What a notebook shows in place of a traceback: a setting is wrong, no code."""
        return [f"{type(self).__name__}: {self}"]


def shown(value: object) -> str:
    """A value in a message: its beginning where it is long."""
    text = repr(value)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}… of {len(text):,} characters"


def compose_tree(overrides: Sequence[str] = ()) -> Tree:
    """As `compose`, before the check: what a form starts from.

    What an experiment sets in a group is meant for its own choice there: `experiment=dpo_demo algorithm=sft` has none of DPO's settings.
    """
    overrides_given = _hydra_words(overrides)
    tree, choice = _hydra(overrides_given)
    experiment = [word for word in overrides_given if word.startswith("experiment=")]
    if experiment and any(word.partition("=")[0] in groups() for word in overrides_given if word not in experiment):
        own = _hydra(experiment)[1]
        without = _hydra([word for word in overrides_given if word not in experiment])[0]
        tree |= {group: without[group] for group in own if group in tree and own[group] != choice[group]}
    return _without_what_the_job_does_not_read(tree, overrides_given)


def chosen(overrides: Sequence[str] = ()) -> dict[str, str]:
    """Which choice each group has in the tree that the words give. Raises SpecError as `compose_tree` does."""
    return _hydra(_hydra_words(overrides))[1]


def _without_what_the_job_does_not_read(tree: Tree, overrides: Sequence[str]) -> Tree:
    """The algorithm that every run starts from is none of a job's that has no algorithm, unless it was named."""
    sections = find_job(tree.get("job", {}).get("name", "train")).Config.sections
    if "algorithm" not in sections and not any(word.startswith("algorithm=") for word in overrides):
        tree.pop("algorithm", None)
    return tree


def _hydra_words(overrides: Sequence[str]) -> list[str]:
    """The overrides in Hydra's grammar. Raises SpecError for a word that is none, and for a choice that is not there."""
    result = []
    for override in overrides:
        key = override.partition("=")[0]
        if "=" not in override and not override.startswith("~"):
            raise SpecError([(override, "expected key=value")])
        if key == "pipeline":
            raise SpecError([(key, "a pipeline is several runs: `workbench run pipeline=…` launches them, in a notebook wb.launch_pipeline")])
        if key in groups() and (choice := override.partition("=")[2]) not in choices(key):
            raise SpecError([(key, f"there is no {choice!r}{nearest(choice, choices(key))}; there are: {', '.join(choices(key))}")])
        if key.lstrip("+~").partition(".")[0] == "hydra":
            raise SpecError([(key, "there is no such key: Hydra's own settings are not read")])
        word = f"{key}={_literal(override.partition('=')[2])}" if "=" in override else override
        # A default lives in the typed field, not in YAML, so a value override may name a key that the YAML does not have.
        result.append(word if key in groups() or key[:1] in "+~" else f"++{word}")
    return result


def _literal(value: str) -> str:
    """The value with every `${…}` in it as text: nothing that is given here is taken from the environment or from other settings."""
    return _INTERPOLATION.sub(lambda match: match[0] if len(match[1]) % 2 else f"{match[1]}\\${{", value)


_INTERPOLATION = re.compile(r"(\\*)\$\{")


def _hydra(overrides: Sequence[str]) -> tuple[Tree, dict[str, str]]:
    """The composed tree, and which choice each group has in it."""
    from hydra import compose, initialize_config_dir
    from hydra.errors import HydraException, OverrideParseException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        with _hydra_state, initialize_config_dir(str(CONF), version_base="1.3"):
            config = compose("config", list(overrides), return_hydra_config=True)
        choice = {group: name for group, name in config.hydra.runtime.choices.items() if group in groups()}
        del config.hydra  # before the interpolations are resolved: Hydra's own refer to a job that there is not
        return cast(Tree, OmegaConf.to_container(config, resolve=True)), choice
    except OverrideParseException as error:
        key, _, value = error.override.lstrip("+~").partition("=")
        raise SpecError([(key, f"{shown(value)} is not a valid value; a text goes in quotes: '{key}=\"…\"'")]) from None
    except (HydraException, OmegaConfBaseException) as error:
        raise SpecError([("", str(error))]) from None


def groups() -> list[str]:
    """The folders of conf/: what can be chosen by name for a run. A pipeline is several runs."""
    return sorted(path.name for path in CONF.iterdir() if path.is_dir() and path.name != "pipeline")


def choices(group: str) -> list[str]:
    """The choices of one group: its YAML files."""
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))


def overrides_between(start: Tree, end: Tree) -> list[str]:
    """The `key=value` words that turn one tree into another: the command line that a form's settings equal."""
    was, now = dict(leaves(start)), dict(leaves(end))
    return [f"{key}={quoted(value)}" for key, value in now.items() if key not in was or was[key] != value]


def leaves(tree: object, prefix: str = "") -> Iterator[tuple[str, object]]:
    """The values of a nested mapping with their dotted keys."""
    if isinstance(tree, dict):
        for key, value in tree.items():
            yield from leaves(value, f"{prefix}.{key}" if prefix else key)
    else:
        yield prefix, list(tree) if isinstance(tree, tuple) else tree


def quoted(value: object) -> str:
    """A value as a word of the command line has it."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, list):
        return f"[{','.join(quoted(item) for item in value)}]"
    if isinstance(value, dict):
        return f"{{{','.join(f'{quoted(key)}:{quoted(item)}' for key, item in value.items())}}}"
    if isinstance(value, str) and not re.fullmatch(r"[A-Za-z_/][A-Za-z0-9_./-]*", value):
        literal = re.sub(r"(\\*)\$\{", r"\1\1\\${", value)  # no interpolation
        escaped = re.sub(r"(\\*)'", r"\1\1\\'", literal)
        return "'" + re.sub(r"(\\+)\Z", r"\1\1", escaped) + "'"
    if isinstance(value, str) and value.lower() in ("null", "true", "false", "nan", "inf"):
        return f"'{value}'"
    return str(value)
