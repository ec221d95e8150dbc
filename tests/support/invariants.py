"""What must hold of an index at every moment, whatever became of the run that wrote it."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
from tiny import FixedEncoders

from clipsearch.errors import ClipsearchError
from clipsearch.images.regions import layout
from clipsearch.index.format import Record
from clipsearch.index.reading import Store
from clipsearch.index.verifying import verify
from clipsearch.search.index import Index

Vector = npt.NDArray[np.float16]
Regions = Mapping[tuple[int, int, int, int], Vector]
"""The vector of each region of an image, by its edges."""
Held = dict[bytes, tuple[bytes | None, bool]]
"""The content of each image, and whether it has regions."""


class UnreadableIndexError(AssertionError):
    """The index cannot be opened or searched, or contradicts itself."""


class WrongRowsError(AssertionError):
    """Some rows are not as they should be."""

    def __init__(self, what: str, paths: Sequence[bytes]) -> None:
        super().__init__(f"{len(paths)} images {what}, such as {os.fsdecode(paths[0])!r}")
        self.rows = len(paths)


class ShiftedRowsError(WrongRowsError):
    """A path has a vector that is not that of its content."""


class LostRowsError(WrongRowsError):
    """Something that was committed is gone."""


def digest_of(content: bytes) -> bytes:
    """What an index calls the hash of a content."""
    return hashlib.blake2b(content, digest_size=16).digest()


class Truth:
    """The vector that each content has, by what its hash is in an index."""

    def __init__(self, tolerance: float = 0) -> None:
        self.tolerance = tolerance
        """How much a number of a vector may differ: a model's last bit depends on what else is in a batch."""
        self._vectors: dict[bytes, Vector] = {}
        self._regions: dict[bytes, Regions] = {}

    def learn(self, content: bytes, vector: Vector, regions: Regions | None = None) -> None:
        """`content` has this vector, and its regions have these."""
        self._vectors[digest_of(content)] = vector
        self._regions[digest_of(content)] = regions or {}

    def learn_files(self, vectors: Mapping[bytes, Vector], regions: Mapping[bytes, Regions] | None = None) -> None:
        """The content that each of these files has now has this vector, and its regions have these."""
        for path, vector in vectors.items():
            with open(path, "rb") as file:
                self.learn(file.read(), vector, (regions or {}).get(path))

    def fits(self, digest: bytes | None, vector: Vector) -> bool:
        """Whether a content that was once learnt has this vector."""
        known = self._vectors.get(digest or b"")
        return known is not None and self._are_alike(known, vector)

    def fits_regions(self, digest: bytes | None, regions: Regions) -> bool:
        """Whether a content that was once learnt has these regions, in this order."""
        known = self._regions.get(digest or b"", {})
        return list(known) == list(regions) and all(self._are_alike(known[box], regions[box]) for box in known)

    def _are_alike(self, known: Vector, vector: Vector) -> bool:
        return bool(np.all(np.abs(known.astype(float) - vector) <= self.tolerance))

    def tells_apart(self) -> bool:
        """Whether any two contents differ by more than the tolerance, so that a wrong vector is seen."""
        vectors = np.array(list(self._vectors.values()), np.float32)
        return all(
            np.abs(vectors[i + 1 :] - vectors[i]).max(axis=1).min(initial=np.inf) > 2 * self.tolerance
            for i in range(len(vectors))
        )


@dataclass(frozen=True)
class State:
    """The images of an index as of one commit, by absolute path."""

    digests: dict[bytes, bytes | None] = field(default_factory=dict)
    vectors: dict[bytes, Vector] = field(default_factory=dict)
    regions: dict[bytes, Regions] = field(default_factory=dict)
    """Only of images that have some."""

    @property
    def held(self) -> Held:
        """The content of each image, and whether it has regions."""
        return {path: (digest, path in self.regions) for path, digest in self.digests.items()}


def observe(folder: Path, truth: Truth, *, tidy: bool = False) -> State:
    """The last commit of an index, which must be whole and right; without an index, nothing.

    With `tidy` not even a harmless leftover may lie about, and in an index with regions every large image has them.

    Raises:
        UnreadableIndexError: the index does not open, verify, or answer a query as it should.
        ShiftedRowsError: a vector, or a region, is not that of the content that its record names.
        LostRowsError: an image lacks its regions.
    """
    if not Store.exists(folder):
        return State()
    try:
        with closing(Store.open(folder)) as store, store.snapshot():
            return _observe(store, truth, tidy=tidy)
    except ClipsearchError as error:
        raise UnreadableIndexError(str(error)) from error


