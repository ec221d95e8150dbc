"""Zero-shot classification: which of several labels fits a picture best, and how often that is right.

As Radford et al. 2021 do it (section 3.1): each label stands in one or more templates, "a photo of a {}."; the mean
of their unit vectors, made a unit vector again (section 3.1.4), is the label's vector. The cosines of a picture with
all of them, times the model's logit scale, go through a softmax.

Owns labels, templates, predictions and the report on them. Knows nothing of how pictures get their vectors, which are
handed in or are those of an index, nor where known labels come from.
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
from clipsearch.index.filters import FilterArguments
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

    from clipsearch.images.finding import ImageFile


TEMPLATES = ("a photo of a {}.",)
"""Radford et al. 2021, section 3.1.4."""
PLACE = "{}"
"""In a template, where the label comes."""
TOP = 5
"""Of top-5 accuracy."""
_CHUNK_SCORES = 1 << 22
"""Number of scores computed at a time (16 MB, and 32 MB of probabilities); at least those of one image."""
_CHUNK_ROWS = 4096
"""Number of images whose scores are computed at a time, at most."""
_CANCELLED = 1e-4
"""A mean of unit vectors that is shorter is nothing but rounding."""


@dataclass(frozen=True)
class Label:
    """One of the things that a picture may show."""

    name: str
    """As results have it."""
    words: str
    """As templates have it: `name` with spaces instead of underscores, unless it says otherwise."""

    @classmethod
    def parse(cls, given: str) -> Label:
        """Read `NAME`, or `NAME`, a tab and `WORDS`: n02099601 and "golden retriever", say.

        Raises:
            InputError: there is nothing before or after the tab, or it is not UTF-8.
        """
        name, tab, words = given.partition("\t")
        name, words = name.strip(), words.strip()
        if not name or (tab and not words):
            raise InputError(f"The label {given!r} is empty. Write NAME, or NAME, a tab and what the picture shows.")
        check_utf8(given, "The label")
        return cls(name, words or _spelled(name))


class Predictions(NamedTuple):
    """The K likeliest labels of N pictures, the likeliest first; equal ones in the order of the labels."""

    labels: npt.NDArray[np.int64]
    """(N, K) positions in the list of labels."""
    probabilities: npt.NDArray[np.float64]
    """(N, K), in [0, 1]; those of all labels sum to 1, unless the model takes each label by itself (see `Logits`)."""
    scores: Vectors
    """(N, K) cosines of picture and label, in [-1, 1]."""


class Classified(NamedTuple):
    """Image files and what they were taken for."""

    read: list[int]
    """The places of the N files that could be read, among those that were given."""
    predictions: Predictions
    """Of these, in the same order."""
    unreadable: list[tuple[bytes, str]]
    """Path and reason of the others."""


class Selected(NamedTuple):
    """Pictures of an index, in the order of their paths."""

    paths: list[bytes]
    """N, absolute."""
    matrix: npt.NDArray[np.float16]
    """(rows, D) all vectors of the index, memory-mapped."""
    rows: npt.NDArray[np.int64]
    """(N,) which of them are those of the pictures."""


class ClassReport(NamedTuple):
    """How well one label was recognised."""

    label: str
    images: int
    """Number of images that show it."""
    predicted: int
    """Number of images that were taken for it."""
    correct: int
    """Number of images that show it and were taken for it."""

    @property
    def precision(self) -> float | None:
        """`correct` / `predicted`: of the pictures taken for it, the share that show it; None if none was."""
        return self.correct / self.predicted if self.predicted else None

    @property
    def recall(self) -> float | None:
        """`correct` / `images`: of the pictures that show it, the share taken for it; None if none does."""
        return self.correct / self.images if self.images else None


@dataclass(frozen=True)
class Report:
    """How well labels were predicted."""

    images: int
    top1: float
    """The share of pictures whose likeliest label is right."""
    top5: float | None
    """The share with the right one among the five likeliest; None with five labels or fewer, where it means nothing."""
    classes: list[ClassReport]
    """In the order of the labels."""
    confusion: npt.NDArray[np.int64]
    """(M, M) numbers of pictures that show the label of the row and were taken for that of the column."""


class Classifier:
    """Labels as vectors of one model."""

    def __init__(self, labels: Sequence[Label], vectors: Vectors, logits: Logits) -> None:
        self.labels = list(labels)
        """M of them."""
        self.vectors = vectors
        """(M, D) unit vectors."""
        self.logits = logits
        """The model's."""

    @classmethod
    def of(cls, labels: Iterable[str | Label], encoders: Encoders, templates: Sequence[str] = TEMPLATES) -> Classifier:
        """Embed each label in each template.

        Raises:
            InputError: there are fewer than two labels, two are the same, or a template has no `{}`.
        """
        checked = checked_labels(labels)
        checked_templates(templates)
        return cls(checked, class_vectors(checked, encoders.embed_texts, templates), encoders.logits)

    def predict(self, vectors: npt.NDArray[np.floating], top: int = 1) -> Predictions:
        """The `top` likeliest labels (or all, if there are fewer) of N pictures, from their (N, D) unit vectors."""
        return self._joined((vectors[part] for part in self._parts(len(vectors))), top)

    def predict_files(
        self,
        encoders: Encoders,
        files: Sequence[ImageFile],
        top: int = 1,
        *,
        progress: Progress = SILENT,
    ) -> Classified:
        """The same of image files."""
        read: list[int] = []
        unreadable: list[tuple[bytes, str]] = []

        def vectors() -> Generator[Vectors, None, None]:
            with closing(readable_images(encoders, files, unreadable, progress)) as found:
                for place, vector in found:
                    read.append(place)
                    yield vector

        with closing(vectors()) as one_by_one:
            predictions = self._joined(_stacked(one_by_one, self._step), top)
        return Classified(read, predictions, unreadable)

    def predict_rows(self, matrix: npt.NDArray[np.float16], rows: npt.NDArray[np.int64], top: int = 1) -> Predictions:
        """The same of N `rows` of an index's matrix (see `selected`); what is predicted is in their order."""
        # Rounding to float16 made rows a little longer or shorter than 1.
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
    """The pictures of an index that fulfil all `filters`.

    Raises:
        InputError: a filter means nothing.
        IndexDamagedError: the index contradicts itself.
    """
    with store.snapshot():
        selection = select(store, filters_of(filters, store))
        found = [(record.path, record.row) for record in selection.records(store)]
    return Selected([path for path, _ in found], selection.matrix, np.array([row for _, row in found], np.int64))


