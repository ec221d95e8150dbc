"""The index on disk. The only room that knows its format; knows nothing of models or images.

A folder holds `embeddings.npy`, (rows, D) float16 unit vectors, and `index.db`, SQLite, which is the truth: a row
counts once its record is committed, and records are committed only after their rows are flushed. Rows past the
committed ones are leftovers of a crash; the next writer cuts them off. Readers take no lock.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
from filelock import FileLock, Timeout

from clipsearch.errors import (
    ClipsearchError,
    IndexDamagedError,
    IndexLockedError,
    IndexMissingError,
    ModelMismatchError,
)
from clipsearch.paths import is_below

FOLDER = ".clipsearch"
FORMAT = 1
"""Version of the format; a file of a newer one is refused."""
_DATABASE, _MATRIX, _LOCK = "index.db", "embeddings.npy", "lock"
_REWRITTEN = "embeddings.new.npy"
"""The compacted matrix between the commit of its row numbers and its renaming."""
_HEADER_BYTES = 128
_DEAD_SHARE = 0.25
"""The matrix is rewritten when more than this share of its rows is dead."""
_BUSY_SECONDS = 30

_SCHEMA = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE roots (path BLOB PRIMARY KEY);
CREATE TABLE images (
    path BLOB PRIMARY KEY,        -- relative to the index's parent where it lies below it, else absolute
    row INTEGER UNIQUE,           -- in embeddings.npy; NULL for an unreadable file
    size INTEGER NOT NULL,
    mtime_ns INTEGER NOT NULL,
    hash BLOB,                    -- BLAKE2b-128 of the content; NULL if it could not be read
    width INTEGER,
    height INTEGER,
    taken_at TEXT,
    error TEXT                    -- why the file is unreadable; NULL for an image
) WITHOUT ROWID;
CREATE TABLE dead (row INTEGER PRIMARY KEY);
"""

Matrix = npt.NDArray[np.float16]


@dataclass(frozen=True)
class ModelRecord:
    """Which model made the vectors."""

    name: str
    """As the user would type it for `--model`."""
    revision: str | None
    """Commit hash on the hub; None for a local folder."""
    fingerprint: str
    """Hash of weights, configuration, tokenizer and preprocessing."""
    dim: int


@dataclass(frozen=True)
class Record:
    """What the index knows of one file; `row` is None where the file is unreadable, and `error` says why."""

    path: bytes
    """Absolute."""
    row: int | None
    size: int
    mtime_ns: int
    hash: bytes | None
    width: int | None = None
    height: int | None = None
    taken_at: str | None = None
    error: str | None = None


@dataclass(frozen=True)
class Contents:
    """Figures of an index: numbers of images, unreadable files and dead rows, and its size in bytes."""

    images: int
    unreadable: int
    dead_rows: int
    bytes: int


def find_index(start: Path) -> Path:
    """The nearest index folder in `start` or above it.

    Raises:
        IndexMissingError: there is none.
    """
    start = start.absolute()
    for folder in (start, *start.parents):
        if Store.exists(folder / FOLDER):
            return folder / FOLDER
    raise IndexMissingError(
        f"No index in {start} or any folder above it. Make one with: clipsearch index {start}\n"
        "If it lies elsewhere, name it with --index DIR or CLIPSEARCH_INDEX."
    )


def _header(rows: int, dim: int) -> bytes:
    """A .npy header of fixed length, so that it can be rewritten in place as the matrix grows."""
    description = f"{{'descr': '<f2', 'fortran_order': False, 'shape': ({rows}, {dim}), }}"
    prefix = b"\x93NUMPY\x01\x00" + (_HEADER_BYTES - 10).to_bytes(2, "little")
    return prefix + description.ljust(_HEADER_BYTES - 11).encode("ascii") + b"\n"


