"""An index before its writer: the folder, the lock, and an empty database."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from clipsearch.errors import IndexLockedError
from clipsearch.interrupts import shielded
from clipsearch.store.format import (
    DATABASE,
    FORMAT,
    LOCK,
    NEW_DATABASE,
    SCHEMA,
    connect,
    guarded,
)
from clipsearch.system.flushing import sync_folder


@contextmanager
def lock(folder: Path, wait: float, waiting: Callable[[], None]) -> Iterator[None]:
    """Be the only writer; another one is waited for up to `wait` seconds, and `waiting` is called before.

    Raises:
        IndexLockedError: it is still at work.
        IndexWriteError: the folder cannot be written.
    """
    held = FileLock(folder / LOCK)
    with guarded(folder):
        try:
            held.acquire(timeout=0)
        except Timeout:
            try:
                if wait:
                    waiting()
                held.acquire(timeout=wait)
            except Timeout as error:
                raise IndexLockedError(
                    f"Another clipsearch is writing to {folder}"
                    + (f", and was not done after {wait:g} s" if wait else "")
                    + ". Try again when it has finished, or let this one wait: --wait SECONDS."
                ) from error
    try:
        yield
    finally:
        held.release()


def make_folder(folder: Path) -> None:
    """Make a folder, and those above it that are missing; a power cut cannot take their names away again."""
    missing = [place for place in (folder, *folder.parents) if not place.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for place in missing:
        with suppress(PermissionError):  # a folder may be written to and yet not be read
            sync_folder(place.parent)


def create(folder: Path) -> None:
    """An empty index. It gets its name when it is complete, so that no crash leaves half of one."""
    new = folder / NEW_DATABASE
    with shielded(), guarded(folder):
        # A journal without its database would be played back into the new one.
        for leftover in (NEW_DATABASE, f"{NEW_DATABASE}-journal", f"{DATABASE}-journal"):
            (folder / leftover).unlink(missing_ok=True)
        with closing(connect(new, "rwc", 0)) as database, database:
            database.execute("PRAGMA synchronous = EXTRA")
            database.executescript(f"BEGIN; {SCHEMA}")
            database.execute("INSERT INTO meta VALUES ('format', ?)", (str(FORMAT),))
        new.replace(folder / DATABASE)
        sync_folder(folder)
