"""From image files to vectors: read, decode, batch and embed, each in threads of its own, in the order of the files.

The one way for whoever needs vectors of files: an `index` run, an import, a model at work. It knows nothing of what
becomes of them. A model is known by what it must be able to do, so no model library is imported here.
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
"""(H, W, 3)."""

WORKERS = min(32, cores.available())
"""Threads that read files, and as many that decode."""
BATCH_SECONDS = 2.5
"""So long the model takes for a batch at most, and so long a batch waits for more images."""
_MOST_TOGETHER = 512
"""Images in a batch at most, those included that the model has no work with."""
_MOST_EARLY_BYTES = 64 * 2**20
"""Of pixels that are made while the model is loaded."""
_MANY = 8
"""If this many images fail together, and none does not, it is the model's fault."""


class Preprocessing(Protocol):
    """What a model wants to see of an image. Several threads use it."""

    @property
    def enough(self) -> int | None:
        """How many pixels both sides of a decoded image must at least have; None if it is needed in full."""

    def __call__(self, image: Image.Image, box: tuple[float, float, float, float]) -> Pixels:
        """(H, W, 3) pixels of one image, which is what `box` (left, upper, right, lower edge) leaves of `image`."""


class ImageEncoder(Protocol):
    """The image tower of a model that is loaded."""

    @property
    def preprocessing(self) -> Preprocessing:
        """What makes pixels of images."""

    @property
    def batch_size(self) -> int:
        """Images that `encode_images` is best given at a time; it may fall."""

    @property
    def calls(self) -> int:
        """How many calls of `encode_images` at the same time are best."""

    @property
    def is_loading(self) -> bool:
        """Whether `encode_images` would wait for a model that is loaded in another thread."""

    def divide_cores(self) -> None:
        """Give each of `calls` calls at the same time its share of the cores, instead of all to each."""

    def encode_images(self, pixels: Sequence[Pixels]) -> npt.NDArray[np.float32]:
        """(B, D) unit vectors of B times (H, W, 3) pixels."""


class ImageModel(Protocol):
    """A model whose image tower is loaded when it is first asked for."""

    @property
    def name(self) -> str:
        """As the user would type it."""

    @property
    def preprocessing(self) -> Preprocessing:
        """What makes pixels of images; may be there before the tower is loaded."""

    @property
    def encoder(self) -> ImageEncoder:
        """The image tower."""


class LoadedModel(NamedTuple):
    """An `ImageModel` that is loaded, and what an index records of it."""

    encoder: ImageEncoder
    record: ModelRecord

    @property
    def name(self) -> str:
        """As the user would type it."""
        return self.record.name

    @property
    def preprocessing(self) -> Preprocessing:
        """What makes pixels of images."""
        return self.encoder.preprocessing

    def choose(self, index: Writer, known: ModelRecord | None, folders: Sequence[Path]) -> None:
        """It is chosen already."""

    def load(self, expected: int) -> LoadedModel:  # noqa: ARG002  (as `IndexModel` has it)
        """Itself, so that it can stand for an `IndexModel`."""
        return self

    def computed(self) -> Computed | None:
        """None: whoever loaded it knows how it computes."""


class IndexModel(Protocol):
    """A model whose vectors an index is to hold, loaded when it is first needed."""

    def choose(self, index: Writer, known: ModelRecord | None, folders: Sequence[Path]) -> None:
        """Decide which model it is, before all else, for an index and what is to be read; `known` is that of the index.

        Raises:
            ModelMismatchError: the index holds vectors of another model than is asked for.
        """

    def load(self, expected: int) -> LoadedModel:
        """The model, for a number of images that is `expected`.

        Raises:
            ClipsearchError: it cannot be had.
        """

    def computed(self) -> Computed | None:
        """How it computes, for the index to remember; None if it was not loaded, or nobody knows."""


