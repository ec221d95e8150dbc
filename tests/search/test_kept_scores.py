"""Searches that need no look at the matrix because they were made before find the same."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import clipsearch
from clipsearch.search import kept_scores
from clipsearch.search.index import Index
from clipsearch.search.kept_scores import KeptScores
from clipsearch.search.query_terms import TextTerm
from clipsearch.search.topk import best_unit_rows, of_all_rows


@pytest.fixture
def both(sample_index: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Index, Index, list[int]]]:
    """An index without, and one with memory, and the numbers of vectors of each reading of its matrix."""
    readings: list[int] = []

    def counted(matrix: Any, vectors: Any, work: Callable[[Any], Any]) -> Any:  # noqa: ANN401
        readings.append(len(vectors))
        return of_all_rows(matrix, vectors, work)

    monkeypatch.setattr(kept_scores, "of_all_rows", counted)
    with clipsearch.open_index(sample_index) as plain:
        yield plain, Index(plain.store, plain.encoders, kept=KeptScores()), readings


def test_a_slider_and_filters_find_the_same_from_scores_that_are_kept(both: tuple[Index, Index, list[int]]) -> None:
    plain, keeping, readings = both
    house: Any = ["a house", TextTerm("a dog", -1)]
    asked: list[tuple[Any, dict[str, Any], list[int]]] = [
        ("an animal", {"k": 5}, [1]),
        ("an animal", {"min_confidence": 0.5, "k": 5}, [8]),
        ("an animal", {"min_confidence": 0.8, "k": None}, []),
        ("an animal", {"min_confidence": 0.2, "min_score": 0.2, "under": "sample-images/cats"}, []),
        ("an animal", {"orientation": "portrait", "distinct": 0.9, "k": 30}, []),
        (["an animal", "night"], {"min_confidence": 0.3}, [1]),
        (house, {"min_confidence": 0.3}, []),  # whose confidence needs further vectors, so that all is read as ever
        (house, {}, [1]),
        ("snow", {"glob": ["dog_3.*"], "min_confidence": 0.0}, []),  # so few that they are compared alone
    ]
    numbers = []
    for query, limits, expected in asked:
        readings.clear()
        hits = keeping.search(query, **limits)
        numbers.append(len(hits))
        assert hits == plain.search(query, **limits)
        assert readings == expected, (query, limits)
    assert [number > 0 for number in numbers].count(True) >= 7, numbers


def test_scores_are_those_of_one_commit_and_not_of_too_many_rows(
    both: tuple[Index, Index, list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, _, readings = both
    matrix, negatives, kept = plain.store.matrix()[0], plain.encoders.negatives(), KeptScores()
    for commit in (1, 1, 2):
        assert kept.scores(commit, matrix, negatives.vectors[0], None) is not None
        assert kept.strengths(commit, matrix, negatives) is not None
    assert readings == [1, 8, 1, 8]
    monkeypatch.setattr(kept_scores, "MOST_ROWS", len(matrix) - 1)
    assert kept.scores(2, matrix, negatives.vectors[0], None) is None
    assert kept.strengths(2, matrix, negatives) is None


def test_broken_rows_are_found_in_scores_that_are_kept() -> None:
    rng = np.random.default_rng(0)
    matrix = rng.standard_normal((5000, 32))
    matrix /= np.linalg.norm(matrix, axis=1, keepdims=True)
    matrix[[7, 1234, 4999]] = [np.full(32, np.nan), np.zeros(32), 3 * matrix[0]]
    rows, query = matrix.astype(np.float16), matrix[:1].astype(np.float32)
    found = []
    for scores in (None, of_all_rows(rows, query, lambda scores: scores)):
        broken: set[int] = set()
        (ranked,) = best_unit_rows(rows, query, 4990, None, None, broken=broken, scores=scores)
        found.append((ranked.rows.tolist(), ranked.scores.tolist(), broken))
    assert found[0] == found[1]
    assert {7, 1234, 4999} == found[0][2]
