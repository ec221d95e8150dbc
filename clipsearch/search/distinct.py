"""Groups hits that show the same, so that one of them represents the others. Knows nothing of queries."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from clipsearch.index.format import Record
from clipsearch.search.near import near
from clipsearch.search.topk import Rows
from clipsearch.unit import Matrix

SAME = 1.0
"""The threshold at which only images with equal content are grouped."""


def firsts(vectors: Callable[[Sequence[int]], Matrix], records: Sequence[Record], threshold: float) -> list[int]:
    """Return the indices, in order, of those of N images (best first) that are not represented by an earlier one.

    An image represents all images with the same content and, with a threshold below `SAME`, those whose cosine with it
    is at least the threshold. Images after the N would not change the result. `vectors` returns the (M, D) vectors of M
    of the images, by their indices.
    """
    places, content_of = _contents(records)
    group_of = content_of
    if threshold < SAME and len(places):
        group_of = near(vectors(places), threshold)[0][content_of]
    return sorted(np.unique(group_of, return_index=True)[1].tolist())


def distinct_contents(records: Sequence[Record]) -> tuple[Rows, Rows]:
    """Return (M,) the row of the first image of each distinct content, and (N,) each image's content in it."""
    places, contents = _contents(records)
    return np.array([records[place].row for place in places], np.int64), contents


def _contents(records: Sequence[Record]) -> tuple[list[int], Rows]:
    """Return (M,) the index of the first image of each distinct content, and (N,) each image's content in it."""
    places: list[int] = []
    known: dict[bytes | int, int] = {}
    contents = np.empty(len(records), np.int64)
    for number, record in enumerate(records):
        key = number if record.hash is None else record.hash  # an image without a hash equals no other
        if record.row is not None and key not in known:
            known[key] = len(places)
            places.append(number)
        contents[number] = known[key]
    return places, contents
