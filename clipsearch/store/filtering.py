"""Which rows of an index fulfil filters. What columns can tell is asked of SQLite, before anything is ranked."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import datetime
from functools import cache

import numpy as np
import numpy.typing as npt

from clipsearch.errors import InputError
from clipsearch.filters import Filters, Orientation, local_time
from clipsearch.paths import inside, is_below, roots_in, same_place, spellings
from clipsearch.store.reading import Store

_SINCE = """
(taken_at >= ? OR (taken_at IS NULL AND (mtime_ns >= ? OR (mtime_ns >= ? AND local_time(mtime_ns) >= ?))))"""
_UNTIL = """
(taken_at < ? OR (taken_at IS NULL AND (mtime_ns < ? OR (mtime_ns < ? AND local_time(mtime_ns) < ?))))"""
"""As `Hit.date` shows it: when it was taken, else when the file was last changed; local, in ISO 8601, so texts compare.

SQLite's own local time is another one before 1970 and after 2037. To ask Python for each row would take seconds for a
million of them, so only those near the bound are asked about."""
_NEAR = 2 * 86_400
"""Seconds: no zone is further away than that from universal time."""
_64_BITS = 2**63 - 1
_SHAPES = {Orientation.LANDSCAPE: ">", Orientation.PORTRAIT: "<", Orientation.SQUARE: "="}


def matching(store: Store, filters: Filters, rows: int) -> npt.NDArray[np.bool_] | None:
    """Which of so many `rows` of the matrix belong to images that fulfil `filters`, (rows,); None if all may.

    With filters, dead rows never match.

    Raises:
        InputError: as for `check_under`.
    """
    filters = _as_known(store, check_under(store, filters))
    if filters == Filters(seen_from=filters.seen_from):
        return None
    mask = np.zeros(rows, np.bool_)
    mask[np.fromiter(_rows(store, filters), np.int64)] = True
    return mask


def check_under(store: Store, filters: Filters) -> Filters:
    """`filters`, unless they name a folder that is neither there nor in the index.

    Raises:
        InputError: they do.
    """
    for path in filters.under or ():
        if not os.path.lexists(path) and not any(map(store.count, spellings(path, _roots(store)))):
            raise InputError(
                f"under: there is no {os.fsdecode(path)}, and the index knows none. "
                "`clipsearch status` names the folders in the index."
            )
    return filters


def rows_of_file(store: Store, path: bytes) -> list[int]:
    """The rows of the images that are the file at `path` (absolute), by whatever names the index knows it.

    Links to it and hard links are among them; copies are files of their own.
    """
    names = dict.fromkeys(name for way in (path, os.path.realpath(path)) for name in spellings(way, _roots(store)))
    rows = [row for name in names if (row := store.row_of(name)) is not None]
    if not rows:
        return []
    # Other names of a file have the same content, and of those with the same content few are to be asked about.
    content = store.images(rows[:1])[0].hash
    twins = store.rows_with(content) if content else ()
    return list(dict.fromkeys([*rows, *(row for name, row in twins if same_place(name, path))]))


def _roots(store: Store) -> list[bytes]:
    return [root.path for root in store.roots()]


def _as_known(store: Store, filters: Filters) -> Filters:
    """`filters` with paths as the index spells them, in addition to how they were given."""
    if filters == Filters(seen_from=filters.seen_from):
        return filters
    roots = _roots(store)

    @cache
    def spelled(folder: bytes) -> list[bytes]:
        return spellings(folder, roots)

    under, files = filters.under, filters.files
    if under is not None:
        under = tuple(dict.fromkeys(name for path in under for name in _folder_as_known(store, path, roots)))
    if files is not None:
        files = frozenset(
            os.path.join(folder, os.path.basename(path)) for path in files for folder in spelled(os.path.dirname(path))
        )
    seen_from = tuple(dict.fromkeys(name for folder in filters.seen_from for name in spelled(folder)))
    return replace(filters, under=under, files=files, seen_from=seen_from)


def _folder_as_known(store: Store, path: bytes, roots: Sequence[bytes]) -> list[bytes]:
    """What the index calls a folder."""
    found = [*spellings(path, roots), *roots_in(path, roots)]
    if any(map(store.count, found)) or not any(root.options.get("follow_symlinks") for root in store.roots()):
        return found
    # A link below a root may have led to it; then only the folders that the index knows can tell.
    folders = {os.path.dirname(name) for name, _ in store.paths_and_rows(None, "TRUE", ())}
    return [*spellings(path, folders), *roots_in(path, folders)]


def _rows(store: Store, filters: Filters) -> Iterator[int]:
    store.teach("local_time", local_time)
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
    for sql, bound in ((_SINCE, filters.after), (_UNTIL, filters.before)):
        if bound:
            early, late = _around(bound)
            parts.append(sql)
            values += [bound, late, early, bound] if sql == _SINCE else [bound, early, late, bound]
    for sql, value in (
        ("width >= ?", filters.min_width),
        ("height >= ?", filters.min_height),
    ):
        if value:
            parts.append(sql)
            values.append(value)
    if filters.orientation:
        parts.append(f"width {_SHAPES[filters.orientation]} height")
    return " AND ".join(parts), values


def _around(moment: str) -> tuple[int, int]:
    """In ns since 1970: what is certainly before a local time, whatever the zone, and what is certainly after it."""
    seconds = int((datetime.fromisoformat(moment) - datetime(1970, 1, 1)).total_seconds())  # noqa: DTZ001
    early, late = (max(-_64_BITS, min(10**9 * (seconds + far), _64_BITS)) for far in (-_NEAR, _NEAR))
    return early, late


def _outermost(paths: tuple[bytes, ...]) -> list[bytes]:
    """Without those that lie in another, so that no row comes twice."""
    return [path for path in set(paths) if not any(path != other and is_below(path, other) for other in set(paths))]


def _is_in(path: bytes, patterns: list[tuple[re.Pattern[str], bool]], seen_from: Sequence[bytes]) -> bool:
    start = next((folder for folder in seen_from if is_below(path, folder)), b"/")
    seen = os.fsdecode(path.removeprefix(inside(start)).lstrip(b"/"))
    for pattern, takes_in in patterns:
        if pattern.match(seen):
            return takes_in
    return not any(takes_in for _, takes_in in patterns)
