"""Which of many sentences finds a picture: where the picture stands for each among the images of an index.

The encoders are handed in. Scores and the order of equal ones are those of `query`.
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
"""Rows that are scored at a time."""
_CHUNK_SCORES = 1 << 22
"""Number of scores computed at a time (16 MB)."""


class CaptionRank(NamedTuple):
    """How one sentence finds the picture."""

    rank: int
    """1: this picture comes first."""
    images: int
    """Number of images it is ranked among, itself included."""
    score: float
    """Cosine of sentence and picture, in [-1, 1]."""
    text: str


def caption_ranks(
    store: Store,
    encoders: Encoders,
    image: str | os.PathLike[str] | bytes,
    texts: Sequence[str],
    **filters: Unpack[FilterArguments],
) -> list[CaptionRank]:
    """The rank of a picture for each of `texts`, the best first, equal ones by score and then as they come.

    `image` is a path or the content of a file. It stands among the images of the index that fulfil `filters` (as for
    `Index.search`); where it is none of them, it is ranked as if it were. Equal scores are ordered by path. Nothing
    comes back if no image of the index fulfils the filters.

    Raises:
        InputError: a filter means nothing, or the picture cannot be read.
        ModelError: the model that is needed cannot be had.
        IndexDamagedError: the index contradicts itself.
    """
    wanted = filters_of(filters, store)
    if not store.committed_rows() or not texts:
        return []
    # Before the snapshot: a writer's commit would have to wait for the model.
    vectors = encoders.embed_texts(list(texts))
    known = _found(store, image)
    own = None if known else vector_of_image(store, encoders, image)
    with store.snapshot():
        # 1. Who takes part.
        selection = select(store, wanted)
        matrix, rows = selection.matrix, selection.rows()
        if not len(rows):
            return []
        # 2. The picture itself.
        if own is None:
            known = _found(store, image)
            if known is None:
                raise InputError("The picture has just left the index. Try again.")
            path, row = known
            scores = scores_of(matrix, np.array([row]), vectors)[:, 0]
            rows = rows[rows != row]
        else:
            path = b"" if isinstance(image, bytes) else absolute(image)
            scores = scores_of(own.astype(np.float16)[np.newaxis], np.array([0]), vectors)[:, 0]
        # 3. The others.
        before = _before(store, matrix, rows, vectors, own=scores, path=path)
    found = [
        CaptionRank(1 + others, len(rows) + 1, score, text)
        for others, score, text in zip(before, scores.tolist(), texts, strict=True)
    ]
    return sorted(found, key=lambda one: (one.rank, -one.score))


def _before(
    store: Store, matrix: Matrix, rows: npt.NDArray[np.int64], vectors: Vectors, *, own: Vectors, path: bytes
) -> list[int]:
    """How many of `rows` come before the picture at `path`, which has the scores `own`, (Q,), for each of Q texts."""
    step = max(_LEAST_ROWS, min(_CHUNK_ROWS, _CHUNK_SCORES // len(vectors)))
    before = np.zeros(len(vectors), np.int64)
    for start in range(0, len(rows), step):
        chunk = rows[start : start + step]
        scores = scores_of(matrix, chunk, vectors)
        before += (scores > own[:, np.newaxis]).sum(axis=1)
        tied = scores == own[:, np.newaxis]
        if not path or not tied.any():  # what has no path comes first among its equals
            continue
        some = np.flatnonzero(tied.any(axis=0))
        earlier = np.array([record.path < path for record in store.images(chunk[some].tolist(), len(matrix))])
        before += (tied[:, some] & earlier).sum(axis=1)
    return [*map(int, before)]


def _found(store: Store, image: str | os.PathLike[str] | bytes) -> tuple[bytes, int] | None:
    """Path and row of the picture in the index, if it is there."""
    if isinstance(image, bytes):
        return None
    rows = rows_of_file(store, absolute(image))
    return (store.image(rows[0]).path, rows[0]) if rows else None
