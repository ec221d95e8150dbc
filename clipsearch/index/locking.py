"""The lock of an index: at most one process writes at a time, and others can see that it does.

Knows of an index only the folder and the name of the file that is locked.
"""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from clipsearch.errors import IndexLockedError
from clipsearch.index.format import LOCK, guarded
from clipsearch.system.flushing import sync_folder

if TYPE_CHECKING:
    from filelock import FileLock

_MOMENT_SECONDS = 0.25
"""A lock is asked for so long in any case: `is_locked` holds it too, for an instant."""

_log = logging.getLogger(__name__)


@contextmanager
def lock(folder: Path, wait: float) -> Iterator[list[Path]]:
    """Be the only writer; another one is waited for up to `wait` seconds.

    Gives the folders that were made for it, the innermost first. `folder` itself is there as long as the lock is held.

    Raises:
        IndexLockedError: another writer is still at work.
        IndexWriteError: the folder cannot be written.
    """
    from filelock import FileLock, Timeout  # not for those who only ask `is_locked`

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
    """Whether another process is writing at this moment. Waits for nobody, and needs no permission to write."""
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
    except OSError:  # there is no such file, or there are no locks on this file system
        pass
    return False


def make_folder(folder: Path) -> list[Path]:
    """Make a folder, and those above it that are missing; a power cut cannot take their names away again.

    Gives those that were made, the innermost first.
    """
    missing = [place for place in (folder, *folder.parents) if not place.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for place in missing:
        with suppress(PermissionError):  # a folder may be written to and yet not be read
            sync_folder(place.parent)
    return missing


def _acquire(held: FileLock, folder: Path, made: list[Path], seconds: float) -> None:
    """Get the lock, and `folder` to go with it: a run that failed at its beginning takes both away when it ends."""
    end = time.monotonic() + seconds
    while True:
        made += make_folder(folder)
        with suppress(FileNotFoundError):
            held.acquire(timeout=max(0, end - time.monotonic()))
            if _is_in_place(held, folder):
                return
            held.release()


def _is_in_place(held: FileLock, folder: Path) -> bool:
    """Whether the file that is locked still has its name, so that others meet the lock."""
    descriptor = held._context.lock_file_fd  # noqa: SLF001  (filelock 3 does not look itself)
    if descriptor is None or sys.platform == "win32":  # where a locked file cannot be taken away
        return True
    return os.path.samestat(os.fstat(descriptor), os.stat(folder / LOCK))
