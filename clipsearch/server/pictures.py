"""The pictures of an index, by row: reduced for the page, or their files as they are. Nothing else is ever read."""

from __future__ import annotations

import hashlib
import io
import os
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from itertools import chain
from typing import BinaryIO, NamedTuple

from clipsearch.errors import IndexDamagedError, UnreadableImageError
from clipsearch.images.codecs.decoding import DecodedImage, decode
from clipsearch.images.codecs.recognising import format_of
from clipsearch.images.reading import Content, VanishedError, digest_of, open_regular, read_file
from clipsearch.index.format import Record
from clipsearch.output.paths import printable
from clipsearch.output.thumbnails import reduced
from clipsearch.server.indexes import Served
from clipsearch.server.thumbnail_cache import ThumbnailCache
from clipsearch.system.members import elsewhere

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
"""Bytes of a large file that are read and sent at a time."""
_LARGE = 4 << 20
"""Bytes from which on a file is not held in memory, but read twice: to check it, and to send it."""
_CHANGED = "it has changed since it was indexed"


class NoSuchPictureError(Exception):
    """There is no such row, or its picture is another one than the client has seen."""


class File(NamedTuple):
    """The file of a picture, as it is on the disk."""

    content: bytes | Iterator[bytes]
    """All of it, or its parts, which fail with an UnreadableImageError if the file changes meanwhile."""
    size: int
    """Bytes."""
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
    """Return the file of a picture. A large one is not read into memory, unless it lies in an archive or at an address.

    Raises:
        UnreadableImageError: as for `thumbnail`.
    """
    if record.size <= _LARGE or record.hash is None or elsewhere(record.path):
        data = _read(record).data
        return File(data, len(data), *_name_and_type(record, data))
    with ExitStack() as opened:
        try:
            file = opened.enter_context(open_regular(record.path))
            beginning = file.read(_PART)
            if digest_of(chain([beginning], _rest(file))) != record.hash:
                raise UnreadableImageError(_CHANGED)
            file.seek(0)
        except FileNotFoundError as error:
            raise VanishedError("it is gone") from error
        except OSError as error:
            raise UnreadableImageError(error.strerror or str(error)) from error
        opened.pop_all()  # it is closed when it has been sent
    return File(_checked(file, record.hash), record.size, *_name_and_type(record, beginning))


def _name_and_type(record: Record, beginning: bytes) -> tuple[str, str | None]:
    return printable(os.path.basename(record.path)), SHOWN.get(format_of(beginning) or "")


def _rest(file: BinaryIO) -> Iterator[bytes]:
    while part := file.read(_PART):
        yield part


def _checked(file: BinaryIO, expected: bytes) -> Iterator[bytes]:
    """Yield the parts of a file that was just found to have the hash `expected`, the last one only if it has it still.

    So somebody who writes to it meanwhile does not make a client keep half of this and half of that.
    """
    found = hashlib.blake2b(digest_size=len(expected))
    before = b""
    with file:
        for part in _rest(file):
            if before:
                yield before
            found.update(part)
            before = part
    if found.digest() != expected:
        raise UnreadableImageError(_CHANGED)
    yield before


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
            name = _free(file.name, taken)
            with archive.open(name, "w") as member:
                try:
                    for part in _in_parts(file.content):
                        member.write(part)
                        yield out.taken()
                except UnreadableImageError as error:
                    missing.append(f"{printable(record.path)}, of which {name} has only a part: {error}")
            yield out.taken()
        if missing:
            archive.writestr(_free("not read.txt", taken), "\n".join(missing))
    yield out.taken()


def _read(record: Record) -> Content:
    file = read_file(record.path)
    if record.hash is not None and file.digest != record.hash:
        raise UnreadableImageError(_CHANGED)
    return file


def _in_parts(content: bytes | Iterator[bytes]) -> Iterator[bytes]:
    if not isinstance(content, bytes):
        return content
    return (content[start : start + _PART] for start in range(0, len(content), _PART))


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
