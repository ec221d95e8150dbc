"""Writing the records of an index: its model, its roots, and the record of each file. Knows nothing of vectors."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from clipsearch.errors import InputError
from clipsearch.images.codecs.dates import NAME, taken_by_name
from clipsearch.images.parts import Part
from clipsearch.index.format import (
    ARCHIVES,
    RECORD,
    ArchiveState,
    Folder,
    ModelRecord,
    Record,
    guarded,
    mismatch,
    version_of,
)
from clipsearch.index.reading import Store
from clipsearch.system.interrupts import shielded
from clipsearch.system.members import on_disk
from clipsearch.system.paths import is_below

_BURY = "INSERT INTO dead SELECT row, hash, width, height, taken_at, date_source, damage FROM images"


class RecordWriter(Store):
    """The records of an index that is open for writing.

    If a change fails half way, nothing since the last commit may be committed, because rows without records would shift
    those that follow. `sound` is then False, and the index has to be opened again.
    """

    def __init__(self, folder: Path, database: sqlite3.Connection) -> None:
        super().__init__(folder, lambda: database)
        self.sound = True
        """Whether no change has failed so far."""

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

    def set_part(self, part: Part) -> None:
        """Record the part of its roots that the index holds.

        Raises:
            InputError: the index holds another part, or whole folders.
        """
        known = self.part()
        if known == part:
            return
        if known or self.roots() or self.committed_rows():
            holds = f"part {known}" if known else "all pictures"
            raise InputError(
                f"The index in {self.folder} holds {holds} of its folders, not part {part}.", hint="other-part"
            )
        with self._changing():
            self._set_meta("part", json.dumps(part._asdict()))

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
            self._note_format()

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

    # -- archives ----------------------------------------------------------------------------------------------

    def archive(self, inside: bytes) -> ArchiveState | None:
        """Return what is recorded of the archive whose inside has this absolute path; None if there is nothing."""
        if not self._has_archives():
            return None
        found = self.sql("SELECT * FROM archives WHERE path = ?", (self._paths.stored(inside),))
        return ArchiveState(inside, *found[0][1:]) if found else None

    def set_archives(self, start: bytes, archives: Iterable[ArchiveState]) -> None:
        """Record these archives, and forget all others at and below `start` (absolute) that are gone."""
        found = list(archives)
        if not found and not self._has_archives():
            return
        with self._changing():
            self._execute(ARCHIVES)
            for path, *rest in found:
                self._execute(
                    "INSERT OR REPLACE INTO archives VALUES (?, ?, ?, ?, ?, ?, ?, ?)", (self._paths.stored(path), *rest)
                )
        self._forget_archives(start, lambda inside: not os.path.exists(on_disk(inside)))

    def _forget_archives(self, start: bytes, may_go: Callable[[bytes], bool] = lambda _inside: True) -> None:
        if not self._has_archives():
            return
        for where, values in self._paths.ranges(start):
            for (path,) in self.sql(f"SELECT path FROM archives WHERE {where}", values):  # noqa: S608  (our own words)
                if may_go(self._paths.absolute(path)):
                    with self._changing():
                        self._execute("DELETE FROM archives WHERE path = ?", (path,))

    def _has_archives(self) -> bool:
        return bool(self.sql("SELECT 1 FROM sqlite_master WHERE name = 'archives'"))

    # -- records -----------------------------------------------------------------------------------------------

    def record(self, path: bytes) -> Record | None:
        """Return the record of a file, given its absolute path; None if there is none."""
        found = self.sql(f"SELECT {RECORD} FROM images WHERE path = ?", (self._paths.stored(path),))  # noqa: S608
        return Record(path, *found[0][1:]) if found else None

    def put(self, record: Record) -> None:
        """Write a record, replacing any other of its path, whose row is then dead."""
        with self._changing():
            self._put(record)

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

    # -- how ---------------------------------------------------------------------------------------------------

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

    def _note_format(self) -> None:
        """Record the format that what the index has needs."""
        needed = version_of(self.roots(), regions=bool(self.meta("regions")), codes=bool(self.meta("codes")))
        if self.meta("format") != str(needed):
            self._execute("UPDATE meta SET value = ? WHERE key = 'format'", (str(needed),))

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
