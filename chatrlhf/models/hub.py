"""Models of the Hugging Face hub: downloaded once into the hub's own cache, usable offline then.

Only safetensors, configs and tokenizers are fetched: no pickles, no code.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

from chatrlhf.errors import ChatRLHFError, ModelError
from chatrlhf.models.memory import readable_bytes
from chatrlhf.models.model_cache import Progress, check_free_space
from chatrlhf.models.model_folder import check_model_folder

_WANTED = ["*.safetensors", "*.json", "*.jinja", "tokenizer.model"]
# Folders hold other formats; consolidated files are the same weights a second time.
_UNWANTED = ["*/*", "consolidated*", "*.index.fp*.json"]


def downloaded_folder(hub_id: str) -> Path | None:
    """The folder of a model that is already complete on this machine."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        folder = Path(
            snapshot_download(
                hub_id, allow_patterns=_WANTED, ignore_patterns=_UNWANTED, local_files_only=True
            )
        )
        check_model_folder(folder)
    except (ModelError, LocalEntryNotFoundError, HfHubHTTPError, OSError, ValueError):
        return None
    return folder


def download(hub_id: str, progress: Progress) -> Path:
    """The folder of a model, downloaded if it is not complete yet; broken downloads go on.

    Raises:
        ModelError: there is no such model, it is gated, has no safetensors, or the hub cannot
            be reached.
        NoSpaceError: the disk has no room.
    """
    folder = downloaded_folder(hub_id)
    if folder is None:
        folder = _download(hub_id, progress)
        check_model_folder(folder)
    return folder


def _download(hub_id: str, progress: Progress) -> Path:
    from huggingface_hub import constants, errors, snapshot_download

    patterns: dict[str, Any] = {"allow_patterns": _WANTED, "ignore_patterns": _UNWANTED}
    progress(f"Asking the hub for {hub_id}", 0.0)
    try:
        silent = _progress_bar(lambda _: None, 1)
        plan = snapshot_download(hub_id, dry_run=True, tqdm_class=silent, **patterns)
        if not any(file.filename.endswith(".safetensors") for file in plan):
            raise ModelError(f"{hub_id} has no safetensors weights. Choose another model.")
        needed = sum(file.file_size for file in plan if file.will_download)
        check_free_space(Path(constants.HF_HUB_CACHE), needed)
        stage = f"Downloading {hub_id} ({readable_bytes(needed)})"
        bar = _progress_bar(lambda fraction: progress(stage, fraction), max(needed, 1))
        return Path(snapshot_download(hub_id, tqdm_class=bar, **patterns))
    except errors.GatedRepoError as error:
        raise ModelError(
            f"{hub_id} is gated: accept its licence at https://huggingface.co/{hub_id}, then run "
            "'hf auth login' and start again."
        ) from error
    except ChatRLHFError:
        raise
    except Exception as error:  # the hub's HTTP library has error classes of its own
        if isinstance(error.__cause__ or error, errors.RepositoryNotFoundError):
            raise ModelError(
                f"The hub has no public model {hub_id!r}. Check the name; for a private model run "
                "'hf auth login' first."
            ) from error
        raise ModelError(
            f"{hub_id} is not on this machine and cannot be downloaded: {error} Connect to the "
            "internet, or use the embedded model, a local folder or a GGUF file."
        ) from error


def _progress_bar(report: Callable[[float], None], total_bytes: int) -> Any:
    """A tqdm class that shows nothing and reports the fraction of bytes received."""
    from tqdm.auto import tqdm

    class Bar(tqdm):  # type: ignore[misc]  # tqdm has no types
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            kwargs.pop("name", None)
            super().__init__(*args, **{**kwargs, "file": io.StringIO(), "disable": False})

        def update(self, n: float | None = 1) -> None:
            super().update(n)
            if self.unit == "B":
                report(min(self.n / total_bytes, 1.0))

    return Bar
