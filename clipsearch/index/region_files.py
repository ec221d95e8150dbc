"""The files with the regions of an index, opened by its writer. Knows nothing of records and models."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from clipsearch.images.codecs.box import Box
from clipsearch.index.format import BOX_COLUMNS, BOXES, REGIONS
from clipsearch.index.matrix_file import MatrixFile, mapped


class ImageRegions(NamedTuple):
    """The regions of one image."""

    boxes: Sequence[Box]
    """The n regions, in pixels of the upright image."""
    vectors: npt.NDArray[np.float32]
    """(n, D) their unit vectors."""


class RegionFiles:
    """The vectors and boxes of regions. Those of an image are written together, and stay next to each other."""

    def __init__(self, folder: Path, rows: int) -> None:
        """Write behind `rows` committed regions."""
        self._folder = folder
        self._vectors, self._boxes = MatrixFile(folder, REGIONS), MatrixFile(folder, BOXES)
        self._vectors.rows = self._boxes.rows = rows
        self._blocks: _Blocks | None = None

    @property
    def rows(self) -> int:
        """Number of regions written, committed or not."""
        return self._boxes.rows

    def has(self, row: int) -> bool:
        """Whether the image with this row in the matrix of images has regions."""
        return self._known().of(row) is not None

    def append(self, row: int, regions: ImageRegions, dim: int) -> None:
        """Write the regions of the image with this row."""
        table = np.array([(row, *box[:4]) for box in regions.boxes], np.int32)
        vectors = np.ascontiguousarray(regions.vectors, np.float16)
        self._append(row, table, vectors.tobytes(), dim)

    def copy(self, source: int, row: int, dim: int) -> None:
        """Give the image `row` the regions of the image `source`, if that has any."""
        block = self._known().of(source)
        if block is None:
            return
        content = self._boxes.read(block.first, block.number, BOX_COLUMNS)
        table = np.frombuffer(content, np.int32).reshape(-1, BOX_COLUMNS).copy()
        table[:, 0] = row
        self._append(row, table, self._vectors.read(block.first, block.number, dim), dim)

    def tidy(self, dim: int) -> None:
        """Cut off what a crash left behind the committed regions.

        Raises:
            IndexDamagedError: a file is missing or short.
        """
        for kind, file, columns in ((REGIONS, self._vectors, dim), (BOXES, self._boxes, BOX_COLUMNS)):
            mapped(self._folder, kind, self.rows, columns, renaming=False)  # raises the error
            if self.rows:
                file.tidy(columns)

    def flush(self, dim: int) -> None:
        """Flush all regions to the disk."""
        self._vectors.flush(dim)
        self._boxes.flush(BOX_COLUMNS)

    def close(self) -> None:
        """Close the files; the next use opens them again."""
        self._vectors.close()
        self._boxes.close()

    def remove(self) -> None:
        """Delete the files."""
        self.close()
        for kind in (REGIONS, BOXES):
            if (self._folder / kind.name).exists():
                (self._folder / kind.name).unlink()

    def _append(self, row: int, table: npt.NDArray[np.int32], vectors: bytes, dim: int) -> None:
        blocks = self._known()
        self._vectors.append(vectors, dim)
        blocks.add(row, _Block(self._boxes.append(table.tobytes(), BOX_COLUMNS), len(table)))

    def _known(self) -> _Blocks:
        if self._blocks is None:
            self._blocks = _Blocks(mapped(self._folder, BOXES, self.rows, BOX_COLUMNS, renaming=False)[:, 0])
        return self._blocks


class _Block(NamedTuple):
    """The regions of one image."""

    first: int
    number: int


class _Blocks:
    """Where the regions of each image are."""

    def __init__(self, images: npt.NDArray[Any]) -> None:
        """Find the blocks of (R,) rows of images."""
        first = np.flatnonzero(np.diff(images, prepend=-1))
        rows = images[first]
        self._first = np.full(rows.max(initial=-1) + 1, -1, np.int64)
        self._number = np.zeros_like(self._first)
        self._first[rows] = first
        self._number[rows] = np.diff(first, append=len(images))
        self._added: dict[int, _Block] = {}

    def of(self, row: int) -> _Block | None:
        if row < len(self._first) and self._first[row] >= 0:
            return _Block(int(self._first[row]), int(self._number[row]))
        return self._added.get(row)

    def add(self, row: int, block: _Block) -> None:
        self._added[row] = block