class Store:
    """An index opened for reading; `write` in a `with` block opens it for writing."""

    def __init__(self, folder: Path, database: sqlite3.Connection) -> None:
        self.folder = folder
        self._parent = os.fsencode(os.path.dirname(os.path.abspath(folder)))
        self._database = database

    # -- opening ---------------------------------------------------------------------------------------------

    @staticmethod
    def exists(folder: Path) -> bool:
        """Whether `folder` holds an index, sound or not."""
        return (folder / _DATABASE).exists()

    @classmethod
    def open(cls, folder: Path) -> Store:
        """Open an existing index.

        Raises:
            IndexMissingError: there is none in `folder`.
            IndexDamagedError: it cannot be read, or a newer clipsearch wrote it.
        """
        path = folder / _DATABASE
        if not cls.exists(folder):
            raise IndexMissingError(f"No index in {folder}. Make one with: clipsearch index PATH")
        # A crash can leave a journal that has to be rolled back, so even readers open for writing where they may.
        mode = "rw" if os.access(path, os.W_OK) and os.access(folder, os.W_OK) else "ro"
        store = cls(folder, _connect(path, mode))
        try:
            version = store._meta("format")
        except IndexDamagedError:
            store.close()
            raise
        if version is None or int(version) > FORMAT:
            store.close()
            raise IndexDamagedError(
                f"{folder} has index format {version}; this clipsearch reads up to {FORMAT}. Update clipsearch."
            )
        return store

    @classmethod
    @contextmanager
    def write(cls, folder: Path) -> Iterator[Writer]:
        """Open or create the index in `folder` for writing; at most one process does at a time.

        Raises:
            IndexLockedError: another process is writing.
            ClipsearchError: the folder cannot be written.
        """
        try:
            folder.mkdir(parents=True, exist_ok=True)
            lock = FileLock(folder / _LOCK, timeout=0)
            lock.acquire()
        except Timeout as error:
            raise IndexLockedError(
                f"Another clipsearch is writing to {folder}. Wait until it has finished, then try again."
            ) from error
        except OSError as error:
            raise ClipsearchError(
                f"Cannot write the index in {folder}: {error.strerror or error}. Choose another place with --index DIR."
            ) from error
        try:
            path = folder / _DATABASE
            if not path.exists():
                with closing(_connect(path, "rwc")) as database, _guarded(folder), database:
                    database.executescript(f"BEGIN; {_SCHEMA}")
                    database.execute("INSERT INTO meta VALUES ('format', ?)", (str(FORMAT),))
            store = cls.open(folder)
            with closing(store):
                writer = Writer(folder, store._database)  # noqa: SLF001  (its own subclass)
                with closing(writer):
                    yield writer
        finally:
            lock.release()

    def close(self) -> None:
        """Close the database."""
        self._database.close()

    # -- reading ---------------------------------------------------------------------------------------------

    def model(self) -> ModelRecord | None:
        """The model of the vectors; None before the first image was embedded."""
        text = self._meta("model")
        return ModelRecord(**json.loads(text)) if text else None

    def roots(self) -> list[bytes]:
        """Absolute paths of the folders and files that were indexed, sorted."""
        return sorted(self._absolute(path) for (path,) in self._rows("SELECT path FROM roots"))

    def records(self, root: bytes | None = None) -> Iterator[Record]:
        """All records, or those of `root` and below (absolute)."""
        for path, *rest in self._rows(
            "SELECT path, row, size, mtime_ns, hash, width, height, taken_at, error FROM images"
        ):
            absolute = self._absolute(path)
            if root is None or is_below(absolute, root):
                yield Record(absolute, *rest)

    def contents(self) -> Contents:
        """Count what the index holds."""
        ((images, unreadable),) = self._rows("SELECT count(row), count(*) - count(row) FROM images")
        ((dead,),) = self._rows("SELECT count(*) FROM dead")
        size = sum(file.stat().st_size for file in self.folder.iterdir() if file.is_file())
        return Contents(images, unreadable, dead, size)

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        """Within: everything read belongs to one commit. A writer's next commit waits until it is over."""
        if self._database.in_transaction:
            yield
            return
        with _guarded(self.folder):
            self._database.execute("BEGIN")
        try:
            yield
        finally:
            self._database.rollback()

    def matrix(self) -> tuple[Matrix, npt.NDArray[np.bool_] | None]:
        """The memory-mapped matrix (rows, D) of the last commit, and which rows are alive, (rows,) or None for all.

        Raises:
            IndexDamagedError: the matrix is missing or shorter than the database says.
        """
        with self.snapshot():
            matrix = self._map()
            dead = [row for (row,) in self._rows("SELECT row FROM dead")]
        if not dead:
            return matrix, None
        alive = np.ones(len(matrix), np.bool_)
        alive[dead] = False
        return matrix, alive

    def paths(self, rows: Sequence[int]) -> list[bytes]:
        """The absolute path of each row."""
        out = []
        for row in rows:
            found = self._rows("SELECT path FROM images WHERE row = ?", (row,))
            if not found:
                raise self._damaged(f"row {row} belongs to no image")
            out.append(self._absolute(found[0][0]))
        return out

    def committed_rows(self) -> int:
        """How many rows of the matrix count."""
        ((last,),) = self._rows("SELECT max(m) FROM (SELECT max(row) AS m FROM images UNION SELECT max(row) FROM dead)")
        return 0 if last is None else last + 1

    def _map(self) -> Matrix:
        rows, model = self.committed_rows(), self.model()
        if rows == 0 or model is None:
            return np.empty((0, model.dim if model else 0), np.float16)
        # Where a rewritten matrix still waits for its usual name, it is the right one; once it is gone, it has it.
        for name in (_REWRITTEN, _MATRIX) if self._meta("renaming") else (_MATRIX,):
            path = self.folder / name
            try:
                if path.stat().st_size < _HEADER_BYTES + rows * model.dim * 2:
                    raise self._damaged(f"{name} is shorter than the {rows} rows that {_DATABASE} names")
                return np.memmap(path, np.float16, "r", _HEADER_BYTES, (rows, model.dim))
            except FileNotFoundError:
                continue
            except OSError as error:
                raise self._damaged(f"{name} cannot be read: {error.strerror or error}") from error
        raise self._damaged(f"{_MATRIX} is missing")

    def _damaged(self, what: str) -> IndexDamagedError:
        return _damaged(self.folder, what)

    def _meta(self, key: str) -> str | None:
        found = self._rows("SELECT value FROM meta WHERE key = ?", (key,))
        return found[0][0] if found else None

    def _rows(self, sql: str, values: Sequence[object] = ()) -> list[Any]:
        with _guarded(self.folder):
            return self._database.execute(sql, values).fetchall()

    def _absolute(self, path: bytes) -> bytes:
        return os.path.join(self._parent, path)

    def _stored(self, path: bytes) -> bytes:
        return os.path.relpath(path, self._parent) if is_below(path, self._parent) else path


