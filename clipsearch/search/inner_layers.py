"""What the inner layers of an image tower make of images, for those who build on CLIP.

Owns which layer and which tokens are meant. Nothing of it is in an index, so all images are computed.
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
"""The patches, the class token, or all tokens as they stand, the class token before the patches."""


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
    """Compute what a layer makes of images.

    Args:
        tower: The image tower.
        files: The images.
        layer: As transformers counts `hidden_states`: 0 is what the first layer is given, -1 what the last one makes.
        tokens: One of `TOKENS`.
        unreadable: Path and reason of each image that cannot be read are added to it.
        damaged: Path of each image of which a part is missing, and the share of it, are added to it.
        progress: Is told how many images are done.

    Yields:
        The place in `files`, and (T, W) float32 hidden states, in order. Close it if it is not read to its end.

    Raises:
        InputError: there is no such layer, or no class token, or images keep their proportions and so have different
            numbers of tokens.
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
    """(N, T, W) the same of N images.

    Raises:
        InputError: an image cannot be read, there are none, or as above.
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
