"""The lock of an index, which at most one writing process holds, and which others can query.

The module knows only the folder of an index and the name of its lock file.
"""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from clipsearch.errors import IndexLockedError
from clipsearch.index.format import LOCK, guarded
from clipsearch.system.flushing import sync_folder

if TYPE_CHECKING:
    from filelock import FileLock

_MOMENT_SECONDS = 0.25
"""How long to try for the lock in any case, because `is_locked` of another process holds it for an instant."""

_log = logging.getLogger(__name__)


@contextmanager
def lock(folder: Path, wait: float) -> Iterator[list[Path]]:
    """Hold the lock of an index.

    Args:
        folder: that of the index. It is made if it is missing, and exists as long as the lock is held.
        wait: for how many seconds to wait for another writer.

    Yields:
        The folders that were made, the innermost first.

    Raises:
        IndexLockedError: another process still holds the lock.
        IndexWriteError: the folder cannot be written.
    """
    from filelock import FileLock, Timeout  # imported here because `is_locked` does not need it

    held = FileLock(folder / LOCK)
    made: list[Path] = []
    with guarded(folder):
        try:
            _acquire(held, folder, made, _MOMENT_SECONDS)
        except Timeout:
            try:
                if wait:
                    _log.warning("Waiting for another clipsearch that is writing to this index ...")
                _acquire(held, folder, made, wait)
            except Timeout as error:
                raise IndexLockedError(
                    f"Another clipsearch is writing to {folder}"
                    + (f", and was not done after {wait:g} s" if wait else "")
                    + ".",
                    hint="wait",
                ) from error
    try:
        yield made
    finally:
        held.release()


def is_locked(folder: Path) -> bool:
    """Whether another process holds the lock. This neither waits nor needs write permission."""
    if sys.platform == "win32":
        from filelock import FileLock, Timeout

        try:
            with FileLock(folder / LOCK, timeout=0):
                pass
        except Timeout:
            return True
        except OSError:
            pass
        return False
    import fcntl

    try:
        with open(folder / LOCK, "rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # the file does not exist, or the file system has no locks
        pass
    return False


@contextmanager
def without_writers(folder: Path) -> Iterator[None]:
    """Keep writers away from an index while all of it is read. This needs no write permission.

    Where there is no lock file, as in a copy of an index, or the file system has no locks, nothing is locked.

    Raises:
        IndexLockedError: another process is writing to the index.
    """
    if is_locked(folder):
        raise _being_written(folder)
    if sys.platform == "win32":  # where a lock cannot be shared
        yield
        return
    import fcntl

    with ExitStack() as held:
        try:
            fcntl.flock(held.enter_context(open(folder / LOCK, "rb")), fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise _being_written(folder) from error
        except OSError:
            pass
        yield


def _being_written(folder: Path) -> IndexLockedError:
    return IndexLockedError(f"Another clipsearch is writing to {folder}.", hint="when-done")


def make_folder(folder: Path) -> list[Path]:
    """Make a folder and its missing parents, flushed to the disk.

    Returns:
        Those that were made, the innermost first.
    """
    missing = [place for place in (folder, *folder.parents) if not place.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for place in missing:
        with suppress(PermissionError):  # a folder may be writable but not readable
            sync_folder(place.parent)
    return missing


def _acquire(held: FileLock, folder: Path, made: list[Path], seconds: float) -> None:
    """Acquire the lock. A writer that fails early removes file and folder, so both may have to be made again."""
    end = time.monotonic() + seconds
    while True:
        made += make_folder(folder)
        with suppress(FileNotFoundError):
            held.acquire(timeout=max(0, end - time.monotonic()))
            if _is_in_place(held, folder):
                return
            held.release()


def _is_in_place(held: FileLock, folder: Path) -> bool:
    """Whether the locked file still is the lock file of the folder."""
    descriptor = held._context.lock_file_fd  # noqa: SLF001  (filelock 3 does not check this)
    if descriptor is None or sys.platform == "win32":  # where a locked file cannot be deleted
        return True
    return os.path.samestat(os.fstat(descriptor), os.stat(folder / LOCK))
