"""`clipsearch caption-rank`: which of many sentences finds a picture."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import tiny
from conftest import COLOURS, SAMPLES, Run, paint
from fresh import COMMAND, HEAVY, loaded_by

import clipsearch
from clipsearch.errors import InputError
from clipsearch.images.codecs.decoding import decode
from clipsearch.index.reading import Store
from clipsearch.tasks.caption_ranks import caption_ranks

DOG = "sample-images/dogs/dog_0.webp"
TEXTS = ["a gray dog is sleeping on a farm", "a pizza", "a dog", "an animal", "a red car", "a house in the snow"]


class Encoders(tiny.NoEncoders):
    """A text is the name of a colour, and its vector that of a picture in this colour."""

    def __init__(self) -> None:
        self.embedded = 0
        """Pictures so far."""

    def embed_texts(self, texts: list[str]) -> npt.NDArray[np.float32]:
        pixels = [np.full((4, 4, 3), _COLOURS[text], np.uint8) for text in texts]
        return tiny.TinyEncoder().encode_images(np.stack(pixels))

    def image(self, content: bytes, name: bytes, box: object = None) -> npt.NDArray[np.float32]:
        assert box is None
        self.embedded += 1
        pixels = tiny.TinyEncoder.preprocessing(decode(content, name).image)
        return np.asarray(tiny.TinyEncoder().encode_images(pixels[np.newaxis])[0])


_COLOURS = {"black": (0, 0, 0), "gray": (128, 128, 128), "white": (255, 255, 255), "red": (255, 0, 0)}


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """An index of ten pictures, and of three more with one content."""
    for colour in COLOURS:
        paint(tmp_path / "pictures" / f"{colour}.png", colour)
    for name in "bca":
        paint(tmp_path / "pictures" / "same" / f"{name}.png", "cyan")
    tiny.update(tmp_path / ".clipsearch", tmp_path / "pictures")
    with closing(Store.open(tmp_path / ".clipsearch")) as found:
        yield found


def by_hand(store: Store, text: str, path: bytes) -> int:
    """The rank of a picture by a full sort of all scores."""
    vector = Encoders().embed_texts([text])[0].astype(np.float64)
    scored = []
    for record in store.records():
        row = tiny.expected(record.path).astype(np.float64)
        scored.append((-round(float(row @ vector), 5), record.path))
    return [place for _, place in sorted(scored)].index(path) + 1


@pytest.mark.parametrize("name", ["red", "gray", "yellow", "same/a", "same/b", "same/c"])
def test_ranks_are_those_of_a_full_sort_and_ties_go_by_path(store: Store, tmp_path: Path, name: str) -> None:
    path = tmp_path / "pictures" / f"{name}.png"
    found = caption_ranks(store, Encoders(), path, list(_COLOURS))
    assert {one.text: one.rank for one in found} == {text: by_hand(store, text, os.fsencode(path)) for text in _COLOURS}
    assert {one.images for one in found} == {13}
    assert found == sorted(found, key=lambda one: (one.rank, -one.score))


def test_an_image_of_the_index_is_neither_read_nor_embedded(store: Store, tmp_path: Path) -> None:
    path = tmp_path / "pictures" / "red.png"
    before = caption_ranks(store, Encoders(), path, ["red"])
    path.unlink()
    encoders = Encoders()
    assert caption_ranks(store, encoders, path, ["red"]) == before
    assert encoders.embedded == 0
    assert before[0].rank == 1


def test_another_image_is_ranked_as_if_it_were_in_the_index(store: Store, tmp_path: Path) -> None:
    encoders = Encoders()
    path = paint(tmp_path / "new.png", "#f01010")
    (found,) = caption_ranks(store, encoders, path, ["red"])
    assert (found.rank, found.images, encoders.embedded) == (2, 14, 1)
    # A copy of one in the index ties with it, before it or behind it by path; it needs no model.
    known = tmp_path / "pictures" / "red.png"
    for name, rank in (("a.png", 1), ("z.png", 2)):
        shutil.copy(known, tmp_path / name)
        (found,) = caption_ranks(store, encoders, tmp_path / name, ["red"])
        assert (found.rank, found.images) == (rank, 14)
    (found,) = caption_ranks(store, encoders, known.read_bytes(), ["red"])
    assert (found.rank, encoders.embedded) == (1, 1)


def test_filters_say_among_which_it_is_ranked(store: Store, tmp_path: Path) -> None:
    path = tmp_path / "pictures" / "yellow.png"
    (among_all,) = caption_ranks(store, Encoders(), path, ["red"])
    (among_few,) = caption_ranks(store, Encoders(), path, ["red"], glob=["**/red.png", "**/yellow.png"])
    assert among_all.rank > 2
    assert (among_few.rank, among_few.images) == (2, 2)
    # Filtered out itself, it stands among the others all the same.
    (outside,) = caption_ranks(store, Encoders(), path, ["red"], glob="**/red.png")
    assert (outside.rank, outside.images) == (2, 2)
    assert caption_ranks(store, Encoders(), path, ["red"], glob="nothing") == []
    assert caption_ranks(store, Encoders(), path, []) == []


def test_chunks_add_up(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "pictures" / "same" / "c.png"
    whole = caption_ranks(store, Encoders(), path, list(_COLOURS))
    monkeypatch.setattr("clipsearch.tasks.caption_ranks._LEAST_ROWS", 2)
    monkeypatch.setattr("clipsearch.tasks.caption_ranks._CHUNK_ROWS", 2)
    assert caption_ranks(store, Encoders(), path, list(_COLOURS)) == whole


def test_dead_rows_are_no_rivals(tmp_path: Path) -> None:
    for name in ("a", "b", "c", "d", "e", "f"):
        paint(tmp_path / "pictures" / f"{name}.png", "red" if name == "a" else "blue")
    paint(tmp_path / "pictures" / "g.png", "darkred")
    tiny.update(tmp_path / ".clipsearch", tmp_path / "pictures")
    (tmp_path / "pictures" / "a.png").unlink()
    tiny.update(tmp_path / ".clipsearch", tmp_path / "pictures")
    with closing(Store.open(tmp_path / ".clipsearch")) as store:
        assert store.contents().dead_rows == 1
        (found,) = caption_ranks(store, Encoders(), tmp_path / "pictures" / "g.png", ["red"])
    assert (found.rank, found.images) == (1, 6)


@pytest.mark.parametrize("name", ["nowhere.png", "broken.png"])
def test_an_image_that_cannot_be_read_is_an_error(store: Store, tmp_path: Path, name: str) -> None:
    (tmp_path / "broken.png").write_text("no picture")
    with pytest.raises(InputError, match=name):
        caption_ranks(store, Encoders(), tmp_path / name, ["red"])
    with pytest.raises(InputError, match="standard input"):
        caption_ranks(store, Encoders(), b"no picture", ["red"])


# -- the command -------------------------------------------------------------------------------------------------


def ranked(run: Run, *arguments: str | Path, cwd: Path) -> list[dict[str, Any]]:
    done = run("caption-rank", *arguments, "--json", cwd=cwd)
    assert done.returncode == 0, done.stderr.decode()
    return list(json.loads(done.stdout))


def test_ranks_and_scores_are_those_of_queries(run: Run, sample_index: Path, tmp_path: Path) -> None:
    (tmp_path / "texts.txt").write_text("\n".join([*TEXTS, TEXTS[0]]), "utf-8")
    rows = ranked(run, DOG, "--texts-from", tmp_path / "texts.txt", cwd=sample_index)
    assert sorted(row["text"] for row in rows) == sorted(TEXTS)  # the one that comes twice counts once
    with clipsearch.open_index(sample_index) as index:
        hits = dict(zip(TEXTS, index.search_many(TEXTS, None), strict=True))
    for row in rows:
        (hit,) = (hit for hit in hits[row["text"]] if hit.path == sample_index / DOG)
        assert (row["rank"], row["images"]) == (hit.rank, len(hits[row["text"]]))
        assert row["score"] == pytest.approx(hit.score, abs=1e-6)
    assert rows[0] == {"rank": 1, "images": len(hits[TEXTS[0]]), "score": rows[0]["score"], "text": TEXTS[0]}
    below = sample_index / "sample-images" / "dogs"  # from there, the index answers for this folder
    top = ranked(run, "dog_0.webp", "--texts-from", tmp_path / "texts.txt", "--top", "2", cwd=below)
    assert [row["images"] for row in top] == [len(list((SAMPLES / "dogs").iterdir()))] * 2


def test_a_table_and_standard_input(sample_index: Path, run: Run) -> None:
    arguments = ("caption-rank", "-", "--text", TEXTS[0], "--format", "table")
    done = run(*arguments, cwd=sample_index, stdin=(sample_index / DOG).read_bytes())
    heading, line = done.stdout.decode().splitlines()
    assert heading.split() == ["rank", "images", "score", "text"]
    assert line.split()[0] == "1"
    assert line.endswith(TEXTS[0])


def test_nothing_to_rank_among_is_exit_code_one(run: Run, sample_index: Path) -> None:
    done = run("caption-rank", DOG, "--text", "a dog", "--min-width", "99999", cwd=sample_index)
    assert (done.returncode, done.stdout) == (1, b"")
    assert done.stderr.count(b"\n") == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([DOG], "--text"),
        ([DOG, "--text", " "], "blank"),
        (["nowhere.webp", "--text", "a dog"], "nowhere.webp"),
        (["-", "--texts-from", "-"], "standard input"),
        ([DOG, "--text", "a dog", "--top", "0"], "--top"),
        ([DOG, "--text", "a dog", "--after", "soon"], "soon"),
        ([DOG, "--text", "a dog", "--index", "nowhere"], "nowhere"),
    ],
)
def test_bad_input_is_one_line(run: Run, sample_index: Path, arguments: list[str], said: str) -> None:
    done = run("caption-rank", *arguments, cwd=sample_index)
    message = done.stderr.decode()
    assert (done.returncode, done.stdout) == (2, b"")
    assert message.count("\n") == 1
    assert said in message


def test_it_needs_no_model_library(sample_index: Path, environment: dict[str, str]) -> None:
    code = COMMAND.format(arguments=["clipsearch", "caption-rank", DOG, "--text", "a dog"])
    assert not loaded_by(code, environment, sample_index) & (HEAVY - {"PIL"})
    code = COMMAND.format(arguments=["clipsearch", "caption-rank", "--help"])
    assert not loaded_by(code, environment, sample_index) & (HEAVY | {"numpy", "tokenizers"})
