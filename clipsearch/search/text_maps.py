"""Where in an image texts fit: the cosine of each text with each patch.

The vectors of patches are the image tower's (`ImageTower.patch_vectors`); docs/quality.md says how well they point. An
index holds none, so all images are computed.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import closing
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from clipsearch.errors import ModelError
from clipsearch.images.files import ImageFile
from clipsearch.index.pipeline import decode_images, read_images
from clipsearch.system.progress import SILENT, Progress
from clipsearch.unit import Array, Vectors, are_unit

if TYPE_CHECKING:
    from clipsearch.models.in_numpy.image_tower import ImageTower
    from clipsearch.models.preprocessing import Box


class TextMap(NamedTuple):
    """Where in one image M texts fit."""

    cosines: Array
    """(M, H, W) cosines of the texts with the H x W patches."""
    part: Box
    """Left, upper, right and lower edge of the patches together, in pixels of the upright image. A model that crops
    does not see the rest of the image."""
    size: tuple[int, int]
    """Width and height of the upright image in pixels."""


def map_of(tower: ImageTower, pixels: npt.NDArray[np.uint8], texts: Vectors, name: str) -> Array:
    """Compare the patches of an image with texts.

    Args:
        tower: The image tower.
        pixels: The image as `tower.preprocessing` returns it.
        texts: (M, D) unit vectors.
        name: The name of the model, for the error.

    Returns:
        (M, H, W) float32 cosines.

    Raises:
        ModelError: a vector of a patch is not finite.
    """
    patches = tower.patch_vectors(pixels)
    if not are_unit(patches.reshape(-1, tower.dim)).all():
        raise ModelError(f"Model {name!r} makes no vectors of patches.", hint="check-model", model=name)
    return np.asarray(np.clip(np.einsum("md,hwd->mhw", texts, patches), -1, 1), np.float32)


def text_maps(
    tower: ImageTower,
    files: Sequence[ImageFile],
    texts: Vectors,
    *,
    name: str,
    unreadable: list[tuple[bytes, str]],
    progress: Progress = SILENT,
) -> Generator[tuple[int, TextMap], None, None]:
    """Compute for each image where texts fit.

    Args:
        tower: The image tower.
        files: The images.
        texts: (M, D) unit vectors.
        name: The name of the model, for the error.
        unreadable: Path and reason of each image that cannot be read are appended to it.
        progress: Is updated with the number of images done.

    Yields:
        The index in `files`, and the map, in order. A caller that stops early must close the generator.

    Raises:
        ModelError: as for `map_of`.
    """
    progress.start(len(files))
    with (
        closing(read_images(files)) as contents,
        closing(decode_images(contents, tower.preprocessing)) as decoded,
    ):
        for place, item in enumerate(decoded):
            if item.pixels is None:
                unreadable.append((item.file.path, str(item.record.error)))
                progress.advance(1, unreadable=1)
                continue
            size = item.record.width or 1, item.record.height or 1
            cosines = map_of(tower, np.asarray(item.pixels), texts, name)
            yield place, TextMap(cosines, tower.preprocessing.part_seen(*size), size)
            progress.advance(1)
