"""Short codes of unit vectors: one bit for each dimension, and one number. Knows nothing of files.

A row x is rotated and only the signs of x - c are kept, c being a centre near which all rows lie; without it, most of
the signs would be those of c. With R the rotation, s the (D,) signs of R (x - c), and q a query,

    x . q = c . q + (x - c) . q,  and  (x - c) . q is about  f s . R q,  with  f = |x - c|^2 / (s . R (x - c)).

The factor f, which is stored with the signs, makes the estimate right on average, as in RaBitQ (Gao and Long, 2024,
arXiv 2405.12497). The rotation makes all dimensions alike. It is fixed and needs no training: signs are changed by a
fixed sequence, and blocks of a power of two are transformed by Hadamard's matrix, several times in turn.

N rows, Q queries, D dimensions, C bytes of a code.
"""

from __future__ import annotations

import base64
import hashlib
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from clipsearch.unit import Matrix, Scores, Vectors, are_unit

CodeRows = npt.NDArray[np.uint8]
"""(N, C): the D signs, eight in a byte, and the factor as float16."""

_FACTOR_BYTES = 2
_PLANES = 4
"""Number of bits of a query's numbers. More bits make the estimate hardly better, since the error of the rows is
larger; fewer make it worse."""
_LEVELS = 1 << _PLANES
_FEW_ROWS = 64
"""Up to this many rows are rotated by transforms; for more, one product with a matrix is faster."""
_ROUNDING = 64
"""One in this many signs may differ between processors, whose last digits differ; of two rows that have nothing to do
with each other, half of the signs differ."""
_ROUNDS = 4
"""Number of changes of signs and transforms. Two of them would leave traces of single dimensions, and four also mix
the two blocks of a D that is no power of two."""


class CodesRecord(NamedTuple):
    """What the table `meta` says of the codes of an index that has them."""

    rows: int = 0
    """The number of rows of the matrix that have codes: the first ones."""
    centre: str = ""
    """(D,) float16, little-endian, in base64; empty as long as there are no codes."""
    seen: int = 0
    """The number of rows that the matrix had when the centre was chosen."""


