"""Images compared with texts and labels, and what the layers of a model make of them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from clipsearch.errors import InputError
from clipsearch.functions.opening import opened
from clipsearch.search.embedder import AnyImage, Embedder
from clipsearch.search.index import Index
from clipsearch.system.paths import absolute
from clipsearch.system.progress import SILENT, Progress

if TYPE_CHECKING:
    from typing import Unpack

    from clipsearch.index.filters import FilterArguments
    from clipsearch.search.inner_layers import Views
    from clipsearch.tasks.classification import Classifier, Predictions
    from clipsearch.tasks.similarity import Comparison


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
    with opened(model) as embedder:
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
    from clipsearch.images.named_files import named_files

    files = list(named_files(map(absolute, images)))
    with opened(model) as embedder:
        classifier = Classifier.of(labels, embedder, wanted)
        done = classifier.predict_files(embedder, files, top, progress=progress)
    read = _labelled([files[place].path for place in done.read], classifier, done.predictions)
    at = dict(zip(done.read, read, strict=True))
    errors = dict(done.unreadable)
    return [at.get(n, Labelled(_path(file.path), {}, errors.get(file.path))) for n, file in enumerate(files)]


def hidden_states(
    images: Iterable[str | os.PathLike[str]],
    layer: int,
    *,
    tokens: str = "patch",
    crops: int | None = None,
    model: str | Embedder | None = None,
    progress: Progress = SILENT,
) -> list[Views]:
    """Compute the hidden states of a layer of the image tower, of whole images or of their crops as well.

    Args:
        images: paths.
        layer: numbered like `hidden_states` of transformers: 0 is the input of the first layer, -1 the last output.
        tokens: "patch" for the patches, "cls" for the class token, or "all", the class token first.
        crops: the largest number of crops of each image, in a grid that suits its proportions; by default none.
        model: a name or an opened model; by default as for `load_model`.
        progress: is updated with the number of images done.

    Returns:
        For each image its `grid` of (h, w) crops, (0, 0) without, and the (1 + h w, T, W) float32 `states` of the whole
        and of the crops, row by row.

    Raises:
        InputError: an image cannot be read, an argument is invalid, or the model has no such layer or token.
        ModelError: the model is not available, or its image tower is neither CLIP's nor SigLIP's.
    """
    from clipsearch.images.named_files import named_files
    from clipsearch.search.inner_layers import views_of_all

    files = list(named_files(map(absolute, images)))
    with opened(model) as embedder:
        return views_of_all(embedder.image_tower, files, layer, tokens, crops=crops, progress=progress)


def _labelled(paths: Sequence[bytes], classifier: Classifier, found: Predictions) -> Iterator[Labelled]:
    names = [label.name for label in classifier.labels]
    for path, places, sure in zip(paths, found.labels.tolist(), found.probabilities.tolist(), strict=True):
        yield Labelled(_path(path), {names[place]: value for place, value in zip(places, sure, strict=True)})


def _path(path: bytes) -> Path:
    return Path(os.fsdecode(path))
