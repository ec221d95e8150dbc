"""Metrics of retrieval: small cases computed by hand, and many against the plain way."""

from __future__ import annotations

import os
from collections.abc import Generator, Sequence
from fractions import Fraction

import numpy as np
import numpy.typing as npt
import pytest
from tiny import NoEncoders, Watcher

from clipsearch.datasets.captions import Captions
from clipsearch.errors import InputError, ModelError, UnreadableImageError
from clipsearch.images.files import ImageFile
from clipsearch.index.regions import Regions
from clipsearch.search.encoders import EmbeddedImage
from clipsearch.search.region_ranking import BestRegions, RegionRanking
from clipsearch.tasks import evaluation
from clipsearch.tasks.evaluation import Evaluation, Gate, Retrieval, evaluate, measured, parse_gate, ranks, unmet

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]


def sides(scores: list[list[float]] | Floats) -> tuple[Floats, Floats]:
    """Queries and candidates whose products are these (Q, N) scores."""
    table = np.asarray(scores, np.float32)
    return np.eye(len(table), dtype=np.float32), np.ascontiguousarray(table.T)


def pairs_of(*pairs: tuple[int, int]) -> Ints:
    return np.array(pairs, np.int64)


def plain_ranks(scores: Floats, pairs: Ints) -> list[int]:
    """By sorting: candidates in order, wrong ones first among equals; those that are right do not count."""
    found = []
    for query, line in enumerate(scores):
        right = set(pairs[pairs[:, 0] == query, 1].tolist())
        order = sorted(range(len(line)), key=lambda n: (-line[n], n in right))
        found.append(next(place for place, n in enumerate(order, 1) if n in right))
    return found


# -- ranks -------------------------------------------------------------------------------------------------------


def test_three_texts_and_three_images_by_hand() -> None:
    texts, images = sides([[0.9, 0.1, 0.2], [0.3, 0.2, 0.8], [0.5, 0.4, 0.45]])
    pairs = pairs_of((0, 0), (1, 1), (2, 2))
    assert ranks(texts, images, pairs).tolist() == [1, 3, 2]
    # Pictures see the columns: .9 is the best of its own, .2 has .4 before it, .45 has .8.
    assert ranks(images, texts, pairs[:, ::-1]).tolist() == [1, 2, 2]


def test_metrics_by_hand() -> None:
    found = measured("text->image", np.array([1, 3, 2, 6, 11, 1]), 20)
    assert (found.queries, found.candidates) == (6, 20)
    assert found.metrics == {
        "recall@1": 2 / 6,
        "recall@5": 4 / 6,
        "recall@10": 5 / 6,
        "median_rank": 2.5,
        "mrr": pytest.approx(float((1 + Fraction(1, 3) + Fraction(1, 2) + Fraction(1, 6) + Fraction(1, 11) + 1) / 6)),
    }


def test_the_best_of_several_right_candidates_counts_and_the_others_do_not_push_it_back() -> None:
    pictures, captions = sides([[0.5, 0.9, 0.8, 0.7, 0.6], [0.1, 0.2, 0.3, 0.4, 0.5]])
    pairs = pairs_of((0, 0), (0, 2), (0, 3), (1, 1), (1, 4))
    # The first picture's best is .8, with one wrong .9 before it; the second's is the very best.
    assert ranks(pictures, captions, pairs).tolist() == [2, 1]
    # With its best two captions right, the second best does not matter either.
    assert ranks(pictures[:1], captions, pairs_of((0, 1), (0, 2))).tolist() == [1]


def test_a_wrong_candidate_that_ties_comes_first() -> None:
    texts, images = sides([[0.5, 0.5, 0.5, 0.1]])
    assert ranks(texts, images, pairs_of((0, 1))).tolist() == [3]
    assert ranks(texts, images, pairs_of((0, 0), (0, 2))).tolist() == [2]
    assert ranks(texts, images, pairs_of((0, 0), (0, 1), (0, 2))).tolist() == [1]


def test_a_model_that_takes_everything_for_the_same_scores_nothing() -> None:
    same = np.tile(np.array([0.6, 0.8], np.float32), (20, 1))
    found = measured("text->image", ranks(same, same, np.stack([np.arange(20)] * 2, axis=1)), 20)
    wanted = {"recall@1": 0, "recall@5": 0, "recall@10": 0, "median_rank": 20, "mrr": 1 / 20}
    assert found.metrics == pytest.approx(wanted)


def test_negative_cosines_rank_as_all_others() -> None:
    texts, images = sides([[-0.9, -0.2, -0.5], [-1, -1, -1]])
    assert ranks(texts, images, pairs_of((0, 1), (1, 1))).tolist() == [1, 3]


