"""Hidden states of the inner layers of an image tower, for work that builds on CLIP.

This module owns the choice of layer and tokens. An index holds no hidden states, so all images are computed.
"""

from __future__ import annotations

import os
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing
from itertools import groupby, islice
from operator import attrgetter
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from clipsearch.errors import InputError
from clipsearch.images.files import ImageFile
from clipsearch.index.models import Pixels
from clipsearch.index.pipeline import WORKERS, Item, decode_images, read_images
from clipsearch.models.crops import Crops
from clipsearch.system.progress import SILENT, Progress
from clipsearch.unit import Array

if TYPE_CHECKING:
    from clipsearch.models.in_numpy.image_tower import ImageTower

TOKENS = ("patch", "cls", "all")
"""The patches, the class token, or all tokens, with the class token before the patches."""


class View(NamedTuple):
    """The hidden states of an image, or of one of its views."""

    place: int
    """The index of the image among the files."""
    number: int
    """0 for the whole image, from 1 for its crops, row by row."""
    grid: tuple[int, int]
    """Rows h and columns w of the crops; 0 and 0 without crops."""
    states: Array
    """(T, W) float32 hidden states."""


class _Pixels(NamedTuple):
    place: int
    number: int
    grid: tuple[int, int]
    pixels: Pixels


def hidden_states(
    tower: ImageTower,
    files: Sequence[ImageFile],
    layer: int,
    *,
    tokens: str,
    unreadable: list[tuple[bytes, str]],
    damaged: list[tuple[bytes, float]],
    crops: int | None = None,
    progress: Progress = SILENT,
) -> Generator[View, None, None]:
    """Compute the hidden states of a layer for images.

    Args:
        tower: The image tower.
        files: The images.
        layer: Numbered like `hidden_states` of transformers: 0 is the input of the first layer, -1 the last output.
        tokens: One of `TOKENS`.
        unreadable: Path and reason of each image that cannot be read are appended to it.
        damaged: Path of each damaged image, and the share that is missing, are appended to it.
        crops: The largest number of crops of an image, at least 1; by default it has one view and no crops.
        progress: Is updated with the number of images done.

    Yields:
        The views of each image, in order. A caller that stops early must close the generator.

    Raises:
        InputError: the model has no such layer or no class token, or its inputs have different numbers of tokens.
    """
    passed = layer if layer >= 0 else tower.depth + 1 + layer
    if not 0 <= passed <= tower.depth:
        raise InputError(
            f"There is no layer {layer}: the image tower has {tower.depth}. Choose one from 0 to {tower.depth}, or "
            f"from {-tower.depth - 1} to -1."
        )
    if tower.preprocessing.seen is None:
        raise InputError("This model takes images of any proportions, which have different numbers of patches.")
    if tokens == "cls" and not tower.has_class_token:
        raise InputError("This model has no class token, only patches.")
    chosen = slice(1 if tower.has_class_token and tokens == "patch" else 0, 1 if tokens == "cls" else None)
    cut = None if crops is None else Crops.of(tower.preprocessing, crops)
    progress.start(len(files))
    with (
        closing(read_images(files)) as contents,
        # With crops, an image has many more pixels, so fewer wait.
        closing(decode_images(contents, cut or tower.preprocessing, ahead=WORKERS * (1 if cut else 4))) as decoded,
    ):
        views = _views(_readable(decoded, unreadable, damaged, progress), cut)
        while some := list(islice(views, tower.batch_size)):
            states = tower.hidden_states([view.pixels for view in some], passed)
            for view, found in zip(some, states, strict=True):
                yield View(*view[:-1], found[chosen])


def _readable(
    decoded: Iterable[Item],
    unreadable: list[tuple[bytes, str]],
    damaged: list[tuple[bytes, float]],
    progress: Progress,
) -> Iterator[tuple[int, Pixels]]:
    """Yield index and pixels of each image that was decoded, and note the others."""
    for place, item in enumerate(decoded):
        if item.pixels is None:
            unreadable.append((item.file.path, str(item.record.error)))
            progress.advance(1, unreadable=1)
            continue
        if item.record.damage:
            damaged.append((item.file.path, item.record.damage))
        yield place, item.pixels
        progress.advance(1)


def _views(images: Iterable[tuple[int, Pixels]], cut: Crops | None) -> Iterator[_Pixels]:
    for place, pixels in images:
        if cut is None:
            yield _Pixels(place, 0, (0, 0), pixels)
            continue
        grid = pixels.shape[0] // cut.side, pixels.shape[1] // cut.side
        for number, view in enumerate(cut.views(pixels)):
            yield _Pixels(place, number, grid, view)


class Views(NamedTuple):
    """The hidden states of all views of an image."""

    grid: tuple[int, int]
    """Rows h and columns w of the crops; 0 and 0 without crops."""
    states: Array
    """(1 + h w, T, W) float32 hidden states: of the whole image, then of its crops, row by row."""


def views_of_all(
    tower: ImageTower,
    files: Sequence[ImageFile],
    layer: int,
    tokens: str,
    *,
    crops: int | None = None,
    progress: Progress = SILENT,
) -> list[Views]:
    """Return the hidden states of images, each with all its views; the arguments are as for `hidden_states`.

    Raises:
        InputError: an image cannot be read, or as for `hidden_states`.
    """
    if tokens not in TOKENS:
        raise InputError(f"There are no tokens {tokens!r}; choose one of: {', '.join(TOKENS)}.")
    if crops is not None and crops < 1:
        raise InputError(f"The number of crops is at least 1, not {crops}.")
    unreadable: list[tuple[bytes, str]] = []
    states = hidden_states(
        tower, files, layer, tokens=tokens, unreadable=unreadable, damaged=[], crops=crops, progress=progress
    )
    found = [list(views) for _, views in groupby(states, key=attrgetter("place"))]
    if unreadable:
        path, reason = unreadable[0]
        raise InputError(f"Cannot read the image {os.fsdecode(path)}: {reason}")
    return [Views(views[0].grid, np.stack([view.states for view in views])) for views in found]


def all_hidden_states(tower: ImageTower, files: Sequence[ImageFile], layer: int, tokens: str) -> Array:
    """Return the (N, T, W) hidden states of N images; the arguments are as for `hidden_states`.

    Raises:
        InputError: an image cannot be read, there is no image, or as for `hidden_states`.
    """
    found = views_of_all(tower, files, layer, tokens)
    if not found:
        raise InputError("There is no image.")
    return np.concatenate([views.states for views in found])
