"""An index opened for reading."""

from __future__ import annotations

import heapq
import json
import os
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from clipsearch.errors import IndexDamagedError, IndexMissingError
from clipsearch.index.connections import Connections, connect
from clipsearch.index.format import (
    DATABASE,
    DATE_SOURCES,
    FINISHED,
    FOLDER,
    FORMAT,
    HEADER_BYTES,
    MATRIX,
    NEW_MATRIX,
    OLD_RECORD,
    OLD_SOURCE,
    RECORD,
    Contents,
    Folder,
    Known,
    ModelRecord,
    Record,
    Root,
    broken_rows,
    damaged,
    guarded,
)
from clipsearch.index.matrix_file import broken
from clipsearch.index.stored_paths import StoredPaths
from clipsearch.system.paths import is_below, logical_folder
from clipsearch.system.places import is_there
from clipsearch.unit import Matrix, are_unit

_BUSY_SECONDS = 30
_SPARSE = 20
"""If fewer than one row in this many is asked for, each is looked up."""


def find_index(start: Path) -> Path:
    """The nearest index folder in `start` or above it.

    Raises:
        IndexMissingError: there is none.
    """
    start = start.absolute()
    # Above a folder that was entered through a link, what the shell shows as above it comes last.
    shell = logical_folder(os.fsencode(start))
    typed = () if shell is None else (Path(os.fsdecode(shell)), *Path(os.fsdecode(shell)).parents)
    for folder in (start, *start.parents, *typed):
        if Store.exists(folder / FOLDER):
            return folder / FOLDER
    raise IndexMissingError(
        f"No index in {start} or any folder above it.", hint=("make-index", "name-index"), folder=start
    )


def missing_index(folder: Path) -> IndexMissingError:
    """The error for a folder that holds no index."""
    return IndexMissingError(f"No index in {folder}.", hint="make-index", folder="PATH")


