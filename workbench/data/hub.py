"""Whether the Hugging Face hub has a model or a data set, asked within seconds."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

RepoType = Literal["model", "dataset"]
TIMEOUT_S = 3.0
NAMES: dict[RepoType, str] = {"model": "model", "dataset": "data set"}


def problem(repo_id: str, repo_type: RepoType) -> str:
    """Why the repository cannot be read from here; empty where it can, or is in the hub's cache. It may take `TIMEOUT_S` seconds."""
    import httpx2
    from huggingface_hub import HfApi, constants
    from huggingface_hub.errors import GatedRepoError, HFValidationError, OfflineModeIsEnabled, RepositoryNotFoundError
    from huggingface_hub.file_download import repo_folder_name
    from huggingface_hub.utils import validate_repo_id

    name, hub = NAMES[repo_type], HfApi()
    try:
        validate_repo_id(repo_id)
        if (Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=repo_id, repo_type=repo_type)).is_dir():
            return ""
        (hub.model_info if repo_type == "model" else hub.dataset_info)(repo_id, timeout=TIMEOUT_S)
    except HFValidationError:
        return f"there is no such file or directory, and it is not the id of a {name} (name or owner/name)"
    except GatedRepoError:
        return f"access to this {name} is gated: request it on the hub, then log in with `hf auth login`"
    except RepositoryNotFoundError:
        return f"there is no such file or directory, and no such {name} on the Hugging Face hub; a private one needs `hf auth login`"
    except OfflineModeIsEnabled:
        return f"there is no such file or directory, no such {name} in the hub's cache ({constants.HF_HUB_CACHE}), and HF_HUB_OFFLINE is set"
    except (httpx2.HTTPError, OSError) as error:
        return f"there is no such file or directory, no such {name} in the hub's cache, and {constants.ENDPOINT} cannot be reached ({type(error).__name__})"
    return ""
