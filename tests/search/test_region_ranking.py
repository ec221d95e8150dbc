"""Queries in an index with regions, against a plain look at every row of every picture."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pytest
from tiny import NoEncoders

from clipsearch.index.format import ModelRecord, Record
from clipsearch.index.reading import Store
from clipsearch.index.regions import Regions
from clipsearch.index.writing import Writer
from clipsearch.models.logits import Logits
from clipsearch.search import region_ranking
from clipsearch.search.confidence import NegativePrompts
from clipsearch.search.hit import Hit
from clipsearch.search.index import Index
from clipsearch.search.query_terms import TextTerm
from clipsearch.search.region_ranking import BestRegions, RegionRanking

Array = npt.NDArray[np.float64]
N, DIM, SCALE, PROMPTS = 70, 8, 8.0, 3


class Case(NamedTuple):
    """Random vectors of pictures, of their regions and of words."""

    wholes: npt.NDArray[np.float16]
    regions: Regions
    words: dict[str, npt.NDArray[np.float32]]
    prompts: npt.NDArray[np.float32]
    neutral: npt.NDArray[np.float32]


class Words(NoEncoders):
    """A text tower that knows some words by heart."""

    def __init__(self, case: Case) -> None:
        self._case = case

    def embed_texts(self, texts: list[str]) -> npt.NDArray[np.float32]:
        return np.stack([self._case.words[text] for text in texts])

    def neutral(self) -> npt.NDArray[np.float32]:
        return self._case.neutral

    def negatives(self) -> NegativePrompts:
        return NegativePrompts(self._case.prompts, PROMPTS, Logits(SCALE))


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """An index of pictures whose order by row is not that by path."""
    folder = tmp_path_factory.mktemp("many") / ".clipsearch"
    names = np.random.default_rng(0).permutation(N).tolist()
    with Writer.locked(folder) as writer:
        writer.set_model(ModelRecord("words", None, "0" * 32, DIM))
        writer.set_root(os.fsencode(folder.parent), {})
        records = [Record(path_of(folder, name), None, 1, 1, name.to_bytes(16, "little"), 9, 9) for name in names]
        writer.add(records, np.eye(DIM, dtype=np.float32)[[0] * N])
        writer.commit()
    opened = Store.open(folder)
    yield opened
    opened.close()


def path_of(folder: Path, name: int) -> bytes:
    return os.fsencode(folder.parent / f"{name:03}.jpg")


def random_case(seed: int, *, coarse: bool = False, spoilt: bool = False) -> Case:
    """Make a case: `coarse` vectors have few different cosines, all exact; of `spoilt` ones some are no unit ones."""
    rng = np.random.default_rng(seed)

    def unit(number: int) -> npt.NDArray[np.float32]:
        if coarse:
            found = np.zeros((number, DIM), np.float32)
            for line in found:
                line[rng.permutation(DIM // 2)] = rng.choice([-0.5, 0.5], DIM // 2)
            return found
        vectors = rng.standard_normal((number, DIM))
        return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)

    sizes = rng.choice([0, 0, 1, 4, 9], N)
    # The regions of a picture lie together, but not in the order of the pictures.
    order = rng.permutation(N)
    images = np.repeat(order, sizes[order]).astype(np.int32)
    boxes = rng.integers(0, 1000, (len(images), 4)).astype(np.int32)
    wholes, parts = unit(N).astype(np.float16), unit(len(images)).astype(np.float16)
    if spoilt:
        for rows in (wholes, parts):
            some = rng.permutation(len(rows))[:8]
            rows[some] *= np.array([0, 0.3, 2, 1.2, np.nan, np.inf, 0.9, 0], np.float16)[:, None]
    words = dict(zip(("a", "b", "c", "d"), unit(4), strict=True))
    return Case(wholes, Regions(parts, images, boxes), words, unit(PROMPTS), unit(5))


Terms = list[tuple[str, float]]
Found = tuple[bytes, float, float | None, tuple[int, ...] | None]
"""Path, score, confidence and box of a hit."""


def opened(case: Case, store: Store, monkeypatch: pytest.MonkeyPatch) -> Index:
    monkeypatch.setattr(Store, "matrix", lambda _: (case.wholes, None))
    monkeypatch.setattr(Store, "regions", lambda _: case.regions)
    return Index(store, Words(case))


def summed(case: Case, terms: Terms) -> Array:
    total = np.sum([weight * case.words[word].astype(np.float64) for word, weight in terms], axis=0)
    return np.asarray(total / np.linalg.norm(total))


def is_unit(row: npt.NDArray[np.float16]) -> bool:
    return abs(float(np.linalg.norm(row.astype(np.float64))) - 1) <= 0.01


def plain_slope(case: Case, vectors: Array, dead: int | None = None) -> np.float32:
    """By how much the best region of a picture is closer to vectors than its whole, relative to ln(n), on average."""
    excess, logarithms = [], []
    for image in dict.fromkeys(case.regions.images.tolist()):
        parts = case.regions.matrix[case.regions.images == image]
        if image != dead and all(map(is_unit, [case.wholes[image], *parts])):
            best = (parts.astype(np.float64) @ vectors.T).max(axis=0).clip(max=1)
            excess.append((best - vectors @ case.wholes[image].astype(np.float64)).mean())
            logarithms.append(np.log(len(parts)))
    return max(np.float32(0), np.float32(np.mean(excess) / np.mean(logarithms)))


def plainly(
    case: Case,
    store: Store,
    terms: Terms,
    k: int | None = None,
    *,
    among: Sequence[bytes] | None = None,
    min_score: float = -2,
    min_confidence: float | None = None,
    whole: bool = False,
    dead: int | None = None,
) -> list[Found]:
    """Every row by itself, the best of each picture, and all of them sorted."""
    query = summed(case, terms)
    wanted = [term for term in terms if term[1] > 0]
    unwanted = sorted({word for word, weight in terms if weight < 0})
    judged = summed(case, wanted) if wanted else None
    slope = plain_slope(case, query[None] if judged is None else case.neutral.astype(np.float64), dead)

    def confidence(row: Array, less: float) -> float | None:
        if judged is None:
            return None
        against = np.exp(SCALE * case.prompts.astype(np.float64) @ row).mean()
        against += sum(np.exp(SCALE * case.words[word].astype(np.float64) @ row) for word in unwanted)
        fits = np.exp(SCALE * (judged @ row - less))
        return float(fits / (fits + against))

    found = []
    for record in store.records():
        if record.row is None or (among is not None and record.path not in among):
            continue
        numbers = [] if whole else np.flatnonzero(case.regions.images == record.row).tolist()
        less = slope * np.log(np.float32(len(numbers) or 1))
        parts = [(case.regions.matrix[number], less, tuple(case.regions.boxes[number].tolist())) for number in numbers]
        fits: list[Found] = []
        for row, less, box in [(case.wholes[record.row], np.float32(0), None), *parts]:
            exact = row.astype(np.float64)
            sure = confidence(exact, float(less)) if is_unit(row) else None
            if is_unit(row) and (min_confidence is None or (sure is not None and sure >= min_confidence)):
                score = np.float32(min(1.0, float(query @ exact))) - less
                fits.append((record.path, float(score), sure, box))
        if fits:
            found.append(max(fits, key=lambda fit: fit[1]))  # of equal ones the first
    found = [fit for fit in found if fit[1] >= min_score]
    return sorted(found, key=lambda fit: (-np.float32(fit[1]), fit[0]))[:k]


def assert_same(hits: Sequence[Hit], expected: Sequence[Found]) -> None:
    assert [hit.path_bytes for hit in hits] == [path for path, *_ in expected]
    assert [hit.box for hit in hits] == [box for *_, box in expected]
    assert [hit.rank for hit in hits] == list(range(1, len(hits) + 1))
    assert [hit.score for hit in hits] == pytest.approx([score for _, score, *_ in expected], abs=1e-6)
    sure = [hit.confidence for hit in hits if hit.confidence is not None]
    assert sure == pytest.approx([known for *_, known, _ in expected if known is not None], abs=1e-5)


def query_of(terms: Terms) -> list[TextTerm | str]:
    return [TextTerm(word, weight) for word, weight in terms]


QUERIES: list[Terms] = [
    [("a", 1)],
    [("b", 1), ("c", 0.5)],
    [("a", 1), ("d", -0.7)],
    [("c", 2), ("d", -0.1), ("a", -0.3)],
    [("b", -1)],
]


@pytest.mark.parametrize("k", [1, 3, 20, None])
@pytest.mark.parametrize("seed", range(8))
def test_a_picture_ranks_by_the_best_of_its_whole_and_its_regions(
    store: Store, monkeypatch: pytest.MonkeyPatch, seed: int, k: int | None
) -> None:
    case = random_case(seed)
    index = opened(case, store, monkeypatch)
    for terms, hits in zip(QUERIES, index.search_many(list(map(query_of, QUERIES)), k), strict=True):
        assert_same(hits, plainly(case, store, terms, k))
        assert_same(index.search(query_of(terms), k), plainly(case, store, terms, k))
    if k is None:
        boxes = [hit.box for hit in index.search("a", None)]
        assert 0 < boxes.count(None) < len(boxes) == N


@pytest.mark.parametrize("seed", range(30))
def test_equal_scores_are_ordered_by_path_and_a_region_that_is_no_better_is_not_named(
    store: Store, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    case = random_case(seed, coarse=True)
    index = opened(case, store, monkeypatch)
    every = plainly(case, store, [("a", 1)])
    assert len({score for _, score, *_ in every}) < N / 2
    for k in (1, 2, 5, 17, N - 1):
        assert_same(index.search("a", k), every[:k])
    for score in {score for _, score, *_ in every}:
        few = [fit for fit in every if fit[1] >= score]
        assert_same(index.search("a", None, min_score=max(-1.0, score)), few)
        assert_same(index.search("a", 4, min_score=max(-1.0, score)), few[:4])


@pytest.mark.parametrize("seed", range(10))
def test_rows_that_are_no_vectors_are_left_out_and_cost_their_picture_no_other(
    store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, seed: int
) -> None:
    case = random_case(seed, spoilt=True)
    index = opened(case, store, monkeypatch)
    for k in (3, 30, None):
        assert_same(index.search("a", k), plainly(case, store, [("a", 1)], k))
    assert "no usable vector" in caplog.text


@pytest.mark.parametrize("seed", range(10))
def test_filters_and_cut_offs_are_exact(store: Store, monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    case = random_case(seed)
    index = opened(case, store, monkeypatch)
    rng = np.random.default_rng(seed)
    paths = [record.path for record in store.records()]
    for share in (0.02, 0.3, 0.9):
        among = [path for path in paths if rng.random() < share] or paths[:1]
        for terms in QUERIES[:4]:
            asked = query_of(terms)
            assert_same(
                index.search(asked, 5, files=map(os.fsdecode, among)), plainly(case, store, terms, 5, among=among)
            )
            least, sure = float(rng.uniform(-0.2, 0.6)), float(rng.uniform(0, 0.7))
            found = index.search(asked, 5, files=map(os.fsdecode, among), min_score=least, min_confidence=sure)
            expected = plainly(case, store, terms, 5, among=among, min_score=least, min_confidence=sure)
            assert_same(found, expected)
    many = index.search_many(list(map(query_of, QUERIES[:4])), 6, min_confidence=0.3)
    for terms, hits in zip(QUERIES, many, strict=False):
        assert_same(hits, plainly(case, store, terms, 6, min_confidence=0.3))


@pytest.mark.parametrize("seed", range(5))
def test_alike_are_pictures_whose_wholes_are(store: Store, monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    case = random_case(seed)
    index = opened(case, store, monkeypatch)
    rows = {record.path: record.row for record in store.records()}
    kept: list[Found] = []
    for fit in plainly(case, store, [("a", 1)]):
        own = case.wholes[rows[fit[0]]].astype(np.float64)
        if all(own @ case.wholes[rows[other[0]]].astype(np.float64) < 0.5 for other in kept):
            kept.append(fit)
    assert 5 < len(kept) < N
    for k in (2, 5, None):
        assert_same(index.search("a", k, distinct=0.5), kept[:k])


def test_wholes_alone_are_compared_on_demand(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    case = random_case(1)
    index = opened(case, store, monkeypatch)
    for terms in QUERIES:
        assert_same(index.search(query_of(terms), 9, whole=True), plainly(case, store, terms, 9, whole=True))
    with_regions = index.search("a", None)
    monkeypatch.setattr(Store, "regions", lambda _: None)
    assert index.search("a", None) == index.search("a", None, whole=True) != with_regions
    none = Regions(case.regions.matrix[:0], case.regions.images[:0], case.regions.boxes[:0])
    monkeypatch.setattr(Store, "regions", lambda _: none)
    assert index.search("a", None) == index.search("a", None, whole=True)


def test_regions_of_dead_pictures_are_never_found(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    case = random_case(2)
    index = opened(case, store, monkeypatch)
    dead = next(row for row, size in enumerate(np.bincount(case.regions.images)) if size == 1)
    # The best of all regions belongs to a picture that has been deleted.
    case.regions.matrix[case.regions.images == dead] = case.words["a"]
    alive = np.arange(N) != dead
    path = store.image(dead).path
    assert index.search("a", 1)[0].path_bytes == path
    monkeypatch.setattr(Store, "matrix", lambda _: (case.wholes, alive))
    others = [record.path for record in store.records() if record.row != dead]
    assert_same(index.search("a", None), plainly(case, store, [("a", 1)], among=others, dead=dead))


def test_the_penalty_is_estimated_from_a_part_of_many_pictures(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    case = random_case(3)
    index = opened(case, store, monkeypatch)
    every = [hit.score for hit in index.search("a", None)]
    monkeypatch.setattr(region_ranking, "_SAMPLE", 5)
    few = [hit.score for hit in index.search("a", None)]
    assert few != every
    assert few == pytest.approx(every, abs=0.3)


def test_all_queries_in_words_have_the_same_penalty(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    case = random_case(4)
    index = opened(case, store, monkeypatch)
    numbers = np.bincount(case.regions.images, minlength=N)
    rows = {record.path: record.row for record in store.records() if record.row is not None}
    slopes = []
    for word in case.words:
        for hit in index.search(word, None):
            if hit.box and numbers[rows[hit.path_bytes]] == 9:
                (place,) = np.flatnonzero((case.regions.boxes == hit.box).all(axis=1))
                slopes.append((float(case.regions.matrix[place] @ case.words[word]) - hit.score) / np.log(9))
    assert len(slopes) > 20
    assert slopes == pytest.approx([slopes[0]] * len(slopes), abs=1e-3)
    assert slopes[0] > 0.01


def test_the_best_regions_of_chosen_pictures() -> None:
    case = random_case(5, spoilt=True)
    ranking = RegionRanking(case.regions, case.wholes)
    rows = np.array([3, -1, 69, 0, 3, 12, 70, 500])
    with np.errstate(invalid="ignore"):
        queries = np.stack(list(case.words.values()))
        found = BestRegions(ranking, rows, 0.125)
        scores = found.scores(queries)
        assert scores.shape == (4, len(rows))
        total = 0
        for place, row in enumerate(rows):
            parts = case.regions.matrix[case.regions.images == row].astype(np.float64)
            total += len(parts)
            for query, score in zip(queries, scores[:, place], strict=True):
                cosines = [cosine for cosine in parts @ query if np.isfinite(cosine) and abs(cosine) < 1.05]
                best = max(cosines) - 0.125 * np.log(len(parts)) if cosines else -np.inf
                assert score == pytest.approx(min(best, 1), abs=1e-5)
    assert len(found) == total > 0
    assert (BestRegions(ranking, np.array([-1]), 0.125).scores(queries) == -np.inf).all()
