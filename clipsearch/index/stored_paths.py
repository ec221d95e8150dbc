"""Paths in the database of an index: relative to the folder that contains it if they are below, else absolute."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from clipsearch.system.addresses import STARTS
from clipsearch.system.paths import inside, is_below

_ENDS = tuple(start[:-1] + b"0" for start in STARTS)
"""What comes after all addresses of each scheme ("0" follows "/")."""
ABSOLUTE = (b"/", *STARTS)
"""What stored paths begin with that are not relative."""
Interval = tuple[bytes, bytes | None]
"""The first path, and that before which the interval ends; None if it has no end."""


class StoredPaths:
    """Converts paths of one index between their stored and their absolute form."""

    def __init__(self, parent: bytes) -> None:
        """Convert relative to `parent`, the absolute path of the folder that contains the index."""
        self._parent = parent
        self._inside = inside(parent)

    def absolute(self, path: bytes) -> bytes:
        """Return the absolute form of a stored path."""
        if path.startswith(ABSOLUTE):
            return path
        return self._parent if path == b"." else self._inside + path

    def with_absolute(self, rows: Iterable[tuple[Any, ...]]) -> Iterator[tuple[Any, ...]]:
        """Yield rows of a table with the stored path in their first column made absolute."""
        parent, below = self._parent, self._inside
        for row in rows:
            if row[0].startswith(ABSOLUTE):
                yield row
            else:
                yield (parent if row[0] == b"." else below + row[0], *row[1:])

    def stored(self, path: bytes) -> bytes:
        """Return the stored form of an absolute path."""
        # The result of os.path.relpath for paths without "..", in a tenth of its time.
        return b"." if path == self._parent else path.removeprefix(self._inside)

    def ranges(self, root: bytes | None) -> list[tuple[str, tuple[bytes, ...]]]:
        """Return SQL conditions that together select `root` and below, each a range in the order of absolute paths."""
        return [in_sql(interval) for interval in self.intervals(root)]

    def intervals(self, root: bytes | None) -> list[Interval]:
        """Return the same as `ranges`, as intervals of stored paths, which do not overlap."""
        # Relative paths come before "/" or after it ("0" is the byte that follows "/"), and between the addresses.
        relative: list[Interval] = [
            _only(b"."),  # the parent itself
            (b"", b"."),
            (_only(b".")[1], b"/"),
            *zip((b"0", *_ENDS), STARTS, strict=False),
            (_ENDS[-1], None),
        ]
        if root is None:
            return [*relative, (b"/", b"0"), *zip(STARTS, _ENDS, strict=True)]
        if root == self._parent:
            return relative
        stored = self.stored(root)
        below: list[Interval] = [_only(stored), (inside(stored), inside(stored)[:-1] + b"0")]
        return [*below, *relative] if is_below(self._parent, root) else below


def in_sql(interval: Interval) -> tuple[str, tuple[bytes, ...]]:
    """Return an SQL condition that selects the paths of an interval, and its values."""
    first, end = interval
    return ("path >= ?", (first,)) if end is None else ("path >= ? AND path < ?", (first, end))


def divided(interval: Interval, at: Iterable[bytes]) -> Iterator[Interval]:
    """Divide an interval at those of some paths, in order, that lie in it."""
    first, end = interval
    for path in at:
        if first < path and (end is None or path < end):
            yield first, path
            first = path
    yield first, end


def _only(path: bytes) -> tuple[bytes, bytes]:
    """Return the interval of a single path. No path contains the byte 0."""
    return path, path + b"\0"
