"""Reading an index: finding it, its records and its matrix."""

from __future__ import annotations

import heapq
import json
import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from clipsearch.errors import IndexDamagedError
from clipsearch.images.parts import Part
from clipsearch.index.connections import ChangeCounter, Connections, connect
from clipsearch.index.format import (
    BOX_COLUMNS,
    BOXES,
    DATABASE,
    DATE_SOURCES,
    EMBEDDINGS,
    FINISHED,
    LAST_FORMAT,
    OLD_RECORD,
    OLD_SOURCE,
    RECORD,
    REGIONS,
    ArrayFile,
    Contents,
    Folder,
    Known,
    ModelRecord,
    Record,
    RegionsRecord,
    Root,
    broken_rows,
    damaged,
    guarded,
    missing_index,
    noted,
)
from clipsearch.index.joined_rows import joined_rows
from clipsearch.index.matrix_file import Maps, broken, mapped, opened
from clipsearch.index.regions import Regions
from clipsearch.index.stored_paths import StoredPaths
from clipsearch.system.paths import is_below
from clipsearch.system.places import is_there
from clipsearch.unit import Matrix, are_unit

_BUSY_SECONDS = 30
"""How long a statement waits for a commit of a writer."""
_SPARSE = 2
"""If fewer than one row in this number is needed, each is looked up instead of reading the whole table."""


