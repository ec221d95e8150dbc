"""Files of images into memory, as they were at one moment."""

from __future__ import annotations

import hashlib
import os
import stat
import sys
from typing import BinaryIO, NamedTuple

from clipsearch.errors import UnreadableImageError
from clipsearch.system.bounded import read_up_to

# A FIFO that took a file's place must not make us wait for somebody to write to it.
_FLAGS = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)

_LEAST, _MOST = -(2**63), 2**63 - 1


class VanishedError(UnreadableImageError):
    """The file is no longer there."""


class Content(NamedTuple):
    """A file in memory, and what the file system said when it was read."""

    data: bytes
    digest: bytes
    """BLAKE2b of the content, 16 bytes."""
    size: int
    mtime_ns: int
    ctime_ns: int | None = None
    """As `stamps` has it; when reading began, so that a change meanwhile shows later."""
    inode: int | None = None
    """As `stamps` has it."""


def first_bytes(path: bytes, count: int) -> bytes:
    """So many bytes from the beginning of a file, or all that it has; nobody is waited for.

    Raises:
        OSError: it cannot be opened or read.
    """
    descriptor = os.open(path, _FLAGS)
    try:
        return os.read(descriptor, count)
    finally:
        os.close(descriptor)


def read_file(path: bytes, max_pixels: int | None = None) -> Content:
    """Read a whole file, as it was at one moment.

    One that is larger than any picture of `max_pixels` needs is refused before it takes memory; without a number, the
    largest picture that fits this machine counts (see `limits`).

    Raises:
        VanishedError: it is not there.
        UnreadableImageError: it cannot be read, is too large or no regular file, or changed meanwhile.
    """
    from clipsearch.images.limits import check_bytes, enough_memory, max_bytes  # text queries read no picture

    try:
        with enough_memory(), open(os.open(path, _FLAGS), "rb") as file:
            before = os.fstat(file.fileno())
            if not stat.S_ISREG(before.st_mode):
                raise UnreadableImageError("not a regular file")
            check_bytes(before.st_size, max_bytes(max_pixels))
            data = file.read(before.st_size + 1)  # one more, to see that it grew
            after = os.fstat(file.fileno())
    except FileNotFoundError as error:
        raise VanishedError("it is gone") from error
    except OSError as error:
        raise UnreadableImageError(error.strerror or str(error)) from error
    if (len(data), before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
        raise UnreadableImageError("changed while it was read")
    mtime_ns, _, inode = stamps(after)
    return Content(data, digest(data), len(data), mtime_ns, stamps(before)[1], inode)


def read_picture(path: bytes) -> bytes:
    """The content of a picture that somebody named: of a file, or what comes out of a pipe or a device.

    Raises:
        UnreadableImageError: it cannot be read, or is too large, as for `read_file`.
    """
    try:
        if stat.S_ISREG(os.stat(path).st_mode):
            return read_file(path).data
        with open(path, "rb", buffering=0) as file:  # waits for whoever writes into a pipe
            return read_stream(file)
    except FileNotFoundError as error:
        raise VanishedError(str(error.strerror)) from error
    except OSError as error:
        raise UnreadableImageError(error.strerror or str(error)) from error


def read_stream(stream: BinaryIO) -> bytes:
    """What comes out of a pipe or a device until it ends; its length is known only then.

    Raises:
        UnreadableImageError: it is more than the largest picture needs, or cannot be read.
    """
    from clipsearch.images.limits import check_bytes, enough_memory, max_bytes

    limit = max_bytes()
    with enough_memory():
        content = read_up_to(stream, limit)
    if content is None:
        check_bytes(limit + 1, limit)
    return content or b""


def stamps(status: os.stat_result) -> tuple[int, int | None, int | None]:
    """What tells that a file changed without a look into it; that of the target where the status is that of a link.

    `mtime_ns`: when the content was last changed, in ns since 1970, unless a program has set another time. `ctime_ns`:
    when anything was last changed (content, name, times, owner, permissions); no program can set it. None where the
    system has no such time: on Windows `st_ctime` is when the file was made. `inode`: the number of the file in its
    file system, its lower 63 bits, or None. The times are cut to 64 bits: a file system may say anything.
    """
    mtime, ctime = status.st_mtime_ns, status.st_ctime_ns
    if not (_LEAST <= mtime <= _MOST and _LEAST <= ctime <= _MOST):
        mtime, ctime = (max(_LEAST, min(time, _MOST)) for time in (mtime, ctime))
    return mtime, None if sys.platform == "win32" else ctime, (status.st_ino & _MOST) or None


def digest(data: bytes) -> bytes:
    """BLAKE2b of a file's content, 16 bytes: how the index knows it again."""
    return hashlib.blake2b(data, digest_size=16).digest()