class Writer(Store):
    """An index opened for writing. Nothing counts before `commit`."""

    def __init__(self, folder: Path, database: sqlite3.Connection) -> None:
        super().__init__(folder, database)
        self._file: BinaryIO | None = None
        self._finish_renaming()
        self._rows_written = self.committed_rows()

    def close(self) -> None:
        """Close the matrix; what was not committed is lost."""
        self._database.rollback()
        if self._file:
            self._file.close()

    def set_model(self, model: ModelRecord) -> None:
        """Say which model makes the vectors.

        Raises:
            ModelMismatchError: the index already holds vectors of another one.
        """
        known = self.model()
        if known is not None and known.fingerprint != model.fingerprint:
            raise ModelMismatchError(mismatch(self.folder, known, model.name))
        self._execute("INSERT OR REPLACE INTO meta VALUES ('model', ?)", (json.dumps(asdict(model)),))

    def add_root(self, root: bytes) -> None:
        """Remember a folder or file (absolute) that was indexed; roots below it are no longer needed."""
        known = self.roots()
        if any(is_below(root, other) for other in known):
            return
        for other in known:
            if is_below(other, root):
                self._execute("DELETE FROM roots WHERE path = ?", (self._stored(other),))
        self._execute("INSERT INTO roots VALUES (?)", (self._stored(root),))

    def append(self, vectors: npt.NDArray[np.float32]) -> range:
        """Append (B, D) unit rows to the matrix; the row numbers they got."""
        model = self.model()
        if model is None or vectors.shape[1] != model.dim:
            raise ValueError(f"vectors of shape {vectors.shape} for model {model}")
        file = self._open_matrix(model.dim)
        first = self._rows_written
        file.write(vectors.astype("<f2").tobytes())
        self._rows_written += len(vectors)
        return range(first, self._rows_written)

    def put(self, record: Record) -> None:
        """Add or replace the record of one path; the row that it had before is dead unless it keeps it."""
        self._bury(record.path, keep=record.row)
        self._execute(
            "INSERT OR REPLACE INTO images VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                self._stored(record.path),
                record.row,
                record.size,
                record.mtime_ns,
                record.hash,
                record.width,
                record.height,
                record.taken_at,
                record.error,
            ),
        )

    def move(self, old: bytes, record: Record) -> None:
        """Give the row of `old` to `record`, and forget `old`."""
        self._execute("DELETE FROM images WHERE path = ?", (self._stored(old),))
        self.put(record)

    def remove(self, paths: Iterable[bytes]) -> None:
        """Forget files; their rows are dead."""
        for path in paths:
            self._bury(path, keep=None)
            self._execute("DELETE FROM images WHERE path = ?", (self._stored(path),))

    def commit(self) -> None:
        """A checkpoint: flush the rows, then commit their records."""
        if self._file:
            self._flush(self._file)
        with _guarded(self.folder):
            self._database.commit()

    def compact(self) -> None:
        """Rewrite the matrix without its dead rows if they are more than a quarter of it. Commits."""
        self.commit()
        matrix, alive = self.matrix()
        if alive is None or (len(matrix) - alive.sum()) <= _DEAD_SHARE * len(matrix):
            return
        # 1. The new matrix, complete and flushed, under a name of its own.
        kept = np.flatnonzero(alive)
        with (self.folder / _REWRITTEN).open("wb") as file:
            file.write(_header(len(kept), matrix.shape[1]))
            for start in range(0, len(kept), 65536):
                file.write(matrix[kept[start : start + 65536]].tobytes())
            _sync(file)
        # 2. In one transaction its row numbers, and that it is the matrix from now on. Numbers only fall, so going
        #    upwards never meets one that is still taken.
        for new, old in enumerate(kept.tolist()):
            if new != old:
                self._execute("UPDATE images SET row = ? WHERE row = ?", (new, old))
        self._execute("DELETE FROM dead")
        self._execute("INSERT OR REPLACE INTO meta VALUES ('renaming', 'yes')")
        with _guarded(self.folder):
            self._database.commit()
        # 3. The usual name.
        if self._file:
            self._file.close()
            self._file = None
        self._finish_renaming()
        self._rows_written = self.committed_rows()

    def _finish_renaming(self) -> None:
        rewritten = self.folder / _REWRITTEN
        if self._meta("renaming"):
            if rewritten.exists():
                rewritten.replace(self.folder / _MATRIX)
            self._execute("DELETE FROM meta WHERE key = 'renaming'")
            with _guarded(self.folder):
                self._database.commit()
        else:
            rewritten.unlink(missing_ok=True)

    def _open_matrix(self, dim: int) -> BinaryIO:
        """The matrix file, at the end of its committed rows."""
        if self._file is None:
            path = self.folder / _MATRIX
            if self._rows_written:
                self._map()  # complains if it is missing or short
                self._file = path.open("r+b")
            else:
                self._file = path.open("w+b")
                self._file.write(_header(0, dim))
            self._file.truncate(_HEADER_BYTES + self._rows_written * dim * 2)
            self._file.seek(0, os.SEEK_END)
        return self._file

    def _flush(self, file: BinaryIO) -> None:
        _sync(file)
        model = self.model()
        file.seek(0)
        file.write(_header(self._rows_written, model.dim if model else 0))
        _sync(file)
        file.seek(0, os.SEEK_END)

    def _bury(self, path: bytes, keep: int | None) -> None:
        for (row,) in self._rows("SELECT row FROM images WHERE path = ?", (self._stored(path),)):
            if row is not None and row != keep:
                self._execute("INSERT OR IGNORE INTO dead VALUES (?)", (row,))

    def _execute(self, sql: str, values: Sequence[object] = ()) -> None:
        with _guarded(self.folder):
            self._database.execute(sql, values)


