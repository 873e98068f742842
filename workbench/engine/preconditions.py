"""What can be said against a model before anything of it is loaded: its configuration, the types of its tensors, its tokens. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from workbench.engine import families, quantisation, weight_files
from workbench.rundir.files import decoded

SCORE = "score.weight"
MAX_JSON_BYTES = 256 << 20
"""A tokenizer of a large vocabulary has 30 MB."""


def read_config(directory: Path) -> dict[str, Any]:
    """Its config.json. Raises ValueError where it is no JSON object."""
    return read_json(directory / "config.json")


def read_json(path: Path) -> dict[str, Any]:
    """Raises ValueError for what is no JSON object."""
    if path.stat().st_size > MAX_JSON_BYTES:
        raise ValueError(f"{path} has more than {MAX_JSON_BYTES:,} bytes; expected settings")
    try:
        content = decoded(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"{path} is not JSON: {error}") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path}: expected a JSON object, got {type(content).__name__}")
    return content


def check_kind(config: Mapping[str, Any], where: str) -> None:
    """As `check_config`, of a configuration that is not whole, such as the hub tells of a model: its architecture, and how it is quantised."""
    try:
        families.find(config.get("model_type"))
        quantisation.of(config)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None


def check_config(config: Mapping[str, Any], where: str) -> None:
    """Whether the engine computes what a config.json describes.

    Raises:
        ValueError: another architecture, a feature that the engine does not have, or quantised weights that it does not read; the message names it.
    """
    check_kind(config, where)
    try:
        families.find(config["model_type"]).check(config)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None


def check(directory: Path) -> None:
    """Whether a Hugging Face directory's model can be read as it is meant.

    Raises:
        ValueError: as `check_config`; tensors of a type that is not read; or a tokenizer with tokens that the embedding has no rows for.
    """
    config = read_config(directory)
    check_config(config, str(directory / "config.json"))
    tensors = weight_files.entries(directory)
    try:
        quantisation.check_types(weight_files.types(tensors), quantisation.of(config))
    except ValueError as error:
        raise ValueError(f"{directory}: {error}") from None
    if isinstance(rows := config.get("vocab_size"), int):
        check_tokens(dict(_tokens(directory)), rows, directory)


def check_tokens(tokens: Mapping[str, int], rows: int, directory: Path) -> None:
    """Whether the embedding has a row for every token. Raises ValueError with both numbers and the first token that has none."""
    beyond = sorted((number, token) for token, number in tokens.items() if number >= rows)
    if beyond:
        number, token = beyond[0]
        raise ValueError(
            f"{directory}: the tokenizer has {max(beyond)[0] + 1} tokens and the embedding {rows} rows (vocab_size): {len(beyond)} tokens have none, the first is"
            f" {token!r} ({number}). Take the model's own tokenizer, or give the model rows for them: transformers' resize_token_embeddings, then train them"
        )


def _tokens(directory: Path) -> Iterator[tuple[str, int]]:
    """The tokens that the tokenizer's files list, with their numbers; none of a tokenizer in another format."""
    if (path := directory / "tokenizer.json").is_file():
        content = read_json(path)
        vocabulary = (content.get("model") or {}).get("vocab") or {}
        if isinstance(vocabulary, Mapping):
            yield from ((token, number) for token, number in vocabulary.items() if isinstance(number, int))
        else:  # a Unigram's: pairs of a token and its score
            yield from ((str(pair[0]), number) for number, pair in enumerate(vocabulary))
        yield from ((str(token["content"]), int(token["id"])) for token in content.get("added_tokens") or ())
    if (path := directory / "tokenizer_config.json").is_file():
        added = read_json(path).get("added_tokens_decoder") or {}
        yield from ((str(token.get("content")), int(number)) for number, token in added.items())


def check_score_head(directory: Path, scores: int) -> None:
    """Whether a model has a trained head for so many scores.

    Raises:
        ValueError: it has none, or one for another number of scores.
    """
    tensors = weight_files.entries(directory)
    if SCORE not in tensors:
        raise ValueError(
            f"{directory} is no reward model: it has no trained score head (no tensor {SCORE!r}). Name a …ForSequenceClassification with one score, as"
            " `workbench export` writes of a run of algorithm=reward_model"
        )
    if (there := tensors[SCORE].shape[0]) != scores:
        raise ValueError(f"{directory} gives {there} scores to an answer ({SCORE}); a reward is {scores}: train one with algorithm.objective=ranking")


def context_length(config: Mapping[str, Any]) -> int | None:
    """The longest sequence in tokens that the model is made for: `max_position_embeddings`, and as far as a scaling of RoPE extends it. None: not told."""
    longest = config.get("max_position_embeddings")
    rope = config.get("rope_scaling") or config.get("rope_parameters") or {}
    factor, original = rope.get("factor"), rope.get("original_max_position_embeddings")
    if not isinstance(longest, int):
        return None
    if not isinstance(factor, int | float) or factor <= 1:
        return longest
    if isinstance(original, int):
        return max(longest, int(original * factor))
    return int(longest * factor) if rope.get("rope_type", rope.get("type")) == "linear" else longest
