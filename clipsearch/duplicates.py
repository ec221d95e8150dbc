"""Pictures that an index holds more than once: exact copies, near duplicates, which to keep, and deleting the others.

Owns what a duplicate is, which picture of a group is the best, and the checks that stand before any deletion. Needs the
index only, no model, and knows nothing of the command line.

A group is a star (see `search.near`): every picture in it is a duplicate of its keeper, so that a deletion takes no
picture that is unlike the one that stays.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from clipsearch.errors import InputError, NothingFoundError, UnreadableImageError
from clipsearch.filters import Filters
from clipsearch.images.reading import read_file
from clipsearch.paths import is_below
from clipsearch.search.distinct import distinct_contents
from clipsearch.search.near import Progress, near
from clipsearch.store.filtering import matching
from clipsearch.store.format import Record
from clipsearch.store.reading import Store

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from clipsearch.filters import FilterArguments

THRESHOLD = 0.97
"""Cosine from which two pictures are near duplicates. Of the sample pictures, saved again as JPEG of quality 40 to 90
or reduced to a third of their size, all have 0.98 or more with their originals (reduced to a quarter, 98 % of them have
0.97), and no two different ones have more than 0.89."""


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
        rows, content_of = distinct_contents(records)
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
