"""Exact top-k."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from clipsearch.search import topk
from clipsearch.search.topk import best

Floats = npt.NDArray[np.float32]


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def unit(vectors: npt.NDArray[np.float64]) -> Floats:
    return np.asarray(vectors / np.linalg.norm(vectors, axis=-1, keepdims=True), np.float32)


def exact(matrix: npt.NDArray[np.float16], queries: Floats) -> npt.NDArray[np.float64]:
    return queries.astype(np.float64) @ matrix.astype(np.float64).T


@pytest.mark.parametrize("chunk", [1, 7, 999, 100_000])
@pytest.mark.parametrize("queries", [1, 3, 20])
def test_the_best_are_the_head_of_a_full_sort_whatever_the_chunk(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch, chunk: int, queries: int
) -> None:
    monkeypatch.setattr(topk, "_CHUNK_ROWS", chunk)
    monkeypatch.setattr(topk, "_LEAST_ROWS", chunk)
    matrix, asked = unit(rng.standard_normal((1000, 48))).astype(np.float16), unit(rng.standard_normal((queries, 48)))
    for k in (1, 3, 999, 1000, 2000):
        for scores, ranked in zip(exact(matrix, asked), best(matrix, asked, k), strict=True):
            assert len(set(ranked.rows.tolist())) == min(k, 1000)
            np.testing.assert_allclose(scores[ranked.rows], np.sort(scores)[::-1][:k], atol=2e-7)
            np.testing.assert_allclose(ranked.scores, scores[ranked.rows], atol=2e-7)


@pytest.mark.parametrize("dim", [1, 2, 3, 31, 64, 100, 512, 513, 1024])
def test_scores_are_exact_to_float32_in_any_number_of_dimensions(rng: np.random.Generator, dim: int) -> None:
    matrix, asked = unit(rng.standard_normal((50, dim))).astype(np.float16), unit(rng.standard_normal((2, dim)))
    for scores, ranked in zip(exact(matrix, asked).clip(-1, 1), best(matrix, asked, 50), strict=True):
        np.testing.assert_allclose(ranked.scores, scores[ranked.rows], atol=3e-7)


def test_float16_rows_cost_a_score_less_than_a_thousandth(rng: np.random.Generator) -> None:
    vectors, asked = unit(rng.standard_normal((20_000, 512))), unit(rng.standard_normal((4, 512)))
    for scores, ranked in zip(asked @ vectors.T, best(vectors.astype(np.float16), asked, 20_000), strict=True):
        assert np.abs(ranked.scores - scores[ranked.rows]).max() < 1e-3


def test_scores_never_exceed_one() -> None:
    row = np.full((1, 3), 0.57764, np.float16)  # a little longer than 1 in float16
    assert best(row, np.full((1, 3), 0.57735, np.float32), 1)[0].scores[0] <= 1


def test_ties_with_the_last_are_included_and_in_row_order(monkeypatch: pytest.MonkeyPatch) -> None:
    matrix = np.array([[0.5], [0.9], [0.5], [0.1], [0.5]], np.float16)
    for chunk in (2, 100):
        monkeypatch.setattr(topk, "_CHUNK_ROWS", chunk)
        monkeypatch.setattr(topk, "_LEAST_ROWS", chunk)
        assert best(matrix, np.ones((1, 1), np.float32), 2)[0].rows.tolist() == [1, 0, 2, 4]


@pytest.mark.parametrize("share", [0, 0.001, 0.05, 0.5, 1])
def test_only_rows_of_the_mask_take_part(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch, share: float
) -> None:
    monkeypatch.setattr(topk, "_CHUNK_ROWS", 1024)
    matrix, asked = unit(rng.standard_normal((5000, 16))).astype(np.float16), unit(rng.standard_normal((2, 16)))
    mask = rng.random(5000) < share
    for scores, ranked in zip(exact(matrix, asked), best(matrix, asked, 10, mask), strict=True):
        among = np.where(mask, scores, -np.inf)
        np.testing.assert_array_equal(ranked.rows, np.argsort(-among)[: min(10, mask.sum())])


def test_nothing_in_nothing_out() -> None:
    matrix = np.ones((4, 1), np.float16)
    assert best(matrix, np.empty((0, 1), np.float32), 3) == []
    assert best(matrix[:0], np.ones((1, 1), np.float32), 3)[0].rows.tolist() == []


@pytest.mark.parametrize("queries", [1, 2, 9])
@pytest.mark.parametrize("rows", [*range(1, 20), 255, 257, 33_001])
def test_equal_rows_have_equal_scores_wherever_they_are(rows: int, queries: int) -> None:
    rng = np.random.default_rng(rows)
    matrix = np.tile(unit(rng.standard_normal(96)).astype(np.float16), (rows, 1))
    for ranked in best(matrix, unit(rng.standard_normal((queries, 96))), rows):
        assert len(set(ranked.scores.tolist())) == 1


def test_a_query_has_the_same_scores_alone_and_among_others(rng: np.random.Generator) -> None:
    matrix, asked = unit(rng.standard_normal((3000, 512))).astype(np.float16), unit(rng.standard_normal((40, 512)))
    for query, among in zip(asked, best(matrix, asked, 3000), strict=True):
        (alone,) = best(matrix, query[np.newaxis], 3000)
        np.testing.assert_array_equal(alone.scores, among.scores)
        np.testing.assert_array_equal(alone.rows, among.rows)
