"""Weights from a Hugging Face directory into the engine's parameters. Every tensor is read, or refused by name."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor
from transformers import PretrainedConfig

from workbench.engine import hf, quantisation, weight_files
from workbench.engine.families._parts import Part
from workbench.engine.hf import EMBEDDING, HEAD
from workbench.engine.preconditions import read_config

COMPUTED = ".rotary_emb.inv_freq"
"""Old files hold it; it is computed from the configuration."""


def load_weights(parameters: Iterable[tuple[str, Tensor]], directory: Path, scores: bool, rank: int = 0, ranks: int = 1) -> None:
    """Fill parameters (by their names in the whole model) with this tensor-parallel rank's part of a Hugging Face directory's weights.

    The directory's files are opened one at a time and only what the rank needs is read; of a quantised tensor all is read. `scores`: whether the whole
    model has a score head. Where the directory has none, the head keeps its first values.

    Raises:
        ValueError: a tensor is missing, has another shape, or is one that no parameter reads; the message names it.
    """
    settings = hf.config(directory)
    parts = {part.name: part for part in hf.mapping(settings)}
    tensors = _Tensors(directory)
    tensors.check_all_are_read(parts.values(), settings, scores)
    wanted = [(parts[name], parameter) for name, parameter in parameters if name in parts]
    with torch.no_grad():
        for part, parameter in sorted(wanted, key=lambda item: tensors.file_of(item[0].hf_names[0])):
            if part.name == hf.SCORE_HEAD and part.hf_names[0] not in tensors.entries:
                continue
            value = part.join([tensors.read(name, part.dim, rank, ranks) for name in part.hf_names])
            if part.name in hf.PADDED:  # rows for tokens that there are not
                value = torch.nn.functional.pad(value, (0, 0, 0, len(parameter) - len(value)))
            if value.shape != parameter.shape:
                raise ValueError(f"{directory}: {', '.join(part.hf_names)} give {tuple(value.shape)}; {part.name} takes {tuple(parameter.shape)}")
            parameter.copy_(value)


class _Tensors:
    """Reads slices of safetensors files, of which one is open at a time: a file's pages that were read stay in memory until it is closed."""

    def __init__(self, directory: Path) -> None:
        self.directory, self.entries = directory, weight_files.entries(directory)
        if not self.entries:
            raise ValueError(f"{directory}: no .safetensors file; convert the model with transformers' save_pretrained first")
        self._scheme = quantisation.of(read_config(directory))
        try:
            quantisation.check_types(weight_files.types(self.entries), self._scheme)
        except ValueError as error:
            raise ValueError(f"{directory}: {error}") from None
        self._path: Path | None = None
        self._file: Any = None

    def file_of(self, name: str) -> str:
        """The file of a tensor; they are read file by file."""
        return str(self.entries[name].path) if name in self.entries else ""

    def read(self, name: str, dim: int | None, rank: int, ranks: int) -> Tensor:
        """A rank's part of a tensor, along `dim`, as the numbers that it stands for."""
        if name not in self.entries:
            raise ValueError(f"{self.directory}: no tensor {name!r}; the model is incomplete or of another architecture")
        shape = self.entries[name].shape
        span = slice(None)
        if dim is not None and ranks > 1:
            size = -(-shape[dim] // ranks)
            span = slice(min(rank * size, shape[dim]), min((rank + 1) * size, shape[dim]))
        if self._scheme and (scale := quantisation.scale_of(name, self.entries)):
            part: Any = self._scheme.values(self._opened(name).get_tensor(name), self._opened(scale).get_tensor(scale), f"{self.directory}: {name}")
        else:
            part = self._opened(name).get_slice(name)
        return part[span] if dim in (0, None) else part[:, span]

    def _opened(self, name: str) -> Any:
        path = self.entries[name].path
        if path != self._path:
            self._path, self._file = path, safe_open(path, framework="pt")
        return self._file

    def check_all_are_read(self, parts: Iterable[Part], settings: PretrainedConfig, scores: bool) -> None:
        """Raises ValueError for a tensor that no parameter is made of, and for an embedding of another size than the configuration says."""
        known = {name: part for part in parts for name in part.hf_names}
        unread = [name for name in self.entries if name not in known and not name.endswith(COMPUTED) and not quantisation.is_read(name, self._scheme)]
        if HEAD in unread and self._is_the_embedding(settings):
            unread.remove(HEAD)
        if unread:
            shown = ", ".join(sorted(unread)[:4]) + (f" and {len(unread) - 4} more" if len(unread) > 4 else "")
            raise ValueError(
                f"{self.directory}: {len(unread)} tensors are read by no part of a {settings.model_type}: {shown}. The model is another one than its config.json"
                " says, or holds something that the engine does not compute (an auxiliary head, scales of quantised weights); take them out of a copy"
                " only where the model is meant to be used without them"
            )
        if hf.SCORE_HEAD in {known[name].name for name in self.entries if name in known} and not scores:
            raise ValueError(f"{self.directory} is a reward model: it has a score head, and a language model is wanted here")
        for name in (EMBEDDING, HEAD):
            if name in self.entries and (rows := self.entries[name].shape[0]) != settings.vocab_size:
                raise ValueError(f"{self.directory}: {name} has {rows} rows, and config.json has vocab_size={settings.vocab_size}")

    def _is_the_embedding(self, settings: PretrainedConfig) -> bool:
        """Whether the head is there twice: of its own, and as the embedding that the configuration says it is."""
        if not settings.tie_word_embeddings or EMBEDDING not in self.entries:
            return False
        head, embedding = (self.read(name, None, 0, 1) for name in (HEAD, EMBEDDING))
        if not torch.equal(head, embedding):
            raise ValueError(
                f"{self.directory}: {HEAD} is not the embedding, and config.json says that it is (tie_word_embeddings=true); set it to false in a copy where the"
                " head is one of its own, else take the tensor out"
            )
        return True
