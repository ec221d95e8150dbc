"""The pipeline from image files to vectors: read, decode, batch and embed, in parallel and in the order of the files.

Updates of an index, imports and the embedder all use it. It knows nothing of what the vectors are for.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import ExitStack, closing
from functools import partial
from itertools import chain, groupby, islice
from math import ceil
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from clipsearch.errors import ModelError, StoreError, UnreadableImageError
from clipsearch.images.codecs.box import Box
from clipsearch.images.codecs.limits import NoMemoryError, enough_memory
from clipsearch.images.files import GoneError, ImageFile, MemberError, UnreachableError
from clipsearch.images.reading import VanishedError, read_file
from clipsearch.images.regions import layout
from clipsearch.index.format import Record
from clipsearch.index.models import ImageEncoder, ImageModel, Pixels, Preprocessing
from clipsearch.index.region_files import ImageRegions
from clipsearch.system import cores
from clipsearch.system.addresses import is_address
from clipsearch.system.parallel import map_in_order
from clipsearch.unit import NOTHING, are_unit

if TYPE_CHECKING:
    from clipsearch.images.codecs.decoding import DecodedImage

WORKERS = min(32, cores.available())
"""Number of threads that read files, and number of threads that decode."""
BATCH_SECONDS = 2.5
"""The longest time that the model should take for a batch, and that a batch waits for more images."""
_MOST_TOGETHER = 512
"""Largest number of items in a batch, including those without pixels."""
_MOST_EARLY_BYTES = 64 * 2**20
"""Largest size of the pixels decoded while the model is still being loaded."""
_REGIONS_WEIGH = 4
"""Factor by which fewer images are decoded ahead if they may have regions, so that their pixels take about the same
memory."""
_MANY = 8
"""If all of at least this many images have no vector, the model is broken."""


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
    unreachable: bool = False
    """Whether it cannot be had now, though it is there."""
    only_regions: bool = False
    """Whether the index has the vector of the whole image, so that only its regions are embedded."""
    boxes: Sequence[Box] = ()
    """The regions of the image, in pixels of the upright image."""
    parts: Sequence[Pixels] = ()
    """(H, W, 3) pixels of each region, until they are embedded."""
    regions: ImageRegions | None = None
    """The regions that have vectors; None if there are none."""

    @property
    def inputs(self) -> list[Pixels]:
        """The pixels to embed: those of the whole image, and of its regions."""
        return [*self.parts] if self.pixels is None else [self.pixels, *self.parts]

    def failed(self, error: UnreadableImageError) -> Item:
        """Return the item with the error, without content and pixels."""
        # A record without a hash makes the next run try again.
        known = self.record._replace(hash=None) if isinstance(error, NoMemoryError) else self.record
        return self._replace(record=known._replace(error=str(error)), content=None, pixels=None, boxes=(), parts=())


class Batch(NamedTuple):
    """Items that were embedded together, each with a vector or an error."""

    items: list[Item]
    images: int = 0
    """Number of images and regions that were embedded."""
    seconds: float = 0
    """Duration of embedding them."""


class Pipeline(Protocol):
    """What an update needs of a pipeline. This module is the one that computes in this process."""

    def read_images(self, files: Iterable[ImageFile], max_pixels: int | None = None) -> Generator[Item, None, None]:
        """Read files, and yield each with its record; one with content waits for `embed_images`."""

    def embed_images(
        self,
        items: Iterable[Item],
        model: ImageModel,
        *,
        total: int,
        max_pixels: int | None = None,
        seconds: float = BATCH_SECONDS,
        regions: bool = False,
        judge: Callable[[Record], Record] = lambda record: record,
    ) -> Generator[Batch, None, None]:
        """Embed those of the items that were read which the caller wants, and yield them."""


def read_images(files: Iterable[ImageFile], max_pixels: int | None = None) -> Generator[Item, None, None]:
    """Read files in parallel, and yield each with its content or with an error, in order.

    `max_pixels` is as for `read_file`. A caller that stops early must close the generator.
    """
    work = partial(read, max_pixels=max_pixels)
    for in_stores, group in groupby(files, lambda file: is_address(file.path)):
        if in_stores:
            from clipsearch.images.requesting import AT_ONCE, abandon  # which folders do not need

            items = map_in_order(work, group, AT_ONCE, 4 * AT_ONCE, lambda file: file.size, abandon=abandon)
        else:
            items = map_in_order(work, group, WORKERS, 4 * WORKERS, lambda file: file.size)
        with closing(items):
            yield from items


def decode_images(
    items: Iterable[Item],
    wanted: Preprocessing,
    max_pixels: int | None = None,
    *,
    ahead: int = 4 * WORKERS,
    regions: bool = False,
    judge: Callable[[Record], Record] = lambda record: record,
) -> Generator[Item, None, None]:
    """Decode items in parallel, and yield each with its pixels or with an error, in order.

    Args:
        items: those without content are passed on.
        wanted: makes the pixels.
        max_pixels: images with more pixels are not decoded.
        ahead: at most this many decoded items wait for the caller. A caller that stops early must close the generator.
        regions: whether to make the pixels of regions as well.
        judge: may refuse an image by setting the `error` of its record. Several threads call it.
    """
    work = partial(_decode, wanted=wanted, max_pixels=max_pixels, regions=regions, judge=judge)
    return map_in_order(work, items, WORKERS, ahead, lambda item: len(item.content or b""))


def embed_images(
    items: Iterable[Item],
    model: ImageModel,
    *,
    total: int,
    max_pixels: int | None = None,
    seconds: float = BATCH_SECONDS,
    regions: bool = False,
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
        regions: whether to embed regions of large images as well.
        judge: as for `decode_images`.

    Raises:
        ModelError: the model makes no unit vector of any image.
    """
    waiting = iter(items)
    decode = partial(decode_images, wanted=model.preprocessing, max_pixels=max_pixels, regions=regions, judge=judge)
    # 1. Pass on items until one needs the model.
    for item in waiting:
        first = item
        if item.content is not None:
            first = _decode(item, wanted=model.preprocessing, max_pixels=max_pixels, regions=regions, judge=judge)
        if first.inputs:
            break
        yield Batch([first])
    else:
        return
    encoder = model.encoder
    # 2. Decode while the model is being loaded in another thread.
    early, most = [first], 1 + _MOST_EARLY_BYTES // max(1, sum(one.nbytes for one in first.inputs))
    while encoder.is_loading and len(early) < most and (some := list(islice(waiting, 4 * WORKERS))):
        early += decode(some)
    encoder.divide_cores()
    with ExitStack() as opened:
        # 3. Decode far enough ahead for the model never to wait.
        ahead = (encoder.calls + 1) * encoder.batch_size // (_REGIONS_WEIGH if regions else 1) + WORKERS
        decoded = opened.enter_context(closing(decode(waiting, ahead=ahead)))
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
            images += len(item.inputs)
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


