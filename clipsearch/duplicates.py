"""Pictures that an index holds more than once: exact copies, near duplicates, which to keep, and deleting the others.

Owns what a duplicate is, which picture of a group is the best, and the checks that stand before any deletion. Needs the
index only, no model, and knows nothing of the command line.

A group is a star: every picture in it is a duplicate of its keeper. Joining whatever is close to any member instead
would make chains, whose ends have little in common, and a deletion would take pictures that are not like the one that
stays.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from clipsearch import cores
from clipsearch.errors import InputError, NothingFoundError, UnreadableImageError
from clipsearch.filters import Filters
from clipsearch.images.reading import read_file
from clipsearch.paths import is_below
from clipsearch.ranking import Matrix, Scores
from clipsearch.store.filtering import matching
from clipsearch.store.format import Record
from clipsearch.store.reading import Store

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from clipsearch.filters import FilterArguments

Rows = npt.NDArray[np.int64]

THRESHOLD = 0.97
"""Cosine from which two pictures are near duplicates. Of the sample pictures, saved again as JPEG of quality 40 to 90
or reduced to a third of their size, all have 0.98 or more with their originals (reduced to a quarter, 98 % of them have
0.97), and no two different ones have more than 0.89."""

_BLOCK, _CHUNK = 1024, 2048
"""Rows that are looked at as keepers at a time, and rows that one thread compares them with: 8 MB of cosines."""
_FREE = -1


class Duplicate(NamedTuple):
    """A picture that is not needed beside its keeper."""

    record: Record
    score: float
    """Cosine with the keeper; 1 for a copy."""
    is_copy: bool
    """Whether its content is the keeper's, byte for byte."""


class Group(NamedTuple):
    """A picture and what duplicates it."""

    keeper: Record
    """The one with the most pixels, of these the largest file, then the oldest, then the first path."""
    duplicates: list[Duplicate]
    """The closest first, copies before all others, then by path."""


class Deletion(NamedTuple):
    """What became of a file that was to be deleted."""

    path: bytes
    freed: int
    """Bytes; none for a file that has other names (hard links)."""
    problem: str | None
    """Why it is still there; None if it was deleted."""


class Progress(Protocol):
    """Hears how far the comparison is."""

    def start(self, total: int) -> None:
        """So many images have to be compared with all others."""

    def advance(self, files: int) -> None:
        """So many more are done. The first take longer than the last, which were compared with them already."""


def find_duplicates(
    store: Store,
    *,
    threshold: float | None = THRESHOLD,
    progress: Progress | None = None,
    **filters: Unpack[FilterArguments],
) -> tuple[list[Group], int]:
    """Groups of duplicates among the images of an index that fulfil `filters`, and how many these are.

    Groups that would free the most bytes come first. Images with the same content are duplicates, and so are those
    whose vectors have a cosine of `threshold` or more; with None, only the first. The best image that no group has yet
    becomes a keeper, and takes all its duplicates that no group has yet. So no two images that stay are duplicates.

    Every pair is compared, with the exact vectors of the index, in N^2 / 2 * D multiplications and without a table of
    pairs: memory is that of one copy of the vectors, 2 * N * D bytes, and some megabytes.

    Raises:
        InputError: `threshold` is not in (0, 1], or a filter means nothing.
        NothingFoundError: fewer than two images are left to compare.
        IndexDamagedError: the index contradicts itself.
    """
    if threshold is not None and not 0 < threshold <= 1:
        raise InputError(f"A threshold is a cosine above 0 and up to 1, as in {THRESHOLD}; not {threshold:g}.")
    # 1. What takes part, and of each content one vector. A writer has to wait until they are read, and no longer.
    with store.snapshot():
        matrix, _ = store.matrix()
        records = _best_first(store, matching(store, Filters.of(filters), len(matrix)))
        if len(records) < 2:  # noqa: PLR2004  (a pair)
            raise NothingFoundError(_too_few(len(records), store.count()))
        rows, content_of = _distinct(records)
        vectors = None if threshold is None else np.asarray(matrix[rows])
    # 2. Which content each is a duplicate of.
    keeper_of, scores = np.arange(len(rows)), np.ones(len(rows), np.float32)
    if vectors is not None and threshold is not None:
        keeper_of, scores = near(vectors, threshold, progress)
    # 3. Images.
    keepers = keeper_of[content_of]
    wanted = np.flatnonzero(np.bincount(keepers)[keepers] > 1).tolist()
    groups: dict[int, Group] = {}
    for number in wanted:
        content, keeper = int(content_of[number]), int(keepers[number])
        if keeper not in groups:  # the best comes first
            groups[keeper] = Group(records[number], [])
        else:
            duplicate = Duplicate(records[number], float(scores[content]), is_copy=content == keeper)
            groups[keeper].duplicates.append(duplicate)
    for group in groups.values():
        group.duplicates.sort(key=lambda one: (not one.is_copy, -one.score, one.record.path))
    return sorted(groups.values(), key=lambda group: (-_bytes(group), group.keeper.path)), len(records)


