"""From words to hits: an opened index and the questions it answers. The text encoder is handed in."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import TracebackType

import numpy as np
import numpy.typing as npt

from clipsearch.errors import InputError
from clipsearch.ranking import Ranked, best
from clipsearch.store.reading import Store

EncodeTexts = Callable[[list[str]], npt.NDArray[np.float32]]
"""(Q, D) unit vectors of Q texts."""


@dataclass(frozen=True)
class Hit:
    """One image that a query found."""

    rank: int
    """1 is the best."""
    score: float
    """Cosine of query and image, in [-1, 1]."""
    path: bytes
    """Absolute; `os.fsdecode` makes it a str."""


class Index:
    """An index opened for searching. Use it as a context manager, or call `close`."""

    def __init__(self, store: Store, encode_texts: EncodeTexts) -> None:
        self.store = store
        self._encode_texts = encode_texts

    def __enter__(self) -> Index:  # noqa: PYI034  (typing.Self is newer than Python 3.10)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the files."""
        self.store.close()

    def query(self, text: str, k: int = 10) -> list[Hit]:
        """The `k` images closest to `text`, best first, equal ones by path; all of them if there are fewer.

        Raises:
            InputError: `text` is blank or `k` is less than 1.
            IndexDamagedError: the index contradicts itself.
        """
        return self.query_many([text], k)[0]

    def query_many(self, texts: Sequence[str], k: int = 10) -> list[list[Hit]]:
        """The hits of each text, as `query` gives them; the matrix is read once for all of them.

        Raises:
            InputError: a text is blank or `k` is less than 1.
            IndexDamagedError: the index contradicts itself.
        """
        if not all(text.strip() for text in texts):
            raise InputError('The query is empty. Say what to look for: clipsearch query "a dog is sleeping"')
        if k < 1:
            raise InputError(f"k must be at least 1, not {k}.")
        if not texts or not self.store.committed_rows():
            return [[] for _ in texts]
        vectors = self._encode_texts(list(texts))
        with self.store.snapshot():
            matrix, alive = self.store.matrix()
            return [self._hits(ranked, k) for ranked in best(matrix, vectors, k, alive)]

    def _hits(self, ranked: Ranked, k: int) -> list[Hit]:
        """At most `k`, equal ones by path."""
        paths = self.store.paths(ranked.rows.tolist())
        pairs = sorted(zip((-ranked.scores).tolist(), paths, strict=True))
        return [Hit(rank, -negative, path) for rank, (negative, path) in enumerate(pairs[:k], 1)]
