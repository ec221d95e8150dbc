"""Groups of pictures that are alike: finding them in an index, how many there are, what to call them.

Owns the choice of the number of groups, their names and the order in them. The grouping itself is scikit-learn's (the
optional package; imported only here and only when it is used). Needs the vectors of an index and, for names, those of
texts; which model made them it does not know.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from clipsearch.errors import InputError, NothingFoundError
from clipsearch.index.format import Record
from clipsearch.index.reading import Store
from clipsearch.index.selection import filters_of, select
from clipsearch.search.hit import Hit
from clipsearch.system.cores import available
from clipsearch.system.counting import plural
from clipsearch.system.limits import check_memory, check_threads
from clipsearch.unit import Matrix, Vectors

if TYPE_CHECKING:
    from typing import Unpack

    from clipsearch.index.filters import FilterArguments

Labels = npt.NDArray[np.int64]

MIN_SIZE = 5
"""Images that HDBSCAN takes for a group at least."""
UNGROUPED = -1

_FITTED, _FITTED_EACH = 20_000, 10
"""Images that k-means learns its centres from, at most, and for each group; all others join the nearest centre."""
_STARTS = 4
"""Of k-means, from different centres; the tightest result counts."""
_MOST_COMPARED = 10_000
"""Images that can be compared each with each: Ward's method takes 0.9 GB for them, HDBSCAN a minute."""
_JUDGED = 2000
"""Images that numbers of groups are tried on."""
_NUMBERS = (2, 3, 4, 5, 6, 8, 10, 12, 14, 16, 20, 24, 28, 32, 40, 48, 56, 64)
"""Of groups, that are tried."""
_NEIGHBOURS = 2
"""How many make a place dense for HDBSCAN. Vectors of CLIP are spread thin: with as many as `MIN_SIZE`, which would be
its own choice, 170 of the 253 sample pictures are in no group; with 2 it is 101, and groups are more like folders."""
_LEAST_MEMORY, _OF_A_THREAD = 300 << 20, 64 << 20
"""Bytes of address space that scikit-learn and its BLAS take, and each thread of it."""
_WORDS = 3
"""In a name at most."""
_ROWS = 8192
"""Made float32 at a time."""


class Method(StrEnum):
    """How groups are found; see scikit-learn."""

    KMEANS = "kmeans"
    AGGLOMERATIVE = "agglomerative"
    HDBSCAN = "hdbscan"


class Cluster(NamedTuple):
    """Images that are alike."""

    number: int
    """From 1, the largest first; 0 for those that HDBSCAN puts in no group, which come last."""
    name: str | None
    centroid: Vectors
    """(D,) the mean of its vectors, made a unit vector."""
    hits: list[Hit]
    """Its images, those closest to the centroid first, with their cosines to it as scores."""


def find_clusters(
    store: Store,
    n: int | None = None,
    *,
    method: str = Method.KMEANS.value,
    min_size: int | None = None,
    seed: int = 0,
    **filters: Unpack[FilterArguments],
) -> list[Cluster]:
    """Divide the images of an index that fulfil `filters` into `n` groups, or as many as seem right, without names.

    `method` is one of `Method`. K-means learns from 20,000 images (or 10 a group), drawn by `seed`, and takes any
    number of images. Agglomerative clustering (Ward's) and HDBSCAN compare all pairs and take up to 10,000; HDBSCAN
    finds the number itself, from groups of `min_size` (5) on. Copies count once, wherever they are.

    Without `n`, that number counts whose groups have the highest mean silhouette (Rousseeuw 1987, cosine distance) on
    2,000 images drawn by `seed`; from 2 to the square root of the number of images are tried, at most 64. More groups
    than that are often tighter and less useful.

    Raises:
        InputError: scikit-learn is not installed, there are fewer images than groups, or an argument or a filter means
            nothing.
        NothingFoundError: there are fewer than two images.
        IndexDamagedError: the index contradicts itself.
    """
    wanted = _checked(n, method, min_size)
    _check_library()
    # 1. The vectors; a writer has to wait until they are read, and no longer.
    with store.snapshot():
        selection = select(store, filters_of(filters, store))
        rows = selection.rows()
        if len(rows) < 2:  # noqa: PLR2004  (what can be told apart)
            raise _too_few(len(rows), n, store.count(), NothingFoundError)
        if len(rows) < (n or 0):
            raise _too_few(len(rows), n, store.count(), InputError)
        vectors, records = np.asarray(selection.matrix[rows]), store.images(rows.tolist(), len(selection.matrix))
    # 2. Different ones, and their groups.
    first, copies = _distinct(vectors)
    if n is not None and len(first) < n:
        raise InputError(
            f"{n} groups are too many for {len(first)} different images.", hint="fewer-groups", most=len(first)
        )
    if wanted is not Method.KMEANS and len(first) > _MOST_COMPARED:
        raise InputError(
            f"{wanted.value} compares all pairs, which is too much for {len(first)} images; up to {_MOST_COMPARED} can "
            "be.",
            hint="many-images",
        )
    labels = _labels(vectors[first], n, wanted, min_size or MIN_SIZE, seed)[copies]
    # 3. Images.
    return _clusters(vectors, records, labels)


