"""Lists the members of a tar archive, with the standard library's `tarfile`, which is not used to read them.

The archive may be made to do harm: no header is read that is longer than any real one, and no member is listed twice.
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from typing import BinaryIO

from clipsearch.images.archive_members import (
    LINK,
    MOST_MEMBERS,
    TRUNCATED,
    Bounded,
    Contents,
    Member,
    TooLongError,
    nanoseconds,
    tidy_name,
)

_LONGEST_HEADER = 4 << 20
"""Bytes of the longest header, which holds a long name or attributes of a member."""
_COMPRESSED = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd")
"""The first bytes of gzip, bzip2, xz and zstd."""


def tar_contents(file: BinaryIO, size: int) -> Contents:
    """List the members of a tar archive of `size` bytes that is not compressed.

    Raises:
        OSError: it cannot be read.
    """
    if file.read(8).startswith(_COMPRESSED):
        return Contents({}, "it is compressed; only tar archives that are not compressed are read")
    file.seek(0)
    members: dict[bytes, Member] = {}
    try:
        # `next` reads one header after the other; the object keeps no list, so that memory does not grow.
        archive = tarfile.TarFile(
            fileobj=Bounded(file, _LONGEST_HEADER),  # type: ignore[arg-type]  # all that is used of a file
            encoding="utf-8",
            errors="surrogateescape",
        )
        for info in _headers(archive):
            name, problem = tidy_name(info.name.encode("utf-8", "surrogateescape"))
            if info.isdir():
                continue
            if len(members) >= MOST_MEMBERS:
                return Contents(members, f"it has more than {MOST_MEMBERS:,} members, and only these are read")
            problem = problem or _problem(info, size)
            length = min(info.size, size)  # of one that goes beyond the end, any number may be stored
            members[name] = Member(info.offset_data, length, nanoseconds(info.mtime), length, problem=problem)
    except TooLongError:
        return Contents(members, "a header in it is longer than any real one")
    except (tarfile.TarError, ValueError, OverflowError, RecursionError, EOFError) as error:
        broken = "it ends in the middle: it is truncated" if "end of data" in str(error) else "it is broken"
        return Contents(members, broken if members else f"it is no tar archive ({error})")
    return Contents(members, _end_problem(file, archive.offset, size))


def _headers(archive: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    """Yield the header of each member.

    Raises:
        ValueError: one has a size that leads back.
    """
    last = -1
    while (info := archive.next()) is not None:
        archive.members.clear()  # type: ignore[attr-defined]  # the list that it keeps
        if info.size < 0 or info.offset_data <= last:
            raise ValueError("a header has a negative size")
        last = info.offset_data
        yield info


def _problem(info: tarfile.TarInfo, size: int) -> str | None:
    """Return why a member cannot be read; None if it can be."""
    if info.issym() or info.islnk():
        return LINK
    if not info.isreg():
        return "a device or FIFO, not a file"
    if info.issparse():
        return "stored as a sparse file, which is not read"
    return TRUNCATED if info.offset_data + info.size > size else None


def _end_problem(file: BinaryIO, end: int, size: int) -> str | None:
    """Return why the list may not be complete although no error was raised, by what stands at its end."""
    if end >= size:
        return "its end is missing: it may be truncated"
    file.seek(end)
    block = file.read(tarfile.BLOCKSIZE)
    return f"its header at byte {end:,} is broken, and what follows is not read" if block.strip(b"\0") else None
