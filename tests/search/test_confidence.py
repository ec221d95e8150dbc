"""How sure it is that a picture shows what a query says: the formula, and cutting off by it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from conftest import REPOSITORY, Run
from safetensors import safe_open

import clipsearch
from clipsearch.errors import InputError
from clipsearch.models.disk.files import fingerprint
from clipsearch.models.in_numpy import tower_cache
from clipsearch.models.logits import Logits
from clipsearch.search.confidence import NEUTRAL, NegativePrompts
from clipsearch.search.hit import Hit
from clipsearch.search.index import Index
from clipsearch.search.query_terms import ImageTerm, Term, TextTerm

PICTUREBOOK = REPOSITORY / "clipsearch" / "data" / "picturebook"
Array = npt.NDArray[np.float64]


@pytest.fixture
def opened(sample_index: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Index]:
    """The index of the sample pictures, from within its folder."""
    monkeypatch.chdir(sample_index)
    with clipsearch.open_index() as found:
        yield found


def vectors(*texts: str) -> Array:
    """(T, D) of texts."""
    tower = tower_cache.load(fingerprint(PICTUREBOOK))
    assert tower is not None
    return tower.encode_texts(list(texts)).astype(np.float64)


def logit_scale() -> float:
    with safe_open(PICTUREBOOK / "model.safetensors", "numpy") as weights:
        return float(np.exp(np.float64(weights.get_tensor("logit_scale"))))


def by_hand(query: Array, unwanted: list[str], images: Array) -> Array:
    """(N,) confidence as the docstring of the module gives it: one probability of a softmax."""
    scale = logit_scale()
    wanted = np.exp(scale * images @ query)
    negatives = np.exp(scale * images @ vectors(*NEUTRAL).T).mean(axis=1)
    for text in unwanted:
        negatives += np.exp(scale * images @ vectors(text)[0])
    return np.asarray(wanted / (wanted + negatives))


def of_hits(hits: list[Hit], matrix: Array, opened: Index) -> Array:
    """(K, D) the vectors of hits, which are all images of the index."""
    rows = [opened.store.row_of(hit.path_bytes) for hit in hits]
    assert None not in rows
    return matrix[np.array(rows, np.int64)]


@pytest.fixture
def matrix(sample_index: Path) -> Array:
    return np.asarray(np.load(sample_index / ".clipsearch" / "embeddings.npy"), np.float64)


def test_eight_prompts_say_nothing_in_particular() -> None:
    assert len(NEUTRAL) == len(set(NEUTRAL)) == 8


def test_the_scale_is_the_models(sample_index: Path) -> None:
    with clipsearch.open_index(sample_index) as opened:
        assert opened._encoders.negatives().logits.scale == pytest.approx(logit_scale(), rel=1e-5)


@pytest.mark.parametrize(
    ("terms", "wanted", "unwanted"),
    [
        (["a dog is sleeping"], {"a dog is sleeping": 1}, []),
        (["a dog", TextTerm("snow", 0.5)], {"a dog": 1, "snow": 0.5}, []),
        (["a dog", TextTerm("a house", -1)], {"a dog": 1}, ["a house"]),
        # However strongly one stays away from it, and each once.
        (
            ["a dog", TextTerm("a house", -0.3), TextTerm("a cat", -2), TextTerm("a cat", -1)],
            {"a dog": 1},
            ["a house", "a cat"],
        ),
        ([TextTerm("a dog", 2), "night", TextTerm("a cat", -1)], {"a dog": 2, "night": 1}, ["a cat"]),
    ],
)
def test_the_formula(
    opened: Index, matrix: Array, terms: list[str | Term], wanted: dict[str, float], unwanted: list[str]
) -> None:
    hits = opened.search(terms, None)
    assert len(hits) == len(matrix)
    query = np.array(list(wanted.values())) @ vectors(*wanted)
    expected = by_hand(query / np.linalg.norm(query), unwanted, of_hits(hits, matrix, opened))
    found = np.array([hit.confidence for hit in hits], np.float64)
    np.testing.assert_allclose(found, expected, atol=2e-3)
    assert np.ptp(found) > 0.3  # and it tells pictures apart
    assert found.min() >= 0
    assert found.max() <= 1


def test_what_is_not_wanted_takes_confidence_away(opened: Index) -> None:
    plain = {hit.path: hit.confidence or 0 for hit in opened.search("an animal", None)}
    without = {hit.path: hit.confidence or 0 for hit in opened.search(["an animal", TextTerm("a dog", -1)], None)}
    assert all(without[path] <= plain[path] + 1e-6 for path in plain)
    dogs = [path for path in plain if path.parent.name == "dogs"]
    assert max(without[path] for path in dogs) < max(plain[path] for path in dogs)


def test_a_prompt_that_fits_as_the_neutral_ones_has_a_confidence_of_one_half() -> None:
    negatives = NegativePrompts(np.eye(2, dtype=np.float32), 2, Logits(100.0))
    cosines = np.array([[0.3, 0.1]], np.float32)
    assert negatives.confidence(cosines, np.repeat(cosines, 2, axis=0))[0].tolist() == pytest.approx([0.5, 0.5])
    # One that is to be stayed away from, and fits as well, leaves a third.
    shunning = NegativePrompts(np.eye(3, dtype=np.float32), 2, Logits(100.0))
    assert shunning.confidence(cosines, np.repeat(cosines, 3, axis=0))[0].tolist() == pytest.approx([1 / 3, 1 / 3])


@pytest.mark.filterwarnings("error")
def test_extreme_cosines_overflow_nowhere() -> None:
    negatives = NegativePrompts(np.eye(2, dtype=np.float32), 2, Logits(10_000.0))
    high, low = np.array([[1.0]], np.float32), np.array([[-1.0], [-1.0]], np.float32)
    assert negatives.confidence(high, low).tolist() == [[1.0]]
    assert negatives.confidence(-high, -low).tolist() == [[0.0]]


# -- cutting off -------------------------------------------------------------------------------------------------

QUERIES: list[list[str | Term]] = [["a dog"], ["a house"], ["snow"], ["an animal", TextTerm("a dog", -1)]]


@pytest.mark.parametrize("k", [None, 3])
@pytest.mark.parametrize("query", QUERIES, ids=["a dog", "a house", "snow", "an animal - a dog"])
def test_those_that_are_sure_enough_are_left_in_their_order(
    opened: Index, query: list[str | Term], k: int | None
) -> None:
    every = opened.search(query, None)
    values = sorted({hit.confidence or 0 for hit in every})
    # Between two values, so that rounding decides nothing; the images that are left are not simply the first ones.
    middles = [(low + high) / 2 for low, high in pairwise(values) if high - low > 1e-4]
    assert len(middles) > 20
    apart = 0
    for least in [0, *middles[:: len(middles) // 6], 1]:
        wanted = [hit for hit in every if (hit.confidence or 0) >= least]
        apart += wanted != every[: len(wanted)]
        found = opened.search(query, k, min_confidence=least)
        assert [hit.path for hit in found] == [hit.path for hit in wanted[:k]]
        assert [hit.rank for hit in found] == list(range(1, len(found) + 1))
        assert [hit.score for hit in found] == pytest.approx([hit.score for hit in wanted[:k]], abs=1e-6)
    assert apart


def test_scores_cut_off_as_well(opened: Index) -> None:
    every = opened.search("a house", None)
    least = (every[19].score + every[20].score) / 2
    assert [hit.path for hit in opened.search("a house", None, min_score=least)] == [hit.path for hit in every[:20]]
    assert len(opened.search("a house", 7, min_score=least)) == 7
    both = opened.search("a house", None, min_score=least, min_confidence=0.5)
    wanted = [hit for hit in every[:20] if (hit.confidence or 0) >= 0.5]
    assert [hit.path for hit in both] == [hit.path for hit in wanted]
    assert 0 < len(wanted) < 20


def test_filters_and_confidence_together(opened: Index) -> None:
    every = opened.search("an animal", None)
    wanted = [hit for hit in every if hit.path.parent.name == "cats" and (hit.confidence or 0) >= 0.5]
    found = opened.search("an animal", None, under="sample-images/cats", min_confidence=0.5)
    assert [hit.path for hit in found] == [hit.path for hit in wanted]
    assert found


def test_many_queries_are_cut_off_each_by_its_own(opened: Index) -> None:
    many = opened.search_many(QUERIES, 5, min_confidence=0.4)
    for query, hits in zip(QUERIES, many, strict=True):
        alone = opened.search(query, 5, min_confidence=0.4)
        assert [hit.path for hit in hits] == [hit.path for hit in alone]
        assert [hit for hit in hits if (hit.confidence or 0) < 0.4] == []
        assert [hit.confidence for hit in hits] == pytest.approx([hit.confidence for hit in alone], abs=1e-5)
    assert any(many)


@pytest.mark.parametrize("query", [ImageTerm("sample-images/dogs/dog_0.webp"), TextTerm("a dog", -1)])
def test_only_what_is_said_in_words_has_confidence(opened: Index, query: Term) -> None:
    assert [hit.confidence for hit in opened.search(query, 3)] == [None] * 3
    with pytest.raises(InputError) as error:
        opened.search(query, 3, min_confidence=0.5)
    assert error.value.hints == ("min-score",)


@pytest.mark.parametrize("least", [1.5, -0.1, float("nan"), float("inf")])
def test_no_image_can_have_such_a_confidence_or_score(opened: Index, least: float) -> None:
    with pytest.raises(InputError, match=f"confidence.* {least:g}"):
        opened.search("a dog", min_confidence=least)
    score = least if least > 0 else least - 1
    with pytest.raises(InputError, match=f"score.* {score:g}"):
        opened.search("a dog", min_score=score)


def test_the_command_cuts_off_and_exits_with_1_if_nothing_is_left(sample_index: Path, run: Run, opened: Index) -> None:
    def query(*arguments: str) -> tuple[int, list[Any], str]:
        done = run("query", "a dog", *arguments, "--json", cwd=sample_index)
        return done.returncode, json.loads(done.stdout), done.stderr.decode()

    every = opened.search("a dog", None)
    sure = [hit for hit in every if (hit.confidence or 0) >= 0.5]
    code, hits, said = query("--min-confidence", "0.5", "-k", "all")
    assert (code, said) == (0, "")
    assert [sample_index / hit["path"] for hit in hits] == [hit.path for hit in sure]
    assert [hit["confidence"] for hit in hits] == pytest.approx([hit.confidence for hit in sure], abs=1e-5)
    assert len(query("--min-confidence", "0.5", "-k", "2")[1]) == 2 < len(sure)
    # What is named is the first of all hits; another one may be surer.
    closest = f"score {every[0].score:.4f} and confidence {every[0].confidence:.3f}"
    assert max(hit.confidence or 0 for hit in every) > (every[0].confidence or 0) + 0.1
    for arguments in (
        ["--min-confidence", "1"],
        ["--min-score", "1"],
        ["--min-score", "0.9", "--min-confidence", "0.9"],
    ):
        code, hits, said = query(*arguments)
        assert (code, hits) == (1, [])
        assert closest in said
        assert said.count("\n") == 1


def test_with_an_image_there_is_no_confidence_to_show(sample_index: Path, run: Run) -> None:
    arguments = ("query", "a dog", "--image", "sample-images/dogs/dog_0.webp", "-k", "1")
    line = run(*arguments, cwd=sample_index).stdout
    assert line.split(b"\t")[2] == b""
    assert json.loads(run(*arguments, "--json", cwd=sample_index).stdout)[0]["confidence"] is None
    assert run(*arguments, "--format", "csv", cwd=sample_index).stdout.splitlines()[1].split(b",")[2] == b""
    header = run(*arguments, "--format", "table", cwd=sample_index).stdout.splitlines()[0]
    assert header.split() == [b"rank", b"score", b"path", b"size", b"date"]
    nothing = run(*arguments, "--min-score", "1", cwd=sample_index)
    assert nothing.returncode == 1
    assert b"confidence" not in nothing.stderr
