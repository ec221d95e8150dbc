"""Classification in small cases that are computed by hand."""

from __future__ import annotations

import math
import os
from collections.abc import Generator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from conftest import paint
from tiny import NoEncoders, Watcher, expected, update

from clipsearch.errors import InputError, UnreadableImageError
from clipsearch.images.files import ImageFile
from clipsearch.index.reading import Store
from clipsearch.models.logits import Logits
from clipsearch.search.encoders import EmbeddedImage
from clipsearch.tasks import classification
from clipsearch.tasks.classification import (
    Classifier,
    Label,
    Predictions,
    checked_labels,
    checked_templates,
    class_vectors,
    positions,
    report,
    selected,
)

Vectors = npt.NDArray[np.float32]
EAST, NORTH, WEST = (1.0, 0.0), (0.0, 1.0), (-1.0, 0.0)


class Table(NoEncoders):
    """An encoder that looks its texts up."""

    def __init__(self, vectors: dict[str, tuple[float, ...]], scale: float = 1.0) -> None:
        self._vectors = vectors
        self.logits = Logits(scale)
        self.asked: list[str] = []

    def embed_texts(self, texts: list[str]) -> Vectors:
        self.asked += texts
        return np.array([self._vectors[text] for text in texts], np.float32)


class Pictures(NoEncoders):
    """An encoder that knows the vector of each file by its name, or why there is none."""

    def __init__(self, vectors: dict[bytes, tuple[float, ...] | str]) -> None:
        self._vectors = vectors

    def images(self, files: Sequence[ImageFile]) -> Generator[EmbeddedImage, None, None]:
        for file in files:
            found = self._vectors[file.path]
            result = UnreadableImageError(found) if isinstance(found, str) else np.array(found, np.float32)
            yield EmbeddedImage(file, result)


def two(scale: float = 1.0) -> Classifier:
    """East and north."""
    return Classifier(
        [Label("east", "east"), Label("north", "north")], np.array([EAST, NORTH], np.float32), Logits(scale)
    )


def predictions(labels: list[list[int]]) -> Predictions:
    best = np.array(labels, np.int64)
    return Predictions(best, np.zeros(best.shape), np.zeros(best.shape, np.float32))


def names(*given: str) -> list[Label]:
    return [Label.parse(name) for name in given]


# -- labels and templates ----------------------------------------------------------------------------------------


def test_templates_are_averaged_and_normalised_again() -> None:
    encoder = Table({"a x.": EAST, "the x": NORTH, "a y.": WEST, "the y": WEST})
    vectors = class_vectors(names("x", "y"), encoder.embed_texts, ["a {}.", "the {}"])
    wanted = np.array([[math.sqrt(0.5), math.sqrt(0.5)], [-1, 0]])
    np.testing.assert_allclose(vectors.astype(np.float64), wanted, atol=1e-7)
    assert vectors.dtype == np.float32
    assert encoder.asked == ["a x.", "the x", "a y.", "the y"]


def test_templates_that_cancel_each_other_out_are_an_error() -> None:
    encoder = Table({"x": EAST, "no x": WEST, "y": NORTH, "no y": NORTH})
    with pytest.raises(InputError, match="'x'"):
        class_vectors(names("x", "y"), encoder.embed_texts, ["{}", "no {}"])


