"""Image files as a search finds them, the rules of a search.

Knows nothing of how folders are searched, files read or images decoded.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, NamedTuple

from clipsearch.errors import UnreadableImageError

_LEAST, _MOST = -(2**63), 2**63 - 1


class MemberError(UnreadableImageError):
    """A member cannot be read as long as its archive is what it is, so that it need not be tried again."""


class UnreachableError(UnreadableImageError):
    """A file cannot be had now: its server does not answer, or refuses it. What is known of it stays."""


class GoneError(UnreachableError):
    """A store does not answer any more, so that none of its files can be had for the time being."""


class ImageFile(NamedTuple):
    """An image file as the file system describes it."""

    path: bytes
    """Absolute path, as `os.fsencode` gives it: names need not be UTF-8."""
    size: int
    """Bytes; negative if the file belongs to another part of the root, so that only its path is known."""
    mtime_ns: int
    """Time of the last change of the content, as in `stamps`."""
    problem: str | None = None
    """Why it cannot be opened, such as a dangling link; None for a regular file."""
    ctime_ns: int | None = None
    """Time of the last change of anything, as in `stamps`."""
    inode: int | None = None
    """Number in the file system, as in `stamps`."""
    by_name: bool = True
    """Whether its name has an image extension; otherwise its first bytes decide (see `finding.look`)."""

    @classmethod
    def of(cls, path: bytes, status: os.stat_result, problem: str | None = None) -> ImageFile:
        """Build it from a status: for a symbolic link, that of its target."""
        mtime_ns, ctime_ns, inode = stamps(status)
        return cls(path, status.st_size, mtime_ns, problem, ctime_ns, inode)


@dataclass(frozen=True)
class Rules:
    """Which files of a folder are taken."""

    exclude: tuple[str, ...] = ()
    """Patterns to leave out, with the rules of .gitignore, relative to the root; they beat ignore files."""
    include_hidden: bool = False
    """Include files and folders whose names begin with a dot."""
    follow_symlinks: bool = False
    """Follow symbolic links to folders. Each folder is read once, and not again if it lies below the root anyway."""
    by_name_only: bool = False
    """Leave out files without an image extension, instead of reading their first bytes."""
    include_backups: bool = False
    """Include earlier and partial copies of images: `photo.jpg~`, `photo.jpg.bak`, `photo.jpg.part`."""
    include_system: bool = False
    """Include folders in which operating systems and programs keep images for themselves."""
    archives: bool = False
    """Read the archives in folders as well. An archive that is a root is read in any case."""

    def to_json(self) -> dict[str, object]:
        """Return the rules as an index stores them. The last one is left out unless it is set, as it always was."""
        values = asdict(self) | {"exclude": list(self.exclude)}
        return values if self.archives else {name: value for name, value in values.items() if name != "archives"}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Rules:
        """Restore the rules that `to_json` wrote, among other values; missing ones have their defaults."""
        known = {one.name: bool(values.get(one.name)) for one in fields(cls) if one.name != "exclude"}
        exclude = values.get("exclude")
        return cls(tuple(exclude) if isinstance(exclude, list) else (), **known)


def stamps(status: os.stat_result) -> tuple[int, int | None, int | None]:
    """Return (mtime_ns, ctime_ns, inode), which show that a file changed without reading it.

    `mtime_ns` is when the content was last changed (ns since 1970), unless a program has set another time. `ctime_ns`
    is when anything was last changed (content, name, times, owner, permissions), which no program can set; None on
    Windows, where `st_ctime` is when the file was made. `inode` is the lower 63 bits of the file's number, or None.
    Times are clamped to 64 bits, since a file system may report anything.
    """
    mtime, ctime = status.st_mtime_ns, status.st_ctime_ns
    if not (_LEAST <= mtime <= _MOST and _LEAST <= ctime <= _MOST):
        mtime, ctime = (max(_LEAST, min(time, _MOST)) for time in (mtime, ctime))
    return mtime, None if sys.platform == "win32" else ctime, (status.st_ino & _MOST) or None
