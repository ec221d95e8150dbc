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
from clipsearch.index.reading import Store
from clipsearch.index.verifying import verify
from clipsearch.search.index import Index

Vector = npt.NDArray[np.float16]


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

    def learn(self, content: bytes, vector: Vector) -> None:
        """`content` has this vector."""
        self._vectors[digest_of(content)] = vector

    def learn_files(self, vectors: Mapping[bytes, Vector]) -> None:
        """The content that each of these files has now has this vector."""
        for path, vector in vectors.items():
            with open(path, "rb") as file:
                self.learn(file.read(), vector)

    def fits(self, digest: bytes | None, vector: Vector) -> bool:
        """Whether a content that was once learnt has this vector."""
        known = self._vectors.get(digest or b"")
        return known is not None and bool(np.all(np.abs(known.astype(float) - vector) <= self.tolerance))

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


def observe(folder: Path, truth: Truth, *, tidy: bool = False) -> State:
    """The last commit of an index, which must be whole and right; without an index, nothing.

    With `tidy` not even a harmless leftover may lie about.

    Raises:
        UnreadableIndexError: the index does not open, verify, or answer a query as it should.
        ShiftedRowsError: a vector is not that of the content that its record names.
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
    # 3. Asked for one of the pictures, it finds this one, or one just like it.
    if images:
        wanted = images[sorted(images)[len(images) // 2]]
        question = vectors[wanted.path].astype(np.float32)[np.newaxis]
        (hit,) = Index(store, FixedEncoders(question)).search("this one", k=1)
        if not truth.fits(wanted.hash, vectors[hit.path_bytes]):
            raise UnreadableIndexError(f"{store.folder}: asked for {wanted.path!r}, it found {hit.path}")
    return State({path: record.hash for path, record in images.items()}, vectors)


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
        )
    ]
    if lost:
        raise LostRowsError("are no longer as they were", lost)
