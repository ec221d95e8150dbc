"""The functions of the Python API: what the commands do, each in one call of a task."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from clipsearch.api import IndexingModel, load_model
from clipsearch.errors import InputError, NothingFoundError
from clipsearch.index_choice import index_folder
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
    from clipsearch.tasks.tuning_result import Report


class Labelled(NamedTuple):
    """An image with its predicted labels."""

    path: Path
    labels: dict[str, float]
    """Names of labels and their probabilities in [0, 1], the most probable first; empty if the image cannot be read."""
    error: str | None = None
    """Why the image cannot be read; None if it can."""


def score(
    images: Iterable[AnyImage],
    texts: Sequence[str],
    *,
    model: str | Embedder | None = None,
    among_images: bool = False,
) -> Comparison:
    """Compare all images with all texts.

    Args:
        images: N paths or Pillow images.
        texts: M texts.
        model: a name or an opened model; by default as for `load_model`.
        among_images: whether the images of each text are ranked, instead of the texts of each image.

    Returns:
        (N, M) `scores` (float32 cosines), `probabilities` (float64) and `ranks` (int64).

    Raises:
        InputError: an image cannot be read.
        ModelError: the model is not available.
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
    """Predict the labels that fit each image best, without training.

    Args:
        images: paths, or an opened index, whose own vectors and model are used.
        labels: two or more, each the words, such as "a dog", or a name, a tab and the words.
        templates: sentences in which `{}` is replaced by the label; by default "a photo of a {}.".
        top: the largest number of labels of an image.
        model: for paths, a name or an opened model; by default as for `load_model`.
        progress: is updated with the number of images done.
        filters: for an index, which of its images are classified; as for `Index.search`.

    Returns:
        The labels of each image, in the order of `images` or of the paths in the index.

    Raises:
        InputError: there are fewer than two labels, or an argument is invalid.
        ModelError: the model is not available.
    """
    from clipsearch.tasks.classification import TEMPLATES, Classifier, selected

    wanted = TEMPLATES if templates is None else templates
    if isinstance(images, Index):
        if model is not None:
            raise InputError("The images of an index are classified by its own model. Leave the other one out.")
        chosen = selected(images.store, **filters)
        classifier = Classifier.of(labels, images.encoders, wanted)
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


def evaluate(
    captions: str | os.PathLike[str],
    *,
    images: str | os.PathLike[str] | None = None,
    split: str | None = None,
    skip_missing: bool = False,
    encoding: str | None = None,
    model: str | Embedder | None = None,
    whole: bool = False,
    progress: Progress = SILENT,
) -> Evaluation:
    """Evaluate how well a model finds images by captions, and captions by images.

    Args:
        captions: a file with captions: a table, or JSON in the format of COCO or of Karpathy.
        images: the folder that paths in the file start from; by default the folder of the file.
        split: the part of Karpathy's JSON to take, such as "test".
        skip_missing: leave out images that are missing; otherwise they are an error.
        encoding: that of a file which is neither UTF-8 nor has a byte order mark.
        model: a name or an opened model; by default as for `load_model`.
        whole: whether to compare whole images only, without the regions that the index may have of them.
        progress: is updated with the number of images done.

    Returns:
        The results of both `directions`, each with `metrics` such as "recall@1".

    Raises:
        InputError: the file has none of these formats, or no image can be read.
        ModelError: the model is not available.
    """
    from clipsearch.datasets.captions import read_captions
    from clipsearch.tasks.evaluation import evaluate as evaluated

    read = read_captions(captions, images=images, split=split, skip_missing=skip_missing, encoding=encoding)
    with _opened(model) as embedder:
        return evaluated(embedder, read, progress=progress, regions_of=None if whole else embedder.regions_of)


def tune(
    captions: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    control: str | os.PathLike[str] | None = None,
    max_fall: float = 0.01,
    images: str | os.PathLike[str] | None = None,
    split: str | None = None,
    skip_missing: bool = False,
    encoding: str | None = None,
    seed: int = 0,
    model: str | Embedder | None = None,
    progress: Progress = SILENT,
) -> Report:
    """Fit how a model reads texts to captioned images. What is no better on held-out images is not written.

    Args:
        captions: a file with captions; it and its options are as for `evaluate`.
        out: the folder to make for the new model. `open_index(model=out)` takes it for an index of the old one.
        control: captions of images that the model knows already.
        max_fall: how far recall@1 on `control` may fall.
        images: the folder that paths in `captions` start from.
        split: the part of Karpathy's JSON to take, such as "train".
        skip_missing: leave out images that are missing; otherwise they are an error.
        encoding: that of a file which is neither UTF-8 nor has a byte order mark.
        seed: that of the random numbers; the same seed gives the same weights on the same machine.
        model: a name or an opened model; by default as for `load_model`.
        progress: is updated with the numbers of images and of steps done.

    Returns:
        The report: `folder` (None if nothing was written), and `tuned` with its `verdict` and `measures`.

    Raises:
        InputError: there is too little to learn from, an image cannot be read, or `out` exists or cannot be written.
        ModelError: the model is not available, or cannot be tuned so.
    """
    from clipsearch.datasets.captions import read_captions
    from clipsearch.tasks.tuning import check
    from clipsearch.tasks.tuning_result import check_folder, tune_and_write

    folder = Path(out)
    check_folder(folder)
    own = read_captions(captions, images=images, split=split, skip_missing=skip_missing, encoding=encoding)
    check(own)
    known = None if control is None else read_captions(control)
    with _opened(model) as embedder:
        return tune_and_write(embedder, own, known, folder, seed=seed, max_fall=max_fall, progress=progress)


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


def export_vectors(
    index: Index,
    target: str | os.PathLike[str],
    *,
    names: str = "csv",
    dtype: str = "float32",
    replace: bool = False,
    **filters: Unpack[FilterArguments],
) -> tuple[int, int]:
    """Write the vectors of an index to a .npy file, and the records of the images to another file beside it.

    Args:
        index: an opened index.
        target: FILE.npy, or a folder, in which the files get default names.
        names: csv, jsonl or parquet: the format of the file beside it, with a row for each vector.
        dtype: float32, or float16 as in the index.
        replace: whether to replace existing files.
        filters: which images are exported; as for `Index.search`.

    Returns:
        (N, D), the shape of the vectors; if no image fulfils the filters, N is 0 and no file is written.

    Raises:
        InputError: a file exists already or cannot be written, or an argument is invalid.
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
    """Import vectors that were made elsewhere into an index, all of them or none.

    Args:
        vectors: a .npy file with an (N, D) array, or the output folder of `clip-retrieval inference`.
        names: a file with the path of the image of each vector; None for the output of clip-retrieval.
        folder: the index folder, which is made if it does not exist; by default .clipsearch in the current folder.
        model: the name of the model that made the vectors; by default that of the settings, of the index, or of the
            JSON file beside the vectors.
        roots: the folders that are added to the roots of the index; by default the common folder of all images.
        normalise: scale the vectors to length 1; otherwise another length is an error.
        skip_missing: leave out images that are missing or unreadable; otherwise they are an error.
        encoding: that of `names` if it is neither UTF-8 nor has a byte order mark.
        wait: for how many seconds to wait for another writer.
        progress: is updated with the number of images read.

    Returns:
        The numbers of images that were imported, known and left out, and the least cosine of some of the vectors with
        those that the model makes.

    Raises:
        InputError: a file has wrong content, or an image is missing or unreadable.
        ModelMismatchError: the vectors are not those of the model, or the index has another model.
        ModelError: the model is not available.
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
    """Open the named model and close it at the end, or yield the one that is passed in."""
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
