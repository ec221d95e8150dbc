"""Images that show the same: which of several stands for the others. Knows nothing of queries."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from clipsearch.index.format import Record
from clipsearch.index.reading import Store
from clipsearch.search.near import near
from clipsearch.search.topk import Mask, Rows, assigned
from clipsearch.unit import Matrix

SAME = 1.0
"""As a threshold: only equal content."""


def firsts(matrix: Matrix, records: Sequence[Record], threshold: float) -> list[int]:
    """The places of those of N images (best first) that no earlier one stands for, in order.

    One stands for the images with its content and, with a threshold below `SAME`, for those whose cosine with it is at
    least that. Whatever comes behind the N, the answer is the same.
    """
    rows, content_of = distinct_contents(records)
    group_of = content_of
    if threshold < SAME and len(rows):
        group_of = near(np.asarray(matrix[rows]), threshold)[0][content_of]
    return sorted(np.unique(group_of, return_index=True)[1].tolist())


def others(store: Store, matrix: Matrix, mask: Mask | None, records: Sequence[Record], threshold: float) -> list[int]:
    """For how many other images each of `records` stands, of those that `mask` lets take part.

    An image that several could stand for counts for the first of them.
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
    """Of M contents the row of the first image with it (M,), and of N images the number of the content (N,)."""
    rows: list[int] = []
    known: dict[bytes | int, int] = {}
    contents = np.empty(len(records), np.int64)
    for number, record in enumerate(records):
        key = number if record.hash is None else record.hash  # of which nothing is known equals nothing
        if record.row is not None and key not in known:
            known[key] = len(rows)
            rows.append(record.row)
        contents[number] = known[key]
    return np.array(rows, np.int64), contents