def near(vectors: Matrix, threshold: float, progress: Progress | None = None) -> tuple[Rows, Scores]:
    """For each of (N, D) unit vectors, the best first, the number of its keeper (N,) and the cosine with it (N,).

    A row belongs to the first keeper with which its cosine is `threshold` or more. Where there is none, it is a keeper,
    and its own with 1.
    """
    stars = _Stars(vectors, threshold)
    if progress:
        progress.start(len(vectors))
    with ThreadPoolExecutor(cores.available(), thread_name_prefix="near") as pool:
        for start in range(0, len(vectors), _BLOCK):
            found = stars.keepers_among(stars.free(start, start + _BLOCK))
            if len(found):
                take = partial(stars.take, found, vectors[found].astype(np.float32))
                list(pool.map(take, range(start + _BLOCK, len(vectors), _CHUNK)))
            if progress:
                progress.advance(min(_BLOCK, len(vectors) - start))
    return stars.keepers, stars.scores


def reclaimable(groups: Iterable[Group]) -> int:
    """Bytes that deleting all duplicates would free, as the files are now.

    A file that is gone, a link, and a file that keeps another name (hard links) free none.
    """
    links: Counter[tuple[int, int]] = Counter()
    sizes: dict[tuple[int, int], tuple[int, int]] = {}
    seen = set()
    for group in groups:
        kept = _status(group.keeper.path)
        for duplicate in group.duplicates:
            status, real = _status(duplicate.record.path), os.path.realpath(duplicate.record.path)
            if status is None or real in seen or os.path.islink(duplicate.record.path):
                continue
            if kept is not None and os.path.samestat(kept, status):
                continue
            seen.add(real)
            links[status.st_dev, status.st_ino] += 1
            sizes[status.st_dev, status.st_ino] = status.st_nlink, status.st_size
    return sum(size for file, (names, size) in sizes.items() if links[file] >= names)


def delete_duplicates(groups: Iterable[Group], roots: Sequence[bytes]) -> Iterator[Deletion]:
    """Delete the duplicates of `groups`, one by one as the result is read, and never a keeper.

    Keeper and duplicate are read right before: their contents have to be those that the index knows. What is not below
    one of `roots` (absolute), also through links, stays; so do symbolic links, and other names of the keeper's file.
    """
    real_roots = [os.path.realpath(root) for root in roots]
    for group in groups:
        for duplicate in group.duplicates:
            path = duplicate.record.path
            problem = (
                _unlike(group.keeper, "what would be kept, ")
                or _not_ours(path, group.keeper.path, roots, real_roots)
                or _unlike(duplicate.record)
            )
            yield Deletion(path, 0, problem) if problem else _deleted(path)


# -- how ---------------------------------------------------------------------------------------------------------


def _best_first(store: Store, mask: npt.NDArray[np.bool_] | None) -> list[Record]:
    """The images that take part, the best to keep first."""
    found = [record for record in store.records() if record.row is not None and (mask is None or mask[record.row])]
    # By paths at last: they come in this order, and the sorting keeps it.
    found.sort(key=lambda one: (-(one.width or 0) * (one.height or 0), -one.size, one.mtime_ns))
    return found


def _too_few(found: int, images: int) -> str:
    if found < images:
        passes = "only one passes" if found else "none passes"
        return (
            f"There is nothing to compare: of {images} images in the index, {passes} the filters. "
            "`clipsearch status` names the folders in the index."
        )
    return f"There is nothing to compare: the index holds {found or 'no'} image. To add more: clipsearch index PATH"


