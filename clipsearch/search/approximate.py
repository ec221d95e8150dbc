"""Chooses, by short codes, the rows that may be among the best; only these are then compared exactly.

For what does not fit into memory: codes take an eighth to a sixteenth of the bytes of the vectors. Recall was measured;
see docs/scale.md.
"""

from __future__ import annotations

import numpy as np

from clipsearch.errors import IndexDamagedError, InputError
from clipsearch.index.code_file import codes_of, codes_record
from clipsearch.index.codes import CodeRows, Codes
from clipsearch.index.matrix_file import announce
from clipsearch.index.reading import Store
from clipsearch.search.topk import Mask, best
from clipsearch.unit import Matrix, Vectors

_CANDIDATES, _PER_HIT, _SHARE = 4096, 16, 256
"""Number of rows of a query that are compared exactly: at least so many, so many for each hit that is asked for, and
one in so many of those that take part. Estimates have the same errors however many rows there are, so the more of
these, the more are as near to the best as errors are large."""
_WORTH = 8
"""If candidates are more than a part of this size of the rows that take part, all of these are compared exactly."""
_CHECKED = 32
"""Number of rows, spread evenly, whose codes are compared with their vectors before codes are used."""


class Approximate:
    """The codes of one commit of an index, for choosing candidates. Use it within one `Store.snapshot`."""

    def __init__(self, store: Store, matrix: Matrix) -> None:
        """Use the codes of `store` for the rows of its `matrix`.

        Raises:
            InputError: the index has no codes.
            IndexDamagedError: the codes are not those of the matrix.
        """
        if codes_record(store) is None:
            raise InputError(f"The index in {store.folder} has no codes.", hint="make-codes", folder=store.folder)
        self._found: tuple[Codes, CodeRows] | None = codes_of(store)
        if self._found:
            codes, rows = self._found
            some = np.arange(0, len(rows), -(-len(rows) // _CHECKED))
            announce(matrix, some)
            if not codes.fit(rows[some], matrix[some]).all():
                raise IndexDamagedError(
                    f"The codes in {store.folder} are not those of its vectors.",
                    hint="codes-again",
                    folder=store.folder,
                )

    def candidates(self, queries: Vectors, k: int, mask: Mask | None, total: int) -> Mask | None:
        """Choose the rows that may be among the `k` best of one of (Q, D) queries.

        Args:
            queries: unit vectors.
            k: the number of hits of each query.
            mask: (N,) which rows take part; None if all do.
            total: N.

        Returns:
            (N,) which rows to compare exactly. Rows that have no code yet are among them.
        """
        taking_part = total if mask is None else int(np.count_nonzero(mask))
        wanted = max(_CANDIDATES, _PER_HIT * k, taking_part // _SHARE)
        if self._found is None or wanted * len(queries) * _WORTH >= taking_part:
            return mask
        codes, rows = self._found
        coded = None if mask is None else mask[: len(rows)]
        chosen = np.zeros(total, np.bool_)
        for ranked in best(rows, queries, wanted, coded, kernel=codes.estimates(queries)):
            chosen[ranked.rows] = True
        chosen[len(rows) :] = True if mask is None else mask[len(rows) :]
        return chosen