def checked_labels(given: Iterable[str | Label]) -> list[Label]:
    """Labels, if they can be told apart.

    Raises:
        InputError: there are fewer than two, or two of them have the same name or the same words, but for case.
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
    """Templates, if labels can stand in them.

    Raises:
        InputError: there is none, or one has no `{}`.
    """
    for template in templates:
        if PLACE not in template:
            raise InputError(f'The template {template!r} has no {{}}, where the label comes: "a photo of a {{}}."')
    if not templates:
        raise InputError('There is no template. The usual one is "a photo of a {}."')
    return templates


def class_vectors(labels: Sequence[Label], encode: Callable[[list[str]], Vectors], templates: Sequence[str]) -> Vectors:
    """(M, D) unit vectors of M labels: the mean of each one's unit vectors in all templates, made a unit vector again.

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
    """(N,) the positions in `labels` of what N pictures are known to show.

    Case, and underscores for spaces, do not count.

    Raises:
        InputError: something is known that is none of the labels.
    """
    places = {key(label.name): place for place, label in enumerate(labels)}
    found = []
    for name in known:
        place = places.get(key(name))
        if place is None:
            raise InputError(f"A picture is known to show {name!r}, which is no label.", hint="add-label", label=name)
        found.append(place)
    return np.array(found, np.int64)


def report(predictions: Predictions, truth: npt.NDArray[np.int64], labels: Sequence[Label]) -> Report:
    """How well `predictions`, of five labels or all, fit what N pictures are known to show: positions (N,) in `labels`.

    Raises:
        InputError: there is no picture.
        ValueError: there are predictions of fewer labels.
    """
    if not len(truth):
        raise InputError("There is no picture to report on.")
    best = predictions.labels
    if best.shape[1] < min(TOP, len(labels)):
        raise ValueError(f"A report needs the {TOP} likeliest labels of each picture, not {best.shape[1]}.")
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
    """What of a label's name counts when names are compared."""
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
