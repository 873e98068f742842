"""How a checkpoint's files are read. They may be somebody else's: what is in them is data, and nothing of it is run.

megatron and torch unpickle a checkpoint's index (`.metadata`), and what the index calls an object rather than a tensor; a pickle may call any
function. Here the index is unpickled with the names alone that a checkpoint of tensors needs, it may list tensors only, in files beside it, and
tensors are read by torch's own restricted loader (`weights_only`).
"""

from __future__ import annotations

import pickle
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from io import IOBase
from pathlib import Path
from typing import IO, cast

import torch
from megatron.core.dist_checkpointing.strategies import torch as megatron_strategies
from megatron.core.dist_checkpointing.strategies.common import TorchCommonLoadStrategy
from megatron.core.dist_checkpointing.strategies.torch import TorchDistLoadShardedStrategy
from torch.distributed.checkpoint import filesystem as torch_files
from torch.distributed.checkpoint import metadata as torch_metadata
from torch.distributed.checkpoint import planner as torch_planner
from torch.distributed.checkpoint.filesystem import FileSystemReader

from workbench.engine.megatron_types import put
from workbench.rundir.files import read_json
from workbench.rundir.opening import check_name, opener

WAY_OUT = "no checkpoint that the workbench writes has that. Ask whoever made it for the model as safetensors (workbench export), and name that as model.source"
_CONFIG = {"sharded_backend": "torch_dist", "sharded_backend_version": 1, "common_backend": "torch", "common_backend_version": 1}
_CLASSES = (
    torch_metadata.ChunkStorageMetadata,
    torch_metadata.Metadata,
    torch_metadata.MetadataIndex,
    torch_metadata.StorageMeta,
    torch_metadata.TensorProperties,
    torch_metadata.TensorStorageMetadata,
    torch_metadata._MEM_FORMAT_ENCODING,
    torch_planner.SavePlan,
    torch_planner.TensorWriteData,
    torch_planner.WriteItem,
    torch_planner.WriteItemType,
    torch_files._StorageInfo,
)
"""What the index of a checkpoint consists of."""
_ALLOWED: dict[tuple[str, str], object] = {
    **{(each.__module__, each.__qualname__): each for each in _CLASSES},
    ("torch.serialization", "_get_layout"): torch.serialization._get_layout,
    ("torch", "Size"): torch.Size,
    **{("torch", name): value for name, value in vars(torch).items() if isinstance(value, torch.dtype)},
}


class Reader(FileSystemReader):
    """torch's reader of a checkpoint's folder, without pickle's freedom. The index is read once."""

    def __init__(self, path: str | Path, cache_metadata: bool = True):
        super().__init__(path)
        self.fs = _PlainFiles()
        self._index: torch_metadata.Metadata | None = None

    def read_metadata(self, *args: object, **kwargs: object) -> torch_metadata.Metadata:
        """The checked index.

        Raises:
            ValueError: it names what no checkpoint needs, lists what is no tensor, or files elsewhere. The message says which, and what to do.
        """
        if self._index is None:
            self._index = _read_index(Path(self.path) / ".metadata")
            self._index.storage_meta = self._index.storage_meta or torch_metadata.StorageMeta()
            self._index.storage_meta.load_id = self.load_id
        return self._index


class Common(TorchCommonLoadStrategy):
    """What lies beside the tensors in `common.pt`: in a checkpoint of tensors at most the names of parts that have none."""

    def load_common(self, checkpoint_dir: str | Path) -> dict[str, object]:
        path = Path(checkpoint_dir) / "common.pt"
        try:
            with open(path, "rb", opener=opener) as file:
                common = torch.load(file, map_location="cpu", weights_only=True)
        except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
            raise ValueError(f"{path} is refused: {str(error).partition(chr(10))[0]}; {WAY_OUT}") from None
        if not isinstance(common, dict) or any(part != {} for part in common.values()):
            raise ValueError(f"{path} has something in it beside tensors; {WAY_OUT}")
        return common


def strategies(path: Path) -> tuple[TorchDistLoadShardedStrategy, Common]:
    """megatron's strategies for loading a checkpoint, whose index has been read and checked, so that what is wrong is reported in plain words.

    Raises:
        ValueError: see `Reader.read_metadata`; or it is of another kind than `torch_dist`.
    """
    config = read_json(path / "metadata.json")
    if config != _CONFIG:
        raise ValueError(f"{path / 'metadata.json'}: expected a checkpoint of kind {_CONFIG}, got {config}")
    Reader(path).read_metadata()
    return TorchDistLoadShardedStrategy(), Common()


