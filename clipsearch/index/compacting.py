"""Writes the files of an index without dead rows, under other names, and gives them their usual names later."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import numpy as np
import numpy.typing as npt

from clipsearch.index.format import ARRAYS, BOXES, EMBEDDINGS, REGIONS, guarded
from clipsearch.index.matrix_file import write_rows
from clipsearch.index.regions import Regions
from clipsearch.system.flushing import sync_folder
from clipsearch.unit import Matrix

_DEAD_SHARE = 0.25
"""Files are rewritten when more than this share of the rows of one of them is dead."""


def is_sparse(alive: npt.NDArray[np.bool_], regions: Regions | None) -> bool:
    """Whether too many rows are dead: of the matrix, of which (rows,) are `alive`, or of the regions."""
    parts = [alive] if regions is None else [alive, alive[regions.images]]
    return any(len(part) - part.sum() > _DEAD_SHARE * len(part) for part in parts)


def write_living(folder: Path, matrix: Matrix, alive: npt.NDArray[np.bool_], regions: Regions | None) -> int:
    """Write and flush, under their new names, the files with the rows that are alive, and return the number of regions.

    Rows keep their order.
    """
    with guarded(folder):
        try:
            write_rows(folder / EMBEDDINGS.new_name, matrix, np.flatnonzero(alive), EMBEDDINGS.descr)
            kept = np.flatnonzero(alive[regions.images]) if regions else np.empty(0, np.int64)
            if regions and len(kept):
                rows = np.cumsum(alive)[regions.images[kept]] - 1
                boxes = np.column_stack([rows, regions.boxes[kept]]).astype(BOXES.descr)
                write_rows(folder / REGIONS.new_name, regions.matrix, kept, REGIONS.descr)
                write_rows(folder / BOXES.new_name, boxes, np.arange(len(kept)), BOXES.descr)
            sync_folder(folder)
        except BaseException:
            remove_new(folder)  # to free space on a full disk
            raise
    return len(kept)


def rename_new(folder: Path) -> None:
    """Give new files their usual names, those that have not got them yet."""
    for kind in ARRAYS:
        if (folder / kind.new_name).exists():
            (folder / kind.new_name).replace(folder / kind.name)
    sync_folder(folder)


def remove_new(folder: Path) -> None:
    """Delete new files, which a crash or an error left."""
    for kind in ARRAYS:
        with suppress(OSError):
            if (folder / kind.new_name).exists():
                (folder / kind.new_name).unlink()
