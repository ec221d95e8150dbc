"""The members of an archive, whatever its format, and the limits that hold for all of them."""

from __future__ import annotations

import math
from typing import BinaryIO, NamedTuple

MOST_MEMBERS = 1_000_000
"""Largest number of members of an archive; the list of them takes some 400 bytes for each."""
_LONGEST_NAME = 4096
"""Bytes of the longest name, as of the longest path on common systems."""
_64_BITS = 2**63 - 1

TRUNCATED = "the archive ends before it does"
LINK = "a link, which is not followed in an archive"


class Member(NamedTuple):
    """One file in an archive."""

    at: int
    """Byte of the archive at which its content begins; in a zip file, its header before that."""
    size: int
    """Bytes of its content."""
    mtime_ns: int
    """Time of its last change, in ns since 1970; 0 if it is unknown."""
    packed: int
    """Bytes of its content in the archive."""
    deflated: bool = False
    """Whether it is compressed."""
    crc: int | None = None
    """CRC-32 of its content, if the archive has it."""
    problem: str | None = None
    """Why it cannot be read; None if it can be, as far as the list tells."""


class Contents(NamedTuple):
    """The list of an archive's members."""

    members: dict[bytes, Member]
    """By name: relative, without `.` and empty parts. Of members with one name the last counts, as for unpacking."""
    problem: str | None = None
    """Why there may be more members than these; None if the list is complete."""


class TooLongError(ValueError):
    """A part of an archive's own tables is longer than it may be."""


class Bounded:
    """The file of an archive for the standard library's readers, which would read tables of any length."""

    def __init__(self, file: BinaryIO, most: int) -> None:
        """Allow `most` bytes at a time."""
        self._file, self._most = file, most
        self.seek, self.tell = file.seek, file.tell

    def read(self, count: int = -1) -> bytes:
        """Read `count` bytes, or all that are left for -1.

        Raises:
            TooLongError: that are more than may be read at a time, or `count` is another negative number.
        """
        if not -1 <= count <= self._most:
            raise TooLongError
        data = self._file.read(self._most + 1 if count < 0 else count)
        if len(data) > self._most:
            raise TooLongError
        return data

    def seekable(self) -> bool:
        """Whether any byte may be read next."""
        return True


def tidy_name(name: bytes) -> tuple[bytes, str | None]:
    """Return the name under which a member is listed, and why it must not be read; None if it may be.

    A name that leads out of the archive stays as it is, so that the user sees it.
    """
    if len(name) > _LONGEST_NAME:
        return name[:_LONGEST_NAME], f"its name is longer than {_LONGEST_NAME:,} bytes"
    if b"\0" in name:
        return name.partition(b"\0")[0], "its name contains a NUL byte"
    parts = [part for part in name.split(b"/") if part not in (b"", b".")]
    if name.startswith(b"/"):
        return name, "its name is an absolute path"
    if b".." in parts:
        return name, "its name leads out of the archive"
    return b"/".join(parts), None


def nanoseconds(seconds: float) -> int:
    """Return a time in ns since 1970, within 64 bits; 0 if it is no number."""
    if not math.isfinite(seconds):
        return 0
    return max(-_64_BITS, min(int(seconds) * 10**9 + round(seconds % 1 * 10**9), _64_BITS))
