"""Pictures that an index holds more than once: exact copies, near duplicates, which to keep, and deleting the others.

Owns what a duplicate is, which picture of a group is the best, and the checks that stand before any deletion. Needs the
index only, no model, and knows nothing of the command line.

A group is a star (see `search.near`): every picture in it is a duplicate of its keeper, so that a deletion takes no
picture that is unlike the one that stays.

A picture is one file, whatever its names: hard links and symbolic links to it are no duplicates of it. What an index
has by a symbolic link alone lies elsewhere, so it is never kept in place of a file of the index, and never deleted.
"""

from __future__ import annotations

import os
import stat
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from clipsearch.errors import FileStaysError, InputError, NothingFoundError, NoTrashError
from clipsearch.index.format import Record
from clipsearch.index.reading import Store
from clipsearch.index.selection import filters_of, select
from clipsearch.search.distinct import distinct_contents
from clipsearch.search.near import near
from clipsearch.system.paths import is_below, same_place
from clipsearch.system.progress import SILENT, Progress
from clipsearch.system.removal import Keeper, is_in_trash, look, remove

if TYPE_CHECKING:
    from typing import Unpack

    from clipsearch.index.filters import FilterArguments

THRESHOLD = 0.97
"""Cosine from which two pictures are near duplicates. Of the sample pictures, saved again as JPEG of quality 40 to 90
or reduced to a third of their size, all have 0.98 or more with their originals (reduced to a quarter, 98 % of them have
0.97), and no two different ones have more than 0.89."""


class Names(NamedTuple):
    """What a picture is called besides the path of its record; all are in the index too."""

    hard: tuple[bytes, ...] = ()
    """Names of the same file that are no symbolic links."""
    symbolic: tuple[bytes, ...] = ()
    """Symbolic links to it."""


class Duplicate(NamedTuple):
    """A picture that is not needed beside its keeper."""

    record: Record
    score: float
    """Cosine with the keeper; 1 for a copy."""
    is_copy: bool
    """Whether its content is the keeper's, byte for byte."""
    also: Names = Names()
    is_link: bool = False
    """Whether the index has it by symbolic links alone, so that there is nothing to delete."""


class Group(NamedTuple):
    """A picture and what duplicates it."""

    keeper: Record
    """The one with the most pixels, of these the largest file, then the one with the most names, the oldest, the first
    path; and one that is no symbolic link, if there is any."""
    duplicates: list[Duplicate]
    """The closest first, copies before all others, then by path."""
    also: Names = Names()
    """Other names of the keeper."""


GONE = "it is gone"
"""The problem with a file that was not there any more."""


class Deletion(NamedTuple):
    """What became of a name that was to be deleted."""

    path: bytes
    freed: int
    """Bytes; none for a file that has other names (hard links), and none while it lies in the trash."""
    problem: str | None
    """Why it is still there; None if it was deleted."""
    trashed: int = 0
    """Bytes that are free once the trash is emptied."""
    dangling: tuple[bytes, ...] = ()
    """Symbolic links of the index that led to it and lead nowhere now."""
    no_trash: bool = False
    """Whether the problem is that there is no trash for it."""


