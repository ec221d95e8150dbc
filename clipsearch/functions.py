"""What the commands do with a model or an index, each in one call. Puts tasks together; computes nothing itself."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from clipsearch.api import IndexingModel, index_folder, load_model
from clipsearch.errors import InputError, NothingFoundError
from clipsearch.models.encoder_options import FOR_QUERIES
from clipsearch.search.embedder import AnyImage, Embedder
from clipsearch.search.index import Index
from clipsearch.system.paths import absolute
from clipsearch.system.places import current_folder
from clipsearch.system.progress import SILENT, Progress
from clipsearch.tasks.duplicates import THRESHOLD

if TYPE_CHECKING:
    from typing import Unpack

    from clipsearch.exchange.importing import Imported
    from clipsearch.index.filters import FilterArguments
    from clipsearch.tasks.caption_ranks import CaptionRank
    from clipsearch.tasks.classification import Classifier, Predictions
    from clipsearch.tasks.clusters import Cluster
    from clipsearch.tasks.duplicates import Deletion, Group
    from clipsearch.tasks.evaluation import Evaluation
    from clipsearch.tasks.similarity import Comparison


class Labelled(NamedTuple):
    """An image and what it shows."""

    path: Path
    labels: dict[str, float]
    """Names of labels and their probabilities in [0, 1], the likeliest first; empty if it cannot be read."""
    error: str | None = None
    """Why it cannot be read."""


def score(
    images: Iterable[AnyImage],
    texts: Sequence[str],
    *,
    model: str | Embedder | None = None,
    among_images: bool = False,
) -> Comparison:
    """Compare images with texts, each with each.

    Args:
        images: N paths or Pillow images.
        texts: M texts.
        model: a name or an opened model; by default as for `load_model`.
        among_images: whether the images compete for each text, and not the texts for each image.

    Returns:
        (N, M) `scores` (float32 cosines), `probabilities` (float64) and `ranks` (int64).

    Raises:
        InputError: an image cannot be read.
        ModelError: the model cannot be had.
    """
    from clipsearch.tasks.similarity import IMAGES, TEXTS, compare

    given = list(images)
    with _opened(model) as embedder:
        return compare(
            [os.fsencode(one) if isinstance(one, str | os.PathLike) else "(an image)" for one in given],
            embedder.embed_images(given),
            texts,
            embedder.embed_texts(texts),
            logits=embedder.logits,
            axis=IMAGES if among_images else TEXTS,
        )


def classify(
    images: Index | Iterable[str | os.PathLike[str]],
    labels: Sequence[str],
    *,
    templates: Sequence[str] | None = None,
    top: int = 5,
    model: str | Embedder | None = None,
    progress: Progress = SILENT,
    **filters: Unpack[FilterArguments],
) -> list[Labelled]:
    """Say which labels fit each image best, with no training.

    Args:
        images: paths, or an opened index, whose own vectors and model are used.
        labels: two or more; "a dog", or a name, a tab and the words that stand for it.
        templates: sentences in which `{}` is the label; by default "a photo of a {}.".
        top: how many labels each image gets at most.
        model: for paths, a name or an opened model; by default as for `load_model`.
        progress: is told how many images are done.
        filters: for an index, which of its images count; as for `Index.search`.

    Returns:
        What each image shows, in the order of `images` or of the paths in the index.

    Raises:
        InputError: there are fewer than two labels, or an argument means nothing.
        ModelError: the model cannot be had.
    """
    from clipsearch.tasks.classification import TEMPLATES, Classifier, selected

    wanted = TEMPLATES if templates is None else templates
    if isinstance(images, Index):
        if model is not None:
            raise InputError("The images of an index are classified by its own model. Leave the other one out.")
        chosen = selected(images.store, **filters)
        classifier = Classifier.of(labels, Embedder(images.store, options=FOR_QUERIES), wanted)
        found = classifier.predict_rows(chosen.matrix, chosen.rows, top)
        return list(_labelled(chosen.paths, classifier, found))
    if filters:
        raise InputError("Filters are for the images of an index.")
    from clipsearch.images.finding import named_file

    files = [named_file(absolute(path)) for path in images]
    with _opened(model) as embedder:
        classifier = Classifier.of(labels, embedder, wanted)
        done = classifier.predict_files(embedder, files, top, progress=progress)
    read = _labelled([files[place].path for place in done.read], classifier, done.predictions)
    at = dict(zip(done.read, read, strict=True))
    errors = dict(done.unreadable)
    return [at.get(n, Labelled(_path(file.path), {}, errors.get(file.path))) for n, file in enumerate(files)]


def duplicates(
    index: Index,
    *,
    threshold: float | None = THRESHOLD,
    progress: Progress = SILENT,
    **filters: Unpack[FilterArguments],
) -> list[Group]:
    """Find images that are there more than once.

    Args:
        index: an opened index.
        threshold: the cosine from which on images are near duplicates; None for copies only.
        progress: is told how many images are compared.
        filters: which images count; as for `Index.search`.

    Returns:
        Groups, each with its `keeper` and the `duplicates` of it; those that would free the most bytes come first.

    Raises:
        InputError: an argument means nothing.
        IndexDamagedError: the index contradicts itself.
    """
    from clipsearch.tasks.duplicates import find_duplicates

    try:
        return find_duplicates(index.store, threshold=threshold, progress=progress, **filters)[0]
    except NothingFoundError:
        return []


def delete_duplicates(index: Index, groups: Iterable[Group], *, permanently: bool = False) -> Iterator[Deletion]:
    """Remove duplicates, one by one while the result is read, and never what is to be kept.

    Each file is put aside and looked at again before it goes.

    Args:
        index: the opened index that `groups` are from; what lies outside of its folders stays.
        groups: what `duplicates` found.
        permanently: for good, and not to the system's trash.

    Returns:
        For each file its `path`, and the `problem` if it stays.
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
    """Divide images into groups that look alike. Needs scikit-learn.

    Args:
        index: an opened index.
        n: how many groups; by default as many as seem right.
        method: kmeans, agglomerative or hdbscan.
        min_size: the least size of a group, for hdbscan only.
        labels: words to name groups with.
        seed: of the random numbers; the same seed gives the same groups.
        filters: which images count; as for `Index.search`.

    Returns:
        Groups, the largest first, each with its `hits`, the most typical first.

    Raises:
        InputError: scikit-learn is missing, or an argument means nothing.
        NothingFoundError: there are fewer than two images.
        IndexDamagedError: the index contradicts itself.
    """
    from clipsearch.tasks.clusters import find_clusters, name_clusters

    found = find_clusters(index.store, n, method=method, min_size=min_size, seed=seed, **filters)
    if not labels:
        return found
    vectors = Embedder(index.store, options=FOR_QUERIES).embed_texts(labels)
    return name_clusters(found, labels, vectors)


