"""Verifies an index: compares matrix and database row by row."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from clipsearch.index.format import DATABASE, HEADER_BYTES, MATRIX, NEW_DATABASE, NEW_MATRIX, header
from clipsearch.index.matrix_file import broken
from clipsearch.index.reading import Store

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
        for steps in (_database, _matrix_file, _rows):
            # Each step relies on the checks of the one before.
            if findings := list(steps(store)):
                return findings
        return [*_vectors(store), *_leftovers(store)]


def _database(store: Store) -> Iterator[Finding]:
    for (text,) in store.sql("PRAGMA integrity_check"):
        if text != "ok":
            yield Finding(f"{DATABASE}: {text}")


def _matrix_file(store: Store) -> Iterator[Finding]:
    rows, model = store.committed_rows(), store.model()
    if not rows:
        return
    if model is None:
        yield Finding(f"{DATABASE} has rows but names no model")
        return
    file = store.open_matrix()
    if file is None:
        yield Finding(f"{MATRIX} is missing")
        return
    with file:
        size, needed = os.fstat(file.fileno()).st_size, HEADER_BYTES + rows * model.dim * 2
    if size < needed:
        name = os.path.basename(file.name)
        yield Finding(f"{name} has {size} bytes; the {rows} rows that {DATABASE} names need {needed}")


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


def _leftovers(store: Store) -> Iterator[Finding]:
    """Look for leftovers of a run that was killed or is at work, which the next writer removes."""
    rows, model, file = store.committed_rows(), store.model(), store.open_matrix()
    matrix = MATRIX
    if file is not None:
        with file:
            matrix, size, found = os.path.basename(file.name), os.fstat(file.fileno()).st_size, file.read(HEADER_BYTES)
        if model is not None and found != header(rows, model.dim):
            yield Finding(f"the header of {matrix} does not say that it has {rows} rows", harmless=True)
        if model is not None and (more := size - HEADER_BYTES - rows * model.dim * 2) > 0:
            yield Finding(f"{matrix} has {more} bytes behind its last committed row", harmless=True)
    for name in (NEW_MATRIX, NEW_DATABASE):
        if name != matrix and (store.folder / name).exists():
            yield Finding(f"{name} is half done", harmless=True)


def _some(things: list[int] | list[str], count: int | None = None) -> str:
    """Write the first few in brackets."""
    named = ", ".join(str(thing) for thing in things[:_NAMED_AT_MOST])
    return f" ({named}{', ...' if (count or len(things)) > _NAMED_AT_MOST else ''})"
