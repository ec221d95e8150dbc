"""Clusters of similar images in an index: the clustering, the choice of the number of clusters, and their names.

The clustering itself is done by scikit-learn, an optional package that only this module imports, when it is used. The
module needs the vectors of an index and, for names, the vectors of texts; it does not know which model made them.
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
"""Smallest number of images that HDBSCAN accepts as a cluster by default."""
UNGROUPED = -1
"""The label that HDBSCAN gives to images in no cluster."""

_FITTED, _FITTED_EACH = 20_000, 10
"""K-means is fitted to at most this many images, or this many for each cluster if that is more; all others join the
nearest centre."""
_STARTS = 4
"""Number of runs of k-means from different centres, of which the one with the least inertia is taken."""
_MOST_COMPARED = 10_000
"""Largest number of images for methods that compare all pairs: Ward's method then takes 0.9 GB, HDBSCAN a minute."""
_JUDGED = 2000
"""Size of the sample on which numbers of clusters are compared."""
_NUMBERS = (2, 3, 4, 5, 6, 8, 10, 12, 14, 16, 20, 24, 28, 32, 40, 48, 56, 64)
"""The numbers of clusters that are tried."""
_NEIGHBOURS = 2
"""`min_samples` of HDBSCAN. CLIP's vectors are sparse: with `MIN_SIZE`, HDBSCAN's own default, 170 of the 253 sample
images are in no cluster; with 2 it is 101, and the clusters agree better with the folders."""
_LEAST_MEMORY, _OF_A_THREAD = 300 << 20, 64 << 20
"""Bytes of address space that scikit-learn needs, and that each thread of its BLAS needs."""
_WORDS = 3
"""Largest number of labels in the name of a cluster."""
_ROWS = 8192
"""Number of rows that are converted to float32 at a time."""


class Method(StrEnum):
    """The clustering methods, all of them scikit-learn's."""

    KMEANS = "kmeans"
    AGGLOMERATIVE = "agglomerative"
    HDBSCAN = "hdbscan"


class Cluster(NamedTuple):
    """A cluster of similar images."""

    number: int
    """From 1 on, by decreasing size. The images that HDBSCAN puts in no cluster come last, with number 0."""
    name: str | None
    centroid: Vectors
    """(D,) the normalised mean of its vectors."""
    hits: list[Hit]
    """Its images, the closest to the centroid first; their scores are cosines with the centroid."""


def find_clusters(
    store: Store,
    n: int | None = None,
    *,
    method: str = Method.KMEANS.value,
    min_size: int | None = None,
    seed: int = 0,
    **filters: Unpack[FilterArguments],
) -> list[Cluster]:
    """Divide the images of an index into clusters, without names.

    Exact copies are clustered as one image, so that their number does not shift the centres.

    Args:
        store: the opened index.
        n: the number of clusters. By default the number with the highest mean silhouette (Rousseeuw 1987, cosine
            distance) on a sample of 2,000 images; from 2 to the square root of the number of images are tried, at most
            64, because more clusters are often tighter and less useful.
        method: one of `Method`. K-means is fitted to a sample of 20,000 images (or 10 for each cluster) and takes any
            number of images; agglomerative clustering (Ward's method) and HDBSCAN compare all pairs and take up to
            10,000. HDBSCAN finds the number of clusters itself.
        min_size: for HDBSCAN, the smallest number of images in a cluster; 5 by default.
        seed: for the samples and for k-means.
        filters: which images take part; as for `Index.search`.

    Returns:
        The largest cluster first; the images that HDBSCAN puts in none come last.

    Raises:
        InputError: scikit-learn is not installed, there are fewer images than clusters, or an argument or a filter is
            invalid.
        NothingFoundError: there are fewer than two images.
        IndexDamagedError: the index contradicts itself.
    """
    wanted = _checked(n, method, min_size)
    # 1. Read the vectors into memory, because a writer cannot commit while the snapshot is open.
    with store.snapshot():
        selection = select(store, filters_of(filters, store))
        rows = selection.rows()
        if len(rows) < 2:  # noqa: PLR2004  (one image is no clustering)
            raise _too_few(len(rows), n, store.count(), NothingFoundError)
        if len(rows) < (n or 0):
            raise _too_few(len(rows), n, store.count(), InputError)
        vectors, records = np.asarray(selection.matrix[rows]), store.images(rows.tolist(), len(selection.matrix))
    _check_library()  # not before: importing scikit-learn takes most of a second
    # 2. Cluster the distinct vectors.
    first, copies = _distinct(vectors)
    if n is not None and len(first) < n:
        raise InputError(
            f"{n} groups are too many for {len(first)} different images.", hint="fewer-groups", most=len(first)
        )
    if wanted is not Method.KMEANS and len(first) > _MOST_COMPARED:
        raise InputError(
            f"{wanted.value} compares all pairs, which is too much for {len(first)} images; it takes up to "
            f"{_MOST_COMPARED}.",
            hint="many-images",
        )
    labels = _labels(vectors[first], n, wanted, min_size or MIN_SIZE, seed)[copies]
    # 3. Make clusters of the images.
    return _clusters(vectors, records, labels)


