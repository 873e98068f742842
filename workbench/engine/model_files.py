"""What a model's folder may hold: weights in safetensors, settings and texts. Whatever would run code of its author's, or leads out of the folder, is refused.

transformers offers to run a model's own Python files (`auto_map`), to fetch compiled kernels that it names, and to take the adapters beside it
from wherever they say. None of this is asked for: each is refused before transformers sees the folder, and its loaders are configured to refuse it too.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TypedDict

import transformers
from transformers import CONFIG_MAPPING

from workbench.engine.preconditions import read_json
from workbench.rundir.opening import check_name


class _NoCode(TypedDict):
    trust_remote_code: bool


NO_CODE: _NoCode = {"trust_remote_code": False}
"""What every loader of transformers is given: without it some ask whoever sits at the terminal."""


def check(directory: Path) -> None:
    """Refuse a model whose files name code, or lie elsewhere.

    Raises:
        ValueError: the message names the file, what is in it, and the way out.
    """
    if (directory / "adapter_config.json").exists():
        raise ValueError(f"{directory} has adapters of peft in it (adapter_config.json); merge them into their model first (merge_and_unload)")
    for path in sorted(directory.iterdir()):
        _check_place(path, directory)
    for name in ("config.json", "tokenizer_config.json", "generation_config.json", "processor_config.json", "preprocessor_config.json"):
        if (directory / name).is_file():
            _check_settings(directory / name)
    for path in directory.glob("*.index.json"):
        _check_index(path)
    pickled = [path.name for path in sorted(directory.iterdir()) if path.suffix in (".bin", ".pt", ".pth", ".pkl", ".ckpt")]
    if pickled and not any(directory.glob("*.safetensors")):
        raise ValueError(
            f"{directory} has its weights as pickles ({pickled[0]}), which may run code when they are read; take its safetensors, or convert it where"
            " that does no harm: transformers' save_pretrained writes them"
        )


def _check_place(path: Path, directory: Path) -> None:
    """A file of the hub's cache is a link to a blob beside its snapshots; any other link must stay in the folder."""
    if not path.is_symlink():
        return
    home = directory.parents[1] / "blobs" if directory.parent.name == "snapshots" else directory
    if not path.resolve().is_relative_to(home.resolve()):
        raise ValueError(f"{path} is a link that leads out of the model's folder, to {path.resolve()}; put a copy of the file in its place")


def _check_settings(path: Path) -> None:
    """Where transformers has code of its own for what the settings name, it takes that, and `auto_map` is not looked at."""
    settings = read_json(path)
    known = str(settings.get("model_type")) in CONFIG_MAPPING or hasattr(transformers, str(settings.get("tokenizer_class")))
    for key, value in _nested(settings):
        if key == "auto_map" and value and not known:
            raise ValueError(
                f"{path} asks for Python code of the model's author (auto_map: {str(value)[:200]}), which is never run, and transformers"
                f" {transformers.__version__} has none of its own for it; take a model that it has code for"
            )
        if key in ("attn_implementation", "_attn_implementation", "experts_implementation", "use_kernels") and value and "/" in str(value):
            raise ValueError(f"{path} asks for compiled code from {value!r} ({key}), which is never fetched; remove it from a copy of the folder")


def _check_index(path: Path) -> None:
    places = read_json(path).get("weight_map")
    if not isinstance(places, dict):
        raise ValueError(f"{path}: expected a weight_map, from tensors to files")
    for tensor, name in places.items():
        if not check_name(str(name), path).endswith((".safetensors", ".bin")):
            raise ValueError(f"{path} has {tensor!r} in {name!r}; expected a .safetensors file")


def _nested(value: object) -> Iterator[tuple[str, object]]:
    """Every key with its value, at any depth."""
    waiting = [value]
    while waiting:
        item = waiting.pop()
        if isinstance(item, Mapping):
            yield from item.items()
            waiting += item.values()
        elif isinstance(item, list):
            waiting += item
