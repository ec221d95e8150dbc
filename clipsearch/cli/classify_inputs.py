"""The inputs of `clipsearch classify`: image files, images of the index, or files of CIFAR."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from clipsearch.cli.inputs import named_images, say_damaged
from clipsearch.cli.options import ModelOptions
from clipsearch.cli.progress import ProgressBar
from clipsearch.cli.search_options import FilterOptions, opened, say_why_nothing
from clipsearch.errors import InputError

if TYPE_CHECKING:
    from clipsearch.images.files import ImageFile
    from clipsearch.search.embedder import Embedder
    from clipsearch.tasks.classification import Classified, Classifier

_DOING = "Classifying"
"""The label of the progress bar."""


class Source(NamedTuple):
    """The images to classify."""

    paths: list[bytes]
    """N paths of images; for CIFAR, the file that contains the image."""
    numbers: list[int] | None
    """For CIFAR, the number of each image in its file, from 0 on; else None."""
    truth: list[str] | None
    """For CIFAR, the true label of each image; else None."""
    labels: Sequence[str]
    """For CIFAR, all labels; else empty."""
    predict: Callable[[Classifier, int], Classified]
    """Predicts the most probable labels, as many as the second argument says."""
    is_lasting: bool = True
    """Whether the images are files that can be moved or copied, and not the content of a pipe."""


@contextmanager
def open_source(
    paths: list[Path], filters: FilterOptions, model: ModelOptions, *, indexed: bool, coarse: bool
) -> Iterator[tuple[Embedder, Source]]:
    """Open the images that the arguments name, and the model to classify them with.

    Raises:
        InputError: the arguments contradict each other, or a file cannot be read.
    """
    from clipsearch.datasets.labels import is_cifar

    if indexed == bool(paths):
        raise InputError("Name either pictures or --indexed: clipsearch classify PATH... --label cat --label dog")
    if indexed:
        if coarse:
            raise InputError("--indexed goes without --coarse.")
        with _index(filters, model) as found:
            yield found
        return
    if filters != FilterOptions():
        raise InputError("Filters are for --indexed; of PATHs, all pictures count.")
    batches = [is_cifar(path) for path in paths]
    if any(batches) != all(batches) or (coarse and not any(batches)):
        raise InputError("Files of CIFAR go alone, and --coarse is for them.")
    if any(batches):
        with model.open() as embedder:
            yield embedder, _cifar(embedder, paths, coarse=coarse)
        return
    with named_images(paths) as (files, typed), model.open() as embedder:
        yield embedder, _files(embedder, files, typed)


@contextmanager
def _index(filters: FilterOptions, model: ModelOptions) -> Iterator[tuple[Embedder, Source]]:
    from clipsearch.api import embedder_for
    from clipsearch.tasks.classification import Classified, selected

    opened_index, arguments = opened(model.index, filters, verbose=model.verbose)
    with opened_index, embedder_for(opened_index.store, model.model, model.encoder_options()) as embedder:
        chosen = selected(opened_index.store, **arguments)
        if not chosen.paths:
            say_why_nothing(opened_index, [], arguments)

        def predict(classifier: Classifier, top: int) -> Classified:
            predictions = classifier.predict_rows(chosen.matrix, chosen.rows, top)
            return Classified(list(range(len(chosen.paths))), predictions, [], chosen.dates)

        yield embedder, Source(chosen.paths, None, None, (), predict)


def _files(embedder: Embedder, files: list[ImageFile], typed: Mapping[bytes, str]) -> Source:
    def named(path: bytes) -> bytes:
        return os.fsencode(typed.get(path, path))

    def predict(classifier: Classifier, top: int) -> Classified:
        with ProgressBar(doing=_DOING) as bar:
            found = classifier.predict_files(embedder, files, top, progress=bar)
        say_damaged(embedder.damaged, named)
        return found._replace(unreadable=[(named(path), reason) for path, reason in found.unreadable])

    return Source([named(file.path) for file in files], None, None, (), predict, is_lasting=not typed)


def _cifar(embedder: Embedder, paths: list[Path], *, coarse: bool) -> Source:
    """Read files of CIFAR.

    Raises:
        InputError: a file cannot be read, or the files have different labels.
    """
    from clipsearch.datasets.labels import cifar_files, read_cifar

    batches = [read_cifar(path, coarse=coarse) for path in paths]
    if any(batch.labels != batches[0].labels for batch in batches):
        raise InputError(f"{paths[0]} and others have different labels: classify them apart.")

    def predict(classifier: Classifier, top: int) -> Classified:
        with tempfile.TemporaryDirectory(prefix="clipsearch-") as folder:
            files = cifar_files(batches, Path(folder))
            with ProgressBar(doing=_DOING) as bar:
                return classifier.predict_files(embedder, files, top, progress=bar)

    return Source(
        paths=[batch.path for batch in batches for _ in batch.truth],
        numbers=[number for batch in batches for number in range(len(batch.truth))],
        truth=[name for batch in batches for name in batch.truth],
        labels=batches[0].labels,
        predict=predict,
    )
