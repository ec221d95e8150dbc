"""Selects the rows of an index that fulfil filters, by SQL where columns suffice, before anything is ranked."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import replace
from datetime import datetime
from functools import cache
from itertools import islice
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from clipsearch.errors import InputError
from clipsearch.index.filters import FilterArguments, Filters, Orientation, local_time, patterns
from clipsearch.index.format import Record
from clipsearch.index.reading import Store
from clipsearch.system.addresses import is_address
from clipsearch.system.members import MARK, is_archive_name, on_disk
from clipsearch.system.paths import inside, is_below, roots_in, same_letters, same_place, spellings
from clipsearch.unit import Matrix

_SINCE = """
(taken_at >= ? OR (taken_at IS NULL AND (mtime_ns >= ? OR (mtime_ns >= ? AND local_time(mtime_ns) >= ?))))"""
_UNTIL = """
(taken_at < ? OR (taken_at IS NULL AND (mtime_ns < ? OR (mtime_ns < ? AND local_time(mtime_ns) < ?))))"""
"""SQL conditions on `Hit.date`: the date of the image, else that of its file, as ISO 8601 local time, compared as text.

SQLite's own local time is wrong before 1970 and after 2037, and calling Python for a million rows would take seconds.
So Python is called only for rows near the bound."""
_NEAR = 2 * 86_400
"""Seconds by which local time differs from universal time at most, in any zone."""
_64_BITS = 2**63 - 1
_SOME = 4096
"""Number of rows that are collected at a time where each path is looked at."""
_SHAPES = {Orientation.LANDSCAPE: ">", Orientation.PORTRAIT: "<", Orientation.SQUARE: "="}


class Selection(NamedTuple):
    """The images of one commit that take part in an operation."""

    matrix: Matrix
    """(rows, D) all embeddings of the index, memory-mapped."""
    mask: npt.NDArray[np.bool_] | None
    """(rows,) whether each row takes part; None if all do."""

    def rows(self) -> npt.NDArray[np.int64]:
        """Return the (N,) rows that take part, in order."""
        return np.arange(len(self.matrix)) if self.mask is None else np.flatnonzero(self.mask)

    def records(self, store: Store) -> Iterator[Record]:
        """Yield the records of the rows by path; `store` is where they were selected, in the same snapshot."""
        return (
            record
            for record in store.records()
            if record.row is not None and (self.mask is None or self.mask[record.row])
        )


def select(store: Store, filters: Filters, *, only_sound: bool = True) -> Selection:
    """Select the images that fulfil `filters`. Call this, and read their records, within one `Store.snapshot`.

    Raises:
        IndexDamagedError: the index contradicts itself or, with `only_sound`, a row is not a unit vector.
    """
    matrix, alive = store.sound_matrix() if only_sound else store.matrix()
    fulfil = matching(store, filters, len(matrix))
    return Selection(matrix, alive if fulfil is None else fulfil)


def matching(store: Store, filters: Filters, rows: int) -> npt.NDArray[np.bool_] | None:
    """Return (rows,) whether each of `rows` rows belongs to an image that fulfils `filters`; None without filters."""
    filters = _as_known(store, filters)
    if filters == Filters(seen_from=filters.seen_from):
        return None
    mask = np.zeros(rows, np.bool_)
    for part in _rows(store, filters):
        mask[part] = True
    return mask


def unmatched(stores: Sequence[Store], filters: Filters) -> list[str]:
    """Return the filters by path (`under`, `files`, `glob`) that by themselves no image of any index fulfils."""
    alone = {
        "under": Filters(under=filters.under),
        "files": Filters(files=filters.files),
        "glob": Filters(glob=filters.glob, seen_from=filters.seen_from),
    }
    return [
        name
        for name, one in alone.items()
        if getattr(filters, name) and all(next(_rows(store, _as_known(store, one)), None) is None for store in stores)
    ]


def filters_of(arguments: FilterArguments, *stores: Store) -> Filters:
    """Parse filters and check them against one or several indexes.

    Raises:
        InputError: as for `Filters.of`, or a folder of `under` exists neither on the disk nor in any of the indexes.
    """
    filters = Filters.of(arguments)
    for path in filters.under or ():
        if not os.path.lexists(on_disk(path)) and not any(
            store.count(name) for store in stores for name in _folder_as_known(store, path, _roots(store))
        ):
            raise InputError(f"under: {os.fsdecode(path)} exists neither on the disk nor in the index.", hint="folders")
    return filters


def folders_of(store: Store) -> list[tuple[bytes, int]]:
    """Return the absolute path of each folder that holds images, and their number, by path."""
    counts: dict[bytes, int] = {}
    for path, _ in store.paths_and_rows(None, "TRUE", ()):
        folder = os.path.dirname(path)
        counts[folder] = counts.get(folder, 0) + 1
    return sorted(counts.items())


def rows_of_file(store: Store, path: bytes) -> list[int]:
    """Return the rows of the file at `path` (absolute), under all its names in the index.

    Symbolic and hard links to it are included; copies are other files.
    """
    names = dict.fromkeys(name for way in (path, os.path.realpath(path)) for name in spellings(way, _roots(store)))
    rows = [row for name in names if (row := store.row_of(name)) is not None]
    if not rows:
        return []
    # All names of a file have the same content, so only records with this content have to be looked at.
    content = store.image(rows[0]).hash
    others = store.rows_with(content) if content else ()
    return list(dict.fromkeys([*rows, *(row for name, row in others if same_place(name, path))]))


def _roots(store: Store) -> list[bytes]:
    return [root.path for root in store.roots()]


def _as_known(store: Store, filters: Filters) -> Filters:
    """Add to the paths of `filters` their spellings in the index."""
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
            path if is_address(path) else os.path.join(folder, os.path.basename(path))
            for path in files
            for folder in spelled(os.path.dirname(path))
        )
    seen_from = tuple(dict.fromkeys(name for folder in filters.seen_from for name in spelled(folder)))
    return replace(filters, under=under, files=files, seen_from=seen_from)


def _folder_as_known(store: Store, path: bytes, roots: Sequence[bytes]) -> list[bytes]:
    """Return the names of a folder in the index."""
    found = [*spellings(path, roots), *roots_in(path, roots)]
    if is_archive_name(path):  # one that is gone, since otherwise its inside is named
        found += spellings(path + MARK, roots)
    if any(map(store.count, found)):
        return found
    if any(root.options.get("follow_symlinks") for root in store.roots()):
        # The folder may have been found through a link below a root, so all folders of the index are compared.
        folders = {os.path.dirname(name) for name, _ in store.paths_and_rows(None, "TRUE", ())}
        found += [*spellings(path, folders), *roots_in(path, folders)]
    if not path.isascii():  # it does not exist on the disk, whose spelling would have been used
        wanted, depth = same_letters(path), path.count(b"/") + 1
        starts = {b"/".join(name.split(b"/")[:depth]) for name, _ in store.paths_and_rows(None, "TRUE", ())}
        found += sorted(start for start in starts if same_letters(start) == wanted)
    return found


def _rows(store: Store, filters: Filters) -> Iterator[npt.NDArray[np.int64]]:
    """Yield the rows of images that fulfil filters, some at a time, at least one."""
    store.teach("local_time", local_time)
    condition, values = _condition(filters)
    roots = [None] if filters.under is None else _outermost(filters.under)
    if not filters.glob and filters.files is None:
        for root in roots:
            yield from store.rows(root, condition, values)
        return

    def paths() -> Iterator[tuple[bytes, int]]:
        for root in roots:
            yield from store.paths_and_rows(root, condition, values)

    globs = _globs(filters, paths)
    files = filters.files if filters.files is None else _files(filters.files, paths)
    found = (
        row
        for path, row in paths()
        if (files is None or path in files) and (not globs or _is_in(path, globs, filters.seen_from))
    )
    while some := [*islice(found, _SOME)]:
        yield np.array(some, np.int64)


class _Glob(NamedTuple):
    """A compiled pattern for paths."""

    regex: re.Pattern[str]
    takes_in: bool
    by_letters: bool
    """Whether it is for paths in the form of `same_letters`, because it matches none byte for byte."""

    def matches(self, path: bytes) -> bool:
        return self.regex.match(os.fsdecode(same_letters(path) if self.by_letters else path)) is not None


def _globs(filters: Filters, paths: Callable[[], Iterator[tuple[bytes, int]]]) -> list[_Glob]:
    """Compile the patterns, the last first; those that match no path byte for byte are compared by letters."""
    exact = [_Glob(regex, takes_in, by_letters=False) for regex, takes_in in patterns(filters.glob)]
    open_ones = {number for number, glob in enumerate(exact) if not glob.regex.pattern.isascii()}
    for path, _ in paths() if open_ones else ():
        open_ones -= {number for number in open_ones if exact[number].matches(_seen(path, filters.seen_from))}
    if not open_ones:
        return exact
    loose = patterns(filters.glob, by_letters=True)
    by_letters = [_Glob(regex, takes_in, by_letters=True) for regex, takes_in in loose]
    return [by_letters[number] if number in open_ones else glob for number, glob in enumerate(exact)]


def _files(files: Collection[bytes], paths: Callable[[], Iterator[tuple[bytes, int]]]) -> Collection[bytes]:
    """Return the paths of the index that equal `files`; those that equal none byte for byte are compared by letters."""
    if all(path.isascii() for path in files):
        return files
    exact = {path for path, _ in paths() if path in files}
    others = {same_letters(path) for path in files if path not in exact}
    return exact | {path for path, _ in paths() if path not in exact and same_letters(path) in others}


def _condition(filters: Filters) -> tuple[str, list[object]]:
    """Return the conditions on columns as SQL, and its values."""
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
    """Return times, in ns since 1970, that are certainly before and certainly after a local time in any zone."""
    seconds = int((datetime.fromisoformat(moment) - datetime(1970, 1, 1)).total_seconds())  # noqa: DTZ001
    early, late = (max(-_64_BITS, min(10**9 * (seconds + far), _64_BITS)) for far in (-_NEAR, _NEAR))
    return early, late


def _outermost(paths: tuple[bytes, ...]) -> list[bytes]:
    """Leave out paths that lie in another one, so that no row is selected twice."""
    return [path for path in set(paths) if not any(path != other and is_below(path, other) for other in set(paths))]


def _is_in(path: bytes, globs: Sequence[_Glob], seen_from: Sequence[bytes]) -> bool:
    seen = _seen(path, seen_from)
    for glob in globs:
        if glob.matches(seen):
            return glob.takes_in
    return not any(glob.takes_in for glob in globs)


def _seen(path: bytes, seen_from: Sequence[bytes]) -> bytes:
    """Return the path that patterns are matched with: relative to `seen_from` if it is below, else absolute."""
    start = next((folder for folder in seen_from if is_below(path, folder)), b"/")
    return path.removeprefix(inside(start)).lstrip(b"/")