class Codes:
    """Makes codes of rows, and compares them with queries."""

    def __init__(self, centre: npt.NDArray[np.float16]) -> None:
        """Use this (D,) centre."""
        self._centre = centre.astype(np.float32)

    @classmethod
    def around(cls, rows: Matrix) -> Codes:
        """Use the mean of (N, D) rows as the centre; rows that are not unit vectors do not count."""
        sound = rows[are_unit(rows)].astype(np.float32)
        mean = sound.mean(axis=0) if len(sound) else np.zeros(rows.shape[1], np.float32)
        return cls(mean.astype(np.float16))

    @classmethod
    def of(cls, record: CodesRecord) -> Codes:
        """Use the centre of a record."""
        return cls(np.frombuffer(base64.b64decode(record.centre), "<f2"))

    @property
    def centre(self) -> str:
        """The centre, as in a record."""
        return base64.b64encode(self._centre.astype("<f2").tobytes()).decode("ascii")

    def encode(self, rows: Matrix) -> CodeRows:
        """Make the (N, C) codes of (N, D) rows. The factor of a row that is not a unit vector is NaN."""
        away = rows.astype(np.float32) - self._centre
        turned = _rotated(away) if len(rows) <= _FEW_ROWS else away @ self._rotation
        lengths, sums = np.einsum("nd,nd->n", away, away), np.abs(turned).sum(axis=1)
        factors = np.divide(lengths, sums, out=np.zeros_like(lengths), where=sums > 0)
        factors[~are_unit(rows)] = np.nan
        bits = np.packbits(turned > 0, axis=1)
        return np.hstack([bits, factors.astype("<f2")[:, np.newaxis].view(np.uint8)])

    def fit(self, codes: CodeRows, rows: Matrix) -> npt.NDArray[np.bool_]:
        """Return (N,) whether each of (N, C) codes is that of its row among (N, D) rows."""
        differ = np.unpackbits(self.encode(rows)[:, :-_FACTOR_BYTES] ^ codes[:, :-_FACTOR_BYTES], axis=1)
        return np.asarray(differ.sum(axis=1) <= max(1, rows.shape[1] // _ROUNDING))

    def estimates(self, queries: Vectors) -> Estimates:
        """Return what estimates the cosines of (Q, D) unit vectors with rows from their codes."""
        turned = _rotated(queries.astype(np.float32))
        return Estimates(turned, queries.astype(np.float32) @ self._centre)

    @cached_property
    def _rotation(self) -> Vectors:
        """The (D, D) rotation."""
        return _rotated(np.eye(len(self._centre), dtype=np.float32))


class Estimates:
    """Estimates of cosines with queries.

    A query is rounded to numbers of four bits, of which each bit is compared with the signs of a row by counting the
    bits that differ.
    """

    met_nan = False
    """A row without a factor is no error of this kernel; it is just not found."""

    def __init__(self, turned: Vectors, constant: Scores) -> None:
        """Estimate for (Q, D) rotated queries, whose products with the centre are `constant` (Q,)."""
        import numkong

        self._constant = constant
        self._dim = turned.shape[1]
        largest = np.abs(turned).max(axis=1, initial=1e-12, keepdims=True)
        levels = np.clip((turned / largest + 1) / 2 * _LEVELS, 0, _LEVELS - 1).astype(np.uint8)
        self._step = largest[:, 0] / _LEVELS
        planes = (levels[:, np.newaxis] >> np.arange(_PLANES, dtype=np.uint8)[:, np.newaxis]) & 1
        packed = np.packbits(planes.reshape(-1, self._dim), axis=1)
        self._packed: Any = numkong.hammings_pack(packed)
        self._hammings = numkong.hammings_packed

    def __call__(self, codes: CodeRows) -> Scores:
        """Return the (Q, N) estimates for (N, C) codes; NaN for a row without a factor."""
        # 1. Count, for each bit of each query, the dimensions in which it differs from the sign of a row.
        bits = np.ascontiguousarray(codes[:, :-_FACTOR_BYTES])
        differ = np.asarray(self._hammings(bits, self._packed)).reshape(len(codes), len(self._step), _PLANES)
        # 2. A number is the sum of its bits, each taken as 1 or -1, times their weights of 1, 2, 4 and 8.
        weights = np.float32(2) ** np.arange(_PLANES, dtype=np.float32)
        products = weights.sum() * self._dim - 2 * (differ.astype(np.float32) @ weights)
        # 3. Apply the factors of rows and queries.
        factors = np.ascontiguousarray(codes[:, -_FACTOR_BYTES:]).view("<f2").astype(np.float32)
        return np.ascontiguousarray((products * self._step * factors + self._constant).T, np.float32)


def code_bytes(dim: int) -> int:
    """Return C, the number of bytes of the code of a row of D numbers."""
    return -(-dim // 8) + _FACTOR_BYTES


def _rotated(rows: Vectors) -> Vectors:
    """Rotate (N, D) rows."""
    dim = rows.shape[1]
    block = 1 << (dim.bit_length() - 1)  # the largest power of two in D
    drawn = np.frombuffer(hashlib.shake_256(b"clipsearch codes 1").digest(_ROUNDS * -(-dim // 8)), np.uint8)
    signs = np.unpackbits(drawn).reshape(_ROUNDS, -1)[:, :dim].astype(np.float32) * 2 - 1
    out = rows.copy()
    for number in range(_ROUNDS):
        out *= signs[number]
        # The first and the last block in turn; they overlap, so everything is mixed with everything.
        part = slice(0, block) if number % 2 == 0 else slice(dim - block, dim)
        out[:, part] = _transformed(out[:, part])
    return out


def _transformed(rows: Vectors) -> Vectors:
    """Multiply (N, P) rows, P a power of two, by Hadamard's matrix, scaled so that lengths stay."""
    number, size = rows.shape
    half = 1
    while half < size:
        pairs = rows.reshape(number, -1, 2, half)
        rows = np.stack([pairs[:, :, 0] + pairs[:, :, 1], pairs[:, :, 0] - pairs[:, :, 1]], axis=2)
        half *= 2
    return np.asarray(rows.reshape(number, size) / np.sqrt(size), np.float32)
