"""C++ sources of this package as shared libraries: compiled at first use, kept in the user cache.

Compiling takes a few seconds and needs a C++ compiler (``$CXX``, c++, g++ or clang++). Where there
is none, everything runs on torch alone, slower, with the same results up to rounding.
``CHATRLHF_NATIVE=0`` asks for that.
"""

from __future__ import annotations

import ctypes
import hashlib
import logging
import os
import platform
import shlex
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

import platformdirs

logger = logging.getLogger(__name__)

_COMPILERS = ("c++", "g++", "clang++")
# No fast math: values that are not numbers must stay visible.
_FLAGS = (
    *("-std=c++20", "-O3", "-march=native", "-shared", "-fPIC", "-pthread"),
    *("-fno-math-errno", "-fno-trapping-math"),
)
_SECONDS = 300.0
_OFF = ("0", "no", "off", "false")


@cache
def native_library(name: str) -> ctypes.CDLL | None:
    """The library of ``name.cpp`` beside this file; None, with the reason logged, without one."""
    if os.environ.get("CHATRLHF_NATIVE", "1").lower() in _OFF:
        return None
    compiler = find_compiler()
    if compiler is None:
        logger.info("no C++ compiler was found; %s runs on torch alone, slower", name)
        return None
    source = Path(__file__).with_name(f"{name}.cpp")
    try:
        return ctypes.CDLL(str(_compiled(source, compiler)))
    except (OSError, subprocess.SubprocessError) as error:
        detail = getattr(error, "stderr", None) or error
        logger.warning("%s could not be compiled and runs on torch alone: %s", source.name, detail)
        return None


def find_compiler() -> list[str] | None:
    """The command of a C++ compiler, or None."""
    if os.environ.get("CXX"):
        return shlex.split(os.environ["CXX"])
    found = next(filter(None, map(shutil.which, _COMPILERS)), None)
    return None if found is None else [found]


def _compiled(source: Path, compiler: list[str]) -> Path:
    """The shared library of a source, from the cache if this very one was compiled before."""
    headers = sorted(source.parent.glob("*.h"))
    text = b"\0".join(path.read_bytes() for path in (source, *headers))
    made_with = " ".join([*compiler, *_FLAGS, _processor()]).encode()
    digest = hashlib.sha256(text + b"\0" + made_with).hexdigest()[:16]
    folder = Path(platformdirs.user_cache_dir("chatrlhf", appauthor=False)) / "native"
    target = folder / f"{source.stem}-{digest}.so"
    if target.exists():
        return target
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        building = Path(temporary) / target.name
        subprocess.run(
            [*compiler, *_FLAGS, str(source), "-o", str(building)],
            check=True,
            capture_output=True,
            text=True,
            timeout=_SECONDS,
        )
        building.replace(target)  # whoever else compiles it now makes the same file
    return target


def _processor() -> str:
    """What ``-march=native`` depends on."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return f"{platform.machine()} {platform.processor()}"
    return next((line for line in lines if line.startswith(("flags", "Features"))), "")
