"""Duplicates in an index: finding exact copies and near duplicates, choosing which to keep, and deleting the others.

This module owns the definition of a duplicate, the choice of the image to keep in a group, and the checks before any
deletion. It needs only the index, no model, and knows nothing of the command line.

A group is a star (see `search.near`): every image in it is a duplicate of its keeper, so that no image is deleted that
differs from the one that is kept.

Hard links and symbolic links to a file are names of one image, not duplicates. An image that the index knows only by a
symbolic link lies outside its folders, so it is never kept instead of a file of the index, and never deleted.
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
from clipsearch.system.members import elsewhere
from clipsearch.system.paths import is_below, same_place
from clipsearch.system.progress import SILENT, Progress
from clipsearch.system.removal import Keeper, is_in_trash, look, remove

if TYPE_CHECKING:
    from typing import Unpack

    from clipsearch.index.filters import FilterArguments

THRESHOLD = 0.97
"""Cosine from which two images are near duplicates. All sample images, saved again as JPEG of quality 40 to 90 or
reduced to a third of their size, have 0.98 or more with their originals (98 % of them have 0.97 when reduced to a
quarter); no two different ones have more than 0.89."""


class Names(NamedTuple):
    """The paths of an image in the index, other than the path of its record."""

    hard: tuple[bytes, ...] = ()
    """Other paths of the file that are not symbolic links."""
    symbolic: tuple[bytes, ...] = ()
    """Symbolic links to the file."""


class Duplicate(NamedTuple):
    """An image that is a duplicate of its group's keeper."""

    record: Record
    score: float
    """Cosine with the keeper; 1 for an exact copy."""
    is_copy: bool
    """Whether the file is an exact copy of the keeper, byte for byte."""
    also: Names = Names()
    is_link: bool = False
    """Whether the index knows the image only by symbolic links, so that nothing can be deleted."""


class Group(NamedTuple):
    """An image to keep, and its duplicates."""

    keeper: Record
    """The image with the most pixels, then the largest file, the most names, the oldest file, the first path. A
    symbolic link is the keeper only if all others are symbolic links, too, and a member of an archive only if there is
    no file among them."""
    duplicates: list[Duplicate]
    """Exact copies first, then by decreasing score, then by path."""
    also: Names = Names()
    """Other paths of the keeper."""


GONE = "it is gone"
"""The `problem` of a file that does not exist any more."""


class Deletion(NamedTuple):
    """The result of deleting one path."""

    path: bytes
    freed: int
    """Bytes freed: 0 for a file that has other hard links, and 0 for a file that was moved to the trash."""
    problem: str | None
    """Why the file was not deleted; None if it was."""
    trashed: int = 0
    """Bytes that emptying the trash will free."""
    dangling: tuple[bytes, ...] = ()
    """Symbolic links in the index whose target this was."""
    no_trash: bool = False
    """Whether the problem is that its file system has no trash."""


def find_duplicates(
    store: Store,
    *,
    threshold: float | None = THRESHOLD,
    progress: Progress = SILENT,
    **filters: Unpack[FilterArguments],
) -> tuple[list[Group], int]:
    """Find groups of duplicates in an index.

    Images with the same content are duplicates, and so are images whose vectors have a cosine of at least `threshold`.
    The best image that is in no group becomes a keeper and takes all its duplicates that are in no group. So no two
    images that are kept are duplicates.

    Every pair is compared, in N^2 / 2 * D multiplications and without a table of pairs: memory is one copy of the
    vectors, 2 * N * D bytes, and some megabytes.

    Args:
        store: the opened index.
        threshold: the least cosine, in (0, 1]; None for exact copies only.
        progress: is updated with the number of compared images.
        filters: which images take part; as for `Index.search`.

    Returns:
        The groups, those first whose duplicates have the most bytes, and the number of images that took part. Paths of
        one file count as one image; with `threshold` None, this is only looked up for files that have copies.

    Raises:
        InputError: `threshold` is not in (0, 1], or a filter is invalid.
        NothingFoundError: fewer than two images are left to compare.
        IndexDamagedError: the index contradicts itself.
    """
    if threshold is not None and not 0 < threshold <= 1:
        raise InputError(f"A threshold is a cosine above 0 and up to 1, as in {THRESHOLD}; not {threshold:g}.")
    # 1. Read one vector for each content into memory, because a writer cannot commit while the snapshot is open.
    with store.snapshot():
        selection = select(store, filters_of(filters, store), only_sound=threshold is not None)
        # A file in a trash may soon be gone, so it must not be the keeper of another.
        records = [record for record in selection.records(store) if not is_in_trash(record.path)]
        if len(records) < 2:  # noqa: PLR2004  (a pair)
            raise _too_few(len(records), store.count())
        candidates = _best_first(_images(records, copies_only=threshold is None))
        rows, content_of = distinct_contents([image.record for image in candidates])
        vectors = None if threshold is None else np.asarray(selection.matrix[rows])
    # 2. Find the keeper of each content.
    keeper_of, scores = np.arange(len(rows)), np.ones(len(rows), np.float32)
    if vectors is not None and threshold is not None:
        keeper_of, scores = near(vectors, threshold, progress)
    # 3. Make groups of images.
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
    """Return the number of bytes that deleting all duplicates would free at this moment.

    A file that does not exist any more, or that has another hard link, frees none.
    """
    return sum(_reclaimable(duplicate) for group in groups for duplicate in group.duplicates)


