"""What is in an index: duplicates, clusters, and the ranks of an image."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from clipsearch.errors import NothingFoundError
from clipsearch.search.index import Index
from clipsearch.system.progress import SILENT, Progress
from clipsearch.tasks.duplicates import THRESHOLD

if TYPE_CHECKING:
    from typing import Unpack

    from clipsearch.index.filters import FilterArguments
    from clipsearch.tasks.caption_ranks import CaptionRank
    from clipsearch.tasks.clusters import Cluster
    from clipsearch.tasks.duplicates import Deletion, Group


def duplicates(
    index: Index,
    *,
    threshold: float | None = THRESHOLD,
    progress: Progress = SILENT,
    **filters: Unpack[FilterArguments],
) -> list[Group]:
    """Find exact copies and near duplicates of images.

    Args:
        index: an opened index.
        threshold: the cosine from which on images are near duplicates; None for exact copies only.
        progress: is updated with the number of compared images.
        filters: which images take part; as for `Index.search`.

    Returns:
        Groups, each with its `keeper` and its `duplicates`; those whose duplicates have the most bytes come first.

    Raises:
        InputError: an argument is invalid.
        IndexDamagedError: the index contradicts itself.
    """
    from clipsearch.tasks.duplicates import find_duplicates

    try:
        return find_duplicates(index.store, threshold=threshold, progress=progress, **filters)[0]
    except NothingFoundError:
        return []


def delete_duplicates(index: Index, groups: Iterable[Group], *, permanently: bool = False) -> Iterator[Deletion]:
    """Delete duplicates, one at a time as the result is iterated, and never a keeper.

    The content of each file is checked again right before it is deleted.

    Args:
        index: the opened index that `groups` are from; files outside its folders are not deleted.
        groups: those that `duplicates` returned.
        permanently: delete for good, instead of moving to the system's trash.

    Returns:
        An iterator with the `path` of each file, and the `problem` if it could not be deleted.
    """
    from clipsearch.tasks.duplicates import delete_duplicates as deleted

    return deleted(groups, [root.path for root in index.store.roots()], permanently=permanently)


def cluster(
    index: Index,
    n: int | None = None,
    *,
    method: str = "kmeans",
    min_size: int | None = None,
    labels: Sequence[str] = (),
    seed: int = 0,
    **filters: Unpack[FilterArguments],
) -> list[Cluster]:
    """Divide images into clusters of similar ones, with scikit-learn.

    Args:
        index: an opened index.
        n: the number of clusters; by default it is chosen by the mean silhouette.
        method: kmeans, agglomerative or hdbscan.
        min_size: for hdbscan only, the least number of images in a cluster.
        labels: words to name clusters with.
        seed: that of the random numbers; the same seed gives the same clusters.
        filters: which images take part; as for `Index.search`.

    Returns:
        Clusters, the largest first, each with its `hits`, the closest to the centroid first.

    Raises:
        InputError: scikit-learn is not installed, or an argument is invalid.
        NothingFoundError: there are fewer than two images.
        IndexDamagedError: the index contradicts itself.
    """
    from clipsearch.tasks.clusters import find_clusters, name_clusters

    found = find_clusters(index.store, n, method=method, min_size=min_size, seed=seed, **filters)
    if not labels:
        return found
    vectors = index.encoders.embed_texts(list(labels))
    return name_clusters(found, labels, vectors)


def caption_ranks(
    index: Index,
    image: str | os.PathLike[str] | bytes,
    texts: Sequence[str],
    **filters: Unpack[FilterArguments],
) -> list[CaptionRank]:
    """Rank an image among the images of an index, for each of several texts as the query.

    Args:
        index: an opened index.
        image: a path, or the content of a file.
        texts: sentences that may describe the image.
        filters: which images of the index are ranked; as for `Index.search`.

    Returns:
        The rank for each text, the best first.

    Raises:
        InputError: the image cannot be read, or a filter is invalid.
        ModelError: the model is not available.
    """
    from clipsearch.tasks.caption_ranks import caption_ranks as ranked

    return ranked(index.store, index.encoders, image, texts, **filters)