def test_every_place_in_a_template_gets_the_label_and_nothing_else_is_special() -> None:
    encoder = Table({"{0} a cat, a cat %s": EAST, "{0} a dog, a dog %s": NORTH})
    Classifier.of(["a cat", "a dog"], encoder, ["{0} {}, {} %s"])
    assert encoder.asked == ["{0} a cat, a cat %s", "{0} a dog, a dog %s"]


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ("cat", Label("cat", "cat")),
        (" golden_retriever ", Label("golden_retriever", "golden retriever")),
        ("n02099601\tgolden retriever", Label("n02099601", "golden retriever")),
        ("x \t y_z ", Label("x", "y_z")),
        ("___", Label("___", "___")),
        ("C:\\{}/\u96ea", Label("C:\\{}/\u96ea", "C:\\{}/\u96ea")),
    ],
)
def test_how_labels_are_written(given: str, wanted: Label) -> None:
    assert Label.parse(given) == wanted


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ([], "two labels"),
        (["cat"], "not only 'cat'"),
        (["cat", "dog", "cat"], "name: 'cat' .*'cat'"),
        (["cat", "dog", "Cat"], "'cat' and 'Cat'"),
        (["red_car", "red car"], "'red_car' and 'red car'"),
        (["a\tcat", "b\tCat"], "words: "),
        (["cat", ""], "is empty"),
        (["cat", " "], "is empty"),
        (["cat", "\tdog"], "is empty"),
        (["cat", "dog\t"], "is empty"),
        (["cat", "\udcff"], "not UTF-8"),
    ],
)
def test_labels_that_cannot_be_told_apart_are_an_error(given: list[str], said: str) -> None:
    with pytest.raises(InputError, match=said):
        checked_labels(given)


def test_a_template_without_a_place_is_an_error() -> None:
    with pytest.raises(InputError, match="'a photo'"):
        checked_templates(["a photo of a {}.", "a photo"])
    with pytest.raises(InputError):
        checked_templates([])


def test_known_labels_are_found_whatever_their_case() -> None:
    labels = names("Red_Car", "dog")
    assert positions(["dog", "red car", "RED_CAR"], labels).tolist() == [1, 0, 0]
    with pytest.raises(InputError, match="'cat'"):
        positions(["dog", "cat"], labels)


# -- predictions -------------------------------------------------------------------------------------------------


def test_probabilities_are_the_softmax_at_the_logit_scale() -> None:
    found = two(scale=math.log(3)).predict(np.array([EAST, NORTH, WEST], np.float32), top=2)
    assert found.labels.tolist() == [[0, 1], [1, 0], [1, 0]]
    np.testing.assert_allclose(found.scores, [[1, 0], [1, 0], [0, -1]])
    np.testing.assert_allclose(found.probabilities, [[0.75, 0.25]] * 3)  # three times as likely for each 1 of cosine


def test_equal_labels_come_in_their_order() -> None:
    half = (math.sqrt(0.5), math.sqrt(0.5))
    assert two().predict(np.array([half], np.float32), top=2).labels.tolist() == [[0, 1]]


@pytest.mark.parametrize("top", [1, 2, 9])
def test_there_are_as_many_labels_as_asked_for_or_all(top: int) -> None:
    assert two().predict(np.array([EAST] * 3, np.float32), top).labels.shape == (3, min(top, 2))
    assert two().predict(np.empty((0, 2), np.float32), top).labels.shape == (0, min(top, 2))


def test_in_pieces_or_at_once_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(3)
    pictures = rng.normal(size=(50, 8)).astype(np.float32)
    pictures /= np.linalg.norm(pictures, axis=1, keepdims=True)
    classifier = Classifier(names("a", "b", "c"), pictures[:3], Logits(10.0))
    whole = classifier.predict(pictures, 3)
    monkeypatch.setattr(classification, "_CHUNK_SCORES", 21)  # seven pictures
    pieces = classifier.predict(pictures, 3)
    assert np.array_equal(pieces.labels, whole.labels)
    np.testing.assert_allclose(pieces.probabilities, whole.probabilities, rtol=1e-5)
    np.testing.assert_allclose(pieces.scores, whole.scores, atol=1e-6)