def name_clusters(clusters: Sequence[Cluster], labels: Sequence[str], vectors: Vectors) -> list[Cluster]:
    """The same with names from `labels`, whose (L, D) unit text vectors are `vectors`.

    What counts is how much closer a label is to a group than to groups on average: what fits everything names nothing.
    (With a single group it is the cosine itself.) A name is the best label, and after it up to two more that stand out
    at least half as much.
    """
    named = [cluster for cluster in clusters if cluster.number]
    if not named or not labels:
        return list(clusters)
    scores = np.stack([cluster.centroid for cluster in named]) @ vectors.T
    if len(named) == 1:
        names = [labels[int(scores[0].argmax())]]
    else:
        names = [_name(labels, line) for line in scores - scores.mean(axis=0)]
    called = iter(names)
    return [cluster._replace(name=next(called)) if cluster.number else cluster for cluster in clusters]


# -- how ---------------------------------------------------------------------------------------------------------


def _checked(n: int | None, method: str, min_size: int | None) -> Method:
    try:
        wanted = Method(method)
    except ValueError as error:
        raise InputError(f"{method!r} is no method. There are: {', '.join(one.value for one in Method)}.") from error
    if n is not None and n < 1:
        raise InputError(f"Images can be divided into 1 group or more, not {n}.")
    if n is not None and wanted is Method.HDBSCAN:
        raise InputError("HDBSCAN finds the number of groups itself.", hint="no-number")
    if min_size is not None and min_size < 2:  # noqa: PLR2004  (what HDBSCAN takes)
        raise InputError(f"A group has at least 2 images, not {min_size}.")
    if min_size is not None and wanted is not Method.HDBSCAN:
        raise InputError("Only HDBSCAN knows a least size of groups.", hint="no-min-size")
    return wanted


def _check_library() -> None:
    check_memory(_LEAST_MEMORY + available() * _OF_A_THREAD)
    check_threads(available())
    try:
        import sklearn.cluster  # type: ignore[import-untyped]  # noqa: F401
    except ModuleNotFoundError as error:
        raise InputError(
            "Groups are found by scikit-learn, which is not installed: pip install 'clipsearch[cluster]'"
        ) from error


def _too_few(found: int, n: int | None, images: int, kind: type[InputError]) -> InputError:
    wanted = f"{n} groups" if n and n > 1 else "groups"
    some = f"only {plural(found, 'image')}" if found else "no image"
    if found < images:
        return kind(f"There is too little for {wanted}: of {images} images in the index, {some} passed the filters.")
    said = f"There is too little for {wanted}: the index holds {some}."
    return kind(said, hint="fewer-groups", most=found) if found > 1 else kind(said, hint="add-images")


def _distinct(vectors: Matrix) -> tuple[Labels, Labels]:
    """Of M different vectors the first row with it (M,), and of N rows the number of their vector (N,)."""
    known: dict[bytes, int] = {}
    numbers = np.array([known.setdefault(vector.tobytes(), len(known)) for vector in vectors], np.int64)
    return np.unique(numbers, return_index=True)[1], numbers


def _labels(vectors: Matrix, n: int | None, method: Method, min_size: int, seed: int) -> Labels:
    """The group of each of (N, D) different vectors, (N,)."""
    if len(vectors) == 1:
        return np.zeros(1, np.int64)
    if method is Method.HDBSCAN:
        from sklearn.cluster import HDBSCAN

        # Of unit vectors the Euclidean distance is in the order of the cosine.
        hdbscan = HDBSCAN(min_cluster_size=min_size, min_samples=_NEIGHBOURS, copy=True)
        return np.asarray(hdbscan.fit_predict(vectors.astype(np.float32)), np.int64)
    if n is None:
        n = _number(_drawn(vectors, _JUDGED, seed), len(vectors), method, seed)
    if method is Method.AGGLOMERATIVE:
        return _divided(vectors.astype(np.float32), n, method, seed)
    centres = _centres(_drawn(vectors, max(_FITTED, _FITTED_EACH * n), seed), n, seed)
    return _nearest(vectors, centres)


