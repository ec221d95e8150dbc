"""Groups hits that show the same, so that one of them represents the others. Knows nothing of queries."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from clipsearch.index.format import Record
from clipsearch.index.reading import Store
from clipsearch.search.near import near
from clipsearch.search.topk import Mask, Rows, assigned
from clipsearch.unit import Matrix

SAME = 1.0
"""The threshold at which only images with equal content are grouped."""


def firsts(matrix: Matrix, records: Sequence[Record], threshold: float) -> list[int]:
    """Return the indices, in order, of those of N images (best first) that are not represented by an earlier one.

    An image represents all images with the same content and, with a threshold below `SAME`, those whose cosine with it
    is at least the threshold. Images after the N would not change the result.
    """
    rows, content_of = distinct_contents(records)
    group_of = content_of
    if threshold < SAME and len(rows):
        group_of = near(np.asarray(matrix[rows]), threshold)[0][content_of]
    return sorted(np.unique(group_of, return_index=True)[1].tolist())


def others(store: Store, matrix: Matrix, mask: Mask | None, records: Sequence[Record], threshold: float) -> list[int]:
    """Count the images, of those that `mask` includes, that each of `records` represents besides itself.

    An image that several of them could represent is counted for the first.
    """
    if threshold == SAME:
        same = [{row for _, row in store.rows_with(one.hash)} if one.hash else set() for one in records]
        return [
            sum(mask is None or bool(mask[row]) for row in rows - {one.row})
            for rows, one in zip(same, records, strict=True)
        ]
    rows = np.array([record.row for record in records], np.int64)
    return [int(number) for number in assigned(matrix, rows, threshold, mask)]


def distinct_contents(records: Sequence[Record]) -> tuple[Rows, Rows]:
    """Return (M,) the row of the first image of each distinct content, and (N,) each image's content in it."""
    rows: list[int] = []
    known: dict[bytes | int, int] = {}
    contents = np.empty(len(records), np.int64)
    for number, record in enumerate(records):
        key = number if record.hash is None else record.hash  # an image without a hash equals no other
        if record.row is not None and key not in known:
            known[key] = len(rows)
            rows.append(record.row)
        contents[number] = known[key]
    return np.array(rows, np.int64), contents