class _PlainFiles(torch_files.FileSystem):
    """Files of the folder itself: no links, no pipes."""

    @contextmanager
    def create_stream(self, path: object, mode: str) -> Generator[IOBase, None, None]:
        assert mode == "rb", "a checkpoint that is read is not written"
        with open(str(path), "rb", opener=opener) as file:
            yield file


class _Unpickler(pickle.Unpickler):
    """pickle's, for the names of `_ALLOWED`."""

    def __init__(self, file: IO[bytes], path: Path):
        super().__init__(file)
        self._path = path

    def find_class(self, module_name: str, global_name: str) -> object:
        if (module_name, global_name) not in _ALLOWED:
            raise ValueError(f"{self._path} asks for {module_name}.{global_name}, which could run code, and is refused: {WAY_OUT}")
        return _ALLOWED[module_name, global_name]


def _read_index(path: Path) -> torch_metadata.Metadata:
    before = [dict(vars(each)) for each in _CLASSES]
    try:
        with open(path, "rb", opener=opener) as file:
            index = _Unpickler(file, path).load()
    except ValueError:
        raise
    except (pickle.UnpicklingError, EOFError, AttributeError, IndexError, KeyError, TypeError, OverflowError) as error:
        raise ValueError(f"{path} is not the index of a checkpoint: {type(error).__name__}: {error}") from None
    finally:
        changed = _restore(before)
    if changed:
        raise ValueError(f"{path} changes {changed[0]}, and is refused: {WAY_OUT}")
    _check_index(index, path)
    return index


def _restore(before: list[dict[str, object]]) -> list[str]:
    """Undo what a pickle set on the classes themselves. Returns their names: an honest one sets nothing."""
    changed = []
    for each, was in zip(_CLASSES, before, strict=True):
        now = dict(vars(each))
        for name in {*now, *was}:
            if now.get(name) is not was.get(name):
                changed.append(f"{each.__name__}.{name}")
                setattr(each, name, was[name]) if name in was else delattr(each, name)
    return changed


def _check_index(index: object, path: Path) -> None:
    """Raises ValueError: it is no index, lists objects that torch would unpickle, or bytes outside the files beside it."""
    if not isinstance(index, torch_metadata.Metadata):
        raise ValueError(f"{path}: expected the index of a checkpoint, got {type(index).__name__}")
    listed, stored = (getattr(index, name, None) for name in ("state_dict_metadata", "storage_data"))
    if not isinstance(listed, dict) or not isinstance(stored, dict):
        raise ValueError(f"{path}: expected the tensors and where they lie, got {type(listed).__name__} and {type(stored).__name__}")
    for name, entry in listed.items():
        if not isinstance(name, str) or not isinstance(entry, torch_metadata.TensorStorageMetadata):
            raise ValueError(f"{path}: {name!r} is no tensor ({type(entry).__name__}), which would be unpickled, and is refused: {WAY_OUT}")
    sizes = {item.name: item.stat().st_size for item in path.parent.iterdir() if item.is_file() and not item.is_symlink()}
    for where in _places(stored, path):
        name = check_name(where.relative_path, path)
        if name not in sizes:
            raise ValueError(f"{path} names the file {name!r}; there is no such plain file beside it")
        if not 0 <= where.offset <= where.offset + where.length <= sizes[name]:
            raise ValueError(f"{path}: {name} has {sizes[name]:,} bytes, and the index speaks of {where.length:,} from byte {where.offset:,}")


def _places(stored: dict[object, object], path: Path) -> Iterator[torch_files._StorageInfo]:
    for key, where in stored.items():
        if not isinstance(key, torch_metadata.MetadataIndex) or not isinstance(where, torch_files._StorageInfo):
            raise ValueError(f"{path}: expected the place of a tensor, got {type(where).__name__}")
        if getattr(where, "transform_descriptors", None):
            raise ValueError(f"{path}: {key.fqn} is transformed by {where.transform_descriptors}; {WAY_OUT}")
        given = (where.relative_path, where.offset, where.length)
        if not all(type(value) is kind for value, kind in zip(given, (str, int, int), strict=True)):
            raise ValueError(f"{path}: expected a file, an offset and a length in bytes for {key.fqn}, got {given}")
        yield where


def _reader(checkpoint_dir: str | Path, cache_metadata: bool = False) -> Reader:
    return Reader(cast(str, checkpoint_dir))


put(megatron_strategies, _get_filesystem_reader=_reader)  # on every road that megatron takes to a checkpoint