class Item(NamedTuple):
    """One image file on its way to its vector."""

    file: ImageFile
    record: Record
    """What is known of it so far; with an `error` if there is no vector to be had."""
    content: bytes | None = None
    """The whole file, as long as it is to be decoded."""
    pixels: Pixels | None = None
    """(H, W, 3), as long as they are to be embedded."""
    vector: npt.NDArray[np.float32] | None = None
    """(D,) unit vector."""
    vanished: bool = False
    """Whether the file was gone when it was to be read."""

    def failed(self, error: UnreadableImageError) -> Item:
        """The same without a vector, and the reason."""
        # Without a hash it is tried again.
        known = self.record._replace(hash=None) if isinstance(error, NoMemoryError) else self.record
        return self._replace(record=known._replace(error=str(error)), content=None, pixels=None)


class Batch(NamedTuple):
    """Items that went through the model together, each of which has a vector or an error."""

    items: list[Item]
    images: int = 0
    """Those that the model had work with."""
    seconds: float = 0
    """How long it took."""


def read_images(files: Iterable[ImageFile], max_pixels: int | None = None) -> Generator[Item, None, None]:
    """Each file with its content, or with the reason why there is none, in order; `max_pixels` is as for `read_file`.

    Close it if it is not read to its end.
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
    """Items whose content is decoded to the pixels that are `wanted`, at most `ahead` of them waiting; in order.

    Images of more than `max_pixels` are not decoded. `judge` may refuse an image by putting an `error` into its record;
    threads call it. Close it if it is not read to its end.
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
    """Decode and embed about `total` items, in order; those that have a vector or an error come along.

    Batches begin with one image and grow to what the model manages in `seconds`; where there are few images, its calls
    share them. The model is loaded by the thread that asks, when the first image has pixels; `items` are asked for by
    that thread too. The rest is as for `decode_images`. Close it if it is not read to its end.

    Raises:
        ModelError: the model makes no vectors of any image.
    """
    waiting = iter(items)
    # 1. What needs no model.
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
    # 2. Pixels, as long as the model is loaded in another thread.
    early, most = [first], 1 + _MOST_EARLY_BYTES // max(1, first.pixels.nbytes)
    while encoder.is_loading and len(early) < most and (some := list(islice(waiting, 4 * WORKERS))):
        early += decode_images(some, model.preprocessing, max_pixels, judge=judge)
    encoder.divide_cores()
    with ExitStack() as opened:
        # 3. Pixels, far enough ahead for the model never to wait for them.
        ahead = (encoder.calls + 1) * encoder.batch_size + WORKERS
        decoded = opened.enter_context(
            closing(decode_images(waiting, model.preprocessing, max_pixels, ahead=ahead, judge=judge))
        )
        # 4. Vectors.
        batches = _Batches(encoder, total, seconds)
        work = partial(_embed, encoder, model.name)
        embedded = map_in_order(
            work, batches.of(chain(early, decoded)), encoder.calls, 2 * encoder.calls, promptly=True
        )
        for batch in opened.enter_context(closing(embedded)):
            batches.adapt(batch)
            yield batch


class _Batches:
    """Items in batches whose size fits the model."""

    def __init__(self, encoder: ImageEncoder, total: int, seconds: float) -> None:
        self._encoder = encoder
        self._share = -(-total // encoder.calls)
        self._seconds = seconds
        self._size = 1  # until one shows how long the model takes

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
        """Fit the size of batches to come to the time that one took."""
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
        picture, pixels = pixels_of(wanted, item.content, os.path.basename(item.file.path), max_pixels)
    except UnreadableImageError as error:
        return item.failed(error)
    record = judge(
        item.record._replace(
            width=picture.width,
            height=picture.height,
            taken_at=picture.taken_at,
            date_source=picture.date_source,
            damage=picture.missing or None,
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
    """An image, and the (H, W, 3) pixels of it, or of the part of it in a box, that a model wants to see.

    Raises:
        UnreadableImageError: it is no image, is broken, or too large.
        InputError: the box is not within it.
    """
    from clipsearch.images.decoding import decode  # a run that finds nothing new loads no decoder

    decoded = decode(content, name, max_pixels=max_pixels, at_least=None if box else wanted.enough)
    with enough_memory():
        if box is None:
            return decoded, wanted(decoded.image, decoded.box)
        part = decoded.part(box)
        return decoded, wanted(part, (0, 0, *part.size))


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
