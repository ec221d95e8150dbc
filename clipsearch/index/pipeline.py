"""The pipeline from image files to vectors: read, decode, batch and embed, in parallel and in the order of the files.

Updates of an index, imports and the embedder all use it. It knows nothing of what the vectors are for. Models are
described by protocols, so no model library is imported here.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import ExitStack, closing
from functools import partial
from itertools import chain, islice
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from clipsearch.errors import ModelError, UnreadableImageError
from clipsearch.images.finding import ImageFile
from clipsearch.images.limits import NoMemoryError, enough_memory
from clipsearch.images.reading import VanishedError, read_file
from clipsearch.index.format import Computed, ModelRecord, Record
from clipsearch.system import cores
from clipsearch.system.parallel import map_in_order
from clipsearch.unit import NOTHING, are_unit

if TYPE_CHECKING:
    from pathlib import Path

    from PIL import Image

    from clipsearch.images.box import Box
    from clipsearch.images.decoding import DecodedImage
    from clipsearch.index.writing import Writer

Pixels = npt.NDArray[np.uint8]
"""(H, W, 3) pixels of one preprocessed image, not yet normalised."""

WORKERS = min(32, cores.available())
"""Number of threads that read files, and number of threads that decode."""
BATCH_SECONDS = 2.5
"""The longest time that the model should take for a batch, and that a batch waits for more images."""
_MOST_TOGETHER = 512
"""Largest number of items in a batch, including those without pixels."""
_MOST_EARLY_BYTES = 64 * 2**20
"""Largest size of the pixels decoded while the model is still being loaded."""
_MANY = 8
"""If all of at least this many images have no vector, the model is broken."""


class Preprocessing(Protocol):
    """The preprocessing of a model, which several threads may call."""

    @property
    def enough(self) -> int | None:
        """The least number of pixels on each side of a decoded image; None if it is needed in full."""

    def __call__(self, image: Image.Image, box: tuple[float, float, float, float]) -> Pixels:
        """Return the (H, W, 3) pixels of `image` cropped to `box` (left, upper, right, lower edge)."""


class ImageEncoder(Protocol):
    """The image tower of a loaded model."""

    @property
    def preprocessing(self) -> Preprocessing:
        """The preprocessing of images."""

    @property
    def batch_size(self) -> int:
        """The best number of images for `encode_images`; it may decrease."""

    @property
    def calls(self) -> int:
        """The best number of simultaneous calls of `encode_images`."""

    @property
    def is_loading(self) -> bool:
        """Whether `encode_images` would wait for a model that another thread is loading."""

    def divide_cores(self) -> None:
        """Divide the cores between `calls` simultaneous calls, instead of giving all cores to each."""

    def encode_images(self, pixels: Sequence[Pixels]) -> npt.NDArray[np.float32]:
        """Embed B images of (H, W, 3) pixels as (B, D) unit vectors."""


class ImageModel(Protocol):
    """A model whose image tower is loaded on first use."""

    @property
    def name(self) -> str:
        """The name of the model, as the user would type it."""

    @property
    def preprocessing(self) -> Preprocessing:
        """The preprocessing of images, which may be available before the tower is loaded."""

    @property
    def encoder(self) -> ImageEncoder:
        """The image tower, loaded on first use."""


class LoadedModel(NamedTuple):
    """An `ImageModel` that is loaded, with the record of it for an index."""

    encoder: ImageEncoder
    record: ModelRecord

    @property
    def name(self) -> str:
        """The name of the model, as the user would type it."""
        return self.record.name

    @property
    def preprocessing(self) -> Preprocessing:
        """The preprocessing of images."""
        return self.encoder.preprocessing

    def choose(self, index: Writer, known: ModelRecord | None, folders: Sequence[Path]) -> None:
        """Do nothing, because the model is chosen already."""

    def load(self, expected: int) -> LoadedModel:  # noqa: ARG002  (as `IndexModel` has it)
        """Return itself, so that it can be used as an `IndexModel`."""
        return self

    def computed(self) -> Computed | None:
        """Return None, because the caller who loaded the model knows."""


class IndexModel(Protocol):
    """The model of an index that is updated, loaded when it is first needed."""

    def choose(self, index: Writer, known: ModelRecord | None, folders: Sequence[Path]) -> None:
        """Decide which model to use for `index`, which records the model `known`, before `folders` are searched.

        Raises:
            ModelMismatchError: the index holds vectors of another model than the one asked for.
        """

    def load(self, expected: int) -> LoadedModel:
        """Load the model for about `expected` images.

        Raises:
            ClipsearchError: the model is not available.
        """

    def computed(self) -> Computed | None:
        """Describe how the model computes, for the record in the index; None if it was not loaded or it is unknown."""


class Item(NamedTuple):
    """One image file in the pipeline."""

    file: ImageFile
    record: Record
    """The record of the file so far, with an `error` if it has no vector."""
    content: bytes | None = None
    """The content of the file, until it is decoded."""
    pixels: Pixels | None = None
    """(H, W, 3) pixels, until they are embedded."""
    vector: npt.NDArray[np.float32] | None = None
    """(D,) unit vector."""
    vanished: bool = False
    """Whether the file had been deleted before it was read."""

    def failed(self, error: UnreadableImageError) -> Item:
        """Return the item with the error, without content and pixels."""
        # A record without a hash makes the next run try again.
        known = self.record._replace(hash=None) if isinstance(error, NoMemoryError) else self.record
        return self._replace(record=known._replace(error=str(error)), content=None, pixels=None)


class Batch(NamedTuple):
    """Items that were embedded together, each with a vector or an error."""

    items: list[Item]
    images: int = 0
    """Number of images that were embedded."""
    seconds: float = 0
    """Duration of embedding them."""


def read_images(files: Iterable[ImageFile], max_pixels: int | None = None) -> Generator[Item, None, None]:
    """Read files in parallel, and yield each with its content or with an error, in order.

    `max_pixels` is as for `read_file`. A caller that stops early must close the generator.
    """
    return map_in_order(partial(_read, max_pixels=max_pixels), files, WORKERS, 4 * WORKERS, lambda file: file.size)


def decode_images(
    items: Iterable[Item],
    wanted: Preprocessing,
    max_pixels: int | None = None,
    *,
    ahead: int = 4 * WORKERS,
    judge: Callable[[Record], Record] = lambda record: record,
) -> Generator[Item, None, None]:
    """Decode items in parallel, and yield each with its pixels or with an error, in order.

    Images of more than `max_pixels` are not decoded, and at most `ahead` decoded items wait for the caller. `judge`,
    which several threads call, may refuse an image by setting the `error` of its record. A caller that stops early must
    close the generator.
    """
    work = partial(_decode, wanted=wanted, max_pixels=max_pixels, judge=judge)
    return map_in_order(work, items, WORKERS, ahead, lambda item: len(item.content or b""))


def embed_images(
    items: Iterable[Item],
    model: ImageModel,
    *,
    total: int,
    max_pixels: int | None = None,
    seconds: float = BATCH_SECONDS,
    judge: Callable[[Record], Record] = lambda record: record,
) -> Generator[Batch, None, None]:
    """Decode and embed items in parallel, and yield them in order.

    Batches begin with one image and grow until the model takes `seconds` for one; a few images are divided between
    simultaneous calls. A caller that stops early must close the generator.

    Args:
        items: those that have a vector or an error are passed on. They are iterated in the caller's thread.
        model: is loaded in the caller's thread, when the first image is decoded.
        total: the approximate number of items.
        max_pixels: images with more pixels are not decoded.
        seconds: the longest time that the model should take for a batch.
        judge: as for `decode_images`.

    Raises:
        ModelError: the model makes no unit vector of any image.
    """
    waiting = iter(items)
    # 1. Pass on items until one needs the model.
    for item in waiting:
        first = item
        if item.content is not None:
            first = _decode(item, wanted=model.preprocessing, max_pixels=max_pixels, judge=judge)
        if first.pixels is not None:
            break
        yield Batch([first])
    else:
        return
    encoder = model.encoder
    # 2. Decode while the model is being loaded in another thread.
    early, most = [first], 1 + _MOST_EARLY_BYTES // max(1, first.pixels.nbytes)
    while encoder.is_loading and len(early) < most and (some := list(islice(waiting, 4 * WORKERS))):
        early += decode_images(some, model.preprocessing, max_pixels, judge=judge)
    encoder.divide_cores()
    with ExitStack() as opened:
        # 3. Decode far enough ahead for the model never to wait.
        ahead = (encoder.calls + 1) * encoder.batch_size + WORKERS
        decoded = opened.enter_context(
            closing(decode_images(waiting, model.preprocessing, max_pixels, ahead=ahead, judge=judge))
        )
        # 4. Embed in batches.
        batches = _Batches(encoder, total, seconds)
        work = partial(_embed, encoder, model.name)
        embedded = map_in_order(
            work, batches.of(chain(early, decoded)), encoder.calls, 2 * encoder.calls, promptly=True
        )
        for batch in opened.enter_context(closing(embedded)):
            batches.adapt(batch)
            yield batch


class _Batches:
    """Divides items into batches whose size suits the speed of the model."""

    def __init__(self, encoder: ImageEncoder, total: int, seconds: float) -> None:
        self._encoder = encoder
        self._share = -(-total // encoder.calls)
        self._seconds = seconds
        self._size = 1  # until a batch shows how long the model takes

    def of(self, items: Iterable[Item]) -> Iterator[list[Item]]:
        batch: list[Item] = []
        images, began = 0, time.monotonic()
        for item in items:
            batch.append(item)
            images += item.pixels is not None
            late = time.monotonic() - began > self._seconds
            if images >= self._size or len(batch) >= _MOST_TOGETHER or late:
                yield batch
                batch, images, began = [], 0, time.monotonic()
        if batch:
            yield batch

    def adapt(self, batch: Batch) -> None:
        """Adapt the size of further batches to the duration of this one."""
        if batch.images:
            fitting = int(batch.images * self._seconds / max(batch.seconds, 1e-9))
            self._size = max(1, min(self._encoder.batch_size, fitting, self._share))


def _read(file: ImageFile, max_pixels: int | None) -> Item:
    known = Record(file.path, None, file.size, file.mtime_ns, None, ctime_ns=file.ctime_ns, inode=file.inode)
    if file.problem is not None:
        return Item(file, known._replace(error=file.problem))
    try:
        data, digest, size, mtime_ns, ctime_ns, inode = read_file(file.path, max_pixels)
    except UnreadableImageError as error:
        return Item(file, known._replace(error=str(error)), vanished=isinstance(error, VanishedError))
    known = Record(file.path, None, size, mtime_ns, digest, ctime_ns=ctime_ns, inode=inode)
    return Item(file, known, data)


def _decode(item: Item, *, wanted: Preprocessing, max_pixels: int | None, judge: Callable[[Record], Record]) -> Item:
    if item.content is None:
        return item
    try:
        decoded, pixels = pixels_of(wanted, item.content, os.path.basename(item.file.path), max_pixels)
    except UnreadableImageError as error:
        return item.failed(error)
    record = judge(
        item.record._replace(
            width=decoded.width,
            height=decoded.height,
            taken_at=decoded.taken_at,
            date_source=decoded.date_source,
            damage=decoded.missing or None,
        )
    )
    return item._replace(record=record, content=None, pixels=pixels if record.error is None else None)


def _embed(encoder: ImageEncoder, model: str, batch: Sequence[Item]) -> Batch:
    started = time.monotonic()
    pixels = [item.pixels for item in batch if item.pixels is not None]
    results = iter(vectors_of(encoder, model, pixels) if pixels else ())
    done = [item if item.pixels is None else _with_result(item, next(results)) for item in batch]
    return Batch(done, len(pixels), time.monotonic() - started)


def _with_result(item: Item, result: npt.NDArray[np.float32] | UnreadableImageError) -> Item:
    if isinstance(result, UnreadableImageError):
        return item.failed(result)
    return item._replace(pixels=None, vector=result)


def pixels_of(
    wanted: Preprocessing, content: bytes, name: bytes, max_pixels: int | None = None, box: Box | None = None
) -> tuple[DecodedImage, npt.NDArray[np.uint8]]:
    """Decode an image, and preprocess it, or its part in a box, to (H, W, 3) pixels.

    Raises:
        UnreadableImageError: the content is not an image, broken, or too large.
        InputError: the box is not within the image.
    """
    from clipsearch.images.decoding import decode  # an update that finds nothing new needs no decoder

    decoded = decode(content, name, max_pixels=max_pixels, at_least=None if box else wanted.enough)
    with enough_memory():
        if box is None:
            return decoded, wanted(decoded.image, decoded.box)
        part = decoded.part(box)
        return decoded, wanted(part, (0, 0, *part.size))


def vectors_of(
    encoder: ImageEncoder, model: str, pixels: Sequence[npt.NDArray[np.uint8]]
) -> list[npt.NDArray[np.float32] | UnreadableImageError]:
    """Embed images of (H, W, 3) pixels, and return the (D,) unit vector of each, or an error if the model makes none.

    `model` is the name of the model, for errors.

    Raises:
        ModelError: the model makes no unit vector of any image.
    """
    vectors = encoder.encode_images(pixels)
    sound = are_unit(vectors)
    if not sound.any() and (len(pixels) >= _MANY or not _makes_any(encoder, pixels[0])):
        raise ModelError(
            f"Model {model!r} makes no vectors of images: {NOTHING}. Its weights or its preprocessing are damaged.",
            hint="check-model",
            model=model,
        )
    return [
        vector if good else UnreadableImageError(f"the model makes no vector of it: {NOTHING}")
        for vector, good in zip(vectors, sound.tolist(), strict=True)
    ]


def _makes_any(encoder: ImageEncoder, like: npt.NDArray[np.uint8]) -> bool:
    """Whether a model makes unit vectors of other images of the same size: black, grey, white, and noise.

    It tells a broken model from an image that alone has no vector.
    """
    plain = [np.full_like(like, level) for level in (0, 128, 255)]
    noise = np.random.default_rng(0).integers(0, 256, like.shape, np.uint8)
    return bool(are_unit(encoder.encode_images([*plain, noise])).any())
