"""Places beside the file system that hold files, and which of them a path leads to: archives, stores, web servers.

`finding` and `reading` ask here first; everything else reads files through these two and knows paths only.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import Protocol

from clipsearch.images.files import ImageFile
from clipsearch.system.addresses import is_address, is_web
from clipsearch.system.members import MARK, within


class Source(Protocol):
    """A place beside the file system that holds files, each with an absolute path of its own.

    Folders need none: `finding` and `reading` ask the file system.
    """

    def files(self) -> Iterator[ImageFile]:
        """Yield all files, whatever they are, in the order of their paths' bytes.

        Raises:
            OSError: they cannot be listed.
            UnreadableImageError: the place is not what its name says.
        """

    def file(self, path: bytes) -> ImageFile | None:
        """Describe one file; None if there is none."""

    def first_bytes(self, path: bytes, count: int) -> bytes:
        """Read the first `count` bytes of a file, or all that it has.

        Raises:
            OSError: it cannot be read.
            UnreadableImageError: it lies in a store, and cannot be had now.
        """

    def read(self, path: bytes, most: int) -> tuple[ImageFile, bytes]:
        """Read a whole file of at most `most` bytes, and describe it as it was then.

        Raises:
            FileNotFoundError: it does not exist.
            OSError: it cannot be read.
            UnreadableImageError: it is too large, or broken.
        """


def in_order(files: Iterator[ImageFile]) -> Iterator[ImageFile]:
    """Yield files, which are in the order of their paths, but those of each archive as they follow in it."""
    for file in files:
        if MARK in file.path:
            from clipsearch.images.archives import in_order as ordered

            yield from ordered(chain([file], files))
        else:
            yield file


def source_of(path: bytes) -> Source | None:
    """Return the source that an absolute path leads into; None for the file system."""
    if is_address(path):  # asked for every file that is read
        return store_of(path)
    if MARK not in path:
        return None
    place = within(path)
    if place is None:
        return None
    from clipsearch.images.archives import Archive  # nothing else needs the modules for archives

    return Archive(place.archive)


def store_of(address: bytes) -> Source:
    """Return the source that an address leads into."""
    if is_web(address):
        from clipsearch.images.web_files import WebFiles

        return WebFiles(address)
    from clipsearch.images.object_store import ObjectStore

    return ObjectStore(address)
