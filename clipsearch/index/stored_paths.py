"""Paths as an index stores them: relative to the folder that it lies in where they are below that, else absolute."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from clipsearch.system.paths import inside, is_below


class StoredPaths:
    """Paths of one index."""

    def __init__(self, parent: bytes) -> None:
        """`parent` is the folder (absolute) that the index lies in."""
        self._parent = parent
        self._inside = inside(parent)

    def absolute(self, path: bytes) -> bytes:
        """Of a stored path."""
        if path.startswith(b"/"):
            return path
        return self._parent if path == b"." else self._inside + path

    def with_absolute(self, rows: Iterable[tuple[Any, ...]]) -> Iterator[tuple[Any, ...]]:
        """Rows of a table whose first column is a stored path, with the absolute one."""
        parent, below = self._parent, self._inside
        for row in rows:
            if row[0].startswith(b"/"):
                yield row
            else:
                yield (parent if row[0] == b"." else below + row[0], *row[1:])

    def stored(self, path: bytes) -> bytes:
        """Of an absolute path."""
        # What os.path.relpath says of paths without "..", in a tenth of its time.
        return b"." if path == self._parent else path.removeprefix(self._inside)

    def ranges(self, root: bytes | None) -> list[tuple[str, tuple[bytes, ...]]]:
        """Conditions on the stored paths of `root` and below; each holds for a range in the order of absolute paths."""
        # Relative paths come before "/" or after it; "0" is the byte that follows "/".
        relative: list[tuple[str, tuple[bytes, ...]]] = [
            ("path = ?", (b".",)),  # the parent itself
            ("path < ? AND path <> ?", (b"/", b".")),
            ("path >= ?", (b"0",)),
        ]
        between = "path >= ? AND path < ?"
        if root is None:
            return [*relative, (between, (b"/", b"0"))]
        if root == self._parent:
            return relative
        stored = self.stored(root)
        below = [("path = ?", (stored,)), (between, (inside(stored), inside(stored)[:-1] + b"0"))]
        return [*below, *relative] if is_below(self._parent, root) else below
