"""Caption ranks: the rank that an image has among the images of an index when each of several sentences is the query.

The encoders are passed in. Scores, and the order of images with equal scores, are those of `Index.search`.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from clipsearch.errors import InputError
from clipsearch.index.filters import FilterArguments
from clipsearch.index.reading import Store
from clipsearch.index.selection import filters_of, rows_of_file, select
from clipsearch.search.encoders import Encoders, vector_of_image
from clipsearch.search.topk import scores_of
from clipsearch.system.paths import absolute
from clipsearch.unit import Matrix, Vectors

if TYPE_CHECKING:
    from typing import Unpack


_CHUNK_ROWS, _LEAST_ROWS = 32_768, 1024
"""The largest and the smallest number of rows that are scored at a time."""
_CHUNK_SCORES = 1 << 22
"""Number of scores computed at a time (16 MB)."""


class CaptionRank(NamedTuple):
    """The rank of the image when one sentence is the query."""

    rank: int
    """1 if the image is the best hit."""
    images: int
    """Number of images that are ranked, this one included."""
    score: float
    """Cosine of sentence and image, in [-1, 1]."""
    text: str


def caption_ranks(
    store: Store,
    encoders: Encoders,
    image: str | os.PathLike[str] | bytes,
    texts: Sequence[str],
    **filters: Unpack[FilterArguments],
) -> list[CaptionRank]:
    """Rank an image among the images of an index, for each of several texts as the query.

    An image that the index does not hold is ranked as if it did. Images with equal scores are ordered by path.

    Args:
        store: the opened index.
        encoders: the model of the index.
        image: a path, or the content of a file.
        texts: Q sentences.
        filters: which images of the index are ranked; as for `Index.search`.

    Returns:
        One `CaptionRank` for each text, the lowest rank first, then the highest score, then the order of `texts`. The
        list is empty if no image of the index fulfils the filters.

    Raises:
        InputError: a filter is invalid, or the image cannot be read.
        ModelError: the model is needed and not available.
        IndexDamagedError: the index contradicts itself.
    """
    wanted = filters_of(filters, store)
    if not store.committed_rows() or not texts:
        return []
    # Texts are embedded before the snapshot, because a writer cannot commit while a snapshot is open.
    vectors = encoders.embed_texts(list(texts))
    known = _found(store, image)
    own = None if known else vector_of_image([store], encoders, image)
    with store.snapshot():
        # 1. Select the rows that take part.
        selection = select(store, wanted)
        matrix, rows = selection.matrix, selection.rows()
        if not len(rows):
            return []
        # 2. Score the image itself.
        if own is None:
            known = _found(store, image)
            if known is None:
                raise InputError("The image was removed from the index in the meantime. Try again.")
            path, row = known
            scores = scores_of(matrix, np.array([row]), vectors)[:, 0]
            rows = rows[rows != row]
        else:
            path = b"" if isinstance(image, bytes) else absolute(image)
            scores = scores_of(own.astype(np.float16)[np.newaxis], np.array([0]), vectors)[:, 0]
        # 3. Count the images that come before it.
        before = _before(store, matrix, rows, vectors, own=scores, path=path)
    found = [
        CaptionRank(1 + others, len(rows) + 1, score, text)
        for others, score, text in zip(before, scores.tolist(), texts, strict=True)
    ]
    return sorted(found, key=lambda one: (one.rank, -one.score))


def _before(
    store: Store, matrix: Matrix, rows: npt.NDArray[np.int64], vectors: Vectors, *, own: Vectors, path: bytes
) -> list[int]:
    """Count, for each of Q texts, the `rows` that come before the image at `path`, whose (Q,) scores are `own`."""
    step = max(_LEAST_ROWS, min(_CHUNK_ROWS, _CHUNK_SCORES // len(vectors)))
    before = np.zeros(len(vectors), np.int64)
    for start in range(0, len(rows), step):
        chunk = rows[start : start + step]
        scores = scores_of(matrix, chunk, vectors)
        before += (scores > own[:, np.newaxis]).sum(axis=1)
        tied = scores == own[:, np.newaxis]
        if not path or not tied.any():  # an image without a path comes first among equal scores
            continue
        some = np.flatnonzero(tied.any(axis=0))
        earlier = np.array([record.path < path for record in store.images(chunk[some].tolist(), len(matrix))])
        before += (tied[:, some] & earlier).sum(axis=1)
    return [*map(int, before)]


def _found(store: Store, image: str | os.PathLike[str] | bytes) -> tuple[bytes, int] | None:
    """Return the path and the row of the image if it is a file of the index."""
    if isinstance(image, bytes):
        return None
    rows = rows_of_file(store, absolute(image))
    return (store.image(rows[0]).path, rows[0]) if rows else None
