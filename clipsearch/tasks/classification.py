"""Zero-shot classification: which of several labels fits an image best, and how often that is right.

The method is that of Radford et al. 2021 (section 3.1): each label is put into one or more templates such as "a photo
of a {}."; the mean of the unit vectors of these prompts, normalised again (section 3.1.4), is the label's vector. The
cosines of an image with all labels, times the model's logit scale, go through a softmax.

This module owns labels, templates, predictions and the report on them. It knows nothing of how images are embedded, nor
of where the true labels come from.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from clipsearch.errors import InputError
from clipsearch.index.filters import FilterArguments, local_time
from clipsearch.index.reading import Store
from clipsearch.index.selection import filters_of, select
from clipsearch.models.logits import Logits
from clipsearch.search.encoders import Encoders, readable_images
from clipsearch.system.progress import SILENT, Progress
from clipsearch.system.unicode import check_utf8
from clipsearch.tasks.similarity import TEXTS, similarities
from clipsearch.unit import Vectors

if TYPE_CHECKING:
    from typing import Unpack

    from clipsearch.images.files import ImageFile


TEMPLATES = ("a photo of a {}.",)
"""The templates that are used by default (Radford et al. 2021, section 3.1.4)."""
PLACE = "{}"
"""The placeholder of a template that the label replaces."""
TOP = 5
"""The k of top-k accuracy."""
_CHUNK_SCORES = 1 << 22
"""Number of scores computed at a time (16 MB, and 32 MB of probabilities), but at least those of one image."""
_CHUNK_ROWS = 4096
"""Largest number of images whose scores are computed at a time."""
_CANCELLED = 1e-4
"""A mean of unit vectors that is shorter than this is rounding error."""


@dataclass(frozen=True)
class Label:
    """One of the classes that an image may show."""

    name: str
    """The name that results have."""
    words: str
    """The words put into templates: by default `name` with spaces instead of underscores."""

    @classmethod
    def parse(cls, given: str) -> Label:
        """Parse `NAME`, or `NAME`, a tab and `WORDS`, for example n02099601 and "golden retriever".

        Raises:
            InputError: the part before or after the tab is empty, or the text is not UTF-8.
        """
        name, tab, words = given.partition("\t")
        name, words = name.strip(), words.strip()
        if not name or (tab and not words):
            raise InputError(f"The label {given!r} is empty. Write NAME, or NAME, a tab and what the image shows.")
        check_utf8(given, "The label")
        return cls(name, words or _spelled(name))


class Predictions(NamedTuple):
    """The K most probable labels of N images, the most probable first, ties in the order of the labels."""

    labels: npt.NDArray[np.int64]
    """(N, K) indices into the list of labels."""
    probabilities: npt.NDArray[np.float64]
    """(N, K) in [0, 1]. Those of all labels sum to 1, except with a model that was trained with a sigmoid (see
    `Logits`)."""
    scores: Vectors
    """(N, K) cosines of image and label, in [-1, 1]."""


class Classified(NamedTuple):
    """Image files and their predicted labels."""

    read: list[int]
    """The indices of the N files that could be read, in the list that was given."""
    predictions: Predictions
    """The predictions for `read`, in the same order."""
    unreadable: list[tuple[bytes, str]]
    """Path of each file that could not be read, and the reason."""
    dates: list[str]
    """When each image in `read` was taken, or else its file was last changed: ISO 8601 local time."""


class Selected(NamedTuple):
    """Images of an index, in the order of their paths."""

    paths: list[bytes]
    """N absolute paths."""
    matrix: npt.NDArray[np.float16]
    """(rows, D) all embeddings of the index, memory-mapped."""
    rows: npt.NDArray[np.int64]
    """(N,) the row of each image in `matrix`."""
    dates: list[str]
    """When each image was taken, or else its file was last changed: ISO 8601 local time."""


class ClassReport(NamedTuple):
    """The numbers of images of one label, for its precision and recall."""

    label: str
    images: int
    """Number of images that show the label."""
    predicted: int
    """Number of images for which the label was predicted."""
    correct: int
    """Number of images that show the label and for which it was predicted."""

    @property
    def precision(self) -> float | None:
        """`correct` / `predicted`, or None if the label was never predicted."""
        return self.correct / self.predicted if self.predicted else None

    @property
    def recall(self) -> float | None:
        """`correct` / `images`, or None if no image shows the label."""
        return self.correct / self.images if self.images else None


@dataclass(frozen=True)
class Report:
    """The accuracy of predictions, in all and for each label."""

    images: int
    top1: float
    """Top-1 accuracy: the share of images whose most probable label is right."""
    top5: float | None
    """Top-5 accuracy; None if there are five labels or fewer, where it is always 1."""
    classes: list[ClassReport]
    """One report for each label, in the order of the labels."""
    confusion: npt.NDArray[np.int64]
    """(M, M) number of images that show the label of the row and got the label of the column."""


class Classifier:
    """Predicts labels of images from the vectors that one model makes of both."""

    def __init__(self, labels: Sequence[Label], vectors: Vectors, logits: Logits) -> None:
        self.labels = list(labels)
        """M labels."""
        self.vectors = vectors
        """(M, D) one unit vector for each label."""
        self.logits = logits
        """The logits of the model, which turn cosines into probabilities."""

    @classmethod
    def of(cls, labels: Iterable[str | Label], encoders: Encoders, templates: Sequence[str] = TEMPLATES) -> Classifier:
        """Make a classifier by embedding each label in each template.

        Raises:
            InputError: there are fewer than two labels, two are the same, or a template has no `{}`.
        """
        checked = checked_labels(labels)
        checked_templates(templates)
        return cls(checked, class_vectors(checked, encoders.embed_texts, templates), encoders.logits)

    def predict(self, vectors: npt.NDArray[np.floating], top: int = 1) -> Predictions:
        """Predict the `top` most probable labels (or all, if fewer) of N images from their (N, D) unit vectors."""
        return self._joined((vectors[part] for part in self._parts(len(vectors))), top)

    def predict_files(
        self,
        encoders: Encoders,
        files: Sequence[ImageFile],
        top: int = 1,
        *,
        progress: Progress = SILENT,
    ) -> Classified:
        """Predict the `top` most probable labels of image files, which `encoders` embed.

        Raises:
            ModelError: the model is not available.
        """
        read: list[int] = []
        dates: dict[int, str] = {}
        unreadable: list[tuple[bytes, str]] = []

        def vectors() -> Generator[Vectors, None, None]:
            with closing(readable_images(encoders, files, unreadable, progress, dates=dates)) as found:
                for place, vector in found:
                    read.append(place)
                    yield vector

        with closing(vectors()) as one_by_one:
            predictions = self._joined(_stacked(one_by_one, self._step), top)
        return Classified(read, predictions, unreadable, [dates[place] for place in read])

    def predict_rows(self, matrix: npt.NDArray[np.float16], rows: npt.NDArray[np.int64], top: int = 1) -> Predictions:
        """Predict the `top` most probable labels of N `rows` of an index's matrix (see `selected`), in their order."""
        # Rounding to float16 has made rows slightly longer or shorter than 1.
        return self._joined((_unit(matrix[rows[part]]) for part in self._parts(len(rows))), top)

    @property
    def _step(self) -> int:
        return max(1, min(_CHUNK_ROWS, _CHUNK_SCORES // len(self.labels)))

    def _parts(self, number: int) -> Iterator[slice]:
        return (slice(start, start + self._step) for start in range(0, number, self._step))

    def _joined(self, parts: Iterable[npt.NDArray[np.floating]], top: int) -> Predictions:
        none = self._predict(np.empty((0, self.vectors.shape[1]), np.float32), top)
        found = [none, *(self._predict(part, top) for part in parts)]
        return Predictions(*(np.concatenate(column) for column in zip(*found, strict=True)))

    def _predict(self, vectors: npt.NDArray[np.floating], top: int) -> Predictions:
        scores = similarities(vectors.astype(np.float32, copy=False), self.vectors)
        sure = self.logits.probabilities(scores, TEXTS)
        best = np.argsort(-scores, axis=1, kind="stable")[:, :top]
        return Predictions(best, np.take_along_axis(sure, best, 1), np.take_along_axis(scores, best, 1))


def selected(store: Store, **filters: Unpack[FilterArguments]) -> Selected:
    """Select the images of an index that fulfil all `filters`.

    Raises:
        InputError: a filter is invalid.
        IndexDamagedError: the index contradicts itself.
    """
    with store.snapshot():
        selection = select(store, filters_of(filters, store))
        found = [
            (record.path, record.row, record.taken_at or local_time(record.mtime_ns))
            for record in selection.records(store)
        ]
    rows = np.array([row for _, row, _ in found], np.int64)
    return Selected([path for path, _, _ in found], selection.matrix, rows, [date for _, _, date in found])


def checked_labels(given: Iterable[str | Label]) -> list[Label]:
    """Parse labels and check that they differ.

    Raises:
        InputError: there are fewer than two, or two of them have the same name or words when case is ignored.
    """
    labels = [Label.parse(one) if isinstance(one, str) else one for one in given]
    if len(labels) < 2:  # noqa: PLR2004
        only = f", not only {labels[0].name!r}" if labels else ""
        raise InputError(f"Classification needs two labels or more{only}.", hint="label")
    for what, texts in (("name", [one.name for one in labels]), ("words", [one.words for one in labels])):
        seen: dict[str, str] = {}
        for text in texts:
            if key(text) in seen:
                raise InputError(f"Two labels have the same {what}: {seen[key(text)]!r} and {text!r}. Leave one out.")
            seen[key(text)] = text
    return labels


def checked_templates(templates: Sequence[str]) -> Sequence[str]:
    """Check that there are templates and that each has a place for the label.

    Raises:
        InputError: there is no template, or one has no `{}`.
    """
    for template in templates:
        if PLACE not in template:
            raise InputError(f'The template {template!r} has no {{}}, where the label comes: "a photo of a {{}}."')
    if not templates:
        raise InputError('There is no template. The usual one is "a photo of a {}."')
    return templates


def class_vectors(labels: Sequence[Label], encode: Callable[[list[str]], Vectors], templates: Sequence[str]) -> Vectors:
    """Return (M, D) unit vectors of M labels: the normalised mean of the vectors of a label in all templates.

    Raises:
        InputError: the templates of a label cancel each other out.
    """
    prompts = [template.replace(PLACE, label.words) for label in labels for template in templates]
    means = encode(prompts).reshape(len(labels), len(templates), -1).mean(axis=1, dtype=np.float64)
    lengths = np.linalg.norm(means, axis=1)
    if lengths.min() <= _CANCELLED:
        raise InputError(f"The templates cancel each other out for {labels[int(lengths.argmin())].name!r}.")
    return np.asarray(means / lengths[:, np.newaxis], np.float32)


def positions(known: Iterable[str], labels: Sequence[Label]) -> npt.NDArray[np.int64]:
    """Return (N,) the indices in `labels` of the true labels of N images, `known`.

    Case is ignored, and an underscore equals a space.

    Raises:
        InputError: a true label is not in `labels`.
    """
    places = {key(label.name): place for place, label in enumerate(labels)}
    found = []
    for name in known:
        place = places.get(key(name))
        if place is None:
            raise InputError(f"An image is known to show {name!r}, which is no label.", hint="add-label", label=name)
        found.append(place)
    return np.array(found, np.int64)


def report(predictions: Predictions, truth: npt.NDArray[np.int64], labels: Sequence[Label]) -> Report:
    """Compare predictions with the true labels.

    Args:
        predictions: the 5 most probable labels of N images, or all labels if there are fewer.
        truth: (N,) the indices of the true labels in `labels`.
        labels: M labels.

    Raises:
        InputError: there is no image.
        ValueError: `predictions` has fewer than 5 labels for each image.
    """
    if not len(truth):
        raise InputError("There is no image to report on.")
    best = predictions.labels
    if best.shape[1] < min(TOP, len(labels)):
        raise ValueError(f"A report needs the {TOP} most probable labels of each image, not {best.shape[1]}.")
    confusion = np.zeros((len(labels), len(labels)), np.int64)
    np.add.at(confusion, (truth, best[:, 0]), 1)
    hits = best[:, :TOP] == truth[:, np.newaxis]
    counts = zip(
        confusion.sum(axis=1).tolist(), confusion.sum(axis=0).tolist(), confusion.diagonal().tolist(), strict=True
    )
    return Report(
        images=len(truth),
        top1=float(hits[:, 0].mean()),
        top5=float(hits.any(axis=1).mean()) if len(labels) > TOP else None,
        classes=[ClassReport(label.name, *numbers) for label, numbers in zip(labels, counts, strict=True)],
        confusion=confusion,
    )


def key(name: str) -> str:
    """Normalise the name of a label for comparison: case and underscores do not count."""
    return " ".join(_spelled(name).split()).casefold()


def _spelled(name: str) -> str:
    return name.replace("_", " ").strip() or name


def _stacked(vectors: Iterator[Vectors], step: int) -> Iterator[Vectors]:
    """Yield (B, D) arrays of `step` vectors each."""
    while part := list(islice(vectors, step)):
        yield np.stack(part)


def _unit(vectors: npt.NDArray[np.float16]) -> Vectors:
    wide = vectors.astype(np.float32)
    return np.asarray(wide / np.linalg.norm(wide, axis=1, keepdims=True))