def _observe(store: Store, truth: Truth, *, tidy: bool) -> State:
    # 1. It fits together, as far as it knows itself.
    if findings := [finding.what for finding in verify(store) if tidy or not finding.harmless]:
        raise UnreadableIndexError(f"{store.folder}: {'; '.join(findings)}")
    matrix, alive = store.matrix()
    images = {record.path: record for record in store.records() if record.row is not None}
    rows_of = {path: record.row for path, record in images.items() if record.row is not None}
    rows = sorted(rows_of.values())
    if rows != np.arange(len(matrix))[slice(None) if alive is None else alive].tolist():
        raise UnreadableIndexError(f"{store.folder}: rows {rows} have images, but others are alive")
    # 2. Every image has the vector of its content.
    vectors = {path: np.array(matrix[row]) for path, row in rows_of.items()}
    if wrong := [path for path, record in images.items() if not truth.fits(record.hash, vectors[path])]:
        raise ShiftedRowsError("have another vector than their content", wrong)
    # 3. Every large image has its regions, or none of them yet.
    regions = regions_of(store, images, complete=tidy)
    if wrong := [path for path, known in regions.items() if not truth.fits_regions(images[path].hash, known)]:
        raise ShiftedRowsError("have other regions than their content", wrong)
    # 4. Asked for one of the pictures, it finds this one, or one just like it.
    if images:
        wanted = images[sorted(images)[len(images) // 2]]
        question = vectors[wanted.path].astype(np.float32)[np.newaxis]
        (hit,) = Index(store, FixedEncoders(question)).search("this one", k=1)
        if not truth.fits(wanted.hash, vectors[hit.path_bytes]):
            raise UnreadableIndexError(f"{store.folder}: asked for {wanted.path!r}, it found {hit.path}")
    return State({path: record.hash for path, record in images.items()}, vectors, regions)


def regions_of(store: Store, images: Mapping[bytes, Record], *, complete: bool) -> dict[bytes, Regions]:
    """The regions of each image that has some.

    Raises:
        UnreadableIndexError: those of an image are not next to each other.
        LostRowsError: with `complete`, an image that is large enough for regions has none.
    """
    known, regions = store.regions_record(), store.regions()
    if known is None or regions is None:
        return {}
    found: dict[bytes, Regions] = {}
    for path, record in images.items():
        places = np.flatnonzero(regions.images == record.row)
        if len(places) and places[-1] - places[0] != len(places) - 1:
            raise UnreadableIndexError(f"{store.folder}: the regions of {path!r} are at {places}")
        boxes = [(left, top, right, bottom) for left, top, right, bottom in regions.boxes[places].tolist()]
        if boxes:
            found[path] = dict(zip(boxes, np.array(regions.matrix[places]), strict=True))
            if len(found[path]) != len(boxes):
                raise UnreadableIndexError(f"{store.folder}: a region of {path!r} is there twice")
    lacking = [
        path
        for path, record in images.items()
        if path not in found and layout(record.width or 0, record.height or 0, known.side)
    ]
    if complete and lacking:
        raise LostRowsError("have no regions", lacking)
    return found


def assert_kept(before: State, after: State, paths: Iterable[bytes]) -> None:
    """What `before` has of these paths is still in `after`, bit by bit.

    Raises:
        LostRowsError: it is not.
    """
    lost = [
        path
        for path in paths
        if path in before.vectors
        and not (
            after.digests.get(path) == before.digests[path]
            and np.array_equal(after.vectors[path], before.vectors[path])
            and _are_equal(before.regions.get(path, {}), after.regions.get(path, {}))
        )
    ]
    if lost:
        raise LostRowsError("are no longer as they were", lost)


def _are_equal(before: Regions, after: Regions) -> bool:
    """Whether all regions are still the same; where there were none, there may be some now."""
    return not before or (
        list(before) == list(after) and all(np.array_equal(before[box], after[box]) for box in before)
    )
