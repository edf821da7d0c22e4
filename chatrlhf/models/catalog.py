"""Where a base model comes from: embedded, the hub, a folder, a GGUF file."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from chatrlhf.errors import UnknownModelError
from chatrlhf.models import hub
from chatrlhf.models.conversion import (
    convert_embedded,
    convert_gguf,
    embedded_folder_name,
    embedded_is_installed,
)
from chatrlhf.models.memory import QUANTIZATIONS
from chatrlhf.models.model_cache import Progress, is_complete
from chatrlhf.models.model_folder import check_model_folder
from chatrlhf.models.presets import EMBEDDED, EMBEDDED_PRESET, PRESETS, Preset
from chatrlhf.settings import models_cache_dir

_HUB_ID = re.compile(r"^[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*$")

SourceKind = Literal["embedded", "hub", "folder", "gguf"]
State = Literal["ready", "to convert", "to download", "not installed"]


@dataclass(frozen=True)
class ModelSource:
    """What a model name stands for; ``location`` is a hub id or an absolute path."""

    kind: SourceKind
    name: str
    location: str


@dataclass(frozen=True)
class CatalogEntry:
    """One line of ``chatrlhf models``. Sizes are computed from the parameter count.

    ``memory_bytes`` maps a quantization to the bytes of the weights alone; caches, adapters
    and, for training, activations come on top.
    """

    name: str
    title: str
    origin: str
    licence: str
    gated: bool
    parameters: int
    download_bytes: int
    memory_bytes: Mapping[str, int]
    context_tokens: int
    state: State


def find_source(name: str) -> ModelSource:
    """What ``name`` stands for: embedded, a preset, a folder, a ``.gguf`` file or a hub id.

    A folder or file that exists wins over a hub id of the same spelling.

    Raises:
        UnknownModelError: none of these; lists presets with near names.
    """
    wanted = name.strip()
    if wanted.lower() == EMBEDDED:
        return ModelSource("embedded", EMBEDDED, EMBEDDED_PRESET.hub_id)
    for preset in PRESETS:
        if wanted.lower() in (preset.name, preset.hub_id.lower()):
            return ModelSource("hub", preset.name, preset.hub_id)
    path = Path(wanted).expanduser().absolute()
    if wanted and path.is_dir():
        return ModelSource("folder", path.name, str(path))
    if wanted.lower().endswith(".gguf") and path.is_file():
        return ModelSource("gguf", path.stem, str(path))
    if _HUB_ID.match(wanted) and not wanted.lower().endswith(".gguf"):
        return ModelSource("hub", wanted, wanted)
    raise UnknownModelError(
        f"There is no model {name!r}. {_near(wanted)}Run 'chatrlhf models' for the list; a hub id "
        "(owner/name), a model folder or a .gguf file works too."
    )


def ensure_local(source: ModelSource, progress: Progress) -> Path:
    """The model as a folder that ``load_base_model`` reads; downloads or converts if need be.

    ``progress`` gets what is being done and the fraction done; it may be called from any thread.

    Raises:
        ModelError: the model cannot be had.
        NoSpaceError: the disk has no room for it.
    """
    if source.kind == "embedded":
        folder = convert_embedded(progress)
    elif source.kind == "gguf":
        folder = convert_gguf(Path(source.location), progress)
    elif source.kind == "hub":
        folder = hub.download(source.location, progress)
    else:
        folder = Path(source.location)
        check_model_folder(folder)
    progress("The model is on this machine", 1.0)
    return folder


def list_models() -> list[CatalogEntry]:
    """The embedded model and the presets, smallest first."""
    entries = [_entry(EMBEDDED_PRESET, _embedded_state())]
    for preset in PRESETS:
        ready = hub.downloaded_folder(preset.hub_id) is not None
        entries.append(_entry(preset, "ready" if ready else "to download"))
    return entries


def _embedded_state() -> State:
    if is_complete(models_cache_dir() / embedded_folder_name()):
        return "ready"
    return "to convert" if embedded_is_installed() else "not installed"


def _entry(preset: Preset, state: State) -> CatalogEntry:
    return CatalogEntry(
        name=preset.name,
        title=preset.title,
        origin=preset.hub_id,
        licence=preset.licence,
        gated=preset.gated,
        parameters=preset.weights.total,
        download_bytes=0 if preset.name == EMBEDDED else preset.download_bytes,
        memory_bytes={name: preset.weights.memory_bytes(name) for name in QUANTIZATIONS},
        context_tokens=preset.context_tokens,
        state=state,
    )


def _near(name: str) -> str:
    known = {preset.name: preset.name for preset in (EMBEDDED_PRESET, *PRESETS)}
    known |= {preset.hub_id.lower().split("/")[1]: preset.name for preset in PRESETS}
    close = difflib.get_close_matches(name.lower().split("/")[-1], known, n=3, cutoff=0.4)
    names = list(dict.fromkeys(known[key] for key in close))
    return f"Did you mean {' or '.join(names)}? " if names else ""
