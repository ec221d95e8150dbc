"""Joins indexes: makes a new one of the records, vectors and regions of others, whole or not at all.

The caller has checked that they fit together. A new index is made beside its place, under a name that is no index, and
is renamed at the end. So a crash leaves nothing but a folder that the next attempt replaces. Rows are copied block by
block and keep their order, so that row numbers only have to be shifted; records are copied within SQLite, by a second
thread at the same time.
"""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from dataclasses import asdict
from itertools import accumulate, groupby, islice
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, Self

import numpy as np

from clipsearch.errors import IndexDamagedError, InputError
from clipsearch.index.codes import CodesRecord
from clipsearch.index.connections import connect
from clipsearch.index.format import (
    ARRAYS,
    BOX_COLUMNS,
    BOXES,
    DATABASE,
    EMBEDDINGS,
    HEADER_BYTES,
    LOCK,
    NEW_DATABASE,
    RECORD,
    REGIONS,
    SCHEMA,
    ArrayFile,
    Folder,
    ModelRecord,
    RegionsRecord,
    Root,
    damaged,
    guarded,
    version_of,
)
from clipsearch.index.locking import lock
from clipsearch.index.matrix_file import MatrixFile
from clipsearch.index.path_rewriting import Moved, path_in_sql
from clipsearch.index.reading import Store
from clipsearch.index.stored_paths import StoredPaths
from clipsearch.system.flushing import sync_file, sync_folder
from clipsearch.system.progress import Progress

_UNDER_WAY = ".merging-"
"""What the name of a folder begins with in which a new index is being made."""
_CACHE_KB = 131_072
"""Memory of SQLite for the new database. More is written to it, or to a temporary file."""
_CACHED_ROWS = 500_000
"""Number of records that fit into this cache."""
_TOGETHER = 8
"""Number of indexes whose records are inserted together, in order, into a database that is larger: each time, nearly
all of its pages are read and written. In the cache, one after the other is faster. SQLite attaches ten at most."""
_PAGE_BYTES = 16_384
"""Size of a page of the new database: with larger ones than SQLite's usual 4096 bytes, records are inserted faster."""
_BLOCK_BYTES = 1 << 17
"""Bytes copied at a time. More do not stay in a core's cache until they are written, and took two to three times as
long."""
_SORTING = ("threads = 2", "cache_size = -4096")
"""Settings with which SQLite sorts: two threads sort, one the runs that the other has read. It makes a run of what
fills its cache, but never less than 4 MB."""
_COLUMNS = RECORD.removeprefix("path, row, ")
_BURIED = "hash, width, height, taken_at, date_source, damage"


class About(NamedTuple):
    """What a new index says of itself."""

    model: ModelRecord | None
    side: int | None
    """That of the model's input, for the layout of regions; None for an index without regions."""
    roots: Sequence[Root]
    folders: Sequence[Folder]
    last_run: dict[str, Any] | None
    codes: bool
    """Whether its rows are to have codes, which the next update makes."""