def mismatch(folder: Path, known: ModelRecord, wanted: str) -> str:
    """The message for an index of one model met with another."""
    return (
        f"The index in {folder} was made with model {known.name}, not {wanted}: vectors of two models cannot be "
        f"compared.\nGo on with its model (--model {known.name}), or make a second index with --index DIR."
    )


def _sync(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())


def _connect(path: Path, mode: str) -> sqlite3.Connection:
    with _guarded(path.parent):
        uri = f"{path.absolute().as_uri()}?mode={mode}"
        return sqlite3.connect(uri, uri=True, timeout=_BUSY_SECONDS)


def _damaged(folder: Path, what: str) -> IndexDamagedError:
    return IndexDamagedError(
        f"The index in {folder} is damaged: {what}.\nYour images are untouched. Make the index anew: delete {folder} "
        "and run: clipsearch index PATH"
    )


@contextmanager
def _guarded(folder: Path) -> Iterator[None]:
    """Turn SQLite's errors into ours."""
    try:
        yield
    except sqlite3.OperationalError as error:
        if "locked" in str(error):
            raise IndexLockedError(f"The index in {folder} is in use: {error}. Try again.") from error
        if "readonly" in str(error) or "unable to open" in str(error) or "full" in str(error):
            raise ClipsearchError(
                f"Cannot write the index in {folder}: {error}. Check space and permissions."
            ) from error
        raise _damaged(folder, f"{_DATABASE}: {error}") from error
    except sqlite3.DatabaseError as error:
        raise _damaged(folder, f"{_DATABASE}: {error}") from error