class Store:
    """An index opened for reading. Any number of threads may use it at the same time."""

    def __init__(self, folder: Path, make_connection: Callable[[], sqlite3.Connection]) -> None:
        """What `make_connection` makes is used by the thread that asks, and closed by whichever calls `close`."""
        self.folder = folder
        self._paths = StoredPaths(os.fsencode(os.path.dirname(os.path.abspath(folder))))
        self._connections = Connections(folder, make_connection)
        self._record = RECORD
        """What to select for a `Record`."""

    @staticmethod
    def exists(folder: Path) -> bool:
        """Whether `folder` holds an index, sound or not.

        Raises:
            InputError: the system does not say.
        """
        return is_there(folder / DATABASE)

    @classmethod
    def open(cls, folder: Path) -> Store:
        """Open an existing index.

        Raises:
            IndexMissingError: there is none in `folder`.
            IndexDamagedError: it cannot be read, or a newer clipsearch wrote it.
        """
        path = folder / DATABASE
        if not cls.exists(folder):
            raise missing_index(folder)
        # A crash can leave a journal that has to be rolled back, so even readers open for writing where they may.
        mode = "rw" if os.access(path, os.W_OK) and os.access(folder, os.W_OK) else "ro"
        store = Store(folder, lambda: connect(path, mode, _BUSY_SECONDS, shared=True))
        try:
            if store.format() < 3:  # noqa: PLR2004  (what came with it is unknown)
                store._record = f"{OLD_RECORD}, NULL, NULL, {OLD_SOURCE}, NULL"
        except IndexDamagedError:
            store.close()
            raise
        return store

    def close(self) -> None:
        """Close the database, for all threads."""
        self._connections.close()

    @property
    def _database(self) -> sqlite3.Connection:
        return self._connections.mine()

    def format(self) -> int:
        """The version of its format.

        Raises:
            IndexDamagedError: a newer clipsearch wrote it, or it names none.
        """
        version = self.meta("format")
        if version is None or not version.isdecimal():
            raise damaged(self.folder, f"{DATABASE} names no format")
        if int(version) > FORMAT:
            raise IndexDamagedError(
                f"The index in {self.folder} has format {version}; this clipsearch reads formats up to {FORMAT}.",
                hint="newer-clipsearch",
            )
        return int(version)

    # -- records ---------------------------------------------------------------------------------------------

    def model(self) -> ModelRecord | None:
        """The model of the vectors; None before the first run has loaded one."""
        text = self.meta("model")
        return ModelRecord(**json.loads(text)) if text else None

    def bound_model(self) -> ModelRecord | None:
        """The model that all vectors to come must be of; None as long as there is no vector."""
        return self.model() if self.committed_rows() else None

    def is_whole(self) -> bool:
        """Whether each of its folders was once searched and recorded to the end; `last_run` says how later runs ended.

        It is not while the run is at work, or was ended, that makes the index or takes in a folder.
        """
        run, roots = self.last_run(), self.roots()
        if run is None:  # made by an import, or by nobody yet
            return bool(roots or self.committed_rows())
        return run["outcome"] == FINISHED or all(root.options.get("readers") is not None for root in roots)

    def last_run(self) -> dict[str, Any] | None:
        """What the last `index` run left about itself."""
        text = self.meta("last_run")
        return dict(json.loads(text)) if text else None

    def roots(self) -> list[Root]:
        """The folders and files that were indexed, by path."""
        # Format 1 had no options.
        found = ((path, *rest) for path, *rest in self.sql("SELECT * FROM roots"))
        return sorted(Root(self._paths.absolute(path), json.loads(rest[0]) if rest else {}) for path, *rest in found)

    def folders(self, root: bytes | None = None) -> list[Folder]:
        """What is remembered of folders, all or those of `root` and below (absolute), by path."""
        if self._record != RECORD:  # formats before 3 had none
            return []
        found = (
            Folder(self._paths.absolute(path), drive, kept, bool(away))
            for path, drive, kept, away in self.sql("SELECT path, drive, kept, away FROM folders")
        )
        return sorted(folder for folder in found if root is None or is_below(folder.path, root))

    def records(self, root: bytes | None = None) -> Iterator[Record]:
        """All records, or those of `root` and below (absolute), in the order of their paths' bytes."""
        return map(Record._make, self._select(self._record, root))

    def known(self, root: bytes) -> Iterator[Known]:
        """What tells changes, of `root` and below, in the order of their paths' bytes."""
        columns = "path, size, mtime_ns, error, hash IS NOT NULL, ctime_ns, inode, damage IS NOT NULL"
        return map(Known._make, self._select(columns, root))

    def unreadable(self, root: bytes | None = None) -> list[tuple[bytes, str]]:
        """Path and reason of every file (or folder) below `root` that could not be read."""
        return [(path, error) for path, error in self._select("path, error", root, "error IS NOT NULL")]

    def damaged(self, root: bytes | None = None) -> list[tuple[bytes, float]]:
        """Path of every image below `root` of which a part is missing, and the share of it, 0 to 0.5."""
        if self._record != RECORD:  # formats before 3 had none
            return []
        return [
            (path, share)
            for path, share in self._select("path, damage", root, "row IS NOT NULL AND damage IS NOT NULL")
        ]

    def damage_of(self, digest: bytes) -> float | None:
        """The share that is missing of the images with this content; None if they are whole, or there is none."""
        if self._record != RECORD:
            return None
        ((share,),) = self.sql("SELECT max(damage) FROM images WHERE hash = ? AND row IS NOT NULL", (digest,))
        return None if share is None else float(share)

    def count(self, root: bytes | None = None) -> int:
        """How many images lie below `root`."""
        return sum(
            self.sql(f"SELECT count(row) FROM images WHERE {where}", values)[0][0]  # noqa: S608  (our own words)
            for where, values in self._paths.ranges(root)
        )

    def date_sources(self) -> dict[str, int]:
        """How many images have their date from each of `DATE_SOURCES`."""
        source = "date_source" if self._record == RECORD else OLD_SOURCE
        sql = f"SELECT {source}, count(*) FROM images WHERE row IS NOT NULL GROUP BY 1"  # noqa: S608  (our own words)
        found = {source or "file": number for source, number in self.sql(sql)}
        return {source: found.get(source, 0) for source in DATE_SOURCES}

    def contents(self) -> Contents:
        """Count what the index holds."""
        ((dead,),) = self.sql("SELECT count(*) FROM dead")
        size = sum(_size(file) for file in self.folder.iterdir() if file.is_file())
        return Contents(self.count(), dead, size)

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        """Within: everything read belongs to one commit. A writer's next commit waits until it is over."""
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
        """The memory-mapped matrix (rows, D) of the last commit, and which rows are alive, (rows,) or None for all.

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

    def sound_matrix(self) -> tuple[Matrix, npt.NDArray[np.bool_] | None]:
        """What `matrix` gives, once every row that is alive was looked at.

        Raises:
            IndexDamagedError: also if some are no unit vectors; nothing can be said of their images.
        """
        matrix, alive = self.matrix()
        if count := len(broken(matrix, alive)):
            wrong = broken_rows(self.folder, count)
            raise IndexDamagedError(
                f"This needs the vectors of all images: {wrong}", hint="broken-rows", folder=self.folder
            )
        return matrix, alive

    def images(self, rows: Sequence[int], among: int | None = None) -> list[Record]:
        """The record of each row; `among` is the number of all rows, for who knows it from the same snapshot."""
        if len(rows) * _SPARSE < (self.committed_rows() if among is None else among):
            found = {row: self.image(row) for row in rows}
        else:  # one pass over the table is faster than many searches in it
            found = {record.row: record for record in self.records() if record.row is not None}
        try:
            return [found[row] for row in rows]
        except KeyError as error:
            raise damaged(self.folder, f"row {error} belongs to no image") from error

    def image(self, row: int) -> Record:
        """The record of one row."""
        found = self.sql(f"SELECT {self._record} FROM images WHERE row = ?", (row,))  # noqa: S608  (our own words)
        if not found:
            raise damaged(self.folder, f"row {row} belongs to no image")
        return Record(self._paths.absolute(found[0][0]), *found[0][1:])

    def row_of(self, path: bytes) -> int | None:
        """The row of the image with this absolute path."""
        found = self.sql("SELECT row FROM images WHERE path = ?", (self._paths.stored(path),))
        return found[0][0] if found else None

    def rows_with(self, digest: bytes) -> list[tuple[bytes, int]]:
        """Absolute path and row of each image with this content hash."""
        found = self.sql("SELECT path, row FROM images WHERE hash = ? AND row IS NOT NULL", (digest,))
        return [(self._paths.absolute(path), row) for path, row in found]

    def vector_of(self, digest: bytes) -> npt.NDArray[np.float32] | None:
        """(D,) the unit vector of an image with this content; None if the index knows none that is one."""
        with self.snapshot():
            ((row,),) = self.sql("SELECT min(row) FROM images WHERE hash = ? AND row IS NOT NULL", (digest,))
            if row is None:
                return None
            vector = self._map()[row].astype(np.float32)
        return np.asarray(vector / np.linalg.norm(vector)) if are_unit(vector[np.newaxis])[0] else None

    def rows(self, root: bytes | None, condition: str, values: Sequence[object]) -> Iterator[int]:
        """The rows of images below `root` for which a condition on the columns holds; for this package."""
        for where, more in self._paths.ranges(root):
            sql = f"SELECT row FROM images WHERE {where} AND row IS NOT NULL AND {condition}"  # noqa: S608  (our own words)
            with guarded(self.folder):
                for (row,) in self._database.execute(sql, (*more, *values)):
                    yield row

    def paths_and_rows(
        self, root: bytes | None, condition: str, values: Sequence[object]
    ) -> Iterator[tuple[bytes, int]]:
        """The same with absolute paths, in their order; for this package."""
        return self._select("path, row", root, f"row IS NOT NULL AND {condition}", values)

    def committed_rows(self) -> int:
        """How many rows of the matrix count."""
        ((last,),) = self.sql("SELECT max(m) FROM (SELECT max(row) AS m FROM images UNION SELECT max(row) FROM dead)")
        return 0 if last is None else last + 1

    def open_matrix(self) -> BinaryIO | None:
        """The file with the matrix of the last commit; None if it is missing."""
        # A rewritten matrix may wait for its usual name. Once it is gone from there, also since we asked, it has it.
        waiting = _opened(self.folder / NEW_MATRIX) if self.meta("renaming") else None
        return waiting or _opened(self.folder / MATRIX)

    def _map(self) -> Matrix:
        rows, model = self.committed_rows(), self.model()
        if rows == 0 or model is None:
            return np.empty((0, model.dim if model else 0), np.float16)
        file = self.open_matrix()
        if file is None:
            raise damaged(self.folder, f"{MATRIX} is missing")
        with file, guarded(self.folder):
            if os.fstat(file.fileno()).st_size < HEADER_BYTES + rows * model.dim * 2:
                raise damaged(self.folder, f"{MATRIX} is shorter than the {rows} rows that {DATABASE} names")
            return np.memmap(file, np.float16, "r", HEADER_BYTES, (rows, model.dim))

    def meta(self, key: str) -> str | None:
        """One of the index's own notes; for this package."""
        found = self.sql("SELECT value FROM meta WHERE key = ?", (key,))
        return found[0][0] if found else None

    def sql(self, query: str, values: Sequence[object] = ()) -> list[Any]:
        """Ask the database; for this package, since nothing else knows the schema."""
        with guarded(self.folder):
            return self._database.execute(query, values).fetchall()

    def teach(self, name: str, function: Callable[[Any], str | None]) -> None:
        """Have SQL know a function of one value; for this package."""
        self._database.create_function(name, 1, function, deterministic=True)

    # -- how -------------------------------------------------------------------------------------------------

    def _select(
        self, columns: str, root: bytes | None, condition: str = "TRUE", more: Sequence[object] = ()
    ) -> Iterator[tuple[Any, ...]]:
        """Rows of `images`, the path first and absolute, in its order; read as they are asked for."""
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


def _opened(path: Path) -> BinaryIO | None:
    try:
        return path.open("rb")
    except FileNotFoundError:
        return None
    except OSError as error:
        raise IndexDamagedError(f"Cannot read {path}: {error.strerror}.") from error


def _size(file: Path) -> int:
    """In bytes; of what is gone, since a writer is at work, none."""
    try:
        return file.stat().st_size
    except FileNotFoundError:
        return 0