class Joining:
    """A new index that is being made of others."""

    def __init__(self, folder: Path, about: About) -> None:
        """Begin in `folder`, which exists, is empty and locked."""
        self.same = 0
        """Number of records that an earlier index had with the same content."""
        self._folder, self._about = folder, about
        self._dim = about.model.dim if about.model else 0
        self._files = {kind: MatrixFile(folder, kind) for kind in ARRAYS}
        self._records = ThreadPoolExecutor(1, "records")
        """Runs SQLite for long, which holds no lock of Python meanwhile."""
        self._database = connect(folder / NEW_DATABASE, "rwc", 0, shared=True)
        self._database.isolation_level = None
        # Until it is renamed nobody reads it, so it needs no journal, and is flushed once, at the end.
        for setting in (
            f"page_size = {_PAGE_BYTES}",
            "journal_mode = OFF",
            "synchronous = OFF",
            f"cache_size = -{_CACHE_KB}",
        ):
            self._database.execute(f"PRAGMA {setting}")
        self._database.executescript(SCHEMA)
        # Sorting all hashes once is faster than to insert each in its place.
        ((self._hash_index,),) = self._database.execute("SELECT sql FROM sqlite_master WHERE name = 'images_by_hash'")
        self._database.execute("DROP INDEX images_by_hash")

    @classmethod
    @contextmanager
    def at(cls, folder: Path, about: About) -> Iterator[Self]:
        """Make a new index, which gets its place `folder` when the context ends without an error.

        `folder` is missing or empty.

        Raises:
            IndexLockedError: another process is making an index there.
            IndexWriteError: it cannot be written.
        """
        new = folder.with_name(f"{_UNDER_WAY}{folder.name}")
        with lock(new, 0) as made:
            try:
                with guarded(new):
                    _empty(new)
                    with closing(cls(new, about)) as joining:
                        yield joining
                        joining._finish()  # noqa: SLF001  (its own class)
                    if folder.exists():
                        folder.rmdir()
                    new.replace(folder)
                    sync_folder(folder.parent)
            except BaseException:
                with suppress(OSError):
                    shutil.rmtree(new)
                    for place in made[1:]:
                        place.rmdir()
                raise

    def close(self) -> None:
        """Close all files. What the other thread has not finished is given up."""
        with suppress(sqlite3.ProgrammingError):  # the database is closed already
            self._database.interrupt()
        self._records.shutdown(cancel_futures=True)
        self._database.close()
        for file in self._files.values():
            file.close()

    def add(self, stores: Sequence[Store], moved: Sequence[Moved], progress: Progress) -> None:
        """Append all of other indexes, which no writer may change meanwhile.

        Args:
            stores: the indexes. They have the same model as the new one, and regions if that has.
            moved: folders whose paths change.
            progress: is updated with the number of rows copied.

        Raises:
            InputError: two indexes have a path with different contents.
            IndexDamagedError: an index contradicts itself.
        """
        for _, group in groupby(stores, lambda store: _parent(store.folder)):
            left = iter(group)
            while some := list(islice(left, 1 if self._files[EMBEDDINGS].rows < _CACHED_ROWS else _TOGETHER)):
                self._add(some, moved, progress)

    def _add(self, stores: Sequence[Store], moved: Sequence[Moved], progress: Progress) -> None:
        """Append indexes that lie in one folder."""
        rows = [store.committed_rows() for store in stores]
        first = list(accumulate(rows, initial=self._files[EMBEDDINGS].rows))
        adding = self._records.submit(self._add_records, stores, moved, first)
        for number, store in enumerate(stores):
            self._append(store, EMBEDDINGS, rows[number], self._dim, progress=progress)
            regions = store.regions_record()
            if self._about.side is not None and regions is not None:
                self._append(store, REGIONS, regions.rows, self._dim)
                self._append(store, BOXES, regions.rows, BOX_COLUMNS, first=first[number])
        adding.result()

    # -- records -----------------------------------------------------------------------------------------------

    def _add_records(self, stores: Sequence[Store], moved: Sequence[Moved], first: Sequence[int]) -> None:
        """Copy the records of indexes that lie in one folder, with row numbers of each from `first` on."""
        database, folder = self._database, _parent(stores[0].folder)
        others = [f"other{number}" for number in range(len(stores))]
        for other, store in zip(others, stores, strict=True):
            uri = f"{(store.folder / DATABASE).absolute().as_uri()}?mode=ro"
            database.execute(f"ATTACH ? AS {other}", (uri,))
        try:
            database.execute("BEGIN")
            each = [
                f"SELECT path, row + {start} AS row, {_COLUMNS} FROM {other}.images"  # noqa: S608  (our own words)
                for other, start in zip(others, first, strict=False)
            ]
            # This order is nearly that of the new index, where neighbours are inserted into the same pages. One table
            # is read in it anyway; to say so would have SQLite copy each record once more.
            order = " ORDER BY path" if len(each) > 1 else ""
            source = self._renamed(f"{' UNION ALL '.join(each)}{order}", folder, moved)
            count = sum(database.execute(f"SELECT count(*) FROM {other}.images").fetchone()[0] for other in others)  # noqa: S608
            added = database.execute(f"INSERT OR IGNORE INTO images (path, row, {_COLUMNS}) {source}").rowcount
            self.same += count - added
            for other, store, records, start in zip(others, stores, each, first, strict=False):
                if added < count:
                    self._compare(store, self._renamed(records, folder, moved))
                database.execute(
                    f"INSERT INTO dead (row, {_BURIED}) SELECT row + {start}, {_BURIED} FROM {other}.dead"  # noqa: S608
                )
            database.execute("COMMIT")
            for other in others:
                database.execute(f"DETACH {other}")
        except (sqlite3.OperationalError, sqlite3.ProgrammingError):
            raise
        except sqlite3.DatabaseError as error:
            broken = next((store for other, store in zip(others, stores, strict=True) if self._is_broken(other)), None)
            raise damaged((broken or stores[0]).folder, f"{DATABASE}: {error}") from error

    def _is_broken(self, other: str) -> bool:
        """Whether an attached database is damaged."""
        try:
            return self._database.execute(f"PRAGMA {other}.quick_check(1)").fetchall() != [("ok",)]
        except sqlite3.DatabaseError:
            return True

    def _renamed(self, source: str, folder: bytes, moved: Sequence[Moved]) -> str:
        """Return SQL that selects what `source` does of indexes in `folder`, with the paths of this index."""
        for path in path_in_sql(folder, _parent(self._folder), moved):
            source = f"SELECT {path} AS path, row, {_COLUMNS} FROM ({source})"  # noqa: S608  (our own words)
        return source

    def _compare(self, store: Store, source: str) -> None:
        """Compare the records that `source` selects with those that are there already under the same paths.

        Raises:
            InputError: one has another content.
        """
        both = f"FROM ({source}) AS found JOIN images AS known ON known.path = found.path"
        different = self._database.execute(
            f"SELECT found.path {both} WHERE known.hash <> found.hash LIMIT 1"
        ).fetchall()
        for (path,) in different:
            place = StoredPaths(_parent(self._folder)).absolute(path)
            raise InputError(
                f"{os.fsdecode(place)} has another content in {store.folder} than in an index before it.",
                hint="same-path",
            )
        # Rows of files that are there already are dead.
        buried = ", ".join(f"found.{name}" for name in _BURIED.split(", "))
        self._database.execute(
            f"INSERT INTO dead (row, {_BURIED}) SELECT found.row, {buried} "
            f"{both} WHERE found.row IS NOT NULL AND known.row IS NOT NULL AND known.row <> found.row"
        )
        # What could not be read elsewhere is an image here, or could at least be opened.
        self._database.execute(
            f"INSERT OR REPLACE INTO images (path, row, {_COLUMNS}) SELECT found.* {both} "
            "WHERE known.row IS NULL AND (found.row IS NOT NULL OR (known.hash IS NULL AND found.hash IS NOT NULL))"
        )

    # -- files -------------------------------------------------------------------------------------------------

    def _append(
        self,
        store: Store,
        kind: ArrayFile,
        rows: int,
        columns: int,
        *,
        first: int = 0,
        progress: Progress | None = None,
    ) -> None:
        """Append all rows of a file of another index; `first` is added to the row numbers in the file of boxes."""
        source = store.open_file(kind) if rows else None
        if source is None:
            return
        size = kind.row_bytes(columns)
        block = memoryview(bytearray(max(1, min(rows, _BLOCK_BYTES // size)) * size))
        with source:
            source.seek(HEADER_BYTES)
            while rows:
                content = block[: rows * size]
                _fill(content, store, source, kind)
                if first and kind is BOXES:
                    np.frombuffer(content, kind.descr).reshape(-1, columns)[:, 0] += first
                self._files[kind].append(content, columns)
                number = len(content) // size
                rows -= number
                if progress is not None:
                    progress.advance(number, known=number)

    # -- the end -----------------------------------------------------------------------------------------------

    def _finish(self) -> None:
        """Write what belongs to no other index, and flush everything."""
        database, about = self._database, self._about
        paths = StoredPaths(_parent(self._folder))
        indexing = self._records.submit(self._index_hashes)
        for kind, file in self._files.items():
            file.flush(BOX_COLUMNS if kind is BOXES else self._dim)
        indexing.result()
        database.execute("BEGIN")
        roots = ((paths.stored(root.path), json.dumps(root.options)) for root in about.roots)
        database.executemany("INSERT INTO roots VALUES (?, ?)", roots)
        folders = ((paths.stored(path), *rest) for path, *rest in about.folders)
        database.executemany("INSERT INTO folders VALUES (?, ?, ?, ?)", folders)
        database.executemany("INSERT INTO meta VALUES (?, ?)", self._notes())
        database.execute("COMMIT")
        database.close()
        new = self._folder / NEW_DATABASE
        sync_file(new)
        new.replace(self._folder / DATABASE)
        sync_folder(self._folder)

    def _index_hashes(self) -> None:
        for setting in _SORTING:
            self._database.execute(f"PRAGMA {setting}")
        self._database.execute(self._hash_index)

    def _notes(self) -> Iterator[tuple[str, str]]:
        """Yield keys and values of the table `meta`."""
        about = self._about
        yield "format", str(version_of(about.roots, regions=about.side is not None, codes=about.codes))
        if about.model:
            yield "model", json.dumps(asdict(about.model))
        if about.last_run:
            yield "last_run", json.dumps(about.last_run)
        if about.codes:
            yield "codes", json.dumps(CodesRecord()._asdict())
        if about.side is not None:
            yield "regions", json.dumps(RegionsRecord(self._files[REGIONS].rows, about.side)._asdict())


def _fill(block: memoryview, store: Store, file: BinaryIO, kind: ArrayFile) -> None:
    """Fill a block with the next bytes of a file.

    Raises:
        IndexDamagedError: the file cannot be read, or is too short.
    """
    try:
        number = file.readinto(block)  # type: ignore[attr-defined]
    except OSError as error:
        raise IndexDamagedError(f"Cannot read {store.folder / kind.name}: {error.strerror}.") from error
    if number < len(block):
        raise damaged(store.folder, f"{kind.name} is shorter than the rows that {DATABASE} names")


def _empty(folder: Path) -> None:
    """Delete what a killed attempt left in a folder, but not its lock."""
    for entry in folder.iterdir():
        if entry.name != LOCK:
            entry.unlink()


def _parent(folder: Path) -> bytes:
    return os.fsencode(os.path.dirname(os.path.abspath(folder)))