def read(file: ImageFile, max_pixels: int | None) -> Item:
    """Read one file. `max_pixels` is as for `read_file`.

    Raises:
        StoreError: the store of the file does not answer any more, so that it is no use to go on.
    """
    known = Record(file.path, None, file.size, file.mtime_ns, None, ctime_ns=file.ctime_ns, inode=file.inode)
    if file.problem is not None:
        return Item(file, known._replace(error=file.problem))
    try:
        data, digest, size, mtime_ns, ctime_ns, inode = read_file(file.path, max_pixels)
    except GoneError as error:
        raise StoreError(f"{error}. What was recorded until then stays.") from error
    except UnreadableImageError as error:
        # An empty hash says that there is no need to try again.
        stays = b"" if isinstance(error, MemberError) else None
        item = Item(file, known._replace(error=str(error), hash=stays), vanished=isinstance(error, VanishedError))
        return item._replace(unreachable=isinstance(error, UnreachableError))
    known = Record(file.path, None, size, mtime_ns, digest, ctime_ns=ctime_ns, inode=inode)
    return Item(file, known, data)


def _decode(
    item: Item,
    *,
    wanted: Preprocessing,
    max_pixels: int | None,
    regions: bool,
    judge: Callable[[Record], Record],
) -> Item:
    if item.content is None:
        return item
    side = wanted.side if regions else None
    name = os.path.basename(item.file.path)
    try:
        decoded = _decoded(wanted, item.content, name, max_pixels, side)
        with enough_memory():
            pixels = None if item.only_regions else wanted(decoded.image, decoded.box)
            boxes = layout(decoded.width, decoded.height, side) if side else []
            parts = [wanted(part, (0, 0, *part.size)) for part in map(decoded.part, boxes)]
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
    if record.error is not None:
        return item._replace(record=record, content=None)
    return item._replace(record=record, content=None, pixels=pixels, boxes=boxes, parts=parts)


def _decoded(
    wanted: Preprocessing, content: bytes, name: bytes, max_pixels: int | None, side: int | None
) -> DecodedImage:
    """Decode an image at the scale that its preprocessing needs or, with `side`, that its smallest region needs."""
    from clipsearch.images.codecs.decoding import decode  # an update that finds nothing new needs no decoder

    enough = wanted.enough

    def at_least(width: int, height: int) -> int:
        regions = layout(width, height, side) if side else ()
        shortest = min((min(box.right - box.left, box.bottom - box.top) for box in regions), default=None)
        return ceil((enough or 0) * (min(width, height) / shortest if shortest else 1))

    return decode(content, name, max_pixels=max_pixels, at_least=at_least if enough else None)


def _embed(encoder: ImageEncoder, model: str, batch: Sequence[Item]) -> Batch:
    started = time.monotonic()
    inputs = [one for item in batch for one in item.inputs]
    results: list[npt.NDArray[np.float32] | UnreadableImageError] = []
    while len(results) < len(inputs):  # regions can make a batch larger than was planned
        results += vectors_of(encoder, model, inputs[len(results) : len(results) + encoder.batch_size])
    remaining = iter(results)
    done = [_with_results(item, [next(remaining) for _ in item.inputs]) if item.inputs else item for item in batch]
    return Batch(done, len(inputs), time.monotonic() - started)


def _with_results(item: Item, results: list[npt.NDArray[np.float32] | UnreadableImageError]) -> Item:
    whole = None if item.pixels is None else results.pop(0)
    if isinstance(whole, UnreadableImageError):
        return item.failed(whole)
    found = [
        (box, vector)
        for box, vector in zip(item.boxes, results, strict=True)
        if not isinstance(vector, UnreadableImageError)
    ]
    regions = ImageRegions([box for box, _ in found], np.stack([vector for _, vector in found])) if found else None
    return item._replace(pixels=None, parts=(), vector=whole, regions=regions)


def pixels_of(
    wanted: Preprocessing, content: bytes, name: bytes, max_pixels: int | None = None, box: Box | None = None
) -> tuple[DecodedImage, npt.NDArray[np.uint8]]:
    """Decode an image, and preprocess it, or its part in a box, to (H, W, 3) pixels.

    Raises:
        UnreadableImageError: the content is not an image, broken, or too large.
        InputError: the box is not within the image.
    """
    from clipsearch.images.codecs.decoding import decode  # an update that finds nothing new needs no decoder

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