@pytest.mark.parametrize("block", [1, 50, 1 << 22])
def test_ranks_are_those_of_sorting_whatever_the_blocks(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluation, "_BLOCK_SCORES", block)
    rng = np.random.default_rng(1)
    for case in range(40):
        queries, candidates = rng.integers(1, 30, 2)
        # Few different values: ties everywhere.
        scores = rng.integers(-3, 4, (queries, candidates)).astype(np.float32) / np.float32(4)
        right = rng.random((queries, candidates)) < 0.15
        right[np.arange(queries), rng.integers(0, candidates, queries)] = True
        pairs = rng.permutation(np.argwhere(right))
        assert ranks(*sides(scores), pairs).tolist() == plain_ranks(scores, pairs), case


@pytest.mark.parametrize("block", [1, 50, 1 << 22])
def test_a_picture_ranks_by_its_best_region_where_that_fits_better(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluation, "_BLOCK_SCORES", block)
    rng = np.random.default_rng(3)
    for case in range(20):
        texts, images, sizes = 7, 9, rng.integers(0, 4, 9)
        vectors = rng.standard_normal((texts + images + sizes.sum(), 6)).astype(np.float16)
        vectors /= np.linalg.norm(vectors.astype(np.float32), axis=1, keepdims=True)
        queries, wholes, parts = (part.astype(np.float32) for part in np.split(vectors, [texts, texts + images]))
        owners = np.repeat(np.arange(images, dtype=np.int32), sizes)
        regions = Regions(parts.astype(np.float16), owners, np.zeros((len(owners), 4), np.int32))
        best = BestRegions(RegionRanking(regions, wholes.astype(np.float16)), np.arange(images), 0.1)
        scores = queries @ wholes.T
        for owner, row in zip(owners, parts, strict=True):
            scores[:, owner] = np.maximum(scores[:, owner], queries @ row - 0.1 * np.log(sizes[owner]))
        pairs = np.stack([np.arange(texts), rng.integers(0, images, texts)], axis=1)
        assert ranks(queries, wholes, pairs, best).tolist() == plain_ranks(scores, pairs), case


