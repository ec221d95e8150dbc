"""The output of `clipsearch classify`: images with their labels, in the order that is asked for."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from clipsearch.cli.options import print_rows, say
from clipsearch.cli.ordering import ByOption, ReverseOption
from clipsearch.errors import InputError
from clipsearch.search.ordering import By, group_hits, group_of

if TYPE_CHECKING:
    from clipsearch.cli.classify_inputs import Source
    from clipsearch.output.rows import Row, Value
    from clipsearch.output.sorting import Step
    from clipsearch.tasks.classification import Classified, Label

COLUMNS = ("path", "rank", "label", "probability", "score")


class LabelledImage(NamedTuple):
    """An image with its most probable labels."""

    path_bytes: bytes
    date: str
    """When it was taken, or else its file was last changed: ISO 8601 local time."""
    number: int | None
    truth: str | None
    labels: list[int]
    probabilities: list[float]
    scores: list[float]


class LabelSort(StrEnum):
    """What labelled images are sorted by."""

    PROBABILITY = "probability"
    SCORE = "score"
    DATE = "date"
    PATH = "path"


_KEYS: dict[LabelSort, Callable[[LabelledImage], Any]] = {
    LabelSort.PROBABILITY: lambda image: (-image.probabilities[0], image.path_bytes),
    LabelSort.SCORE: lambda image: (-image.scores[0], image.path_bytes),
    LabelSort.DATE: lambda image: (image.date, image.path_bytes),
    LabelSort.PATH: lambda image: image.path_bytes,
}


@dataclass(frozen=True)
class LabelOrderOptions:
    """The options for the order of labelled images."""

    sort: Annotated[
        LabelSort | None,
        typer.Option(
            "--sort",
            help="The order in which the pictures are shown: by the probability or the score of their first label, the "
            "highest first, by date, the oldest first, or by path. By default that of PATHs, or of the index.",
            show_default=False,
        ),
    ] = None
    reverse: ReverseOption = False
    by: ByOption = None

    def check(self, source: Source) -> None:
        """Raise an InputError if the images have no dates that could be asked for."""
        if source.numbers and (self._wanted is LabelSort.DATE or self.by):
            raise InputError("Pictures in a file of CIFAR have no dates and no folders: leave --sort and --by out.")

    @property
    def _wanted(self) -> LabelSort | None:
        return self.sort or (LabelSort.DATE if self.by in (By.DAY, By.MONTH) else None)

    def applied(self, images: Sequence[LabelledImage]) -> list[LabelledImage]:
        """Return the images in the order that is asked for, those of a group together."""
        ordered = sorted(images, key=_KEYS[self._wanted]) if self._wanted else list(images)
        if self.reverse:
            ordered.reverse()
        if self.by is None:
            return ordered
        return [image for members in group_hits(ordered, self.by).values() for image in members]


def labelled(found: Classified, source: Source, truth: list[str] | None, least: float) -> list[LabelledImage]:
    """Return the images with a label of at least the probability `least`, each with all its labels of that kind."""
    columns = (column.tolist() for column in found.predictions)
    images = []
    for place, date, labels, probabilities, scores in zip(found.read, found.dates, *columns, strict=True):
        number = source.numbers[place] if source.numbers else None
        enough = sum(p >= least for p in probabilities)
        if enough:
            known = truth[place] if truth else None
            path = source.paths[place]
            images.append(LabelledImage(path, date, number, known, labels, probabilities[:enough], scores))
    if not images:
        top = float(found.predictions.probabilities.max())
        say(f"No picture has a label with a probability of {least:g} or more; the highest is {top:.4f}.")
    return images


def print_labelled(
    images: Sequence[LabelledImage],
    labels: Sequence[Label],
    steps: list[Step] | None,
    form: str,
    by: By | None = None,
) -> None:
    """Print images with their labels, where they were moved to (`steps`), and the group that each is in (`by`)."""
    rows: list[Row] = []
    for i, image in enumerate(images):
        about: dict[str, Value] = {}
        if by:
            group = group_of(image, by)
            about[by.value] = os.fsencode(group) if by is By.FOLDER else group
        about["path"] = image.path_bytes
        if image.number is not None:
            about["number"] = image.number
        for rank, sure in enumerate(image.probabilities, 1):
            label = labels[image.labels[rank - 1]].name
            row = about | {"rank": rank, "label": label, "probability": sure, "score": image.scores[rank - 1]}
            if image.truth is not None:
                row["truth"] = image.truth
            if steps is not None:
                row["target"] = steps[i].target if rank == 1 else None
            rows.append(row)
    columns = ((by.value,) if by else ()) + COLUMNS
    print_rows(rows, form, numbers={"probability": ".4f", "score": ".4f"}, columns=columns, by=by)