def name_clusters(clusters: Sequence[Cluster], labels: Sequence[str], vectors: Vectors) -> list[Cluster]:
    """Name clusters after the labels that fit them best.

    A label is judged by how much its cosine with a centroid exceeds its mean cosine with all centroids, so that labels
    that fit every image name none. (With a single cluster it is the cosine itself.) A name is the best label, followed
    by up to two more that exceed the mean by at least half as much.

    Args:
        clusters: those that `find_clusters` returned.
        labels: L words or phrases.
        vectors: (L, D) the unit vectors of `labels`.

    Returns:
        The clusters with `name` set; number 0, the images in no cluster, stays without a name.
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
    if min_size is not None and min_size < 2:  # noqa: PLR2004  (HDBSCAN's minimum)
        raise InputError(f"A group has at least 2 images, not {min_size}.")
    if min_size is not None and wanted is not Method.HDBSCAN:
        raise InputError("Only HDBSCAN has a smallest size of groups.", hint="no-min-size")
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
    """Return (M,) the first row of each distinct vector, and (N,) the number of the distinct vector of each row."""
    known: dict[bytes, int] = {}
    numbers = np.array([known.setdefault(vector.tobytes(), len(known)) for vector in vectors], np.int64)
    return np.unique(numbers, return_index=True)[1], numbers


def _labels(vectors: Matrix, n: int | None, method: Method, min_size: int, seed: int) -> Labels:
    """Return (N,) the cluster of each of (N, D) distinct vectors."""
    if len(vectors) == 1:
        return np.zeros(1, np.int64)
    if method is Method.HDBSCAN:
        from sklearn.cluster import HDBSCAN

        # For unit vectors, Euclidean distance and cosine give the same order.
        hdbscan = HDBSCAN(min_cluster_size=min_size, min_samples=_NEIGHBOURS, copy=True)
        return np.asarray(hdbscan.fit_predict(vectors.astype(np.float32)), np.int64)
    if n is None:
        n = _number(_drawn(vectors, _JUDGED, seed), len(vectors), method, seed)
    if method is Method.AGGLOMERATIVE:
        return _divided(vectors.astype(np.float32), n, method, seed)
    centres = _centres(_drawn(vectors, max(_FITTED, _FITTED_EACH * n), seed), n, seed)
    return _nearest(vectors, centres)


def _number(sample: Vectors, images: int, method: Method, seed: int) -> int:
    """Choose the number of clusters with the highest mean silhouette; two images are two clusters."""
    from sklearn.metrics import silhouette_score  # type: ignore[import-untyped]

    most = max(2, int(images**0.5))
    tried = [number for number in _NUMBERS if number <= most and number < len(sample)]
    scores = {}
    for number in tried:
        labels = _divided(sample, number, method, seed)
        # With vectors that are almost equal, k-means can return fewer clusters than it was asked for.
        if 1 < len(np.unique(labels)) < len(sample):
            scores[number] = float(silhouette_score(sample, labels, metric="cosine"))
    return max(scores, key=scores.__getitem__) if scores else min(2, len(sample))


def _divided(vectors: Vectors, n: int, method: Method, seed: int) -> Labels:
    """Return (N,) the cluster of each of (N, D) vectors, by a method that takes `n`."""
    if method is Method.AGGLOMERATIVE:
        from sklearn.cluster import AgglomerativeClustering

        return np.asarray(AgglomerativeClustering(n, linkage="ward").fit_predict(vectors), np.int64)
    return _nearest(vectors, _centres(vectors, n, seed))


def _centres(vectors: Vectors, n: int, seed: int) -> Vectors:
    """Return (n, D) the centres that k-means finds."""
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning  # type: ignore[import-untyped]

    with warnings.catch_warnings():
        # The warning says that some clusters are empty, which does no harm.
        warnings.simplefilter("ignore", ConvergenceWarning)
        return np.asarray(KMeans(n, n_init=_STARTS, random_state=seed).fit(vectors).cluster_centers_, np.float32)


def _nearest(vectors: Matrix | Vectors, centres: Vectors) -> Labels:
    """Return (N,) the number of the nearest centre for each of (N, D) vectors."""
    # |v - c|^2 = |v|^2 - 2 vc + |c|^2, where |v|^2 is the same for all centres.
    shift = (centres**2).sum(axis=1) / 2
    parts = (vectors[start : start + _ROWS].astype(np.float32) for start in range(0, len(vectors), _ROWS))
    return np.concatenate([(part @ centres.T - shift).argmax(axis=1) for part in parts])


def _drawn(vectors: Matrix, number: int, seed: int) -> Vectors:
    """Draw at most `number` of (N, D) vectors at random and keep their order."""
    if len(vectors) <= number:
        return vectors.astype(np.float32)
    rows = np.random.default_rng(seed).choice(len(vectors), number, replace=False)
    return vectors[np.sort(rows)].astype(np.float32)


def _clusters(vectors: Matrix, records: Sequence[Record], labels: Labels) -> list[Cluster]:
    members = [np.flatnonzero(labels == label) for label in np.unique(labels) if label != UNGROUPED]
    # Clusters of the same size are ordered by their first image, so that numbers do not depend on scikit-learn's
    # labels.
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