def find_duplicates(
    store: Store,
    *,
    threshold: float | None = THRESHOLD,
    progress: Progress = SILENT,
    **filters: Unpack[FilterArguments],
) -> tuple[list[Group], int]:
    """Groups of duplicates among the images of an index that fulfil `filters`, and how many these are.

    Names of one file count once, as far as they matter: without `threshold`, only files with copies are looked at.

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
        selection = select(store, filters_of(filters, store), only_sound=threshold is not None)
        # What lies in a trash is on its way out: nothing may go for its sake.
        records = [record for record in selection.records(store) if not is_in_trash(record.path)]
        if len(records) < 2:  # noqa: PLR2004  (a pair)
            raise _too_few(len(records), store.count())
        candidates = _best_first(_images(records, copies_only=threshold is None))
        rows, content_of = distinct_contents([image.record for image in candidates])
        vectors = None if threshold is None else np.asarray(selection.matrix[rows])
    # 2. Which content each is a duplicate of.
    keeper_of, scores = np.arange(len(rows)), np.ones(len(rows), np.float32)
    if vectors is not None and threshold is not None:
        keeper_of, scores = near(vectors, threshold, progress)
    # 3. Images.
    keepers = keeper_of[content_of]
    wanted = np.flatnonzero(np.bincount(keepers)[keepers] > 1).tolist()
    groups: dict[int, Group] = {}
    for number in wanted:
        content, keeper, image = int(content_of[number]), int(keepers[number]), candidates[number]
        if keeper not in groups:  # the best comes first
            groups[keeper] = Group(image.record, [], image.also)
        else:
            score, is_copy = float(scores[content]), content == keeper
            duplicate = Duplicate(image.record, score, is_copy, image.also, image.is_link)
            groups[keeper].duplicates.append(duplicate)
    for group in groups.values():
        group.duplicates.sort(key=lambda one: (not one.is_copy, -one.score, one.record.path))
    return sorted(groups.values(), key=lambda group: (-_bytes(group), group.keeper.path)), len(candidates)


def reclaimable(groups: Iterable[Group]) -> int:
    """Bytes that deleting all duplicates would free, as the files are now.

    A file that is gone, and one that keeps another name (hard links), free none.
    """
    return sum(_reclaimable(duplicate) for group in groups for duplicate in group.duplicates)


def names_to_delete(duplicate: Duplicate) -> list[bytes]:
    """All paths that have to go for a duplicate to be gone; none if only symbolic links lead to it."""
    if duplicate.is_link:
        return []
    # The same name may be reached in several ways, through a link to its folder.
    places = {_place(path): path for path in reversed((duplicate.record.path, *duplicate.also.hard))}
    return list(reversed(places.values()))


def delete_duplicates(
    groups: Iterable[Group], roots: Sequence[bytes], *, permanently: bool = False
) -> Iterator[Deletion]:
    """Remove the duplicates of `groups`, one by one as the result is read, and never a keeper.

    They go to the system's trash, or with `permanently` for good. Keeper and duplicate are read right before, and
    again with the duplicate put aside: their contents have to be those that the index knows. What is not below one of
    `roots` (absolute), also through links, stays, and so do symbolic links. Of a duplicate with several names in the
    index (hard links) all go.
    """
    real_roots = [os.path.realpath(root) for root in roots]
    for group in groups:
        problem = _unlike(group.keeper, "what would be kept, ")
        for duplicate in group.duplicates:
            size, paths = _reclaimable(duplicate), names_to_delete(duplicate)
            for path in paths:
                if path != paths[0] and not os.path.lexists(path):
                    continue  # another way to a name that just went, through a second mount
                reason = problem or _not_ours(path, group.keeper.path, roots, real_roots)
                deletion = Deletion(path, 0, reason) if reason else _removed(path, duplicate, group, permanently)
                if path == paths[-1] and not deletion.problem:
                    dangling = tuple(link for link in duplicate.also.symbolic if not os.path.exists(link))
                    deletion = deletion._replace(trashed=0 if permanently else size, dangling=dangling)
                yield deletion


# -- how ---------------------------------------------------------------------------------------------------------


class _Candidate(NamedTuple):
    """A file, by the record of one of its names."""

    record: Record
    also: Names = Names()
    is_link: bool = False

    @property
    def names(self) -> int:
        return 1 + len(self.also.hard) + len(self.also.symbolic)


def _images(records: Sequence[Record], *, copies_only: bool) -> list[_Candidate]:
    """Each file once, with all its names. With `copies_only`, files without a copy are not looked at."""
    contents = Counter(record.hash for record in records)
    candidates: list[_Candidate] = []
    files: dict[tuple[int, int], list[tuple[bool, Record]]] = {}
    for record in records:
        matters = not copies_only or (record.hash is not None and contents[record.hash] > 1)
        found = _identity(record.path) if matters else None
        if found is None:  # or it is not there: then nothing is known of it
            candidates.append(_Candidate(record))
        else:
            identity, is_link = found
            files.setdefault(identity, []).append((is_link, record))
    for names in files.values():
        if len(names) > 1:
            names.sort(key=lambda name: (name[0], _place(name[1].path) != name[1].path, name[1].path))
        (is_link, record), *others = names
        also = Names(
            tuple(other.path for other_is_link, other in others if not other_is_link),
            tuple(other.path for other_is_link, other in others if other_is_link),
        )
        candidates.append(_Candidate(record, also, is_link))
    return candidates


def _identity(path: bytes) -> tuple[tuple[int, int], bool] | None:
    """Device and inode of a file, and whether `path` is a symbolic link to it; None if it is not there."""
    try:
        status = os.lstat(path)
        is_link = stat.S_ISLNK(status.st_mode)
        if is_link:
            status = os.stat(path)
    except OSError:
        return None
    return (status.st_dev, status.st_ino), is_link


def _place(path: bytes) -> bytes:
    """`path` without links in the folders above; it may be one itself."""
    folder, name = os.path.split(path)
    return os.path.join(os.path.realpath(folder), name)


def _best_first(candidates: list[_Candidate]) -> list[_Candidate]:
    """The best to keep first. Whatever has more names is kept before others, so that these lead somewhere."""

    def key(image: _Candidate) -> tuple[bool, int, int, int, int, bytes]:
        one = image.record
        pixels = (one.width or 0) * (one.height or 0)
        return image.is_link, -pixels, -one.size, -image.names, one.mtime_ns, one.path

    return sorted(candidates, key=key)


def _too_few(found: int, images: int) -> NothingFoundError:
    if found < images:
        passes = "only one passes" if found else "none passes"
        return NothingFoundError(
            f"There is nothing to compare: of {images} images in the index, {passes} the filters.", hint="folders"
        )
    return NothingFoundError(f"There is nothing to compare: the index holds {found or 'no'} image.", hint="add-images")


def _bytes(group: Group) -> int:
    return sum(duplicate.record.size for duplicate in group.duplicates if not duplicate.is_link)


def _reclaimable(duplicate: Duplicate) -> int:
    """Bytes that are free once all names of a duplicate that the index has are gone."""
    names = names_to_delete(duplicate)
    try:
        status = os.lstat(duplicate.record.path)
    except OSError:
        return 0
    return status.st_size if names and status.st_nlink <= len(names) else 0


def _unlike(record: Record, what: str = "") -> str | None:
    """Why a file is not what the index knows; None if it is."""
    name = f"{what}{os.fsdecode(record.path)}, " if what else "it "
    try:
        seen = look(record.path)
    except FileStaysError as error:
        return f"{name}{error}"
    return None if seen.digest == record.hash else f"{name}has changed since it was indexed"


def _not_ours(path: bytes, keeper: bytes, roots: Sequence[bytes], real_roots: Sequence[bytes]) -> str | None:
    """Why a path must not be deleted, whatever its content; None if it may."""
    real = os.path.realpath(path)
    if not any(is_below(path, root) for root in roots) or not any(is_below(real, root) for root in real_roots):
        return "it lies outside the folders of the index"
    if os.path.islink(path):
        return "it is a symbolic link"
    if same_place(path, keeper):
        return f"it is the same file as {os.fsdecode(keeper)}, which is kept"
    return None


def _removed(path: bytes, duplicate: Duplicate, group: Group, permanently: bool) -> Deletion:  # noqa: FBT001
    try:
        seen = look(path)
    except FileStaysError as error:
        return Deletion(path, 0, f"it {error}")
    if seen.digest != duplicate.record.hash or group.keeper.hash is None:
        return Deletion(path, 0, "it has changed since it was indexed")
    try:
        freed = remove(path, seen, Keeper(group.keeper.path, group.keeper.hash), trash=not permanently)
    except FileStaysError as error:
        return Deletion(path, 0, str(error), no_trash=isinstance(error, NoTrashError))
    return Deletion(path, freed, None)