def evaluate(
    captions: str | os.PathLike[str],
    *,
    images: str | os.PathLike[str] | None = None,
    split: str | None = None,
    skip_missing: bool = False,
    encoding: str | None = None,
    model: str | Embedder | None = None,
    progress: Progress = SILENT,
) -> Evaluation:
    """Measure how well a model finds images by captions, and captions by images.

    Args:
        captions: a file with captions, as a table, or in the JSON of COCO or Karpathy.
        images: the folder that the file's paths start from; by default its own.
        split: which part of Karpathy's JSON counts, such as "test".
        skip_missing: leave out images that are missing, which are an error otherwise.
        encoding: of the file, where it is neither UTF-8 nor told by its first bytes.
        model: a name or an opened model; by default as for `load_model`.
        progress: is told how many images are done.

    Returns:
        Figures of both `directions`, each with `metrics` such as "recall@1".

    Raises:
        InputError: the file cannot be understood, or no image can be read.
        ModelError: the model cannot be had.
    """
    from clipsearch.datasets.captions import read_captions
    from clipsearch.tasks.evaluation import evaluate as evaluated

    read = read_captions(captions, images=images, split=split, skip_missing=skip_missing, encoding=encoding)
    with _opened(model) as embedder:
        return evaluated(embedder, read, progress=progress)


