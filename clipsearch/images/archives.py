"""Reads members of archives in place, without unpacking them.

The lists of the last few archives are kept in memory, so that many members of one are read without listing it again.
"""

from __future__ import annotations

import os
import stat
import threading
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from typing import BinaryIO

from clipsearch.errors import UnreadableImageError
from clipsearch.images import zip_archives
from clipsearch.images.archive_members import MOST_MEMBERS, Contents, Member
from clipsearch.images.codecs.limits import check_bytes
from clipsearch.images.files import ImageFile, MemberError, stamps
from clipsearch.images.tar_archives import tar_contents
from clipsearch.system.members import MARK, within

# A FIFO that took a file's place must not make us wait for somebody to write to it.
_FLAGS = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0)
_MOST_LISTS = 8
"""Number of archives whose lists are kept, if together they have no more than `MOST_MEMBERS` members."""

_State = tuple[int, int, int | None, int | None]
"""Size and `files.stamps` of an archive file."""


class Archive:
    """A tar or zip archive as a source of files (see `sources.Source`). Threads may use it at the same time."""

    def __init__(self, path: bytes) -> None:
        """Make the source; `path` is the absolute path of the archive file, which is not opened yet."""
        self._path = path
        self._inside = path + MARK + b"/"

    def contents(self) -> Contents:
        """List all members.

        Raises:
            OSError: the archive cannot be read.
            UnreadableImageError: it is no file.
        """
        with self._opened() as file:
            return self._listed(file)[0]

    def files(self) -> Iterator[ImageFile]:
        """Yield all members, as for `sources.Source`."""
        with self._opened() as file:
            contents, status = self._listed(file)
        for name in sorted(contents.members):
            yield self._described(name, contents.members[name], status)

    def file(self, path: bytes) -> ImageFile | None:
        """Describe a member, as for `sources.Source`."""
        name = path.removeprefix(self._inside)
        with self._opened() as file:
            contents, status = self._listed(file)
        member = contents.members.get(name)
        return None if member is None else self._described(name, member, status)

    def first_bytes(self, path: bytes, count: int) -> bytes:
        """Read the first bytes of a member, as for `sources.Source`."""
        with self._opened() as file:
            contents, _ = self._listed(file)
            member = self._member(contents, path)
            if member.problem:
                raise OSError(member.problem)
            if _is_tar(self._path):
                file.seek(member.at)
                return file.read(min(count, member.size))
            return zip_archives.first_bytes(file, member, count)

    def read(self, path: bytes, most: int) -> tuple[ImageFile, bytes]:
        """Read a member, as for `sources.Source`.

        Raises:
            MemberError: it cannot be read as long as the archive is what it is.
        """
        with self._opened() as file:
            contents, before = self._listed(file)
            member = self._member(contents, path)
            if member.problem:
                raise MemberError(member.problem)
            check_bytes(member.size, most)
            if _is_tar(self._path):
                file.seek(member.at)
                data = file.read(member.size)
            else:
                data = zip_archives.read_member(file, member)
            after = os.fstat(file.fileno())
        if _state(before) != _state(after) or len(data) != member.size:
            raise UnreadableImageError("its archive changed while it was read")
        return self._described(path.removeprefix(self._inside), member, before), data

    def _opened(self) -> BinaryIO:
        file = open(self._path, "rb", opener=lambda name, _: os.open(name, _FLAGS))  # noqa: SIM115  (the caller closes it)
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            file.close()
            raise UnreadableImageError("its archive is no regular file")
        return file

    def _listed(self, file: BinaryIO) -> tuple[Contents, os.stat_result]:
        """Return the members of the opened archive, and its status."""
        status = os.fstat(file.fileno())
        return _lists.of(self._path, file, status), status

    def _member(self, contents: Contents, path: bytes) -> Member:
        member = contents.members.get(path.removeprefix(self._inside))
        if member is None:
            raise FileNotFoundError(path)
        return member

    def _described(self, name: bytes, member: Member, status: os.stat_result) -> ImageFile:
        """Describe a member. It has the `ctime_ns` and `inode` of its archive, so that a changed one shows."""
        mtime_ns, ctime_ns, inode = stamps(status)
        changed = mtime_ns if ctime_ns is None else ctime_ns
        return ImageFile(self._inside + name, member.size, member.mtime_ns, None, changed, inode)


class _Lists:
    """The lists of the archives that were read last."""

    def __init__(self) -> None:
        self._kept: OrderedDict[bytes, tuple[_State, Contents]] = OrderedDict()
        self._reading = threading.Lock()

    def of(self, path: bytes, file: BinaryIO, status: os.stat_result) -> Contents:
        """Return the members of the opened archive `path`, which are read only if it has changed since the last time.

        A thread that wants a list waits for the one that reads it.
        """
        state = _state(status)
        with self._reading:
            known = self._kept.get(path)
            if known is None or known[0] != state:
                list_members = tar_contents if _is_tar(path) else zip_archives.zip_contents
                known = self._kept[path] = state, list_members(file, status.st_size)
            self._kept.move_to_end(path)
            while len(self._kept) > 1 and (len(self._kept) > _MOST_LISTS or self._members() > MOST_MEMBERS):
                self._kept.popitem(last=False)
            return known[1]

    def _members(self) -> int:
        return sum(len(contents.members) for _, contents in self._kept.values())


_lists = _Lists()


def in_order(files: Iterable[ImageFile]) -> Iterator[ImageFile]:
    """Yield files, which are in the order of their paths, but those of each archive as they follow in it."""
    group: list[ImageFile] = []
    prefix: bytes | None = None
    """The prefix of all members of the archive at hand."""
    for file in files:
        if prefix is not None and file.path.startswith(prefix):
            group.append(file)
            continue
        yield from _as_they_follow(group)
        place = within(file.path)
        prefix = None if place is None else place.archive + MARK + b"/"
        group = []
        if prefix is None:
            yield file
        else:
            group.append(file)
    yield from _as_they_follow(group)


def _as_they_follow(group: list[ImageFile]) -> list[ImageFile]:
    """Sort the members of one archive by their place in it; if it cannot be read now, they stay as they are."""
    place = within(group[0].path) if group else None
    if place is None:
        return group
    try:
        members = Archive(place.archive).contents().members
    except (OSError, UnreadableImageError):
        return group
    begin = len(place.archive) + len(MARK) + 1
    return sorted(group, key=lambda file: at.at if (at := members.get(file.path[begin:])) else 0)


def _is_tar(path: bytes) -> bool:
    return path.lower().endswith(b".tar")


def _state(status: os.stat_result) -> _State:
    return status.st_size, *stamps(status)
