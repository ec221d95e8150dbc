"""The images of an index in order of their dates or paths, without a query."""

from __future__ import annotations

import heapq
from itertools import islice
from operator import itemgetter

from clipsearch.index.filters import Filters, local_time
from clipsearch.index.reading import Store
from clipsearch.index.selection import matching


def rows_by_date(store: Store, filters: Filters, most: int, *, newest_first: bool) -> list[int]:
    """Return the rows of images that fulfil `filters`, by `Hit.date`, ties by path; at most `most`, the first ones.

    Call this within one `Store.snapshot`.
    """
    mask = matching(store, filters, store.committed_rows())
    order = "DESC" if newest_first else "ASC"
    limit = "" if mask is not None else f"LIMIT {most:d}"

    def ordered(condition: str, key: str) -> list[tuple[int, str]]:
        # Local times of files come in the order of their times. Two of them in the same second, and those in the hour
        # that an autumn has twice, are ordered as the files were changed.
        # The + keeps SQLite from going through the index of rows, where it would have to look up each record.
        where = f"+row IS NOT NULL AND {condition}"
        return store.sql(f"SELECT row, {key} FROM images WHERE {where} ORDER BY {key} {order}, path {order} {limit}")  # noqa: S608

    taken = ordered("taken_at IS NOT NULL", "taken_at")
    changed = ((row, local_time(int(time))) for row, time in ordered("taken_at IS NULL", "mtime_ns"))
    merged = (row for row, _ in heapq.merge(taken, changed, key=itemgetter(1), reverse=newest_first))
    return list(islice((row for row in merged if mask is None or mask[row]), most))


def rows_by_path(store: Store, filters: Filters, most: int, *, reverse: bool) -> list[int]:
    """Return the rows of images that fulfil `filters`, by the bytes of their paths; at most `most`, the first ones."""
    mask = matching(store, filters, store.committed_rows())
    rows = [row for _, row in store.paths_and_rows(None, "TRUE", ()) if mask is None or mask[row]]
    return (rows[::-1] if reverse else rows)[:most]
