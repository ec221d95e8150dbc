"""Cosines, probabilities and ranks of small cases that can be worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from clipsearch.errors import InputError
from clipsearch.models.logits import Logits
from clipsearch.tasks.similarity import IMAGES, TEXTS, compare, ranks, similarities

UNIT = np.eye(3, dtype=np.float32)


def test_similarities_are_cosines_of_each_with_each() -> None:
    images = np.array([[1, 0], [0.6, 0.8]], np.float32)
    texts = np.array([[0, 1], [1, 0], [-1, 0]], np.float32)
    found = similarities(images, texts)
    assert found.shape == (2, 3)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, [[0.0, 1.0, -1.0], [0.8, 0.6, -0.6]], atol=1e-7)


def test_rounding_makes_no_cosine_larger_than_one() -> None:
    vectors = np.full((1, 3), np.float32(1.0000001 / math.sqrt(3)))
    assert similarities(vectors, vectors)[0, 0] == 1
    assert similarities(vectors, -vectors)[0, 0] == -1


def test_vectors_of_two_models_are_refused() -> None:
    with pytest.raises(InputError, match="model"):
        similarities(UNIT, np.eye(4, dtype=np.float32))


def test_probabilities_are_a_softmax_at_the_scale_over_the_axis() -> None:
    scores = np.array([[math.log(3) / 10, 0], [0, 0]], np.float32)
    over_texts = Logits(10).probabilities(scores, TEXTS)
    assert over_texts.dtype == np.float64
    np.testing.assert_allclose(over_texts, [[0.75, 0.25], [0.5, 0.5]], atol=1e-6)
    np.testing.assert_allclose(Logits(10).probabilities(scores, IMAGES), [[0.75, 0.5], [0.25, 0.5]], atol=1e-6)
    np.testing.assert_allclose(Logits(0).probabilities(scores, TEXTS), 0.5)


def test_no_scale_is_too_large_for_probabilities() -> None:
    found = Logits(1e6).probabilities(np.array([[1, -1], [-1, -1]], np.float32), TEXTS)
    np.testing.assert_array_equal(found, [[1, 0], [0.5, 0.5]])


@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (0, 0)])
@pytest.mark.parametrize("axis", [TEXTS, IMAGES])
def test_nothing_compared_gives_nothing(shape: tuple[int, int], axis: int) -> None:
    scores = np.empty(shape, np.float32)
    assert Logits(100).probabilities(scores, axis).shape == ranks(scores, axis).shape == shape


def test_ranks_count_from_one_and_equal_scores_share_the_better_one() -> None:
    scores = np.array([[0.1, 0.3, 0.2], [0.5, 0.2, 0.5]], np.float32)
    np.testing.assert_array_equal(ranks(scores, TEXTS), [[3, 1, 2], [1, 3, 1]])
    np.testing.assert_array_equal(ranks(scores, IMAGES), [[2, 1, 2], [1, 2, 1]])


def test_a_comparison_has_all_of_them() -> None:
    found = compare(["a", b"/b"], UNIT[:2], ["x", "y", "z"], UNIT, logits=Logits(math.log(2)), axis=IMAGES)
    assert (list(found.images), list(found.texts)) == (["a", b"/b"], ["x", "y", "z"])
    np.testing.assert_array_equal(found.scores, UNIT[:2])
    np.testing.assert_allclose(found.probabilities, [[2 / 3, 1 / 3, 0.5], [1 / 3, 2 / 3, 0.5]])
    np.testing.assert_array_equal(found.ranks, [[1, 2, 1], [2, 1, 1]])


def test_a_model_with_a_bias_takes_each_pair_by_itself() -> None:
    cosines = np.array([[0.1, 0.2, 0.2], [-1, 1, 0]], np.float32)
    logits = Logits(10, -1.5)
    found = logits.probabilities(cosines, TEXTS)
    np.testing.assert_allclose(found, 1 / (1 + np.exp(1.5 - 10 * cosines.astype(np.float64))))
    np.testing.assert_array_equal(found, logits.probabilities(cosines, IMAGES))
    assert found.sum(axis=1).tolist() != pytest.approx([1, 1])


def test_no_logit_is_too_large_for_a_sigmoid() -> None:
    found = Logits(1e6, 0.0).probabilities(np.array([[1, -1, 0]], np.float32), TEXTS)
    np.testing.assert_array_equal(found, [[1, 0, 0.5]])