class Store:
    """An index opened for reading. Threads may share it."""

    def __init__(self, folder: Path, make_connection: Callable[[], sqlite3.Connection]) -> None:
        """Use `make_connection` for one connection in each thread; the thread that calls `close` closes all."""
        self.folder = folder
        self._paths = StoredPaths(os.fsencode(os.path.dirname(os.path.abspath(folder))))
        self._connections = Connections(folder, make_connection)
        self._changes = ChangeCounter(folder / DATABASE)
        self._maps: Maps = {}
        self._record = RECORD
        """The columns to select for a `Record`."""

    @staticmethod
    def exists(folder: Path) -> bool:
        """Whether `folder` holds an index, damaged or not.

        Raises:
            InputError: the file system does not allow to find out.
        """
        return is_there(folder / DATABASE)

    @classmethod
    def open(cls, folder: Path) -> Store:
        """Open an existing index.

        Raises:
            IndexMissingError: there is none in `folder`.
            IndexDamagedError: the index cannot be read, or its format is newer.
        """
        path = folder / DATABASE
        if not cls.exists(folder):
            raise missing_index(folder)
        # A crash can leave a journal that has to be rolled back, so readers open the database for writing if permitted.
        mode = "rw" if os.access(path, os.W_OK) and os.access(folder, os.W_OK) else "ro"
        store = Store(folder, lambda: connect(path, mode, _BUSY_SECONDS, shared=True))
        try:
            if store.format() < 3:  # noqa: PLR2004  (older formats have fewer columns)
                store._record = f"{OLD_RECORD}, NULL, NULL, {OLD_SOURCE}, NULL"
        except IndexDamagedError:
            store.close()
            raise
        return store

    def close(self) -> None:
        """Close the database, for all threads."""
        self._connections.close()
        self._changes.close()

    @property
    def _database(self) -> sqlite3.Connection:
        return self._connections.mine()

    def format(self) -> int:
        """Return the version of the format.

        Raises:
            IndexDamagedError: the format is newer than this clipsearch, or missing.
        """
        version = self.meta("format")
        if version is None or not version.isdecimal():
            raise damaged(self.folder, f"{DATABASE} names no format")
        if int(version) > LAST_FORMAT:
            raise IndexDamagedError(
                f"The index in {self.folder} has format {version}; this clipsearch reads formats up to {LAST_FORMAT}.",
                hint="newer-clipsearch",
            )
        return int(version)

    def version(self) -> int:
        """Return a number that changes with every commit; within a snapshot it is that of the snapshot."""
        return self._changes.read()

    # -- records ---------------------------------------------------------------------------------------------

    def model(self) -> ModelRecord | None:
        """Return the model of the vectors; None before the first run has loaded one."""
        return noted(self.folder, "model", self.meta("model"), ModelRecord)

    def bound_model(self) -> ModelRecord | None:
        """Return the model that all further vectors must be of; None as long as there is no vector."""
        return self.model() if self.committed_rows() else None

    def is_whole(self) -> bool:
        """Whether each folder of the index has been searched and recorded completely at least once.

        It is False while the first run of a folder is at work, or if that run was interrupted.
        """
        run, roots = self.last_run(), self.roots()
        if run is None:  # made by an import, or still empty
            return bool(roots or self.committed_rows())
        return run["outcome"] == FINISHED or all(root.options.get("readers") is not None for root in roots)

    def part(self) -> Part | None:
        """Return the part of its roots whose files the index holds; None if it holds all."""
        return noted(self.folder, "part", self.meta("part"), Part)

    def last_run(self) -> dict[str, Any] | None:
        """Return the record of the last `index` run."""
        return noted(self.folder, "last_run", self.meta("last_run"), dict)

    def roots(self) -> list[Root]:
        """Return the folders and files that were indexed, by path."""
        # Format 1 had no options.
        found = ((path, *rest) for path, *rest in self.sql("SELECT * FROM roots"))
        return sorted(Root(self._paths.absolute(path), self._object("roots", *rest)) for path, *rest in found)

    def _object(self, key: str, text: str | None = None) -> dict[str, Any]:
        return noted(self.folder, key, text, dict) or {}

    def folders(self, root: bytes | None = None) -> list[Folder]:
        """Return the recorded folders, all or those at and below `root` (absolute), by path."""
        if self._record != RECORD:  # formats before 3 had none
            return []
        found = (
            Folder(self._paths.absolute(path), drive, kept, bool(away))
            for path, drive, kept, away in self.sql("SELECT path, drive, kept, away FROM folders")
        )
        return sorted(folder for folder in found if root is None or is_below(folder.path, root))

    def records(self, root: bytes | None = None) -> Iterator[Record]:
        """Yield all records, or those at and below `root` (absolute), in the order of their paths' bytes."""
        return map(Record._make, self._select(self._record, root))

    def known(self, root: bytes) -> Iterator[Known]:
        """Yield the columns that show changes, at and below `root`, in the order of their paths' bytes."""
        columns = (
            "path, size, mtime_ns, error, hash IS NOT NULL, ctime_ns, inode, damage IS NOT NULL, row, width, height"
        )
        return map(Known._make, self._select(columns, root))

    def unreadable(self, root: bytes | None = None) -> list[tuple[bytes, str]]:
        """Return path and reason of every file or folder at and below `root` that could not be read."""
        return [(path, error) for path, error in self._select("path, error", root, "error IS NOT NULL")]

    def damaged(self, root: bytes | None = None) -> list[tuple[bytes, float]]:
        """Return the path of every damaged image at and below `root`, and the share that is missing, 0 to 0.5."""
        if self._record != RECORD:  # formats before 3 had none
            return []
        return [
            (path, share)
            for path, share in self._select("path, damage", root, "row IS NOT NULL AND damage IS NOT NULL")
        ]

    def damage_of(self, digest: bytes) -> float | None:
        """Return the missing share of images with this content; None if they are whole, or there is none."""
        if self._record != RECORD:
            return None
        ((share,),) = self.sql("SELECT max(damage) FROM images WHERE hash = ? AND row IS NOT NULL", (digest,))
        return None if share is None else float(share)

    def count(self, root: bytes | None = None) -> int:
        """Count the images, or those at and below `root`."""
        return sum(
            self.sql(f"SELECT count(row) FROM images WHERE {where}", values)[0][0]  # noqa: S608  (our own words)
            for where, values in self._paths.ranges(root)
        )

    def date_sources(self) -> dict[str, int]:
        """Count the images whose date is from each of `DATE_SOURCES`."""
        source = "date_source" if self._record == RECORD else OLD_SOURCE
        sql = f"SELECT {source}, count(*) FROM images WHERE +row IS NOT NULL GROUP BY 1"  # noqa: S608  (our own words)
        found = {source or "file": number for source, number in self.sql(sql)}
        return {source: found.get(source, 0) for source in DATE_SOURCES}

    def contents(self) -> Contents:
        """Count what the index holds."""
        ((dead,),) = self.sql("SELECT count(*) FROM dead")
        size = sum(_size(file) for file in self.folder.iterdir() if file.is_file())
        regions = self.regions_record()
        codes = self._object("codes", self.meta("codes")).get("rows")
        return Contents(self.count(), dead, size, regions and regions.rows, codes)

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        """Read everything in this context from one commit. The next commit of a writer waits for its end."""
        if self._database.in_transaction:
            yield
            return
        with guarded(self.folder):
            self._database.execute("BEGIN")
        try:
            yield
        finally:
            self._database.rollback()

    # -- rows ------------------------------------------------------------------------------------------------

    def matrix(self) -> tuple[Matrix, npt.NDArray[np.bool_] | None]:
        """Return the memory-mapped (rows, D) matrix of the last commit, and (rows,) which are alive; None if all are.

        Raises:
            IndexDamagedError: the matrix is missing or shorter than the database says.
        """
        with self.snapshot():
            matrix = self._map()
            dead = [row for (row,) in self.sql("SELECT row FROM dead")]
        if not dead:
            return matrix, None
        alive = np.ones(len(matrix), np.bool_)
        alive[dead] = False
        return matrix, alive

    def regions_record(self) -> RegionsRecord | None:
        """Return what the index records of its regions; None if it has none."""
        return noted(self.folder, "regions", self.meta("regions"), RegionsRecord)

    def regions(self) -> Regions | None:
        """Return the regions of the last commit; None if the index has none.

        Their `images` are rows of `matrix` in the same snapshot only.

        Raises:
            IndexDamagedError: their files are missing or shorter than the database says.
        """
        with self.snapshot():
            record, model = self.regions_record(), self.model()
            if record is None or model is None:
                return None
            vectors = self._mapped(REGIONS, record.rows, model.dim)
            boxes = self._mapped(BOXES, record.rows, BOX_COLUMNS)
        return Regions(vectors, boxes[:, 0], boxes[:, 1:])

    def sound_matrix(self) -> tuple[Matrix, npt.NDArray[np.bool_] | None]:
        """Return the same as `matrix`, after checking that all rows that are alive are unit vectors.

        Raises:
            IndexDamagedError: the matrix is missing or too short, or a row is not a unit vector.
        """
        matrix, alive = self.matrix()
        if count := len(broken(matrix, alive)):
            wrong = broken_rows(self.folder, count)
            raise IndexDamagedError(
                f"This needs the vectors of all images: {wrong}", hint="broken-rows", folder=self.folder
            )
        return matrix, alive

    def images(self, rows: Sequence[int], among: int | None = None) -> list[Record]:
        """Return the record of each row; `among` is the number of all rows in the same snapshot, if it is known."""
        if len(rows) * _SPARSE < (self.committed_rows() if among is None else among):
            return self._in_order(rows, self._looked_up(rows))
        return self._in_order(rows, self.records())  # one pass over the table is faster than many searches in it

    def image(self, row: int) -> Record:
        """Return the record of one row."""
        return self._in_order([row], self._looked_up([row]))[0]

    def _looked_up(self, rows: Sequence[int]) -> Iterator[Record]:
        sql = f"SELECT {self._record} FROM images WHERE row IN (SELECT value FROM json_each(?))"  # noqa: S608
        return map(Record._make, self._paths.with_absolute(self.sql(sql, [json.dumps([*map(int, rows)])])))

    def _in_order(self, rows: Sequence[int], records: Iterable[Record]) -> list[Record]:
        """Return of some records those of `rows`."""
        found = {record.row: record for record in records if record.row is not None}
        try:
            return [found[row] for row in rows]
        except KeyError as error:
            raise damaged(self.folder, f"row {error} belongs to no image") from error

    def row_of(self, path: bytes) -> int | None:
        """Return the row of the image with this absolute path; None if there is none."""
        found = self.sql("SELECT row FROM images WHERE path = ?", (self._paths.stored(path),))
        return found[0][0] if found else None

    def rows_with(self, digest: bytes) -> list[tuple[bytes, int]]:
        """Return absolute path and row of each image with this content hash."""
        found = self.sql("SELECT path, row FROM images WHERE hash = ? AND row IS NOT NULL", (digest,))
        return [(self._paths.absolute(path), row) for path, row in found]

    def vector_of(self, digest: bytes) -> npt.NDArray[np.float32] | None:
        """Return the (D,) unit vector of an image with this content; None if there is none."""
        with self.snapshot():
            ((row,),) = self.sql("SELECT min(row) FROM images WHERE hash = ? AND row IS NOT NULL", (digest,))
            if row is None:
                return None
            vector = self._map()[row].astype(np.float32)
        return np.asarray(vector / np.linalg.norm(vector)) if are_unit(vector[np.newaxis])[0] else None

    def rows(self, root: bytes | None, condition: str, values: Sequence[object]) -> Iterator[npt.NDArray[np.int64]]:
        """Yield, some at a time, rows at and below `root` that fulfil an SQL condition; only for this package."""
        return joined_rows(self.sql, self.committed_rows(), self._paths.intervals(root), condition, values)

    def paths_and_rows(
        self, root: bytes | None, condition: str, values: Sequence[object]
    ) -> Iterator[tuple[bytes, int]]:
        """Yield absolute paths and rows of images that fulfil an SQL condition, by path; only for this package."""
        return self._select("path, row", root, f"row IS NOT NULL AND {condition}", values)

    def committed_rows(self) -> int:
        """Return the number of committed rows of the matrix."""
        ((last,),) = self.sql("SELECT max(m) FROM (SELECT max(row) AS m FROM images UNION SELECT max(row) FROM dead)")
        return 0 if last is None else last + 1

    def open_file(self, kind: ArrayFile) -> BinaryIO | None:
        """Open a file of the last commit; None if it is missing."""
        return opened(self.folder, kind, renaming=bool(self.meta("renaming")))

    def _map(self) -> Matrix:
        model = self.model()
        return self._mapped(EMBEDDINGS, self.committed_rows() if model else 0, model.dim if model else 0)

    def _mapped(self, kind: ArrayFile, rows: int, columns: int) -> npt.NDArray[Any]:
        return mapped(self.folder, kind, rows, columns, renaming=bool(self.meta("renaming")), kept=self._maps)

    def meta(self, key: str) -> str | None:
        """Return a value of the table `meta`; only for this package."""
        found = self.sql("SELECT value FROM meta WHERE key = ?", (key,))
        return found[0][0] if found else None

    def sql(self, query: str, values: Sequence[object] = ()) -> list[Any]:
        """Query the database; only for this package, since nothing else knows the schema."""
        with guarded(self.folder):
            return self._database.execute(query, values).fetchall()

    def teach(self, name: str, function: Callable[[Any], str | None]) -> None:
        """Define an SQL function of one argument; only for this package."""
        self._database.create_function(name, 1, function, deterministic=True)

    # -- how -------------------------------------------------------------------------------------------------

    def _select(
        self, columns: str, root: bytes | None, condition: str = "TRUE", more: Sequence[object] = ()
    ) -> Iterator[tuple[Any, ...]]:
        """Yield rows of the table `images`, with the absolute path first, in the order of paths."""
        parts = [
            self._stream(
                f"SELECT {columns} FROM images WHERE {where} AND {condition} ORDER BY path",  # noqa: S608  (our own words)
                (*values, *more),
            )
            for where, values in self._paths.ranges(root)
        ]
        return parts[0] if len(parts) == 1 else heapq.merge(*parts)

    def _stream(self, sql: str, values: Sequence[object]) -> Iterator[tuple[Any, ...]]:
        with guarded(self.folder):
            yield from self._paths.with_absolute(self._database.execute(sql, values))


def _size(file: Path) -> int:
    """Return the size in bytes; 0 if a writer has just deleted the file."""
    try:
        return file.stat().st_size
    except FileNotFoundError:
        return 0