def caption_ranks(
    index: Index,
    image: str | os.PathLike[str] | bytes,
    texts: Sequence[str],
    **filters: Unpack[FilterArguments],
) -> list[CaptionRank]:
    """Say at which rank each text finds an image, among those of an index.

    Args:
        index: an opened index.
        image: a path, or the content of a file.
        texts: sentences that may describe it.
        filters: which images of the index it competes with; as for `Index.search`.

    Returns:
        The rank for each text, the best first.

    Raises:
        InputError: the image cannot be read, or a filter means nothing.
        ModelError: the model cannot be had.
    """
    from clipsearch.tasks.caption_ranks import caption_ranks as ranked

    return ranked(index.store, Embedder(index.store, options=FOR_QUERIES), image, texts, **filters)


def export_vectors(
    index: Index,
    target: str | os.PathLike[str],
    *,
    names: str = "csv",
    dtype: str = "float32",
    replace: bool = False,
    **filters: Unpack[FilterArguments],
) -> tuple[int, int]:
    """Write the vectors of an index to a .npy file, and what it knows of the images beside it.

    Args:
        index: an opened index.
        target: FILE.npy, or a folder for files of usual names.
        names: csv, jsonl or parquet: the format of the file beside it, with a line for each vector.
        dtype: float32, or float16 as in the index.
        replace: whether files that are there already are replaced.
        filters: which images count; as for `Index.search`.

    Returns:
        (N, D) of the vectors that were written; where no image passes the filters, N is 0 and there is no file.

    Raises:
        InputError: files are there already, the place cannot be written, or an argument means nothing.
        IndexDamagedError: the index contradicts itself.
    """
    from clipsearch.exchange.exporting import export

    return export(index.store, Path(target), names=names, dtype=dtype, replace=replace, **filters)


def import_vectors(
    vectors: str | os.PathLike[str],
    names: str | os.PathLike[str] | None = None,
    folder: str | os.PathLike[str] | None = None,
    *,
    model: str | None = None,
    roots: Iterable[str | os.PathLike[str]] = (),
    normalise: bool = False,
    skip_missing: bool = False,
    encoding: str | None = None,
    wait: float = 0,
    progress: Progress = SILENT,
) -> Imported:
    """Put vectors that were made elsewhere into an index; all of them or none.

    Args:
        vectors: a .npy file (N, D), or the folder that `clip-retrieval inference` wrote.
        names: a file with the path of the image of each vector; None for the output of clip-retrieval.
        folder: the index, which is made if need be; by default .clipsearch in the current folder.
        model: the name of the model that made them; by default as settings, the index or the file beside them say.
        roots: folders that the index is to know; by default the one that all images have in common.
        normalise: scale the vectors to length 1; otherwise another length is an error.
        skip_missing: leave out images that are missing or unreadable, which are an error otherwise.
        encoding: of `names`, where it is neither UTF-8 nor told by its first bytes.
        wait: for how many seconds another writer may finish first.
        progress: is told how many images are read.

    Returns:
        How many images were imported, were known and left out; and the least cosine of some with what the model makes.

    Raises:
        InputError: a file does not hold what it should, or an image is missing or unreadable.
        ModelMismatchError: the vectors are not those of the model, or the index has another.
        ModelError: the model cannot be had.
    """
    from clipsearch.exchange import importing
    from clipsearch.exchange.reading import Part, clip_retrieval_parts, model_named

    parts = clip_retrieval_parts(Path(vectors)) if names is None else [Part(Path(vectors), Path(names))]
    return importing.import_vectors(
        index_folder(folder, may_be_new=True),
        parts,
        IndexingModel(model, otherwise=model_named(parts[0].vectors), progress=progress),
        progress=progress,
        start=current_folder(),
        roots=[Path(root) for root in roots],
        normalise=normalise,
        skip_missing=skip_missing,
        wait=wait,
        encoding=encoding,
    )


@contextmanager
def _opened(model: str | Embedder | None) -> Iterator[Embedder]:
    """The model that is named, closed at the end, or the one that is handed in."""
    if isinstance(model, Embedder):
        yield model
        return
    with load_model(model) as embedder:
        yield embedder


def _labelled(paths: Sequence[bytes], classifier: Classifier, found: Predictions) -> Iterator[Labelled]:
    names = [label.name for label in classifier.labels]
    for path, places, sure in zip(paths, found.labels.tolist(), found.probabilities.tolist(), strict=True):
        yield Labelled(_path(path), {names[place]: value for place, value in zip(places, sure, strict=True)})


def _path(path: bytes) -> Path:
    return Path(os.fsdecode(path))
