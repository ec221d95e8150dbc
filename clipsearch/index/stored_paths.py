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
_ADDRESSES: list[tuple[str, tuple[bytes, ...]]] = [
    ("path >= ? AND path < ?", bounds) for bounds in zip(STARTS, _ENDS, strict=True)
]
"""SQL conditions that together select all addresses."""


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
        # Relative paths come before "/" or after it ("0" is the byte that follows "/"), and between the addresses.
        between = "path >= ? AND path < ?"
        relative: list[tuple[str, tuple[bytes, ...]]] = [
            ("path = ?", (b".",)),  # the parent itself
            ("path < ? AND path <> ?", (b"/", b".")),
            *((between, bounds) for bounds in zip((b"0", *_ENDS), STARTS, strict=False)),
            ("path >= ?", _ENDS[-1:]),
        ]
        if root is None:
            return [*relative, (between, (b"/", b"0")), *_ADDRESSES]
        if root == self._parent:
            return relative
        stored = self.stored(root)
        below = [("path = ?", (stored,)), (between, (inside(stored), inside(stored)[:-1] + b"0"))]
        return [*below, *relative] if is_below(self._parent, root) else below
