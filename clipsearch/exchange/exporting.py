"""Exports an index to files for other programs. Knows nothing of models."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from clipsearch.exchange.writing import Row, VectorFiles
from clipsearch.index.filters import FilterArguments
from clipsearch.index.format import ModelRecord, Record
from clipsearch.index.reading import Store
from clipsearch.index.selection import filters_of, select
from clipsearch.unit import Matrix

if TYPE_CHECKING:
    from typing import Unpack

COLUMNS: dict[str, type] = {
    "row": int,
    "path": bytes,
    "width": int,
    "height": int,
    "bytes": int,
    "taken_at": str,
    "date_source": str,
    "mtime_ns": int,
    "hash": str,
}
"""The columns of the file with names, and the types of their values."""
_BLOCK_ROWS = 8192
"""Number of rows written at a time."""


def about_model(model: ModelRecord) -> dict[str, object]:
    """Return the facts about a model for the JSON file beside vectors."""
    return {"model": model.name, "revision": model.revision, "fingerprint": model.fingerprint}


def export(
    store: Store,
    target: Path,
    *,
    names: str = "csv",
    dtype: str = "float32",
    replace: bool = False,
    **filters: Unpack[FilterArguments],
) -> tuple[int, int]:
    """Write the vectors of an index to files, in the order of their paths' bytes, with the records of the images.

    FILE.npy gets (N, D) unit vectors, the names go to FILE.csv, .jsonl or .parquet, and the model to FILE.json. Memory
    does not grow with the vectors.

    Args:
        store: the opened index.
        target: FILE.npy, or a folder; see `VectorFiles`.
        names: csv, jsonl or parquet.
        dtype: float16 as in the index, or float32, normalised again.
        replace: whether to replace existing files.
        filters: which images are exported; as for `Index.search`.

    Returns:
        (N, D); if no image fulfils the filters, nothing is written and N is 0.

    Raises:
        InputError: a file exists already or cannot be written, or a filter is invalid.
        IndexDamagedError: the index contradicts itself.
    """
    wanted = filters_of(filters, store)
    with VectorFiles(target, COLUMNS, names=names, dtype=dtype, replace=replace) as files:
        # 1. Write the names. Only this is done in the snapshot, for which writers wait: rows of the mapped matrix do
        # not
        #    change, even if the index is rewritten.
        with store.snapshot():
            model = store.model()
            selection = select(store, wanted)
            rows = np.empty(len(selection.matrix), np.int64)
            count = 0
            for block in _blocks(selection.records(store)):
                rows[count : count + len(block)] = [record.row or 0 for record in block]  # no row is None here
                files.add_names([_row(number, record) for number, record in enumerate(block, count)])
                count += len(block)
        if model is None or not count:
            return 0, selection.matrix.shape[1]
        # 2. Write the vectors.
        for start in range(0, count, _BLOCK_ROWS):
            files.add_vectors(_vectors(selection.matrix, rows[start : min(start + _BLOCK_ROWS, count)], dtype))
        files.finish(about_model(model))
        return count, selection.matrix.shape[1]


def _blocks(records: Iterator[Record]) -> Iterator[list[Record]]:
    while block := list(islice(records, _BLOCK_ROWS)):
        yield block


def _row(number: int, record: Record) -> Row:
    return {
        "row": number,
        "path": record.path,
        "width": record.width,
        "height": record.height,
        "bytes": record.size,
        "taken_at": record.taken_at,
        "date_source": record.date_source,
        "mtime_ns": record.mtime_ns,
        "hash": record.hash.hex() if record.hash else None,
    }


def _vectors(matrix: Matrix, rows: npt.NDArray[np.int64], dtype: str) -> npt.NDArray[np.float16 | np.float32]:
    if dtype == "float16":
        return np.asarray(matrix[rows])
    vectors = matrix[rows].astype(np.float32)
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True))
