"""The file with the codes of an index: read by queries, written by the one writer behind the rows of the matrix.

Codes are made from the matrix and can be made again at any time, so nothing is lost with them.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from clipsearch.index.codes import CodeRows, Codes, CodesRecord, code_bytes
from clipsearch.index.format import CODES, noted
from clipsearch.index.matrix_file import MatrixFile, mapped
from clipsearch.index.reading import Store
from clipsearch.unit import Matrix

_BLOCK_ROWS = 4096
"""Number of rows that are encoded at a time; two float32 copies of them take 16 MB."""
_CENTRE_ROWS = 16_384
"""Number of rows, spread evenly, whose mean is the centre."""
_AGAIN = 4
"""If the matrix has this many times the rows that it had when the centre was chosen, all codes are made again. So all
codes together are made at most once more."""


def codes_record(store: Store) -> CodesRecord | None:
    """Return what the index records of its codes; None if it is to have none."""
    return noted(store.folder, "codes", store.meta("codes"), CodesRecord)


def codes_of(store: Store) -> tuple[Codes, CodeRows] | None:
    """Return the codes of the first rows of the last commit; None if the index has none yet.

    They belong to the rows of `Store.matrix` in the same snapshot only.

    Raises:
        IndexDamagedError: the file is missing or shorter than the database says.
    """
    with store.snapshot():
        record, model = codes_record(store), store.model()
        if record is None or model is None or not record.rows:
            return None
        return Codes.of(record), mapped(store.folder, CODES, record.rows, code_bytes(model.dim), renaming=False)


class CodeFile:
    """The codes of an index, opened by its writer, which handles errors of the disk and commits."""

    def __init__(self, folder: Path, record: CodesRecord | None) -> None:
        """Write behind the committed codes."""
        self.record = record
        """What the next commit says of the codes; None if the index is to have none."""
        self._folder = folder
        self._file = MatrixFile(folder, CODES)
        self._file.rows = record.rows if record else 0

    def tidy(self, dim: int) -> None:
        """Delete what is not committed.

        Raises:
            IndexDamagedError: the file is missing or short.
        """
        if self._file.rows:
            mapped(self._folder, CODES, self._file.rows, code_bytes(dim), renaming=False)  # raises the error
            self._file.tidy(code_bytes(dim))
        else:
            self.remove()

    def missing(self, matrix: Matrix) -> Iterator[None]:
        """Append codes until all rows of the matrix have one; yield after each block of rows.

        If the matrix has grown much, the file is begun anew. The old one is deleted, not changed, since queries may
        still read it.
        """
        if self.record is None or not len(matrix):
            return
        if len(matrix) >= _AGAIN * self.record.seen:
            codes = Codes.around(matrix[:: -(-len(matrix) // _CENTRE_ROWS)])
            self.record = CodesRecord(0, codes.centre, len(matrix))
            yield
            self.remove()
        codes = Codes.of(self.record)
        for start in range(self._file.rows, len(matrix), _BLOCK_ROWS):
            made = codes.encode(matrix[start : start + _BLOCK_ROWS])
            self._file.append(made.tobytes(), made.shape[1])
            self.record = self.record._replace(rows=self._file.rows)
            yield

    def flush(self, dim: int) -> None:
        """Flush all codes to the disk."""
        self._file.flush(code_bytes(dim))

    def close(self) -> None:
        """Close the file; the next use opens it again."""
        self._file.close()

    def remove(self) -> None:
        """Delete the file."""
        self._file.close()
        self._file.rows = 0
        (self._folder / CODES.name).unlink(missing_ok=True)
