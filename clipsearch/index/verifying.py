"""Verifies an index: compares matrix and database row by row."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from clipsearch.index.code_file import codes_of, codes_record
from clipsearch.index.codes import code_bytes
from clipsearch.index.format import (
    ARRAYS,
    BOX_COLUMNS,
    BOXES,
    CODES,
    DATABASE,
    EMBEDDINGS,
    HEADER_BYTES,
    NEW_DATABASE,
    REGIONS,
    ArrayFile,
    header,
)
from clipsearch.index.matrix_file import broken
from clipsearch.index.reading import Store

_BLOCK_ROWS = 4096
"""Number of codes that are made again at a time."""
_NAMED_AT_MOST = 5
"""Largest number of rows or paths that a finding names."""


class Finding(NamedTuple):
    """A problem of an index."""

    what: str
    harmless: bool = False
    """Whether queries are not affected and the next writer repairs it."""
    hint: str | None = None
    """Key of the hint what to do about it, as in an error, with folder and model as facts; None if the index has to be
    made again."""


def verify(store: Store) -> list[Finding]:
    """Find all problems of an index at its last commit, by reading the whole matrix and the whole database."""
    with store.snapshot():
        for steps in (_database, _files, _rows, _regions):
            # Each step relies on the checks of the one before.
            if findings := list(steps(store)):
                return findings
        return [*_vectors(store), *_codes(store), *_leftovers(store)]


def _database(store: Store) -> Iterator[Finding]:
    for (text,) in store.sql("PRAGMA integrity_check"):
        if text != "ok":
            yield Finding(f"{DATABASE}: {text}")


def _files(store: Store) -> Iterator[Finding]:
    """Check that no file is shorter than the database says."""
    if any(rows for _, rows, _ in _arrays(store)) and store.model() is None:
        yield Finding(f"{DATABASE} has rows but names no model")
        return
    for kind, rows, columns in _arrays(store):
        if not rows:
            continue
        file = store.open_file(kind)
        if file is None:
            yield Finding(f"{kind.name} is missing")
            continue
        with file:
            size, needed = os.fstat(file.fileno()).st_size, HEADER_BYTES + rows * kind.row_bytes(columns)
        if size < needed:
            name = os.path.basename(file.name)
            yield Finding(f"{name} has {size} bytes; the {rows} rows that {DATABASE} names need {needed}")


def _arrays(store: Store) -> list[tuple[ArrayFile, int, int]]:
    """Return the files with rows, and the numbers of rows and columns that the database says they have."""
    model, regions, codes = store.model(), store.regions_record(), codes_record(store)
    dim = model.dim if model else 0
    rows = regions.rows if regions else 0
    return [
        (EMBEDDINGS, store.committed_rows(), dim),
        (REGIONS, rows, dim),
        (BOXES, rows, BOX_COLUMNS),
        (CODES, codes.rows if codes else 0, code_bytes(dim)),
    ]


def _rows(store: Store) -> Iterator[Finding]:
    """Check that every row belongs to one image or is dead, and that no record is both an image and unreadable."""
    rows = store.committed_rows()
    ((images, dead, lowest),) = store.sql(
        "SELECT (SELECT count(row) FROM images), (SELECT count(*) FROM dead), "
        "(SELECT min(r) FROM (SELECT min(row) AS r FROM images UNION SELECT min(row) FROM dead))"
    )
    if lowest is not None and lowest < 0:
        yield Finding(f"{DATABASE} names row {lowest}")
    both = [row for (row,) in store.sql("SELECT row FROM images JOIN dead USING (row)")]
    if both:
        yield Finding(f"{len(both)} rows are dead and belong to an image as well{_some(both)}")
    if (nobody := rows - (images + dead - len(both))) > 0:
        yield Finding(f"{nobody} of {rows} rows belong to no image and are not dead either")
    for path, row in store.sql("SELECT path, row FROM images WHERE (row IS NULL) = (error IS NULL)"):
        state = "neither an image nor unreadable" if row is None else "an image and unreadable as well"
        yield Finding(f"{os.fsdecode(path)!r} is {state}")


def _regions(store: Store) -> Iterator[Finding]:
    """Check that the regions of each image are next to each other and within the image."""
    regions, rows = store.regions(), store.committed_rows()
    if regions is None or not len(regions.images):
        return
    images = regions.images.astype(np.int64)
    if outside := np.count_nonzero((images < 0) | (images >= rows)):
        yield Finding(f"{BOXES.name} names {outside} rows that do not exist", hint="regions-again")
        return
    blocks = images[np.flatnonzero(np.diff(images, prepend=-1))]
    if torn := len(blocks) - len(np.unique(blocks)):
        yield Finding(f"the regions of {torn} images are not next to each other", hint="regions-again")
    size = np.full((rows, 2), np.iinfo(np.int32).max)
    for row, *sides in store.sql("SELECT row, width, height FROM images WHERE row IS NOT NULL AND width IS NOT NULL"):
        size[row] = sides
    start, end = regions.boxes[:, :2], regions.boxes[:, 2:]
    if wrong := np.count_nonzero(((start < 0) | (start >= end) | (end > size[images])).any(axis=1)):
        yield Finding(f"{wrong} regions are not within their image", hint="regions-again")


def _vectors(store: Store) -> Iterator[Finding]:
    """Check that every row that is alive is a unit vector."""
    matrix, alive = store.matrix()
    if wrong := broken(matrix, alive):
        paths = [os.fsdecode(store.image(row).path) for row in wrong[:_NAMED_AT_MOST]]
        zeros = sum(not matrix[row].any() for row in wrong)
        no_numbers = sum(not np.isfinite(matrix[row]).all() for row in wrong)
        yield Finding(
            f"{len(wrong)} of {len(matrix)} vectors are not of unit length ({no_numbers} NaN or infinite, {zeros} all "
            f"zeros), and no query finds their images{_some(paths, len(wrong))}",
            hint="embed-again",
        )
    if (regions := store.regions()) and (
        wrong := broken(regions.matrix, None if alive is None else alive[regions.images])
    ):
        paths = [os.fsdecode(store.image(int(regions.images[at])).path) for at in wrong[:_NAMED_AT_MOST]]
        yield Finding(
            f"{len(wrong)} of {len(regions.matrix)} vectors of regions are not of unit length, and no query finds them"
            f"{_some(paths, len(wrong))}",
            hint="regions-again",
        )


def _codes(store: Store) -> Iterator[Finding]:
    """Check that the codes are those of the vectors."""
    found = codes_of(store)
    if found is None:
        return
    codes, rows = found
    matrix, _ = store.matrix()
    starts = range(0, len(rows), _BLOCK_ROWS)
    blocks = (slice(start, min(start + _BLOCK_ROWS, len(rows))) for start in starts)
    if wrong := sum(np.count_nonzero(~codes.fit(rows[block], matrix[block])) for block in blocks):
        yield Finding(f"{wrong} of {len(rows)} codes are not those of their vectors", hint="codes-again")


def _leftovers(store: Store) -> Iterator[Finding]:
    """Look for leftovers of a run that was killed or is at work, which the next writer removes."""
    in_use = set()
    for kind, rows, columns in _arrays(store):
        file = None if kind is not EMBEDDINGS and not rows else store.open_file(kind)
        if file is None:
            continue
        with file:
            name, size, found = os.path.basename(file.name), os.fstat(file.fileno()).st_size, file.read(HEADER_BYTES)
        in_use.add(name)
        if columns and found != header(rows, columns, kind.descr):
            yield Finding(f"the header of {name} does not say that it has {rows} rows", harmless=True)
        if columns and (more := size - HEADER_BYTES - rows * kind.row_bytes(columns)) > 0:
            yield Finding(f"{name} has {more} bytes behind its last committed row", harmless=True)
    regions = store.regions_record()
    dropped = () if regions and regions.rows else (REGIONS.name, BOXES.name)
    for name in (*(kind.new_name for kind in ARRAYS), *dropped, CODES.name, NEW_DATABASE):
        if name not in in_use and (store.folder / name).exists():
            yield Finding(f"{name} is half done", harmless=True)


def _some(things: list[int] | list[str], count: int | None = None) -> str:
    """Write the first few in brackets."""
    named = ", ".join(str(thing) for thing in things[:_NAMED_AT_MOST])
    return f" ({named}{', ...' if (count or len(things)) > _NAMED_AT_MOST else ''})"
