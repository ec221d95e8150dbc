"""The pictures of an index, by row: reduced for the page, or their files as they are. Nothing else is ever read."""

from __future__ import annotations

import io
import os
import zipfile
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from clipsearch.errors import IndexDamagedError, UnreadableImageError
from clipsearch.images.decoding import DecodedImage, decode
from clipsearch.images.reading import Content, read_file
from clipsearch.images.recognising import format_of
from clipsearch.index.format import Record
from clipsearch.output.paths import printable
from clipsearch.output.thumbnails import reduced
from clipsearch.server.indexes import Served
from clipsearch.server.thumbnail_cache import ThumbnailCache

SIDES = (320, 640, 1600)
"""Lengths of the longest side of a thumbnail, in pixels: the grid, the grid on dense screens, one picture alone."""
_QUALITY, _EFFORT = 78, 2
"""Quality and effort of WebP, as for pages in one file."""
SHOWN = {
    "JPEG": "image/jpeg",
    "PNG": "image/png",
    "WEBP": "image/webp",
    "GIF": "image/gif",
    "AVIF": "image/avif",
    "BMP": "image/bmp",
}
"""Media types of the formats that browsers show; all others are only to be saved."""
_LARGEST_ROW = 2**31
_DIGITS = 10
_PART = 1 << 20
"""Bytes of a zip file that are sent at a time."""


class NoSuchPictureError(Exception):
    """There is no such row, or its picture is another one than the client has seen."""


class File(NamedTuple):
    """The file of a picture, as it is on the disk."""

    content: bytes
    name: str
    """Its name, without folders, printable."""
    media_type: str | None
    """None if browsers do not show it."""


def record_of(served: Served, row: str, content: bytes | None = None) -> Record:
    """Return the record of a row, as it was written in a request.

    Args:
        served: the index.
        row: digits.
        content: the hash that the picture has to have; None for any.

    Raises:
        NoSuchPictureError: there is no such row, or it has another content by now.
    """
    number = int(row) if row.isascii() and row.isdecimal() and len(row) <= _DIGITS else _LARGEST_ROW
    if number >= _LARGEST_ROW:
        raise NoSuchPictureError
    try:
        record = served.index.store.image(number)
    except IndexDamagedError as error:  # the row belongs to no image
        raise NoSuchPictureError from error
    if content is not None and record.hash != content:
        raise NoSuchPictureError
    return record


def thumbnail(record: Record, side: int, cache: ThumbnailCache) -> bytes:
    """Return a picture, upright and reduced to `side` pixels at most, as WebP.

    Raises:
        UnreadableImageError: it is gone, cannot be read, or has changed since it was indexed.
    """
    if record.hash and (known := cache.get(record.hash, side)):
        return known
    out = io.BytesIO()
    reduced(decoded(record, side), side).save(out, "WEBP", quality=_QUALITY, method=_EFFORT)
    if record.hash:
        cache.put(record.hash, side, out.getvalue())
    return out.getvalue()


def decoded(record: Record, side: int) -> DecodedImage:
    """Decode a picture, of which `side` pixels are enough.

    Raises:
        UnreadableImageError: as for `thumbnail`.
    """
    return decode(_read(record).data, os.path.basename(record.path), at_least=side)


def original(record: Record) -> File:
    """Return the file of a picture.

    Raises:
        UnreadableImageError: as for `thumbnail`.
    """
    file = _read(record)
    return File(file.data, printable(os.path.basename(record.path)), SHOWN.get(format_of(file.data) or ""))


def zipped(records: Iterable[Record]) -> Iterator[bytes]:
    """Yield the parts of a zip file with the files of pictures; those that cannot be read are named in a list."""
    out = _Parts()
    taken: set[str] = set()
    missing = []
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive:
        for record in records:
            try:
                file = original(record)
            except UnreadableImageError as error:
                missing.append(f"{printable(record.path)}: {error}")
                continue
            with archive.open(_free(file.name, taken), "w") as member:
                for start in range(0, len(file.content), _PART):
                    member.write(file.content[start : start + _PART])
                    yield out.taken()
            yield out.taken()
        if missing:
            archive.writestr(_free("not read.txt", taken), "\n".join(missing))
    yield out.taken()


def _read(record: Record) -> Content:
    file = read_file(record.path)
    if record.hash is not None and file.digest != record.hash:
        raise UnreadableImageError("it has changed since it was indexed")
    return file


def _free(name: str, taken: set[str]) -> str:
    """Return a name that no file in a zip has yet."""
    start, ending = os.path.splitext(name.replace("/", "_").replace("\\", "_"))
    free, number = f"{start}{ending}", 2
    while free.lower() in taken:
        free, number = f"{start} ({number}){ending}", number + 1
    taken.add(free.lower())
    return free


class _Parts(io.RawIOBase):
    """What was written, to be taken away in parts; a zip file is written to it from the beginning to the end."""

    def __init__(self) -> None:
        super().__init__()
        self._written = bytearray()

    def writable(self) -> bool:
        """Return True."""
        return True

    def write(self, data: object, /) -> int:
        """Keep `data`."""
        part = bytes(data)  # type: ignore[call-overload]
        self._written += part
        return len(part)

    def taken(self) -> bytes:
        """Return what was written since the last call."""
        part, self._written = bytes(self._written), bytearray()
        return part
