"""What the threads of an `index` run do: read a file, decode it, embed a batch. Knows nothing of the index's writer.

The model is known by what it must be able to do, so no model library is imported here.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from clipsearch.errors import ModelError, UnreadableImageError
from clipsearch.images.finding import ImageFile
from clipsearch.images.limits import NoMemoryError, enough_memory
from clipsearch.images.reading import Content, read_file
from clipsearch.index.format import Record
from clipsearch.unit import NOTHING, are_unit

if TYPE_CHECKING:
    from PIL import Image

    from clipsearch.images.decoding import Picture

_MANY = 8
"""If so many pictures fail together and not one does not, it is the model's fault."""


class Preprocessing(Protocol):
    """What a model wants to see of a picture. Several threads use it."""

    @property
    def enough(self) -> int | None:
        """How many pixels both sides of a decoded picture must at least have; None if it is needed in full."""

    def __call__(self, image: Image.Image, box: tuple[float, float, float, float]) -> npt.NDArray[np.uint8]:
        """(H, W, 3) pixels of one picture, which is what `box` (left, upper, right, lower edge) leaves of `image`."""


class ImageEncoder(Protocol):
    """What indexing needs of a model."""

    @property
    def preprocessing(self) -> Preprocessing:
        """What makes pixels of pictures."""

    @property
    def batch_size(self) -> int:
        """Pictures that `encode_images` is best given at a time; it may fall."""

    @property
    def calls(self) -> int:
        """How many calls of `encode_images` at the same time are best."""

    def encode_images(self, pixels: Sequence[npt.NDArray[np.uint8]]) -> npt.NDArray[np.float32]:
        """(B, D) unit vectors of B times (H, W, 3) pixels."""


class Decoded(NamedTuple):
    """One file that was decoded: its record so far, and its pixels if there are any."""

    record: Record
    pixels: npt.NDArray[np.uint8] | None = None


class Embedded(NamedTuple):
    """A batch that was embedded: its records, (B, D) vectors, and how long the model took."""

    records: list[Record]
    vectors: npt.NDArray[np.float32]
    seconds: float
    failed: list[Record]
    """Of pictures that the model makes no vector of, with the reason."""


def read(file: ImageFile, max_pixels: int | None = None) -> tuple[ImageFile, Content | UnreadableImageError]:
    """A file with its content, or with the reason why there is none; `max_pixels` is as for `read_file`."""
    if file.problem is not None:
        return file, UnreadableImageError(file.problem)
    try:
        return file, read_file(file.path, max_pixels)
    except UnreadableImageError as error:
        return file, error


def record_of(path: bytes, content: Content) -> Record:
    """What is known of a file once it is read."""
    return Record(
        path, None, content.size, content.mtime_ns, content.digest, ctime_ns=content.ctime_ns, inode=content.inode
    )


def unread(file: ImageFile, reason: str) -> Record:
    """What is known of a file that could not be read."""
    return Record(
        file.path, None, file.size, file.mtime_ns, None, error=reason, ctime_ns=file.ctime_ns, inode=file.inode
    )


def decode_for(encoder: ImageEncoder, file: ImageFile, content: Content, max_pixels: int) -> Decoded:
    """The pixels that `encoder` wants to see of a file, or a record that says why there are none."""
    record = record_of(file.path, content)
    wanted = encoder.preprocessing
    try:
        picture, pixels = pixels_of(wanted, content.data, os.path.basename(file.path), max_pixels)
    except NoMemoryError as error:
        return Decoded(record._replace(hash=None, error=str(error)))  # without a hash it is tried again
    except UnreadableImageError as error:
        return Decoded(record._replace(error=str(error)))
    return Decoded(described(record, picture), pixels)


def described(record: Record, picture: Picture) -> Record:
    """`record` with what is known of a picture once it is decoded."""
    return record._replace(
        width=picture.width,
        height=picture.height,
        taken_at=picture.taken_at,
        date_source=picture.date_source,
        damage=picture.missing or None,
    )


def pixels_of(
    wanted: Preprocessing, content: bytes, name: bytes, max_pixels: int | None = None
) -> tuple[Picture, npt.NDArray[np.uint8]]:
    """A picture, and the (H, W, 3) pixels of it that a model wants to see.

    Raises:
        UnreadableImageError: it is no picture, is broken, or too large.
    """
    from clipsearch.images.decoding import decode  # a run that finds nothing new loads no decoder

    picture = decode(content, name, max_pixels=max_pixels, at_least=wanted.enough)
    with enough_memory():
        return picture, wanted(picture.image, picture.box)


def embed(encoder: ImageEncoder, model: str, batch: Sequence[Decoded]) -> Embedded:
    """The vectors of a batch, all of which has pixels, by `model`, as the user would type it.

    Raises:
        ModelError: the model makes no vectors.
    """
    started = time.monotonic()
    pixels = [item.pixels for item in batch if item.pixels is not None]
    embedded = Embedded([], np.empty((0, 0), np.float32), time.monotonic() - started, [])
    vectors = []
    for item, result in zip(batch, vectors_of(encoder, model, pixels), strict=True):
        if isinstance(result, UnreadableImageError):
            embedded.failed.append(item.record._replace(error=str(result)))
        else:
            embedded.records.append(item.record)
            vectors.append(result)
    seconds = time.monotonic() - started
    return embedded._replace(vectors=np.stack(vectors), seconds=seconds) if vectors else embedded


def vectors_of(
    encoder: ImageEncoder, model: str, pixels: Sequence[npt.NDArray[np.uint8]]
) -> list[npt.NDArray[np.float32] | UnreadableImageError]:
    """The (D,) unit vector of each picture, or why there is none; `pixels` and `model` are as for `embed`.

    Raises:
        ModelError: it is the model's fault and not the pictures'.
    """
    vectors = encoder.encode_images(pixels)
    sound = are_unit(vectors)
    if not sound.any() and (len(pixels) >= _MANY or not _makes_any(encoder, pixels[0])):
        raise ModelError(
            f"Model {model!r} makes no vectors of pictures: {NOTHING}. Its weights or its preprocessing are damaged.",
            hint="check-model",
            model=model,
        )
    return [
        vector if good else UnreadableImageError(f"the model makes no vector of it: {NOTHING}")
        for vector, good in zip(vectors, sound.tolist(), strict=True)
    ]


def _makes_any(encoder: ImageEncoder, like: npt.NDArray[np.uint8]) -> bool:
    """Whether a model makes vectors of other pictures that are as large: black, grey, white, and noise.

    A picture that fails alone says nothing of the model.
    """
    plain = [np.full_like(like, level) for level in (0, 128, 255)]
    noise = np.random.default_rng(0).integers(0, 256, like.shape, np.uint8)
    return bool(are_unit(encoder.encode_images([*plain, noise])).any())
