"""The .npy files of an index, to which its writer only appends rows. Knows nothing of records."""

from __future__ import annotations

import mmap
import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from clipsearch.errors import IndexDamagedError
from clipsearch.index.format import DATABASE, EMBEDDINGS, HEADER_BYTES, ArrayFile, damaged, guarded, header
from clipsearch.system.flushing import sync, sync_folder
from clipsearch.unit import Matrix, are_unit

_BLOCK_ROWS = 256
"""Number of rows converted to float32 at a time; they fit into the cache of a core."""
_COPY_ROWS = 65_536
"""Number of rows copied at a time."""


class MatrixFile:
    """A file of an index, opened for writing when it is needed. The caller handles errors of the disk."""

    def __init__(self, folder: Path, kind: ArrayFile = EMBEDDINGS) -> None:
        self.rows = 0
        """Number of rows written, committed or not. Any bytes after them are a leftover."""
        self._path = folder / kind.name
        self._kind = kind
        self._file: BinaryIO | None = None

    @property
    def is_open(self) -> bool:
        """Whether the file is open for writing."""
        return self._file is not None

    def open(self, columns: int) -> BinaryIO:
        """Open the file, truncated after its rows of so many numbers. Without rows, a new file is made."""
        if self._file is None:
            self._file = self._path.open("r+b" if self.rows else "w+b", buffering=0)
            # In this order, so that the header never names more rows than there are.
            _write_all(self._file, header(self.rows, columns, self._kind.descr), 0)
            if self.rows:
                self._file.truncate(self._end(columns))
            else:
                sync_folder(self._path.parent)
        return self._file

    def close(self) -> None:
        """Close the file; the next use opens it again."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def tidy(self, columns: int) -> None:
        """Make length and header of an existing file agree with its number of rows."""
        with self._path.open("rb") as file:
            length = os.fstat(file.fileno()).st_size
            right = file.read(HEADER_BYTES) == header(self.rows, columns, self._kind.descr)
        if not right or length != self._end(columns):
            self.open(columns)

    def append(self, rows: bytes | memoryview, columns: int) -> int:
        """Append rows of so many numbers and return the number of the first one."""
        first = self.rows
        _write_all(self.open(columns), rows, self._end(columns))
        self.rows += len(rows) // self._kind.row_bytes(columns)
        return first

    def read(self, first: int, number: int, columns: int) -> bytes:
        """Read rows of so many numbers, committed or not."""
        return read_rows(self.open(columns), first, number, self._kind.row_bytes(columns))

    def flush(self, columns: int) -> None:
        """Flush all rows to the disk, and then the header with their number."""
        if self._file is not None:
            sync(self._file.fileno())
            # The number in the header is for other programs. It is written after the rows, so it is never too large.
            _write_all(self._file, header(self.rows, columns, self._kind.descr), 0)
            sync(self._file.fileno())

    def _end(self, columns: int) -> int:
        """Return the number of bytes up to the end of the last row."""
        return HEADER_BYTES + self.rows * self._kind.row_bytes(columns)


def read_rows(file: BinaryIO, first: int, number: int, row_bytes: int) -> bytes:
    """Read rows; fewer bytes if the file ends before."""
    file.seek(HEADER_BYTES + first * row_bytes)
    return file.read(number * row_bytes)


def opened(folder: Path, kind: ArrayFile, *, renaming: bool) -> BinaryIO | None:
    """Open the file of the last commit for reading; None if it is missing.

    With `renaming`, a compacted file that is not renamed yet is the valid one.
    """
    # If it vanishes meanwhile, it has been renamed.
    waiting = _opened(folder / kind.new_name) if renaming else None
    return waiting or _opened(folder / kind.name)


Maps = dict[str, tuple[tuple[int, ...], npt.NDArray[Any]]]
"""By the name of a file, what was mapped of it last: which file that was, with rows and columns, and the numbers."""


def mapped(
    folder: Path, kind: ArrayFile, rows: int, columns: int, *, renaming: bool, kept: Maps | None = None
) -> npt.NDArray[Any]:
    """Map the committed (rows, columns) numbers of a file into memory.

    A reader passes what it has `kept`, which stays mapped as long as it is the same file: so the next search need not
    find the pages of a large file again. Threads may share it. Windows does not let a mapped file be replaced, so
    nothing is kept there.

    Raises:
        IndexDamagedError: the file is missing or shorter than the database says.
    """
    if not rows:
        return np.empty((0, columns), kind.descr)
    file = opened(folder, kind, renaming=renaming)
    if file is None:
        raise damaged(folder, f"{kind.name} is missing")
    with file, guarded(folder):
        status = os.fstat(file.fileno())
        if status.st_size < HEADER_BYTES + rows * kind.row_bytes(columns):
            raise damaged(folder, f"{kind.name} is shorter than the {rows} rows that {DATABASE} names")
        key = (status.st_dev, status.st_ino, rows, columns)  # no other file has this number as long as it is mapped
        known = kept.get(kind.name) if kept is not None else None
        if known is not None and known[0] == key:
            return known[1]
        found = np.memmap(file, kind.descr, "r", HEADER_BYTES, (rows, columns))
        if kept is not None and sys.platform != "win32":
            kept[kind.name] = key, found
        return found


def announce(mapping: npt.NDArray[Any], rows: npt.NDArray[np.int64]) -> None:
    """Have the system begin to read these rows, in increasing order, of a file that `mapped` has mapped.

    A row that is touched and not in memory is waited for, and the system reads what is around it, too: up to megabytes,
    for a page of 4 KB. What is announced is read alone, and many reads are under way at the same time. Where a system
    cannot be told, nothing happens; so this is for few rows far from each other.
    """
    known = getattr(mapping, "_mmap", None)
    if known is None or not len(rows) or not hasattr(mmap, "MADV_WILLNEED"):
        return
    row_bytes = mapping.shape[1] * mapping.itemsize
    at = HEADER_BYTES + rows * row_bytes
    first, after = at // mmap.PAGESIZE, (at + row_bytes - 1) // mmap.PAGESIZE + 1
    alone = first[1:] > after[:-1]  # pages that follow one another are announced together
    firsts, afters = first[np.concatenate([[True], alone])], after[np.concatenate([alone, [True]])]
    with suppress(OSError):  # this is advice: whatever is wrong with the file shows when it is read
        for start, size in zip(
            (firsts * mmap.PAGESIZE).tolist(), ((afters - firsts) * mmap.PAGESIZE).tolist(), strict=True
        ):
            known.madvise(mmap.MADV_WILLNEED, start, size)


def broken(matrix: Matrix, alive: npt.NDArray[np.bool_] | None) -> list[int]:
    """Return the rows that are alive and not unit vectors."""
    wrong: list[int] = []
    for start in range(0, len(matrix), _BLOCK_ROWS):
        bad = ~are_unit(matrix[start : start + _BLOCK_ROWS])
        if alive is not None:
            bad &= alive[start : start + len(bad)]
        wrong += (np.flatnonzero(bad) + start).tolist()
    return wrong


def write_rows(path: Path, matrix: npt.NDArray[Any], rows: npt.NDArray[np.int64], descr: str) -> None:
    """Write some rows of a matrix to a .npy file and flush it."""
    with path.open("w+b", buffering=0) as file:
        at = _write_all(file, header(len(rows), matrix.shape[1], descr), 0)
        for start in range(0, len(rows), _COPY_ROWS):
            at = _write_all(file, matrix[rows[start : start + _COPY_ROWS]].tobytes(), at)
        sync(file.fileno())


def _opened(path: Path) -> BinaryIO | None:
    try:
        return path.open("rb")
    except FileNotFoundError:
        return None
    except OSError as error:
        raise IndexDamagedError(f"Cannot read {path}: {error.strerror}.") from error


def _write_all(file: BinaryIO, content: bytes | memoryview, at: int) -> int:
    """Write all of `content` at an offset of an unbuffered file, and return the offset of its end."""
    file.seek(at)
    view = memoryview(content)
    while view:
        written = file.write(view)
        view, at = view[written:], at + written
    return at
