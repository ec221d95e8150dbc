"""The matrix file of an index, to which its writer only appends rows. Knows nothing of records."""

from __future__ import annotations

import os
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from clipsearch.index.format import HEADER_BYTES, MATRIX, header
from clipsearch.system.flushing import sync, sync_folder
from clipsearch.unit import Matrix, are_unit

_BLOCK_ROWS = 256
"""Number of rows converted to float32 at a time; they fit into the cache of a core."""
_COPY_ROWS = 65_536
"""Number of rows copied at a time."""


class MatrixFile:
    """The file `embeddings.npy`, opened for writing when it is needed. The caller handles errors of the disk."""

    def __init__(self, folder: Path) -> None:
        self.rows = 0
        """Number of rows written, committed or not. Any bytes after them are a leftover."""
        self._path = folder / MATRIX
        self._file: BinaryIO | None = None

    @property
    def is_open(self) -> bool:
        """Whether the file is open for writing."""
        return self._file is not None

    def open(self, dim: int) -> BinaryIO:
        """Open the file, truncated after its rows of D numbers. Without rows, a new file is made."""
        if self._file is None:
            self._file = self._path.open("r+b" if self.rows else "w+b", buffering=0)
            # In this order, so that the header never names more rows than there are.
            _write_all(self._file, header(self.rows, dim), 0)
            if self.rows:
                self._file.truncate(self._end(dim))
            else:
                sync_folder(self._path.parent)
        return self._file

    def close(self) -> None:
        """Close the file; the next use opens it again."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def is_tidy(self, dim: int) -> bool:
        """Whether length and header of the file agree with the number of rows of D numbers."""
        with self._path.open("rb") as file:
            length = os.fstat(file.fileno()).st_size
            return file.read(HEADER_BYTES) == header(self.rows, dim) and length == self._end(dim)

    def append(self, rows: bytes, dim: int) -> int:
        """Append rows of D float16 numbers and return the number of the first one."""
        first = self.rows
        _write_all(self.open(dim), rows, self._end(dim))
        self.rows += len(rows) // (dim * 2)
        return first

    def row(self, row: int, dim: int) -> bytes:
        """Read a row of D float16 numbers, committed or not."""
        return read_row(self.open(dim), row, dim)

    def flush(self, dim: int) -> None:
        """Flush all rows to the disk, and then the header with their number."""
        if self._file is not None:
            sync(self._file.fileno())
            # The number in the header is for other programs. It is written after the rows, so it is never too large.
            _write_all(self._file, header(self.rows, dim), 0)
            sync(self._file.fileno())

    def _end(self, dim: int) -> int:
        """Return the number of bytes up to the end of the last row."""
        return HEADER_BYTES + self.rows * dim * 2


def read_row(file: BinaryIO, row: int, dim: int) -> bytes:
    """Read a row of D float16 numbers; fewer bytes if the file ends before."""
    file.seek(HEADER_BYTES + row * dim * 2)
    return file.read(dim * 2)


def broken(matrix: Matrix, alive: npt.NDArray[np.bool_] | None) -> list[int]:
    """Return the rows that are alive and not unit vectors."""
    wrong: list[int] = []
    for start in range(0, len(matrix), _BLOCK_ROWS):
        bad = ~are_unit(matrix[start : start + _BLOCK_ROWS])
        if alive is not None:
            bad &= alive[start : start + len(bad)]
        wrong += (np.flatnonzero(bad) + start).tolist()
    return wrong


def write_rows(path: Path, matrix: Matrix, rows: npt.NDArray[np.int64]) -> None:
    """Write some rows of a matrix to a .npy file and flush it."""
    with path.open("w+b", buffering=0) as file:
        at = _write_all(file, header(len(rows), matrix.shape[1]), 0)
        for start in range(0, len(rows), _COPY_ROWS):
            at = _write_all(file, matrix[rows[start : start + _COPY_ROWS]].tobytes(), at)
        sync(file.fileno())


def _write_all(file: BinaryIO, content: bytes, at: int) -> int:
    """Write all of `content` at an offset of an unbuffered file, and return the offset of its end."""
    file.seek(at)
    view = memoryview(content)
    while view:
        written = file.write(view)
        view, at = view[written:], at + written
    return at