def _distinct(records: Sequence[Record]) -> tuple[Rows, Rows]:
    """Of M contents the row of the first image with it (M,), and of N images the number of the content (N,)."""
    rows: list[int] = []
    known: dict[bytes | int, int] = {}
    contents = np.empty(len(records), np.int64)
    for number, record in enumerate(records):
        key = number if record.hash is None else record.hash  # of which nothing is known equals nothing
        if record.row is not None and key not in known:
            known[key] = len(rows)
            rows.append(record.row)
        contents[number] = known[key]
    return np.array(rows, np.int64), contents


class _Stars:
    """Rows that find their keepers."""

    def __init__(self, vectors: Matrix, threshold: float) -> None:
        self.keepers = np.full(len(vectors), _FREE, np.int64)
        self.scores = np.ones(len(vectors), np.float32)
        self._vectors, self._threshold = vectors, threshold

    def free(self, start: int, end: int) -> Rows:
        """The numbers of rows from `start` to `end` that have no keeper yet."""
        return np.flatnonzero(self.keepers[start:end] == _FREE) + start

    def keepers_among(self, block: Rows) -> Rows:
        """Make keepers of free rows, or give them to one of these; the numbers of the new keepers."""
        cosines = _cosines(self._vectors[block], self._vectors[block])
        close = np.triu(cosines >= self._threshold, 1)
        free = np.ones(len(block), np.bool_)
        for one in np.flatnonzero(close.any(axis=1)):
            if free[one]:
                taken = np.flatnonzero(close[one] & free)
                free[taken] = False
                self._give(block[taken], block[one], cosines[one, taken])
        self.keepers[block[free]] = block[free]
        return block[free]

    def take(self, found: Rows, keepers: Matrix | Scores, start: int) -> None:
        """Give each free row of a chunk to the first of the keepers `found` (their vectors: `keepers`) it is close to.

        Each chunk is another part of the arrays, so threads need not wait for each other.
        """
        rows = self.free(start, start + _CHUNK)
        if len(rows):
            cosines = _cosines(self._vectors[rows], keepers)
            taken = np.flatnonzero(cosines.max(axis=1) >= self._threshold)
            first = (cosines[taken] >= self._threshold).argmax(axis=1)
            self._give(rows[taken], found[first], cosines[taken, first])

    def _give(self, rows: Rows, keepers: Rows, cosines: Scores) -> None:
        self.keepers[rows] = keepers
        self.scores[rows] = np.minimum(cosines, 1)  # rounding to float16 makes rows a little longer than 1


def _cosines(rows: Matrix | Scores, others: Matrix | Scores) -> Scores:
    """(N, K) cosines of (N, D) and (K, D).

    By BLAS in float32: with as many on both sides it takes half of the time of the kernels that ranking has, whose
    strength is that they need not convert what is read only once.
    """
    return np.asarray(rows.astype(np.float32, copy=False) @ others.astype(np.float32, copy=False).T)


def _bytes(group: Group) -> int:
    return sum(duplicate.record.size for duplicate in group.duplicates)


def _status(path: bytes) -> os.stat_result | None:
    try:
        return os.stat(path)
    except OSError:
        return None


def _unlike(record: Record, what: str = "") -> str | None:
    """Why a file is not what the index knows; None if it is."""
    name = f"{what}{os.fsdecode(record.path)}, " if what else ""
    try:
        content = read_file(record.path)
    except UnreadableImageError as error:
        return f"{name}cannot be read: {error}" if what else f"it cannot be read: {error}"
    if record.hash is None or content.digest != record.hash:
        return f"{name or 'it '}has changed since it was indexed"
    return None


def _not_ours(path: bytes, keeper: bytes, roots: Sequence[bytes], real_roots: Sequence[bytes]) -> str | None:
    """Why a path must not be deleted, whatever its content; None if it may."""
    real = os.path.realpath(path)
    if not any(is_below(path, root) for root in roots) or not any(is_below(real, root) for root in real_roots):
        return "it lies outside the folders of the index"
    if os.path.islink(path):
        return "it is a symbolic link"
    one, other = _status(path), _status(keeper)
    if one is not None and other is not None and os.path.samestat(one, other):
        return f"it is the same file as {os.fsdecode(keeper)}, which is kept"
    return None


def _deleted(path: bytes) -> Deletion:
    try:
        status = os.lstat(path)
        os.unlink(path)
    except OSError as error:
        return Deletion(path, 0, error.strerror or str(error))
    return Deletion(path, status.st_size if status.st_nlink == 1 else 0, None)