def test_many_more_pairs_than_fit_one_block() -> None:
    """5,000 captions of 1,000 pictures: two blocks; a caption is its picture and a little noise."""
    rng = np.random.default_rng(2)
    images = rng.standard_normal((1000, 32), np.float32)
    texts = np.repeat(images, 5, axis=0) + rng.standard_normal((5000, 32), np.float32)
    images, texts = (side / np.linalg.norm(side, axis=1, keepdims=True) for side in (images, texts))
    pairs = np.stack([np.arange(5000), np.arange(5000) // 5], axis=1)
    scores = texts @ images.T
    own = scores[np.arange(5000), pairs[:, 1]]
    assert scores.size > evaluation._BLOCK_SCORES
    found = ranks(texts, images, pairs)
    assert found.max() > 1
    np.testing.assert_array_equal(found, 1 + np.sum(scores > own[:, np.newaxis], axis=1))
    best = own.reshape(1000, 5).max(axis=1)
    reverse = ranks(images, texts, pairs[:, ::-1])
    np.testing.assert_array_equal(reverse, 1 + np.sum(scores > best, axis=0))


def test_what_cannot_be_ranked_is_refused() -> None:
    texts, images = sides([[0.5, 0.1], [0.2, 0.3]])
    with pytest.raises(ValueError, match="query"):
        ranks(texts, images, pairs_of((0, 0)))
    images[0, 1] = np.nan
    with pytest.raises(ModelError) as error:
        ranks(texts, images, pairs_of((0, 0), (1, 1)))
    assert error.value.hints == ("precision",)


# -- a whole evaluation ------------------------------------------------------------------------------------------


class Table(NoEncoders):
    """A model that knows the vectors of a few names."""

    name = "table"

    def __init__(self, vectors: dict[str, list[float]]) -> None:
        self._vectors = {name: np.array(vector, np.float32) for name, vector in vectors.items()}
        self.asked: list[str] = []

    def embed_texts(self, texts: list[str]) -> Floats:
        self.asked = texts
        return np.stack([self._vectors[text] for text in texts])

    def images(self, files: Sequence[ImageFile]) -> Generator[EmbeddedImage, None, None]:
        for file in files:
            vector = self._vectors.get(os.fsdecode(file.path))
            yield EmbeddedImage(file, UnreadableImageError("it is broken") if vector is None else vector)


def captions_of(*pairs: tuple[str, str]) -> Captions:
    texts = list(dict.fromkeys(text for text, _ in pairs))
    images = list(dict.fromkeys(image for _, image in pairs))
    files = [ImageFile(os.fsencode(image), 1, 1) for image in images]
    return Captions(files, texts, [(texts.index(text), images.index(image)) for text, image in pairs], [])


def test_texts_with_several_images_and_images_with_several_texts() -> None:
    model = Table({"/a": [1, 0], "/b": [0, 1], "/c": [0.6, 0.8], "t": [1, 0], "u": [0.8, 0.6], "v": [0, 1]})
    captions = captions_of(("t", "/a"), ("t", "/c"), ("u", "/a"), ("v", "/b"), ("v", "/a"))
    found = evaluate(model, captions)
    # t: /a is first. u: /c (.96) comes before /a (.8). v: /b is first.
    # /a: t is first. /b: v is first. /c: u (.96) and v (.8) come before t (.6).
    text, image = found.directions
    assert (text.direction, text.queries, text.candidates) == ("text->image", 3, 3)
    assert text.metrics["recall@1"] == 2 / 3
    assert text.metrics["mrr"] == pytest.approx((1 + 1 / 2 + 1) / 3)
    assert (image.direction, image.metrics["recall@1"]) == ("image->text", 2 / 3)
    assert image.metrics["mrr"] == pytest.approx((1 + 1 + 1 / 3) / 3)
    assert (found.model, found.unreadable) == ("table", [])


def test_unreadable_images_take_their_captions_with_them() -> None:
    model = Table({"/b": [0, 1], "/c": [1, 0], "u": [1, 0], "v": [0, 1]})
    bar = Watcher()
    found = evaluate(model, captions_of(("t", "/a"), ("u", "/a"), ("u", "/c"), ("v", "/b")), progress=bar)
    assert model.asked == ["u", "v"]
    assert found.unreadable == [(b"/a", "it is broken")]
    assert [(result.queries, result.metrics["recall@1"]) for result in found.directions] == [(2, 1), (2, 1)]
    assert (bar.total, bar.done, bar.unreadable) == (3, 3, 1)


def test_if_no_image_can_be_read_there_is_nothing_to_measure() -> None:
    with pytest.raises(InputError, match=r"\b1\b.* /a\b.*: it is broken"):
        evaluate(Table({"t": [1]}), captions_of(("t", "/a")))


# -- gates -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ("recall@5=0.8", Gate(None, "recall@5", 0.8)),
        ("t2i.recall@10=1", Gate("t2i", "recall@10", 1)),
        ("i2t.mrr=.5", Gate("i2t", "mrr", 0.5)),
        ("mrr=0", Gate(None, "mrr", 0)),
    ],
)
def test_gates_are_read(given: str, wanted: Gate) -> None:
    assert parse_gate(given) == wanted


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("recall@5", "Write METRIC=VALUE"),
        ("recall@5>0.8", "Write METRIC=VALUE"),
        ("recall@7=0.8", "'recall@7'.*recall@1, recall@5, recall@10, mrr"),
        ("median_rank=3", "'median_rank'"),
        ("x2y.mrr=0.8", "'x2y.mrr'.*t2i. or i2t."),
        (".mrr=0.8", "'.mrr'"),
        ("=0.8", "''"),
        ("recall@5=80", "lies between 0 and 1"),
        ("recall@5=80%", "lies between 0 and 1"),
        ("recall@5=nan", "lies between 0 and 1"),
        ("recall@5=-0.1", "lies between 0 and 1"),
        ("recall@5=", "lies between 0 and 1"),
        ("recall@5=0.8=0.9", "lies between 0 and 1"),
    ],
)
def test_gates_that_mean_nothing_are_errors(given: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        parse_gate(given)


def test_a_gate_without_a_direction_holds_for_both() -> None:
    def result(direction: str, value: float) -> Retrieval:
        return Retrieval(direction, 4, 4, {"recall@1": value, "recall@5": 1.0, "recall@10": 1.0, "mrr": value})

    found = Evaluation("m", (result("text->image", 0.75), result("image->text", 0.5)), [])
    assert unmet(found, [Gate(None, "recall@1", 0.5), Gate(None, "recall@5", 1), Gate("t2i", "mrr", 0.75)]) == []
    assert unmet(found, [Gate(None, "recall@1", 0.6)]) == ["image->text recall@1 of m is 0.5, less than 0.6."]
    assert unmet(found, [Gate("t2i", "recall@1", 0.6)]) == []
    assert len(unmet(found, [Gate(None, "recall@1", 0.8), Gate("i2t", "mrr", 0.6)])) == 3
