"""Creates the database of an index, all or nothing; upgrades it; and removes it if nothing was recorded in it."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from contextlib import closing, suppress
from pathlib import Path

from clipsearch.errors import ClipsearchError
from clipsearch.images.codecs.dates import taken_by_name
from clipsearch.index.connections import connect
from clipsearch.index.format import (
    DATABASE,
    FORMAT,
    LOCK,
    MATRIX,
    NEW_DATABASE,
    NEW_MATRIX,
    SCHEMA,
    UPGRADES,
    guarded,
)
from clipsearch.system.flushing import sync_folder
from clipsearch.system.interrupts import shielded

_JOURNALS = (f"{NEW_DATABASE}-journal", f"{DATABASE}-journal")


def create(folder: Path) -> None:
    """Create an empty index. Its database is renamed when it is complete, so that no crash leaves half of one."""
    new = folder / NEW_DATABASE
    with shielded(), guarded(folder):
        # SQLite would roll a leftover journal back into the new database.
        for leftover in (NEW_DATABASE, *_JOURNALS):
            (folder / leftover).unlink(missing_ok=True)
        with closing(connect(new, "rwc", 0)) as database, database:
            database.execute("PRAGMA synchronous = EXTRA")
            database.executescript(f"BEGIN; {SCHEMA}")
            database.execute("INSERT INTO meta VALUES ('format', ?)", (str(FORMAT),))
        new.replace(folder / DATABASE)
        sync_folder(folder)


def upgrade(database: sqlite3.Connection, version: int) -> None:
    """Upgrade a database of an older format, in one transaction."""
    database.create_function("date_in_name", 1, _date_in_name, deterministic=True)
    database.execute("BEGIN")
    for older in range(version, FORMAT):
        for statement in UPGRADES[older].split(";"):
            database.execute(statement)
    database.execute("INSERT OR REPLACE INTO meta VALUES ('format', ?)", (str(FORMAT),))
    database.commit()


def _date_in_name(path: bytes) -> str | None:
    found = taken_by_name(path)
    return found and found.at


def discard_if_empty(folder: Path, made: Iterable[Path]) -> None:
    """Remove an index in which nothing was ever recorded, and the folders that were `made` for it.

    The caller created the index and still holds its lock. Errors are ignored, because an empty index does no harm.
    """
    with shielded(), suppress(OSError, sqlite3.Error, ClipsearchError):
        if (folder / DATABASE).exists() and _holds_anything(folder):
            return
        # The database goes first: without it, the folder is no index.
        for name in (DATABASE, *_JOURNALS, NEW_DATABASE, MATRIX, NEW_MATRIX):
            (folder / name).unlink(missing_ok=True)
        for place in dict.fromkeys(made):
            if place == folder:
                (folder / LOCK).unlink(missing_ok=True)
            place.rmdir()


def _holds_anything(folder: Path) -> bool:
    with closing(connect(folder / DATABASE, "rw", 0)) as database:
        ((anything,),) = database.execute("SELECT EXISTS (SELECT 1 FROM images) OR EXISTS (SELECT 1 FROM dead)")
    return bool(anything)
