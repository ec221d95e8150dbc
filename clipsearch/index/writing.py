"""Writing an index: append, record, commit, compact. The last commit survives any failure."""

from __future__ import annotations

import json
import math
import os
import sqlite3
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from itertools import islice
from pathlib import Path

import numpy as np
import numpy.typing as npt

from clipsearch.errors import InputError
from clipsearch.images.regions import layout
from clipsearch.index.code_file import CodeFile, codes_record
from clipsearch.index.codes import CodesRecord
from clipsearch.index.compacting import is_sparse, remove_new, rename_new, write_living
from clipsearch.index.connections import connect
from clipsearch.index.creating import create, discard_if_empty, upgrade
from clipsearch.index.format import (
    DATABASE,
    EMBEDDINGS,
    FORMAT,
    MATRIX,
    RECORD,
    Known,
    Record,
    RegionsRecord,
    guarded,
)
from clipsearch.index.locking import lock
from clipsearch.index.matrix_file import MatrixFile, read_rows
from clipsearch.index.record_writing import RecordWriter
from clipsearch.index.region_files import ImageRegions, RegionFiles
from clipsearch.system.members import MARK, on_disk
from clipsearch.system.paths import is_below, spellings
from clipsearch.unit import are_unit

_COPY_ROWS = 65_536
"""Number of records updated in one transaction."""
_CODES_SECONDS = 5.0
"""Time between two commits while codes are made."""
_BUSY_SECONDS = 120
"""How long a commit waits for queries, each of which takes well under a second unless its process is suspended."""