def test_files_that_cannot_be_read_are_told_and_shift_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(classification, "_CHUNK_SCORES", 4)  # two pictures
    vectors: dict[bytes, tuple[float, ...] | str] = {b"/a": EAST, b"/b": "broken", b"/c": NORTH, b"/d": EAST}
    bar = Watcher()
    found = two().predict_files(Pictures(vectors), [ImageFile(path, 1, 1) for path in vectors], progress=bar)
    assert found.read == [0, 2, 3]
    assert found.predictions.labels.tolist() == [[0], [1], [0]]
    assert found.unreadable == [(b"/b", "broken")]
    assert (bar.total, bar.done, bar.unreadable) == (4, 4, 1)


def test_images_of_an_index_come_by_path_and_without_dead_rows(tmp_path: Path) -> None:
    for name in ("b", "a", "d", "c"):
        paint(tmp_path / "p" / f"{name}.png", {"a": "red", "b": "green", "c": "blue", "d": "white"}[name])
        update(tmp_path / ".clipsearch", tmp_path / "p")
    (tmp_path / "p" / "d.png").unlink()
    update(tmp_path / ".clipsearch", tmp_path / "p")
    store = Store.open(tmp_path / ".clipsearch")
    found = selected(store)
    assert [os.path.basename(path) for path in found.paths] == [b"a.png", b"b.png", b"c.png"]
    for path, row in zip(found.paths, found.rows, strict=True):
        assert np.array_equal(found.matrix[row], expected(path))
    assert [os.path.basename(path) for path in selected(store, glob="!b.png").paths] == [b"a.png", b"c.png"]
    vectors = np.stack([expected(path) for path in found.paths[:2]]).astype(np.float32)
    classifier = Classifier(names("x", "y"), vectors / np.linalg.norm(vectors, axis=1, keepdims=True), Logits(100.0))
    predicted = classifier.predict_rows(found.matrix, found.rows, 2)
    assert predicted.labels[:2, 0].tolist() == [0, 1]
    np.testing.assert_allclose(predicted.scores[:2, 0], 1, atol=1e-6)
    store.close()


# -- the report --------------------------------------------------------------------------------------------------


def test_the_report_is_what_a_hand_counts() -> None:
    #                       truth:   a    a    a    b    b    c
    best = [[0, 1, 2], [0, 1, 2], [1, 0, 2], [1, 0, 2], [0, 1, 2], [1, 0, 2]]
    found = report(predictions(best), np.array([0, 0, 0, 1, 1, 2]), names("a", "b", "c"))
    assert found.images == 6
    assert found.top1 == pytest.approx(3 / 6)
    assert found.top5 is None  # three labels: it would always be 1
    assert found.confusion.tolist() == [[2, 1, 0], [1, 1, 0], [0, 1, 0]]
    a, b, c = found.classes
    assert (a.label, a.images, a.predicted, a.correct) == ("a", 3, 3, 2)
    assert (b.images, b.predicted, b.correct) == (2, 3, 1)
    assert (c.images, c.predicted, c.correct) == (1, 0, 0)
    assert [a.precision, a.recall, b.precision, b.recall] == pytest.approx([2 / 3, 2 / 3, 1 / 3, 1 / 2])
    assert (c.precision, c.recall) == (None, 0)


def test_top_5_counts_the_five_likeliest_only() -> None:
    best = [[0, 1, 2, 3, 4, 5], [1, 0, 2, 3, 4, 5], [1, 2, 3, 4, 0, 5], [1, 2, 3, 4, 5, 0]]
    found = report(predictions(best), np.zeros(4, np.int64), names(*"abcdef"))
    assert (found.top1, found.top5) == (0.25, 0.75)
    assert found.classes[1].recall is None  # nothing shows it


def test_a_report_on_nothing_is_an_error() -> None:
    with pytest.raises(InputError, match="no image"):
        report(predictions([[0]])._replace(labels=np.empty((0, 1), np.int64)), np.empty(0, np.int64), names("a", "b"))


def test_a_report_needs_five_labels_of_each_image() -> None:
    with pytest.raises(ValueError, match="5"):
        report(predictions([[0, 1, 2, 3]]), np.array([0]), names(*"abcdef"))