def names_to_delete(duplicate: Duplicate) -> list[bytes]:
    """Return all paths to delete for a duplicate; none for a symbolic link, or a member of an archive."""
    if duplicate.is_link or elsewhere(duplicate.record.path):
        return []
    # One directory entry may have several paths, through a link to its folder.
    places = {_place(path): path for path in reversed((duplicate.record.path, *duplicate.also.hard))}
    return list(reversed(places.values()))


def delete_duplicates(
    groups: Iterable[Group], roots: Sequence[bytes], *, permanently: bool = False
) -> Iterator[Deletion]:
    """Delete the duplicates of groups, one at a time as the result is iterated, and never a keeper.

    Keeper and duplicate are read right before, and again after the duplicate has been moved aside: their contents have
    to be those that the index recorded. All hard links of a duplicate in the index are deleted. Symbolic links are not.

    Args:
        groups: those that `find_duplicates` returned.
        roots: absolute paths of folders; a file that is not below one of them, with links resolved, is not deleted.
        permanently: delete for good, instead of moving to the system's trash.

    Yields:
        The result for each path.
    """
    real_roots = [os.path.realpath(root) for root in roots]
    for group in groups:
        problem = _unlike(group.keeper, "what would be kept, ")
        for duplicate in group.duplicates:
            if where := elsewhere(duplicate.record.path):
                yield Deletion(duplicate.record.path, 0, f"it lies {where}, and nothing is ever changed there")
            size, paths = _reclaimable(duplicate), names_to_delete(duplicate)
            for path in paths:
                if path != paths[0] and not os.path.lexists(path):
                    continue  # the same directory entry through a second mount, which was deleted just now
                reason = problem or _not_ours(path, group.keeper.path, roots, real_roots)
                deletion = Deletion(path, 0, reason) if reason else _removed(path, duplicate, group, permanently)
                if path == paths[-1] and not deletion.problem:
                    dangling = tuple(link for link in duplicate.also.symbolic if not os.path.exists(link))
                    deletion = deletion._replace(trashed=0 if permanently else size, dangling=dangling)
                yield deletion


# -- how ---------------------------------------------------------------------------------------------------------


class _Candidate(NamedTuple):
    """A file with all its paths; `record` is that of one of them."""

    record: Record
    also: Names = Names()
    is_link: bool = False

    @property
    def names(self) -> int:
        return 1 + len(self.also.hard) + len(self.also.symbolic)


def _images(records: Sequence[Record], *, copies_only: bool) -> list[_Candidate]:
    """Join records of the same file. With `copies_only`, this is not looked up for files without a copy."""
    contents = Counter(record.hash for record in records)
    candidates: list[_Candidate] = []
    files: dict[tuple[int, int], list[tuple[bool, Record]]] = {}
    for record in records:
        matters = not copies_only or (record.hash is not None and contents[record.hash] > 1)
        found = _identity(record.path) if matters else None
        if found is None:  # not looked up, or the file does not exist
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
    """Return device and inode of a file, and whether `path` is a symbolic link to it; None if it does not exist."""
    try:
        status = os.lstat(path)
        is_link = stat.S_ISLNK(status.st_mode)
        if is_link:
            status = os.stat(path)
    except OSError:
        return None
    return (status.st_dev, status.st_ino), is_link


def _place(path: bytes) -> bytes:
    """Resolve the links in the folders of `path`, but not `path` itself."""
    folder, name = os.path.split(path)
    return os.path.join(os.path.realpath(folder), name)


def _best_first(candidates: list[_Candidate]) -> list[_Candidate]:
    """Sort candidates, the best one to keep first. More paths are better, so that no symbolic link is left dangling.

    Members of archives come after files: they are never deleted, so a file must not go for their sake.
    """

    def key(image: _Candidate) -> tuple[bool, bool, int, int, int, int, bytes]:
        one = image.record
        pixels = (one.width or 0) * (one.height or 0)
        return image.is_link, elsewhere(one.path) is not None, -pixels, -one.size, -image.names, one.mtime_ns, one.path

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
    """Return the bytes that deleting all paths of a duplicate in the index would free."""
    names = names_to_delete(duplicate)
    try:
        status = os.lstat(duplicate.record.path)
    except OSError:
        return 0
    return status.st_size if names and status.st_nlink <= len(names) else 0


def _unlike(record: Record, what: str = "") -> str | None:
    """Return why a file is not what the index recorded; None if it is."""
    name = f"{what}{os.fsdecode(record.path)}, " if what else "it "
    try:
        seen = look(record.path)
    except FileStaysError as error:
        return f"{name}{error}"
    return None if seen.digest == record.hash else f"{name}has changed since it was indexed"


def _not_ours(path: bytes, keeper: bytes, roots: Sequence[bytes], real_roots: Sequence[bytes]) -> str | None:
    """Return why a path must not be deleted, regardless of its content; None if it may be."""
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
