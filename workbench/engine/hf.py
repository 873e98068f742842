"""Weights in and out: a Hugging Face directory, a hub id or a GGUF file to megatron-core and back.

Every source becomes a Hugging Face directory first (`local_directory`, cached), so that there is one importer, and the tokenizer, the
chat template and the generation settings stay with the weights.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import AutoConfig, AutoTokenizer, PretrainedConfig, PreTrainedTokenizerBase

from workbench.data.chat import Chat
from workbench.engine import families, model_files, padding, preconditions, weight_files
from workbench.engine.families._parts import Part
from workbench.engine.model_files import NO_CODE
from workbench.settings import sources
from workbench.settings.sources import EMBEDDED

EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"
SCORE_HEAD = "score_head.weight"
PADDED = ("embedding.word_embeddings.weight", "output_layer.weight")
"""Their rows are tokens, and tensor-parallel ranks have equally many: the last may have some for tokens that there are not."""

GENERATION = "generation_config.json"
_SHARD_BYTES = 5 * 10**9


def local_directory(source: str, revision: str | None = None) -> Path:
    """A Hugging Face directory with the source's weights in safetensors, converted or downloaded once. Nothing in it is code that would be run.

    Args:
        source: a directory, a .gguf file, a hub id, or `smollm2-135m-instruct`.
        revision: of a hub id: a branch, a tag or a commit; None for its main branch.

    Raises:
        ValueError: there is no such source, it is not a model directory, it asks for code (see `model_files`), or it is a model that the engine does not
            read (see `preconditions`); the message says what was tried.
    """
    directory = _fetched(source, revision)
    model_files.check(directory)
    preconditions.check(directory)
    return directory


def _fetched(source: str, revision: str | None) -> Path:
    path = Path(source).expanduser()
    if revision and (source == EMBEDDED or path.suffix == ".gguf" or path.exists()):
        raise ValueError(f"model.revision={revision}: {sources.NO_REVISION}, and {source} is none")
    if source == EMBEDDED:
        return _from_gguf(_embedded_file())
    if path.suffix == ".gguf":
        if not path.is_file():
            raise ValueError(f"model.source={source}: there is no such file")
        return _from_gguf(path)
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise ValueError(f"model.source={source}: the directory has no config.json; expected a Hugging Face model directory")
        return path.resolve()
    return _from_hub(source, revision)


def commit_of(source: str, directory: Path) -> str | None:
    """The commit that a hub model's directory is of; None for any other source."""
    return None if source == EMBEDDED or Path(source).expanduser().exists() or directory.parent.name != "snapshots" else directory.name


def config(directory: Path) -> PretrainedConfig:
    return AutoConfig.from_pretrained(directory, **NO_CODE)


def tokenizer(directory: Path) -> PreTrainedTokenizerBase:
    """Raises ValueError where it has tokens that the model's embedding has no rows for."""
    made = AutoTokenizer.from_pretrained(directory, **NO_CODE)
    preconditions.check_tokens(made.get_vocab(), config(directory).vocab_size, directory)
    return made


def end_tokens(directory: Path) -> frozenset[int]:
    """The tokens that end an answer: the tokenizer's end of sequence, those that the generation settings name, and what the chat template puts there."""
    own = tokenizer(directory)
    ends = [own.eos_token_id, *([Chat(own).end_token] if own.chat_template else [])]
    named = _generation_settings(directory).get("eos_token_id")
    return frozenset(end for end in [*ends, *(named if isinstance(named, list) else [named])] if isinstance(end, int))


def to_hf(weights: Mapping[str, Tensor], hf: PretrainedConfig) -> Iterator[tuple[str, Tensor, int | None]]:
    """megatron's weights by their names in the whole model, as Hugging Face names, tensors and the dimension that ranks divide.

    Full weights give full tensors, a rank's part the rank's part of each.
    """
    for part in mapping(hf):
        tied = part.name == "output_layer.weight" and hf.tie_word_embeddings
        if part.name in weights and not tied:
            yield from ((name, tensor, part.dim) for name, tensor in zip(part.hf_names, part.split(weights[part.name]), strict=True))


def save(
    weights: Mapping[str, Tensor],
    source: Path,
    out: Path,
    note: str,
    beside: Mapping[str, str] | None = None,
    declared: Mapping[str, object] | None = None,
) -> Path:
    """Write a directory that transformers loads: megatron's full weights as safetensors (5 GB shards), with the source's configuration and
    tokenizer; its generation settings name all that ends an answer. A model with a score head is written as a sequence classifier, whose padding token ends no text.

    The directory, with the `note` as its README, other texts `beside` by name (such as another chat template), and what is `declared` in config.json,
    appears whole or not at all. Raises FileExistsError where `out` exists already.
    """
    if out.exists():
        raise FileExistsError(f"{out} exists already; name a new directory")
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as temporary:
        folder = Path(temporary) / "model"
        folder.mkdir()
        for file in source.iterdir():
            if file.is_file() and file.suffix in (".json", ".txt", ".jinja", ".model") and not file.name.endswith(".index.json"):
                shutil.copy(file, folder)
        for name, text in {"README.md": note, **(beside or {})}.items():
            (folder / name).write_text(text)
        hf = config(source)
        tensors = {name: tensor.contiguous() for name, tensor, _ in to_hf(weights, hf)}
        changes: dict[str, Any] = {"dtype": str(next(iter(tensors.values())).dtype).removeprefix("torch.")}
        if SCORE_HEAD in weights:
            kind = type(hf).__name__.removesuffix("Config")
            changes |= {"architectures": [f"{kind}ForSequenceClassification"], "num_labels": len(weights[SCORE_HEAD])}
            changes |= _pad(folder, source, tensors, hf.vocab_size)
        else:
            ends = sorted(end_tokens(folder))
            settings = {**_generation_settings(source), "eos_token_id": ends if len(ends) > 1 else ends[0]}
            (folder / GENERATION).write_text(json.dumps(settings, indent=2))
        _declare(folder / "config.json", {**changes, **(declared or {})})
        _save_sharded(tensors, folder)
        folder.rename(out)
    return out


