"""An index as files for other programs. Knows nothing of models."""

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
"""Of the names."""
_BLOCK_ROWS = 8192


def about_model(model: ModelRecord) -> dict[str, object]:
    """What files of vectors say of the model that made them."""
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
    """Write the vectors of an index, in the order of their paths' bytes, and what it knows of the images.

    FILE.npy gets (N, D) unit vectors: float16 as they are in the index, or float32 (less the rounding of their length);
    names go to FILE.csv, .jsonl or .parquet, the model to FILE.json. `target` is FILE.npy or a folder (see
    `VectorFiles`). Of images that fulfil all `filters`, see `FilterArguments`. Needs little memory, however many images
    there are. Returns (N, D); where no image passes the filters, nothing is written and N is 0.

    Raises:
        InputError: files are there already, the place cannot be written, or a filter means nothing.
        IndexDamagedError: the index contradicts itself.
    """
    wanted = filters_of(filters, store)
    with VectorFiles(target, COLUMNS, names=names, dtype=dtype, replace=replace) as files:
        # 1. Names, and which rows they have. A writer waits for this, and not for the vectors: rows that are mapped
        #    stay as they are whatever becomes of the index.
        with store.snapshot():
            model = store.model()
            selection = select(store, wanted)
            rows = np.empty(len(selection.matrix), np.int64)
            count = 0
            for block in _blocks(selection.records(store)):
                rows[count : count + len(block)] = [record.row or 0 for record in block]  # none is None
                files.add_names([_row(number, record) for number, record in enumerate(block, count)])
                count += len(block)
        if model is None or not count:
            return 0, selection.matrix.shape[1]
        # 2. Vectors.
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
