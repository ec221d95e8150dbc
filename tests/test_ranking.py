"""Exact top-k."""

from __future__ import annotations

import numpy as np
import pytest

from clipsearch.ranking import cosines, top_k


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def test_scores_are_cosines_whatever_the_block(rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    matrix = rng.standard_normal((1000, 48))
    matrix = (matrix / np.linalg.norm(matrix, axis=1, keepdims=True)).astype(np.float16)
    query = rng.standard_normal(48).astype(np.float32)
    query /= np.linalg.norm(query)
    exact = matrix.astype(np.float64) @ query.astype(np.float64)
    for rows in (1, 7, 999, 100_000):
        monkeypatch.setattr("clipsearch.ranking._BLOCK_ROWS", rows)
        np.testing.assert_allclose(cosines(matrix, query), exact, atol=1e-6)


def test_scores_never_exceed_one() -> None:
    row = np.full((1, 3), 0.57764, np.float16)  # a little longer than 1 in float16
    assert cosines(row, np.full(3, 0.57735, np.float32))[0] <= 1


@pytest.mark.parametrize("k", [1, 3, 99, 100, 1000])
def test_top_k_is_the_head_of_a_full_sort(rng: np.random.Generator, k: int) -> None:
    scores = rng.standard_normal(100).astype(np.float32)
    np.testing.assert_array_equal(top_k(scores, k), np.argsort(-scores)[:k])


def test_ties_with_the_last_are_included_and_in_row_order() -> None:
    scores = np.array([0.5, 0.9, 0.5, 0.1, 0.5], np.float32)
    assert top_k(scores, 2).tolist() == [1, 0, 2, 4]


def test_dead_rows_take_no_part() -> None:
    scores = np.array([0.9, 0.8, 0.7], np.float32)
    assert top_k(scores, 2, np.array([False, True, True])).tolist() == [1, 2]
    assert top_k(scores, 2, np.array([False, False, False])).tolist() == []


@pytest.mark.parametrize("rows", [*range(1, 13), 255, 257, 33_001])
def test_equal_rows_have_equal_scores_wherever_they_are(rows: int) -> None:
    rng = np.random.default_rng(rows)
    vector, query = rng.standard_normal((2, 96)).astype(np.float32)
    matrix = np.tile((vector / np.linalg.norm(vector)).astype(np.float16), (rows, 1))
    assert len(set(cosines(matrix, query / np.linalg.norm(query)).tolist())) == 1
