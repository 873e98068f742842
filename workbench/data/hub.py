"""Whether the Hugging Face hub has a model or a data set, asked within seconds."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

RepoType = Literal["model", "dataset"]
TIMEOUT_S = 3.0
NAMES: dict[RepoType, str] = {"model": "model", "dataset": "data set"}


def cached(repo_id: str, revision: str | None = None) -> Path | None:
    """The folder of a model in the hub's cache, at a branch (the main one without), a tag or a commit; None where it is not there."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        path = try_to_load_from_cache(repo_id, "config.json", revision=revision)
    except HFValidationError:
        return None
    return Path(path).parent if isinstance(path, str) else None


def problem(repo_id: str, repo_type: RepoType, revision: str | None = None) -> str:
    """Why the repository cannot be read from here; empty where it can, or is in the hub's cache. It may take `TIMEOUT_S` seconds."""
    return look(repo_id, repo_type, revision)[0]


def look(repo_id: str, repo_type: RepoType, revision: str | None = None) -> tuple[str, dict[str, Any]]:
    """As `problem`, with what the hub tells of a model's configuration: its kind of architecture, and how it is quantised; nothing of a cached one."""
    import httpx2
    from huggingface_hub import HfApi, constants
    from huggingface_hub.errors import GatedRepoError, HFValidationError, OfflineModeIsEnabled, RepositoryNotFoundError, RevisionNotFoundError
    from huggingface_hub.file_download import repo_folder_name
    from huggingface_hub.utils import validate_repo_id

    name, hub = NAMES[repo_type], HfApi()
    try:
        validate_repo_id(repo_id)
        folder = Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=repo_id, repo_type=repo_type)
        if folder.is_dir() and (revision is None or any((folder / kind / revision).exists() for kind in ("refs", "snapshots"))):
            return "", {}
        if repo_type == "dataset":
            hub.dataset_info(repo_id, revision=revision, timeout=TIMEOUT_S)
            return "", {}
        return "", hub.model_info(repo_id, revision=revision, timeout=TIMEOUT_S).config or {}
    except HFValidationError:
        why = f"there is no such file or directory, and it is not the id of a {name} (name or owner/name)"
    except GatedRepoError:
        why = f"access to this {name} is gated: request it on the hub, then log in with `hf auth login`"
    except RevisionNotFoundError:
        why = f"this {name} has no branch, tag or commit {revision}"
    except RepositoryNotFoundError:
        why = f"there is no such file or directory, and no such {name} on the Hugging Face hub; a private one needs `hf auth login`"
    except OfflineModeIsEnabled:
        at = f" at revision {revision}" if revision else ""
        why = f"there is no such file or directory, no such {name}{at} in the hub's cache ({constants.HF_HUB_CACHE}), and HF_HUB_OFFLINE is set"
    except (httpx2.HTTPError, OSError) as error:
        why = f"there is no such file or directory, no such {name} in the hub's cache, and {constants.ENDPOINT} cannot be reached ({type(error).__name__})"
    return why, {}
