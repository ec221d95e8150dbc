"""Hidden states of the inner layers of an image tower, for work that builds on CLIP.

This module owns the choice of layer and tokens. An index holds no hidden states, so all images are computed.
"""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np

from clipsearch.errors import InputError
from clipsearch.images.finding import ImageFile
from clipsearch.index.pipeline import decode_images, read_images
from clipsearch.system.progress import SILENT, Progress
from clipsearch.unit import Array

if TYPE_CHECKING:
    from clipsearch.models.in_numpy.image_tower import ImageTower

TOKENS = ("patch", "cls", "all")
"""The patches, the class token, or all tokens, with the class token before the patches."""


def hidden_states(
    tower: ImageTower,
    files: Sequence[ImageFile],
    layer: int,
    *,
    tokens: str,
    unreadable: list[tuple[bytes, str]],
    damaged: list[tuple[bytes, float]],
    progress: Progress = SILENT,
) -> Generator[tuple[int, Array], None, None]:
    """Compute the hidden states of a layer for images.

    Args:
        tower: The image tower.
        files: The images.
        layer: Numbered like `hidden_states` of transformers: 0 is the input of the first layer, -1 the last output.
        tokens: One of `TOKENS`.
        unreadable: Path and reason of each image that cannot be read are appended to it.
        damaged: Path of each damaged image, and the share that is missing, are appended to it.
        progress: Is updated with the number of images done.

    Yields:
        The index in `files`, and (T, W) float32 hidden states, in order. A caller that stops early must close the
        generator.

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
    progress.start(len(files))
    with (
        closing(read_images(files)) as contents,
        closing(decode_images(contents, tower.preprocessing)) as decoded,
    ):
        numbered = enumerate(decoded)
        while some := list(islice(numbered, tower.batch_size)):
            pixels = [item.pixels for _, item in some if item.pixels is not None]
            states: Iterator[Array] = iter(tower.hidden_states(pixels, passed) if pixels else ())
            for place, item in some:
                if item.pixels is None:
                    unreadable.append((item.file.path, str(item.record.error)))
                    progress.advance(1, unreadable=1)
                else:
                    if item.record.damage:
                        damaged.append((item.file.path, item.record.damage))
                    yield place, next(states)[chosen]
                    progress.advance(1)


def all_hidden_states(tower: ImageTower, files: Sequence[ImageFile], layer: int, tokens: str) -> Array:
    """Return the (N, T, W) hidden states of N images; the arguments are as for `hidden_states`.

    Raises:
        InputError: an image cannot be read, there is no image, or as for `hidden_states`.
    """
    if tokens not in TOKENS:
        raise InputError(f"There are no tokens {tokens!r}; choose one of: {', '.join(TOKENS)}.")
    unreadable: list[tuple[bytes, str]] = []
    states = hidden_states(tower, files, layer, tokens=tokens, unreadable=unreadable, damaged=[])
    found = [one for _, one in states]
    if unreadable:
        path, reason = unreadable[0]
        raise InputError(f"Cannot read the image {os.fsdecode(path)}: {reason}")
    if not found:
        raise InputError("There is no image.")
    return np.stack(found)
