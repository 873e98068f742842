"""What an endpoint serves: each name that settings give, with its weights, its tokenizer and what its training run says of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from workbench.data.chat import Chat
from workbench.data.targets import FILE as TARGETS
from workbench.data.targets import Targets
from workbench.engine import hf, parallel, preconditions
from workbench.engine.reading import Reader
from workbench.rundir import opening
from workbench.rundir.files import read_json
from workbench.rundir.store import COMPLETE, RunDir
from workbench.settings import WEIGHTS, Lora, Model, stored

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass
class Served:
    """A model on this rank. `step` is its checkpoint's; `context` is the longest text that it is made for, in tokens."""

    id: str
    source: str
    step: int | None
    directory: Path
    tokenizer: PreTrainedTokenizerBase
    chat: Chat | None
    targets: Targets | None
    reader: Reader
    context: int | None
    created: int = field(default_factory=lambda: int(time.time()))

    @property
    def end_tokens(self) -> frozenset[int]:
        """What ends an answer; the layout of its attributes may be another template than the model's."""
        return hf.end_tokens(self.directory) | ({self.chat.end_token} if self.chat else set())


@dataclass(frozen=True)
class _Named:
    """What a name means: a model, with a checkpoint of it or without."""

    id: str
    source: str
    model: Model
    checkpoint: Path | None
    targets: Path | None
    variables: dict[str, object]


def load(names: Sequence[str], base: Model, tell: Callable[[str], None]) -> list[Served]:
    """The models by their names; those without a checkpoint in `base`'s precision, all in its layout. Adapters on one base share its weights.

    Every rank calls it.

    Raises:
        ValueError: as `ids` and `Reader` do.
    """
    named = [_of(name, base, id) for name, id in zip(names, ids(names), strict=True)]
    shared: dict[tuple[Path, str], Reader] = {}
    served = []
    for each in named:
        tell(f"loading {each.id}")
        directory = parallel.from_first(hf.local_directory(each.model.source, each.model.revision) if parallel.rank() == 0 else Path())
        key = (directory, each.model.precision)
        whole = each.checkpoint is not None and not each.model.lora.rank
        reader = Reader(each.model, directory, each.checkpoint, None if whole else shared.get(key))
        tell(f"{each.id}: {(reader.own_bytes if key in shared and not whole else reader.all_bytes) / 2**20:.0f} MiB of weights a rank")
        if not whole:
            shared.setdefault(key, reader)
        tokenizer = hf.tokenizer(directory)
        targets = Targets.read(each.targets) if each.targets else None
        steering = targets.steering if targets else None
        has_template = tokenizer.chat_template or (steering and steering.layout == "nemo")
        chat = Chat(tokenizer, each.variables, steering) if has_template else None
        context = preconditions.context_length(preconditions.read_config(directory))
        step = int(each.checkpoint.name) if each.checkpoint else None
        served.append(Served(each.id, each.source, step, directory, tokenizer, chat, targets, reader, context))
    return served


def ids(names: Sequence[str]) -> list[str]:
    """What each is called: `run:step`, a hub's model as there, a directory by its name; where two have the same, with the folders before it.

    Raises:
        ValueError: the same is named twice.
    """
    if twice := next((name for i, name in enumerate(names) if name in names[:i]), None):
        raise ValueError(f"job.checkpoints names {twice} twice")
    depth = [1] * len(names)
    while True:
        made = [_id(name, count) for name, count in zip(names, depth, strict=True)]
        if len(set(made)) == len(made):
            return made
        depth = [count + (made.count(id) > 1) for id, count in zip(made, depth, strict=True)]


def _id(name: str, depth: int) -> str:
    path = Path(name)
    if not path.is_absolute():
        return name
    if _is_checkpoint(path):
        return f"{path.parents[1].name}:{path.name}" if depth == 1 else str(path)
    return "/".join(path.parts[-depth:]).lstrip("/")


def _is_checkpoint(path: Path) -> bool:
    return path.is_absolute() and (path / COMPLETE).is_file()


def _of(name: str, base: Model, id: str) -> _Named:
    """A checkpoint's folder, or a model as `model.source` names it."""
    folder = Path(name)
    if not _is_checkpoint(folder):
        model = Model(
            source=name,
            revision=base.revision if name == base.source else None,
            precision=base.precision,
            lora=Lora(rank=0),
            tensor_parallel=base.tensor_parallel,
        )
        inner = folder / TARGETS if folder.is_dir() and (folder / TARGETS).is_file() else None
        return _Named(id, name, model, None, inner, _variables(inner))
    saved = read_json(folder / "meta.json")["model"]
    model = Model.model_validate({**{key: value for key, value in saved.items() if key in WEIGHTS}, "tensor_parallel": base.tensor_parallel})
    run = RunDir(folder.parents[1])
    targets = run.path / TARGETS if opening.is_file(run.path / TARGETS) else None
    variables = stored.experiment(run).data.template_kwargs if opening.is_file(run.spec_path) else _variables(targets)
    return _Named(id, str(folder), model, folder, targets, dict(variables))


def _variables(targets: Path | None) -> dict[str, object]:
    return dict(Targets.read(targets).template_kwargs) if targets else {}