def _pad(folder: Path, source: Path, tensors: dict[str, Tensor], rows: int) -> dict[str, int]:
    """Give a classifier's folder a padding token that ends no text, and the embedding a row for it where it has none. Returns what config.json says of it."""
    loaded = tokenizer(source)
    chosen = padding.of(loaded, end_tokens(source))
    if chosen.token != loaded.pad_token:
        padding.declare(loaded, chosen).save_pretrained(folder)
    missing = max(0, chosen.number + 1 - rows)
    tensors[EMBEDDING] = torch.nn.functional.pad(tensors[EMBEDDING], (0, 0, 0, missing))
    return {"pad_token_id": chosen.number, "vocab_size": rows + missing}


def _generation_settings(directory: Path) -> dict[str, Any]:
    file = directory / GENERATION
    return json.loads(file.read_text()) if file.is_file() else {}


def mapping(hf: PretrainedConfig) -> Iterator[Part]:
    """Every parameter of the whole model, and the Hugging Face tensors that it is made of."""
    return families.find(hf.model_type).parts(hf)


def _save_sharded(tensors: dict[str, Tensor], folder: Path) -> None:
    shards: list[dict[str, Tensor]] = [{}]
    size = 0
    for name, tensor in tensors.items():
        if size and size + tensor.nbytes > _SHARD_BYTES:
            shards.append({})
            size = 0
        shards[-1][name] = tensor
        size += tensor.nbytes
    if len(shards) == 1:
        save_file(shards[0], folder / "model.safetensors", metadata={"format": "pt"})
        return
    index = {}
    for i, shard in enumerate(shards, 1):
        file = f"model-{i:05d}-of-{len(shards):05d}.safetensors"
        save_file(shard, folder / file, metadata={"format": "pt"})
        index.update(dict.fromkeys(shard, file))
    total = sum(tensor.nbytes for tensor in tensors.values())
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {"total_size": total}, "weight_map": index}))


def _declare(path: Path, changes: Mapping[str, Any]) -> None:
    tree = json.loads(path.read_text())
    for old in ("torch_dtype", "quantization_config"):  # the weights are plain now
        tree.pop(old, None)
    path.write_text(json.dumps({**tree, **changes}, indent=2))


def _embedded_file() -> Path:
    file = sources.embedded_model()
    if file is None:
        raise ValueError(f"model.source={EMBEDDED}: {sources.EMBEDDED_MISSING}")
    return file


def _from_gguf(file: Path) -> Path:
    stat = file.stat()
    name = re.sub(r"[^\w.-]", "_", file.stem)
    key = hashlib.sha256(f"{file.resolve()} {stat.st_size} {stat.st_mtime_ns}".encode()).hexdigest()[:12]
    directory = sources.cache_root() / "models" / f"{name}-{key}"
    if directory.is_dir():
        return directory
    from transformers import AutoModelForCausalLM

    settings = AutoConfig.from_pretrained(file.parent, gguf_file=file.name, **NO_CODE)
    preconditions.check_config({**settings.to_dict(), "quantization_config": None}, str(file))
    directory.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=directory.parent) as temporary:
        AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name, **NO_CODE).save_pretrained(temporary)
        model = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=torch.float32, **NO_CODE)
        model.generation_config.save_pretrained(temporary)
        tree = json.loads(model.config.to_json_string())
        tree.pop("quantization_config", None)  # the weights are plain fp32 now
        (Path(temporary) / "config.json").write_text(json.dumps({**tree, "architectures": [type(model).__name__]}, indent=2))
        tied = {"lm_head.weight"} if model.config.tie_word_embeddings else set()
        _save_sharded({name: tensor.contiguous() for name, tensor in model.state_dict().items() if name not in tied}, Path(temporary))
        if not directory.is_dir():  # another process may have been quicker
            Path(temporary).rename(directory)
            Path(temporary).mkdir()
    return directory


def _from_hub(source: str, revision: str | None) -> Path:
    """Its configuration first: what is refused for it is not downloaded."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError, RepositoryNotFoundError, RevisionNotFoundError

    at = f" at revision {revision}" if revision else ""
    try:
        settings = Path(snapshot_download(source, revision=revision, allow_patterns=["config.json"]))
        if not (settings / "config.json").is_file():
            raise ValueError(f"model.source={source}{at}: there is no config.json in it; expected a Hugging Face model")
        preconditions.check_config(preconditions.read_config(settings), f"{source}{at}, config.json")
        patterns = ["*.json", "*.safetensors", "*.txt", "*.jinja", "*.model"]
        directory = Path(snapshot_download(source, revision=settings.name, allow_patterns=patterns))
    except RevisionNotFoundError as error:
        raise ValueError(f"model.revision={revision}: {source} has no such branch, tag or commit") from error
    except (HFValidationError, RepositoryNotFoundError, LocalEntryNotFoundError) as error:
        raise ValueError(
            f"model.source={source}{at}: neither a directory, a .gguf file nor a model on the Hugging Face hub that can be reached ({type(error).__name__})"
        ) from error
    if not weight_files.files(directory):
        raise ValueError(
            f"model.source={source}{at}: {directory} has no .safetensors file; fetch it where the hub can be reached: workbench model get {source}"
        )
    return directory
