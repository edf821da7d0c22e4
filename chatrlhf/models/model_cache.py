"""Model folders that are built once: complete or absent, whoever is killed while building.

A folder is built under another name, gets its manifest last and is then renamed. A lock keeps
two processes from building the same folder at once.
"""

from __future__ import annotations

import contextlib
import errno
import json
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeAlias

import filelock

from chatrlhf.errors import ModelError, NoSpaceError
from chatrlhf.flushing import flush
from chatrlhf.models.fingerprint import known_sha256
from chatrlhf.models.memory import readable_bytes
from chatrlhf.settings import models_cache_dir

Progress: TypeAlias = Callable[[str, float], None]
"""Gets what is being done, and the fraction of the whole that is done."""

MANIFEST = "manifest.json"
_LOCK_POLL_SECONDS = 0.5


def cached_folder(
    name: str,
    build: Callable[[Path, Progress], None],
    *,
    needed_bytes: int,
    progress: Progress,
) -> Path:
    """The folder ``name`` of the models cache; ``build(folder, progress)`` fills it if need be.

    ``needed_bytes`` is what building takes on the disk, temporary files included.

    Raises:
        NoSpaceError: the disk has less than that, or fills up.
        ModelError: the cache folder cannot be written.
    """
    cache = models_cache_dir()
    target = cache / name
    if is_complete(target):
        return target
    with _disk_errors(cache, needed_bytes):
        cache.mkdir(parents=True, exist_ok=True)
        with _lock(cache / f".{name}.lock", progress):
            if is_complete(target):
                return target
            for leftover in [target, *cache.glob(f".{name}.building-*")]:
                shutil.rmtree(leftover, ignore_errors=True)
            check_free_space(cache, needed_bytes)
            building = Path(tempfile.mkdtemp(prefix=f".{name}.building-", dir=cache))
            try:
                build(building, progress)
                building.chmod(0o755)
                _seal(building)
                building.rename(target)
                flush(cache)
            finally:
                shutil.rmtree(building, ignore_errors=True)
    return target


def is_complete(folder: Path) -> bool:
    """Whether every file of the folder's manifest is there, with its size and hash."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        return all(
            (folder / name).stat().st_size == entry["bytes"]
            and known_sha256(folder / name) == entry["sha256"]
            for name, entry in manifest["files"].items()
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def check_free_space(folder: Path, needed_bytes: int) -> None:
    """Refuse to begin what the disk has no room for.

    Raises:
        NoSpaceError: says how much is needed, how much is free and where.
    """
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    free = shutil.disk_usage(existing).free
    if free < needed_bytes:
        raise NoSpaceError(
            f"{folder} needs {readable_bytes(needed_bytes)} and its disk has "
            f"{readable_bytes(free)} free. Make room, or point CHATRLHF_MODELS (HF_HOME for "
            "downloads) at another disk."
        )


def _seal(folder: Path) -> None:
    """Write the manifest, after everything that it speaks of is on the disk."""
    files = {}
    for path in sorted(folder.iterdir()):
        path.chmod(0o644)
        flush(path)
        files[path.name] = {"bytes": path.stat().st_size, "sha256": known_sha256(path)}
    manifest = folder / MANIFEST
    manifest.write_text(json.dumps({"files": files}, indent=1), encoding="utf-8")
    flush(manifest)
    flush(folder)


@contextlib.contextmanager
def _lock(path: Path, progress: Progress) -> Iterator[None]:
    lock = filelock.FileLock(path)
    while True:
        try:
            lock.acquire(timeout=_LOCK_POLL_SECONDS)
            break
        except filelock.Timeout:
            progress("Waiting for another process that prepares the model", 0.0)
    try:
        yield
    finally:
        lock.release()


@contextlib.contextmanager
def _disk_errors(cache: Path, needed_bytes: int) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise NoSpaceError(
                f"The disk of {cache} filled up; the model needs {readable_bytes(needed_bytes)}. "
                "Make room, or point CHATRLHF_MODELS at another disk."
            ) from error
        raise ModelError(f"{cache} cannot be written: {error}") from error
