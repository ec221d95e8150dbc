"""Which rows of an index fulfil filters. What columns can tell is asked of SQLite, before anything is ranked."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from clipsearch.errors import InputError
from clipsearch.filters import Filters, Orientation
from clipsearch.paths import inside, is_below
from clipsearch.store.reading import Store

_TAKEN = "coalesce(taken_at, strftime('%Y-%m-%dT%H:%M:%S', mtime_ns / 1000000000, 'unixepoch', 'localtime'))"
"""As `Hit.date`: EXIF's time, else when the file was last changed; local, both ISO 8601 and so in order as texts."""
_SHAPES = {Orientation.LANDSCAPE: ">", Orientation.PORTRAIT: "<", Orientation.SQUARE: "="}


def matching(store: Store, filters: Filters, rows: int) -> npt.NDArray[np.bool_] | None:
    """Which of so many `rows` of the matrix belong to images that fulfil `filters`, (rows,); None if all may.

    With filters, dead rows never match.

    Raises:
        InputError: as for `check_under`.
    """
    check_under(store, filters)
    if filters == Filters(seen_from=filters.seen_from):
        return None
    mask = np.zeros(rows, np.bool_)
    mask[np.fromiter(_rows(store, filters), np.int64)] = True
    return mask


def check_under(store: Store, filters: Filters) -> None:
    """Raises InputError where a filter names a folder that is neither there nor in the index."""
    for path in filters.under or ():
        if not os.path.lexists(path) and not store.count(path):
            raise InputError(
                f"under: there is no {os.fsdecode(path)}, and the index knows none. "
                "`clipsearch status` names the folders in the index."
            )


def _rows(store: Store, filters: Filters) -> Iterator[int]:
    condition, values = _condition(filters)
    roots = [None] if filters.under is None else _outermost(filters.under)
    patterns = filters.patterns()
    for root in roots:
        if not patterns and filters.files is None:
            yield from store.rows(root, condition, values)
            continue
        for path, row in store.paths_and_rows(root, condition, values):
            if filters.files is not None and path not in filters.files:
                continue
            if not patterns or _is_in(path, patterns, filters.seen_from):
                yield row


def _condition(filters: Filters) -> tuple[str, list[object]]:
    """What the columns have to fulfil, as SQL with its values."""
    parts: list[str] = ["TRUE"]
    values: list[object] = []
    for sql, value in (
        (f"{_TAKEN} >= ?", filters.after),
        (f"{_TAKEN} < ?", filters.before),
        ("width >= ?", filters.min_width),
        ("height >= ?", filters.min_height),
    ):
        if value:
            parts.append(sql)
            values.append(value)
    if filters.orientation:
        parts.append(f"width {_SHAPES[filters.orientation]} height")
    return " AND ".join(parts), values


def _outermost(paths: tuple[bytes, ...]) -> list[bytes]:
    """Without those that lie in another, so that no row comes twice."""
    return [path for path in set(paths) if not any(path != other and is_below(path, other) for other in set(paths))]


def _is_in(path: bytes, patterns: list[tuple[re.Pattern[str], bool]], seen_from: bytes) -> bool:
    seen = os.fsdecode(path.removeprefix(inside(seen_from)).lstrip(b"/"))
    for pattern, takes_in in patterns:
        if pattern.match(seen):
            return takes_in
    return not any(takes_in for _, takes_in in patterns)