class Writer(RecordWriter):
    """An index opened for writing, by one thread. Changes are visible to others after `commit`."""

    def __init__(self, folder: Path, database: sqlite3.Connection) -> None:
        super().__init__(folder, database)
        self.created = False
        """Whether this writer has created the index."""
        self.region_side: int | None = None
        """The side of the model's input for the layout of regions; None if the index has no regions."""
        self._matrix = MatrixFile(folder)
        self._regions = RegionFiles(folder, 0)
        self._codes = CodeFile(folder, None)

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
        self._regions.close()
        self._codes.close()
        super().close()

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

        ways = ([*spellings(root, sorted(known)), *spellings(root + MARK, sorted(known))] for root in roots)
        roots = [next(filter(may_go, names), root) for root, names in zip(roots, ways, strict=True)]
        for root in roots:
            if not may_go(root):
                names = ", ".join(os.fsdecode(on_disk(path)) for path in sorted(known)) or "none"
                said = f"{os.fsdecode(root)} is not among the folders that were indexed: {names}."
                raise InputError(said, hint="leave-out")
        images = [self.count(root) for root in roots]
        with self._changing():
            for root in roots:
                for where, values in self._paths.ranges(root):
                    self._delete(where, values)
                self._execute("DELETE FROM roots WHERE path = ?", (self._paths.stored(root),))
                self._forget_folders(root)
                self._forget_archives(root)
            self._note_format()
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
                content = self._matrix.read(row, 1, model.dim)
            elif file := self.open_file(EMBEDDINGS):
                with file:
                    content = read_rows(file, row, 1, EMBEDDINGS.row_bytes(model.dim))
            else:
                return False
        numbers = np.frombuffer(content, np.float16)
        return len(numbers) == model.dim and bool(are_unit(numbers[np.newaxis])[0])

    def add(
        self, records: Sequence[Record], vectors: npt.NDArray[np.float32], regions: Sequence[ImageRegions | None] = ()
    ) -> None:
        """Append (B, D) unit vectors to the matrix, and write the records of their B images with the new rows.

        If the index has regions, `regions` are those of each image; None if it has none.
        """
        model = self.model()
        if model is None or vectors.shape != (len(records), model.dim):
            raise ValueError(f"vectors of shape {vectors.shape} for {len(records)} records and model {model}")
        with self._changing():
            first = self._open_matrix(model.dim).append(np.ascontiguousarray(vectors, np.float16).tobytes(), model.dim)
            for row, record in enumerate(records, first):
                self._put(record._replace(row=row))
            for row, parts in enumerate(regions, first):
                if parts is not None:
                    self._regions.append(row, parts, model.dim)

    def add_copy(self, record: Record) -> Record:
        """Write `record` with a new row, a copy of its `row` and the regions of that, and return what was written."""
        model = self.model()
        if model is None or record.row is None:
            raise ValueError(f"no row to copy: {record}")
        with self._changing():
            matrix = self._open_matrix(model.dim)
            own = record._replace(row=matrix.append(matrix.read(record.row, 1, model.dim), model.dim))
            self._put(own)
        self.copy_regions(record.row, own)
        return own

    def fill_in(self, statuses: Iterable[tuple[bytes, int | None, int | None]]) -> None:
        """Write `ctime_ns` and `inode` of files (absolute) whose records, of an older format, lack them, and commit."""
        sql = "UPDATE images SET ctime_ns = ?, inode = ? WHERE path = ?"
        waiting = iter(statuses)
        while block := list(islice(waiting, _COPY_ROWS)):  # a transaction has to fit into memory
            with self._changing():
                self._database.executemany(sql, ((*known, self._paths.stored(path)) for path, *known in block))
            self.commit()

    # -- regions -----------------------------------------------------------------------------------------------

    def begin_regions(self, side: int) -> None:
        """Record that images have regions from now on; `side` is that of the model's input in pixels."""
        if self.region_side is None:
            with self._changing():
                self.region_side = side
                self._set_optional("regions", RegionsRecord(0, side))

    def drop_regions(self) -> None:
        """Record that the index has no regions; the next commit deletes them."""
        with self._changing():
            self.region_side = None
            self._set_optional("regions", None)

    def lacks_regions(self, image: Record | Known) -> bool:
        """Whether an image should have regions and does not have them."""
        row, width, height = image.row, image.width, image.height
        if self.region_side is None or row is None or not width or not height or self._regions.has(row):
            return False
        return bool(layout(width, height, self.region_side))

    def add_regions(self, record: Record, regions: ImageRegions) -> None:
        """Append the regions of an image that had none."""
        model = self.model()
        if model is None or record.row is None:
            raise ValueError(f"no row to add regions to: {record}")
        with self._changing():
            self._regions.append(record.row, regions, model.dim)

    def copy_regions(self, source: int, record: Record) -> None:
        """Give an image, if it lacks regions, those of the row `source`, which has the same content."""
        model = self.model()
        if model and record.row is not None and self.lacks_regions(record):
            with self._changing():
                self._regions.copy(source, record.row, model.dim)

    # -- codes -------------------------------------------------------------------------------------------------

    def want_codes(self, *, wanted: bool) -> None:
        """Record whether the rows of the index are to have codes.

        `make_codes` makes them; the next commit deletes those that are not wanted.
        """
        if wanted != (self._codes.record is not None):
            with self._changing():
                self._codes.record = CodesRecord() if wanted else None

    def make_codes(self) -> None:
        """Make the codes that are wanted and missing, and commit them."""
        matrix, _ = self.matrix()
        missing = self._codes.missing(matrix)
        committed = -math.inf
        while True:
            with self._changing():
                done = next(missing, self) is self
            if done or time.monotonic() - committed > _CODES_SECONDS:
                self.commit()
                committed = time.monotonic()
            if done:
                return

    # -- commit ------------------------------------------------------------------------------------------------

    def commit(self) -> None:
        """Flush the rows to the disk, and then commit their records."""
        with self._changing():
            model, known = self.model(), self.regions_record()
            dim = model.dim if model else 0
            self._matrix.flush(dim)
            self._regions.flush(dim)
            self._codes.flush(dim)
            if known and known.rows != self._regions.rows:
                self._set_optional("regions", known._replace(rows=self._regions.rows))
            if self._codes.record != codes_record(self):
                self._set_optional("codes", self._codes.record)
            self._database.commit()
            if known is None and self._regions.rows:  # they have been dropped
                self._regions.remove()
                self._regions = RegionFiles(self.folder, 0)
            if self._codes.record is None:
                self._codes.remove()

    def compact(self) -> None:
        """Commit, and rewrite matrix and regions without dead rows if these are more than a quarter of either."""
        self.commit()
        matrix, alive = self.matrix()
        regions = self.regions()
        if alive is None or not is_sparse(alive, regions):
            return
        # 1. Write and flush the new files under other names. Before step 2 is committed, they are leftovers.
        kept = write_living(self.folder, matrix, alive, regions)
        # 2. Commit, in one transaction, the new row numbers and that the new files are valid. Numbers only decrease, so
        #    in increasing order each new number is free.
        with self._changing():
            for new, old in enumerate(np.flatnonzero(alive).tolist()):
                if new != old:
                    self._execute("UPDATE images SET row = ? WHERE row = ?", (new, old))
            self._execute("DELETE FROM dead")
            if known := self.regions_record():
                self._set_optional("regions", known._replace(rows=kept))
            if self._codes.record:  # rows have other numbers now
                self._codes.record = CodesRecord()
                self._set_optional("codes", self._codes.record)
            self._set_meta("renaming", "yes")
            self._database.commit()
            # 3. Rename the files.
            self._matrix.close()
            self._regions.close()
            self._finish_renaming()
            self._matrix.rows = self.committed_rows()
            self._regions = RegionFiles(self.folder, kept)
            if not kept:  # what was there is no file of this index any more
                self._regions.remove()
            self._codes.remove()

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
            model, regions = self.model(), self.regions_record()
            if model and (self._matrix.rows or (self.folder / MATRIX).exists()):
                self._map()  # raises an error if the matrix is missing or short
                self._matrix.tidy(model.dim)
            if regions is None or not regions.rows:
                self._regions.remove()
            if regions is not None:
                self.region_side = regions.side
                self._regions = RegionFiles(self.folder, regions.rows)
                self._regions.tidy(model.dim if model else 0)
            self._codes = CodeFile(self.folder, codes_record(self))
            self._codes.tidy(model.dim if model else 0)

    def _open_matrix(self, dim: int) -> MatrixFile:
        """Open the matrix file, truncated after its committed rows."""
        if self._matrix.rows and not self._matrix.is_open:
            self._map()  # raises an error if the matrix is missing or short
        self._matrix.open(dim)
        return self._matrix

    def _finish_renaming(self) -> None:
        if self.meta("renaming"):
            rename_new(self.folder)
            self._execute("DELETE FROM meta WHERE key = 'renaming'")
            self._database.commit()
        else:
            remove_new(self.folder)

    def _set_optional(self, key: str, record: RegionsRecord | CodesRecord | None) -> None:
        """Record what the index has of `key`, regions or codes, and the format that this needs."""
        self._execute("DELETE FROM meta WHERE key = ?", (key,))
        if record is not None:
            self._set_meta(key, json.dumps(record._asdict()))
        self._note_format()
