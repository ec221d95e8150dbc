"""Writing an index: append, record, commit, compact. The last commit survives any failure."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from clipsearch.errors import InputError
from clipsearch.images.dates import NAME, taken_by_name
from clipsearch.index.connections import connect
from clipsearch.index.creating import create, discard_if_empty, upgrade
from clipsearch.index.format import (
    DATABASE,
    FORMAT,
    MATRIX,
    NEW_MATRIX,
    RECORD,
    Folder,
    ModelRecord,
    Record,
    guarded,
    mismatch,
)
from clipsearch.index.locking import lock
from clipsearch.index.matrix_file import MatrixFile, read_row, write_rows
from clipsearch.index.reading import Store
from clipsearch.system.flushing import sync_folder
from clipsearch.system.interrupts import shielded
from clipsearch.system.paths import is_below, spellings
from clipsearch.unit import are_unit

_DEAD_SHARE = 0.25
"""The matrix is rewritten when more than this share of its rows is dead."""
_COPY_ROWS = 65_536
"""Number of records updated in one transaction."""
_BUSY_SECONDS = 120
"""How long a commit waits for queries, each of which takes well under a second unless its process is suspended."""

_BURY = "INSERT INTO dead SELECT row, hash, width, height, taken_at, date_source, damage FROM images"


class Writer(Store):
    """An index opened for writing, by one thread. Changes are visible to others after `commit`.

    If a change fails half way, nothing since the last commit may be committed, because rows without records would shift
    those that follow. `sound` is then False, and the index has to be opened again.
    """

    def __init__(self, folder: Path, database: sqlite3.Connection) -> None:
        super().__init__(folder, lambda: database)
        self.sound = True
        """Whether no change has failed so far."""
        self.created = False
        """Whether this writer has created the index."""
        self._matrix = MatrixFile(folder)

    @classmethod
    @contextmanager
    def locked(cls, folder: Path, *, wait: float = 0) -> Iterator[Writer]:
        """Open or create the index in `folder` for writing, as the only process.

        Another writer is waited for up to `wait` seconds. A new index is removed again if an error ends the context
        before anything was recorded.

        Raises:
            IndexLockedError: another process is still writing.
            IndexWriteError: the folder cannot be written.
            IndexDamagedError: the index cannot be read, or its format is newer.
        """
        with lock(folder, wait) as made:
            created = not cls.exists(folder)
            try:
                if created:
                    create(folder)
                with closing(cls(folder, connect(folder / DATABASE, "rw", _BUSY_SECONDS))) as writer:
                    writer.created = created
                    writer._prepare()  # noqa: SLF001  (its own class)
                    yield writer
            except BaseException:
                if created:
                    discard_if_empty(folder, made)
                raise

    def close(self) -> None:
        """Close the files without committing."""
        self._database.rollback()
        self._matrix.close()
        super().close()

    # -- what an index is about --------------------------------------------------------------------------------

    def set_model(self, model: ModelRecord) -> None:
        """Record the model that makes the vectors.

        Raises:
            ModelMismatchError: the index holds vectors of another model.
        """
        known = self.bound_model()
        if known is not None and known.fingerprint != model.fingerprint:
            raise mismatch(self.folder, known, model.name)
        with self._changing():
            self._set_meta("model", json.dumps(asdict(model)))

    def set_last_run(self, run: dict[str, Any]) -> None:
        """Record the run that is writing."""
        with self._changing():
            self._set_meta("last_run", json.dumps(run))

    def set_root(self, root: bytes, options: dict[str, Any]) -> None:
        """Record a folder or file (absolute) that was indexed, and its options, in place of all roots below it.

        Nothing is recorded if it lies below another root.
        """
        known = [other.path for other in self.roots()]
        if any(other != root and is_below(root, other) for other in known):
            return
        with self._changing():
            for other in known:
                if is_below(other, root):
                    self._execute("DELETE FROM roots WHERE path = ?", (self._paths.stored(other),))
            self._execute("INSERT INTO roots VALUES (?, ?)", (self._paths.stored(root), json.dumps(options)))

    def set_folders(self, root: bytes, folders: Iterable[Folder]) -> None:
        """Record these folders in place of all others at and below `root` (absolute)."""
        with self._changing():
            self._forget_folders(root)
            for path, *rest in folders:
                self._execute("INSERT INTO folders VALUES (?, ?, ?, ?)", (self._paths.stored(path), *rest))

    def rename(self, place: bytes, name: bytes) -> None:
        """Rename the records at and below `place` to the `name` that it has in another root (both absolute).

        `place` is no root any more. If there is a record with the new name, it is kept unless only the renamed one is
        that of an image.
        """
        with self._changing():
            for old in list(self.records(place)):
                new = name + old.path[len(place) :]
                there = self.record(new)
                self._delete("path = ?", (self._paths.stored(old.path),))
                if there is None or (there.row is None and old.row is not None):
                    self._put(old._replace(path=new))
            self._forget_folders(place)
            self._execute("DELETE FROM roots WHERE path = ?", (self._paths.stored(place),))

    def forget(self, roots: Sequence[bytes]) -> list[int]:
        """Delete roots, or folders whose missing images are kept, with all records below them, and commit.

        The paths are absolute, and may be any names that lead to them. Returns the number of images that each held.

        Raises:
            InputError: a path is neither. Then none is deleted.
        """
        known = {root.path for root in self.roots()}
        kept = [folder for folder in self.folders() if folder.kept]

        def may_go(path: bytes) -> bool:
            return path in known or any(is_below(path, folder.path) for folder in kept)

        roots = [next(filter(may_go, spellings(root, sorted(known))), root) for root in roots]
        for root in roots:
            if not may_go(root):
                names = ", ".join(os.fsdecode(path) for path in sorted(known)) or "none"
                said = f"{os.fsdecode(root)} is not among the folders that were indexed: {names}."
                raise InputError(said, hint="leave-out")
        images = [self.count(root) for root in roots]
        with self._changing():
            for root in roots:
                for where, values in self._paths.ranges(root):
                    self._delete(where, values)
                self._execute("DELETE FROM roots WHERE path = ?", (self._paths.stored(root),))
                self._forget_folders(root)
            for folder in self.folders():
                gone = sum(number for root, number in zip(roots, images, strict=True) if is_below(root, folder.path))
                if folder.kept and gone:
                    left = max(0, folder.kept - gone)
                    self._execute(
                        "UPDATE folders SET kept = ?, away = away AND ? WHERE path = ?",
                        (left, left > 0, self._paths.stored(folder.path)),
                    )
        self.compact()
        return images

    # -- records -----------------------------------------------------------------------------------------------

    def record(self, path: bytes) -> Record | None:
        """Return the record of a file, given its absolute path; None if there is none."""
        found = self.sql(f"SELECT {RECORD} FROM images WHERE path = ?", (self._paths.stored(path),))  # noqa: S608
        return Record(path, *found[0][1:]) if found else None

    def same_content(self, digest: bytes) -> list[Record]:
        """Return the records of images with this content; those of deleted ones whose row exists have an empty path.

        Images whose rows are not unit vectors are left out, because they have to be embedded again.
        """
        living = self.sql(f"SELECT {RECORD} FROM images WHERE hash = ? AND row IS NOT NULL", (digest,))  # noqa: S608
        columns = "row, 0, 0, hash, width, height, taken_at, NULL, NULL, NULL, date_source, damage"
        dead = self.sql(f"SELECT {columns} FROM dead WHERE hash = ?", (digest,))  # noqa: S608
        found = [
            *(Record(self._paths.absolute(path), *rest) for path, *rest in living),
            *(Record(b"", *rest) for rest in dead),
        ]
        return [record for record in found if record.row is not None and self._is_vector(record.row)]

    def _is_vector(self, row: int) -> bool:
        """Whether a row, committed or not, is a unit vector."""
        model = self.model()
        if model is None:
            return False
        with guarded(self.folder):
            if self._matrix.is_open:
                content = self._matrix.row(row, model.dim)
            elif file := self.open_matrix():
                with file:
                    content = read_row(file, row, model.dim)
            else:
                return False
        numbers = np.frombuffer(content, np.float16)
        return len(numbers) == model.dim and bool(are_unit(numbers[np.newaxis])[0])

    def add(self, records: Sequence[Record], vectors: npt.NDArray[np.float32]) -> None:
        """Append (B, D) unit vectors to the matrix, and write the records of their B images with the new rows."""
        model = self.model()
        if model is None or vectors.shape != (len(records), model.dim):
            raise ValueError(f"vectors of shape {vectors.shape} for {len(records)} records and model {model}")
        with self._changing():
            first = self._open_matrix(model.dim).append(np.ascontiguousarray(vectors, np.float16).tobytes(), model.dim)
            for row, record in enumerate(records, first):
                self._put(record._replace(row=row))

    def add_copy(self, record: Record) -> None:
        """Write `record` with a new row, which is a copy of its `row`."""
        model = self.model()
        if model is None or record.row is None:
            raise ValueError(f"no row to copy: {record}")
        with self._changing():
            matrix = self._open_matrix(model.dim)
            self._put(record._replace(row=matrix.append(matrix.row(record.row, model.dim), model.dim)))

    def put(self, record: Record) -> None:
        """Write a record, replacing any other of its path, whose row is then dead."""
        with self._changing():
            self._put(record)

    def fill_in(self, statuses: Iterable[tuple[bytes, int | None, int | None]]) -> None:
        """Write `ctime_ns` and `inode` of files (absolute) whose records, of an older format, lack them, and commit."""
        sql = "UPDATE images SET ctime_ns = ?, inode = ? WHERE path = ?"
        waiting = iter(statuses)
        while block := list(islice(waiting, _COPY_ROWS)):  # a transaction has to fit into memory
            with self._changing():
                self._database.executemany(sql, ((*known, self._paths.stored(path)) for path, *known in block))
            self.commit()

    def move(self, old: bytes, record: Record) -> None:
        """Write `record`, which takes over the row of the path `old`, and delete the record of that."""
        with self._changing():
            self._execute("DELETE FROM images WHERE path = ?", (self._paths.stored(old),))
            self._put(record)

    def remove(self, paths: Iterable[bytes]) -> None:
        """Delete the records of these paths; their rows are then dead."""
        with self._changing():
            for path in paths:
                self._delete("path = ?", (self._paths.stored(path),))

    # -- commit ------------------------------------------------------------------------------------------------

    def commit(self) -> None:
        """Flush the rows to the disk, and then commit their records."""
        with self._changing():
            model = self.model()
            self._matrix.flush(model.dim if model else 0)
            self._database.commit()

    def compact(self) -> None:
        """Commit, and rewrite the matrix without its dead rows if they are more than a quarter of it."""
        self.commit()
        matrix, alive = self.matrix()
        if alive is None or (len(matrix) - alive.sum()) <= _DEAD_SHARE * len(matrix):
            return
        # 1. Write and flush the new matrix under another name. Before step 2 is committed, it is a leftover.
        kept = np.flatnonzero(alive)
        try:
            with guarded(self.folder):
                write_rows(self.folder / NEW_MATRIX, matrix, kept)
                sync_folder(self.folder)
        except BaseException:
            with suppress(OSError):
                (self.folder / NEW_MATRIX).unlink()  # to free space on a full disk
            raise
        # 2. Commit, in one transaction, the new row numbers and that the new matrix is valid. Numbers only decrease, so
        #    in increasing order each new number is free.
        with self._changing():
            for new, old in enumerate(kept.tolist()):
                if new != old:
                    self._execute("UPDATE images SET row = ? WHERE row = ?", (new, old))
            self._execute("DELETE FROM dead")
            self._set_meta("renaming", "yes")
            self._database.commit()
            # 3. Rename the matrix.
            self._matrix.close()
            self._finish_renaming()
            self._matrix.rows = self.committed_rows()

    # -- how ---------------------------------------------------------------------------------------------------

    def _prepare(self) -> None:
        """Upgrade an older format, and clean up after a crash."""
        with guarded(self.folder):
            # EXTRA, because files are renamed after a commit, which a later power cut must not undo.
            self._database.execute("PRAGMA synchronous = EXTRA")
            self._database.execute("PRAGMA fullfsync = ON")
            # Otherwise a long transaction would spill to the file early and lock out readers until its end.
            self._database.execute("PRAGMA cache_spill = OFF")
        older = self.format()
        with self._changing():
            if older < FORMAT:
                upgrade(self._database, older)
            self._finish_renaming()
            self._matrix.rows = self.committed_rows()
            model = self.model()
            used = self._matrix.rows or (self.folder / MATRIX).exists()
            if model and used:
                self._map()  # raises an error if the matrix is missing or short
                if not self._matrix.is_tidy(model.dim):
                    self._matrix.open(model.dim)

    @contextmanager
    def _changing(self) -> Iterator[None]:
        """Make a change as a whole: signals are delayed, and after a failure nothing is ever committed."""
        if not self.sound:
            raise RuntimeError("an earlier change failed half way; open the index again")
        with shielded(), guarded(self.folder):
            try:
                yield
            except BaseException:
                self.sound = False
                self._database.rollback()
                raise

    def _open_matrix(self, dim: int) -> MatrixFile:
        """Open the matrix file, truncated after its committed rows."""
        if self._matrix.rows and not self._matrix.is_open:
            self._map()  # raises an error if the matrix is missing or short
        self._matrix.open(dim)
        return self._matrix

    def _finish_renaming(self) -> None:
        rewritten = self.folder / NEW_MATRIX
        if self.meta("renaming"):
            if rewritten.exists():
                rewritten.replace(self.folder / MATRIX)
            sync_folder(self.folder)
            self._execute("DELETE FROM meta WHERE key = 'renaming'")
            self._database.commit()
        else:
            rewritten.unlink(missing_ok=True)

    def _forget_folders(self, root: bytes) -> None:
        for folder in self.folders(root):
            self._execute("DELETE FROM folders WHERE path = ?", (self._paths.stored(folder.path),))

    def _put(self, record: Record) -> None:
        # Here, because the content or the name of any record may be new.
        record = _dated_by_name(record)
        path = self._paths.stored(record.path)
        self._execute(f"{_BURY} WHERE path = ? AND row IS NOT NULL AND row IS NOT ?", (path, record.row))
        self._execute("DELETE FROM dead WHERE row = ?", (record.row,))
        values = ", ".join("?" * len(record))
        self._execute(f"INSERT OR REPLACE INTO images ({RECORD}) VALUES ({values})", (path, *record[1:]))  # noqa: S608

    def _delete(self, where: str, values: Sequence[object]) -> None:
        """Delete records; their rows are then dead."""
        self._execute(f"{_BURY} WHERE row IS NOT NULL AND {where}", values)
        self._execute(f"DELETE FROM images WHERE {where}", values)  # noqa: S608

    def _set_meta(self, key: str, value: str) -> None:
        self._execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, value))

    def _execute(self, sql: str, values: Sequence[object] = ()) -> None:
        self._database.execute(sql, values)


def _dated_by_name(record: Record) -> Record:
    """Return `record` with the date in its file's name if its content has none."""
    if record.row is None or (record.taken_at is not None and record.date_source != NAME):
        return record
    at, source = taken_by_name(record.path) or (None, None)
    return record._replace(taken_at=at, date_source=source)