def _number(sample: Vectors, images: int, method: Method, seed: int) -> int:
    """How many groups: the number with the highest mean silhouette; each image is one where there are only two."""
    from sklearn.metrics import silhouette_score  # type: ignore[import-untyped]

    most = max(2, int(images**0.5))
    tried = [number for number in _NUMBERS if number <= most and number < len(sample)]
    scores = {}
    for number in tried:
        labels = _divided(sample, number, method, seed)
        # Very close vectors can leave k-means with fewer groups than asked for.
        if 1 < len(np.unique(labels)) < len(sample):
            scores[number] = float(silhouette_score(sample, labels, metric="cosine"))
    return max(scores, key=scores.__getitem__) if scores else min(2, len(sample))


def _divided(vectors: Vectors, n: int, method: Method, seed: int) -> Labels:
    """The group of each of (N, D), (N,)."""
    if method is Method.AGGLOMERATIVE:
        from sklearn.cluster import AgglomerativeClustering

        return np.asarray(AgglomerativeClustering(n, linkage="ward").fit_predict(vectors), np.int64)
    return _nearest(vectors, _centres(vectors, n, seed))


def _centres(vectors: Vectors, n: int, seed: int) -> Vectors:
    """(n, D) the centres that k-means finds."""
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning  # type: ignore[import-untyped]

    with warnings.catch_warnings():
        # It says that some groups are empty, which nobody misses.
        warnings.simplefilter("ignore", ConvergenceWarning)
        return np.asarray(KMeans(n, n_init=_STARTS, random_state=seed).fit(vectors).cluster_centers_, np.float32)


def _nearest(vectors: Matrix | Vectors, centres: Vectors) -> Labels:
    """The number of the nearest centre for each of (N, D), (N,)."""
    # |v - c|^2 = |v|^2 - 2 vc + |c|^2, and |v|^2 is the same for all centres.
    shift = (centres**2).sum(axis=1) / 2
    parts = (vectors[start : start + _ROWS].astype(np.float32) for start in range(0, len(vectors), _ROWS))
    return np.concatenate([(part @ centres.T - shift).argmax(axis=1) for part in parts])


def _drawn(vectors: Matrix, number: int, seed: int) -> Vectors:
    """Draw `number` of (N, D) vectors at most, in their order."""
    if len(vectors) <= number:
        return vectors.astype(np.float32)
    rows = np.random.default_rng(seed).choice(len(vectors), number, replace=False)
    return vectors[np.sort(rows)].astype(np.float32)


def _clusters(vectors: Matrix, records: Sequence[Record], labels: Labels) -> list[Cluster]:
    members = [np.flatnonzero(labels == label) for label in np.unique(labels) if label != UNGROUPED]
    # Those of the same size in the order of their first image: numbers do not depend on what scikit-learn says.
    members.sort(key=lambda rows: (-len(rows), records[rows[0]].path))
    clusters = [_cluster(number, vectors, records, rows) for number, rows in enumerate(members, 1)]
    alone = np.flatnonzero(labels == UNGROUPED)
    return [*clusters, _cluster(0, vectors, records, alone)] if len(alone) else clusters


def _cluster(number: int, vectors: Matrix, records: Sequence[Record], rows: Labels) -> Cluster:
    own = vectors[rows].astype(np.float32)
    centroid = own.mean(axis=0)
    centroid /= max(float(np.linalg.norm(centroid)), np.finfo(np.float32).tiny)
    scores = np.clip(own @ centroid, -1, 1).tolist()
    order = sorted(zip(scores, (records[row] for row in rows), strict=True), key=lambda one: (-one[0], one[1].path))
    hits = [Hit.of(one, rank, score) for rank, (score, one) in enumerate(order, 1)]
    return Cluster(number, None, centroid, hits)


def _name(labels: Sequence[str], scores: Vectors) -> str:
    best = np.argsort(-scores, kind="stable")[:_WORDS]
    return ", ".join(labels[i] for place, i in enumerate(best) if place == 0 or scores[i] >= scores[best[0]] / 2)
