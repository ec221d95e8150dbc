"""Reading of image files into memory, as they were at one moment."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterable
from typing import BinaryIO, NamedTuple

from clipsearch.errors import UnreadableImageError
from clipsearch.images.files import stamps
from clipsearch.images.sources import Source, source_of
from clipsearch.system.bounded import read_up_to

# A FIFO that took a file's place must not make us wait for somebody to write to it.
_FLAGS = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0)


class VanishedError(UnreadableImageError):
    """The file no longer exists."""


class Content(NamedTuple):
    """Content of a file, with its status when it was read."""

    data: bytes
    digest: bytes
    """BLAKE2b of the content, 16 bytes."""
    size: int
    """Bytes."""
    mtime_ns: int
    """Time of the last change of the content, as in `files.stamps`."""
    ctime_ns: int | None = None
    """Time of the last change of anything, as in `files.stamps`, before reading, so that a change meanwhile is seen."""
    inode: int | None = None
    """Number in the file system, as in `files.stamps`."""


def first_bytes(path: bytes, count: int) -> bytes:
    """Read the first `count` bytes of a file, or all that it has. A FIFO does not block.

    Raises:
        OSError: it cannot be opened or read.
    """
    if (source := source_of(path)) is not None:
        return source.first_bytes(path, count)
    descriptor = os.open(path, _FLAGS)
    try:
        return os.read(descriptor, count)
    finally:
        os.close(descriptor)


def open_regular(path: bytes) -> BinaryIO:
    """Open a regular file of the file system. What took its place, such as a folder or a FIFO, is refused at once.

    Raises:
        OSError: it cannot be opened.
        UnreadableImageError: it is no regular file.
    """
    # Python closes what an `opener` opened also if it is a folder.
    file = open(path, "rb", opener=lambda name, _: os.open(name, _FLAGS))  # noqa: SIM115  (the caller closes it)
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise UnreadableImageError("not a regular file")
    return file


def read_file(path: bytes, max_pixels: int | None = None) -> Content:
    """Read a whole file, which may lie in an archive, as it was at one moment.

    A file that is larger than any image of `max_pixels` (by default `limits.default_max_pixels`) needs is refused
    before it takes memory.

    Raises:
        VanishedError: it does not exist.
        UnreadableImageError: it cannot be read, is too large or no regular file, or changed meanwhile.
    """
    from clipsearch.images.codecs.limits import check_bytes, enough_memory, max_bytes  # text queries need none of these

    if (source := source_of(path)) is not None:
        return _read_from(source, path, max_bytes(max_pixels))
    try:
        with enough_memory(), open_regular(path) as file:
            before = os.fstat(file.fileno())
            check_bytes(before.st_size, max_bytes(max_pixels))
            data = file.read(before.st_size + 1)  # one more byte, to notice that it grew
            after = os.fstat(file.fileno())
    except FileNotFoundError as error:
        raise VanishedError("it is gone") from error
    except OSError as error:
        raise UnreadableImageError(error.strerror or str(error)) from error
    if (len(data), before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
        raise UnreadableImageError("changed while it was read")
    mtime_ns, _, inode = stamps(after)
    return Content(data, digest(data), len(data), mtime_ns, stamps(before)[1], inode)


def _read_from(source: Source, path: bytes, most: int) -> Content:
    """Read a file of a source, with the errors of `read_file`."""
    from clipsearch.images.codecs.limits import enough_memory

    try:
        with enough_memory():
            file, data = source.read(path, most)
    except FileNotFoundError as error:
        raise VanishedError("it is gone") from error
    except OSError as error:
        raise UnreadableImageError(error.strerror or str(error)) from error
    return Content(data, digest(data), len(data), file.mtime_ns, file.ctime_ns, file.inode)


def read_image(path: bytes) -> bytes:
    """Read an image that the user named: a file, a pipe or a device.

    Raises:
        UnreadableImageError: it cannot be read, or is too large, as for `read_file`.
    """
    try:
        if source_of(path) is not None or stat.S_ISREG(os.stat(path).st_mode):
            return read_file(path).data
        with open(path, "rb", buffering=0) as file:  # waits for whoever writes into a pipe
            return read_stream(file)
    except FileNotFoundError as error:
        raise VanishedError(str(error.strerror)) from error
    except OSError as error:
        raise UnreadableImageError(error.strerror or str(error)) from error


def read_stream(stream: BinaryIO) -> bytes:
    """Read a pipe or a device to its end.

    Raises:
        UnreadableImageError: it is more than the largest image needs, or cannot be read.
    """
    from clipsearch.images.codecs.limits import check_bytes, enough_memory, max_bytes

    limit = max_bytes()
    with enough_memory():
        content = read_up_to(stream, limit)
    if content is None:
        check_bytes(limit + 1, limit)
    return content or b""


def digest(data: bytes) -> bytes:
    """BLAKE2b of a file's content, 16 bytes, by which the index recognises it."""
    return digest_of([data])


def digest_of(parts: Iterable[bytes]) -> bytes:
    """BLAKE2b of a file's content, given in parts, as `digest`."""
    found = hashlib.blake2b(digest_size=16)
    for part in parts:
        found.update(part)
    return found.digest()
