"""Locks on files, which the system frees when their process dies."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from types import TracebackType

from chatrlhf.errors import DataFolderBusyError, StorageError

_WINDOWS_LOCK_OFFSET = 1 << 20  # beyond the pid, which stays readable


class FileLock:
    """An exclusive lock between processes; not reentrant. Use as a context manager or release()."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor: int | None = None

    def try_acquire(self) -> bool:
        """Take the lock and write this process's id into the file; False when another has it."""
        if self._descriptor is not None:
            return False
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600)
        if not _lock(descriptor):
            os.close(descriptor)
            return False
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"{os.getpid()}\n".encode())
        self._descriptor = descriptor
        return True

    def acquire(self, timeout_seconds: float) -> None:
        """Wait for the lock; StorageError when it is not free in time."""
        deadline = time.monotonic() + timeout_seconds
        while not self.try_acquire():
            if time.monotonic() >= deadline:
                raise StorageError(
                    f"process {self.holder()} has held {self.path} for {timeout_seconds:.0f} s; "
                    "wait for it or end it"
                )
            time.sleep(0.02)

    def holder(self) -> str:
        """The process id written by whoever locked last, or "unknown"."""
        try:
            return self.path.read_text(encoding="ascii").strip() or "unknown"
        except (OSError, UnicodeDecodeError):
            return "unknown"

    def release(self) -> None:
        """Free the lock. The file stays: removing it would let two processes lock two files."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def __enter__(self) -> FileLock:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.release()


def lock_data_folder(folder: Path | str) -> FileLock:
    """Lock the data folder for this server until release() or the end of the process.

    Raises:
        DataFolderBusyError: another process has it.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / "server.lock")
    if not lock.try_acquire():
        raise DataFolderBusyError(
            f"process {lock.holder()} already serves the data folder {folder}; "
            "stop it, or choose another folder with --data"
        )
    return lock


if sys.platform == "win32":
    import msvcrt

    def _lock(descriptor: int) -> bool:
        os.lseek(descriptor, _WINDOWS_LOCK_OFFSET, os.SEEK_SET)
        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        finally:
            os.lseek(descriptor, 0, os.SEEK_SET)
        return True

else:
    import fcntl

    def _lock(descriptor: int) -> bool:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True
