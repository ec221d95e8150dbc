"""Several indexes searched as one: the hits are those of an index that holds all of their images."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pytest
from conftest import Run, index, paint
from PIL import Image
from tiny import MODEL, NoEncoders, TinyEncoder, TinyPreprocessing, update

import clipsearch
from clipsearch.errors import IndexDamagedError, InputError, ModelMismatchError
from clipsearch.exchange.merging import merge
from clipsearch.images.codecs.box import Box
from clipsearch.images.codecs.decoding import decode
from clipsearch.index.format import DATABASE, HEADER_BYTES
from clipsearch.index.reading import Store
from clipsearch.models.logits import Logits
from clipsearch.search.confidence import NegativePrompts
from clipsearch.search.hit import Hit
from clipsearch.search.index import Index, Searcher
from clipsearch.search.query_terms import ContentTerm, ImageTerm, TextTerm

PARTS = 3


class Words(NoEncoders):
    """Texts get vectors by chance, always the same ones, and pictures those of the small encoder."""

    def __init__(self) -> None:
        self.passes: list[list[str]] = []
        """The texts of each call."""

    def embed_texts(self, texts: list[str]) -> npt.NDArray[np.float32]:
        self.passes.append(texts)
        vectors = np.stack([np.random.default_rng(list(text.encode())).normal(size=MODEL.dim) for text in texts])
        return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)

    def image(self, content: bytes, name: bytes, box: object = None) -> npt.NDArray[np.float32]:  # noqa: ARG002
        decoded = decode(content)
        part = decoded.part(box) if isinstance(box, Box) else decoded.image
        return np.asarray(TinyEncoder().encode_images([TinyPreprocessing()(part)])[0])

    def negatives(self) -> NegativePrompts:
        return NegativePrompts(Words().embed_texts(["a photo", "something"]), 2, Logits(9.0))

    def neutral(self) -> npt.NDArray[np.float32]:
        return Words().embed_texts(["a photo", "something", "an image"])


class Home(NamedTuple):
    """The same images in indexes of their parts, and in one that was made of these."""

    folder: Path
    parts: list[Path]
    merged: Path

    def both(self) -> tuple[Searcher, Index]:
        return Searcher([Store.open(part) for part in self.parts], Words()), Index(Store.open(self.merged), Words())


def make(home: Path, *, regions: bool) -> Home:
    """Pictures of which some are alike and some the same, in one index for each part, and in one for all."""
    rng = np.random.default_rng(1)
    for number in range(40):
        size = (6 + number % 5, 8, 3) if number % 3 else (4, 4, 3)
        pixels = rng.integers(0, 256, size, dtype=np.uint8)
        path = home / "p" / f"{'ab'[number % 2]}" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
        os.utime(path, (1_600_000_000 + 86_400 * number,) * 2)
        if number % 4 == 0:
            shutil.copy2(path, home / "p" / f"copy of {number}.png")
        if number % 5 == 0:
            Image.fromarray(pixels // 8 * 8).save(home / "p" / f"nearly {number}.png")
    parts = [home / "shards" / str(number) for number in range(1, PARTS + 1)]
    for number, part in enumerate(parts, 1):
        update(part, home / "p", part=f"{number}/{PARTS}", regions=regions or None)
    merge(parts, home / "merged")
    return Home(home, parts, home / "merged")


@pytest.fixture(scope="module", params=[False, True], ids=["wholes", "regions"])
def home(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Home:
    return make(tmp_path_factory.mktemp("home"), regions=request.param)


@pytest.fixture
def own_home(tmp_path: Path) -> Home:
    """One that a test may change."""
    return make(tmp_path, regions=False)


def known(hits: Sequence[Hit]) -> list[Hit]:
    """Hits without their rows, which only those of a single index have."""
    return [hit._replace(row=None) for hit in hits]


def queries(home: Path) -> list[Any]:
    picture = home / "p" / "a" / "8.png"
    return [
        "a dog",
        ["a dog", TextTerm("a cat", 0.5), TextTerm("snow", -1)],
        [ImageTerm(picture), TextTerm("at night", 0.3)],
        [ImageTerm(picture, box=Box(0, 0, 3, 3))],
        [TextTerm("rain", -1)],
    ]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"k": 1},
        {"k": None},
        {"k": 7, "whole": True},
        {"k": None, "min_score": 0.05},
        {"k": None, "distinct": 1},
        {"k": 5, "distinct": 1},
        {"k": 12, "distinct": 0.97},
        {"k": None, "distinct": 0.3},
        {"k": 20, "under": "p/a"},
        {"k": 20, "glob": ["p/b/*", "!*7.png"], "after": "2020-09-20"},
        {"k": 3, "files": ["p/a/8.png", "p/b/9.png", "p/a/nowhere.png"]},
    ],
    ids=str,
)
def test_hits_are_those_of_the_merged_index(home: Home, options: Any, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: ANN401
    monkeypatch.chdir(home.folder)
    asked = queries(home.folder)
    several, one = home.both()
    with several, one:
        found = several.search_many(asked, **options)
        expected = one.search_many(asked, **options)
        assert [known(hits) for hits in found] == [known(hits) for hits in expected]
        assert all(found)
        alike = several.similar("p/a/8.png", **options)
        assert known(alike) == known(one.similar("p/a/8.png", **options))
        if not options:
            assert alike[0].path.name == "copy of 8.png"


@pytest.mark.parametrize("least", [0.3, 0.5])
@pytest.mark.parametrize("unwanted", [[], [TextTerm("snow", -1)]])
def test_confidence_is_the_same_in_each_index(home: Home, least: float, unwanted: list[TextTerm]) -> None:
    query = [TextTerm("a dog"), *unwanted]
    several, one = home.both()
    with several, one:
        found = several.search(query, None, min_confidence=least)
        assert known(found) == known(one.search(query, None, min_confidence=least))
        assert found
        assert len(found) < len(one.search(query, None))
        assert all((hit.confidence or 0) >= least for hit in found)


def test_all_texts_are_embedded_once(home: Home) -> None:
    encoders = Words()
    with Searcher([Store.open(part) for part in home.parts], encoders) as several:
        several.search_many(["a dog", ["a dog", "a cat"], "snow"])
    assert encoders.passes == [["a dog", "a cat", "snow"]]


def test_a_picture_is_known_to_any_of_them(home: Home) -> None:
    with closing(Store.open(home.parts[-1])) as store:
        image = next(record for record in store.records() if record.row is not None)
    several, _ = home.both()
    with several, pytest.MonkeyPatch.context() as patch:
        patch.setattr(Words, "image", NoEncoders.image)
        (hit,) = several.search(ImageTerm(os.fsdecode(image.path)), k=1)
        assert (hit.content, hit.row) == (image.hash, None)
        assert several.search(ContentTerm(image.hash or b""), k=1) == [hit]
        with pytest.raises(InputError, match="not in the index any more"):
            several.search(ContentTerm(b"nothing"))


def test_a_path_that_several_have_is_found_once(home: Home) -> None:
    _, one = home.both()
    stores = [Store.open(folder) for folder in (home.merged, *home.parts, home.merged)]
    with Searcher(stores, Words()) as several, one:
        for options in ({"k": 9}, {"k": None}, {"k": 9, "distinct": 1}):
            assert known(several.search("a dog", **options)) == known(one.search("a dog", **options))
        keepers = several.search("a dog", 9, distinct=0.97)
        assert [hit.path for hit in keepers] == [hit.path for hit in one.search("a dog", 9, distinct=0.97)]


def test_rows_that_are_no_vectors_are_named_with_their_index(own_home: Home, caplog: pytest.LogCaptureFixture) -> None:
    with (own_home.parts[1] / "embeddings.npy").open("r+b") as file:
        file.seek(HEADER_BYTES)
        file.write(np.full(MODEL.dim, np.nan, np.float16).tobytes())
    several, one = own_home.both()
    with several, one:
        assert len(several.search("a dog", None)) == len(one.search("a dog", None)) - 1
        assert [str(own_home.parts[1]) in record.getMessage() for record in caplog.records] == [True]
    with Searcher([Store.open(own_home.parts[1])], Words()) as broken:
        with closing(Store.open(own_home.parts[1])) as store:
            name = next(os.fsdecode(record.path) for record in store.records() if record.row == 0)
        with pytest.raises(IndexDamagedError):
            broken.search("a dog", files=[name])


def test_indexes_of_other_models_are_refused(own_home: Home) -> None:
    with closing(sqlite3.connect(own_home.parts[2] / DATABASE)) as database, database:
        database.execute("UPDATE meta SET value = replace(value, '777', '888') WHERE key = 'model'")
    with pytest.raises(ModelMismatchError, match=r"shards/3 was made with model tiny, that in .*shards/1 with tiny"):
        clipsearch.open_indexes([own_home.folder / "shards" / "*"])


# -- the commands ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory, run: Run) -> Path:
    """A folder with the indexes of two parts of five pictures, and one that was merged of these."""
    home = tmp_path_factory.mktemp("shelf")
    for number, colour in enumerate(("red", "blue", "green", "pink", "gray")):
        paint(home / "p" / f"{number}.png", colour)
    for part in (1, 2):
        index(run, "p", "--part", f"{part}/2", "--index", f"shards/{part}", "--model", "picturebook", cwd=home)
    (home / "shards" / "notes.txt").write_text("no index")
    assert run("merge", "shards/*", "--index", "merged", cwd=home).returncode == 0
    return home


@pytest.mark.parametrize(
    "arguments",
    [
        ["query", "red", "-k", "3", "--json"],
        ["query", "red", "--not", "blue", "--min-confidence", "0.1", "--format", "csv"],
        ["similar", "p/1.png", "-k", "all", "--json"],
        ["query", "--image", "p/2.png", "-g", "p/[0-3].png", "-0"],
    ],
)
def test_the_commands_print_what_they_print_of_the_merged_index(shelf: Path, run: Run, arguments: list[str]) -> None:
    expected = run(*arguments, "--index", "merged", cwd=shelf)
    assert expected.returncode == 0
    for others in (["--index", "shards/*"], ["--index", "shards/1", "--index", "shards/2"]):
        done = run(*arguments, *others, cwd=shelf)
        assert (done.returncode, done.stdout) == (0, expected.stdout), done.stderr


def test_what_is_wrong_with_several_indexes_is_said(shelf: Path, run: Run) -> None:
    def said(*arguments: str, code: int = 2, **env: str) -> str:
        done = run(*arguments, cwd=shelf, env=env)
        assert done.returncode == code, done.stderr
        return done.stderr.decode()

    assert "No index matches nowhere/*. Make one" in said("query", "red", "--index", "nowhere/*")
    assert "No index in shards/3." in said("query", "red", "--index", "shards/1", "--index", "shards/3")
    assert "Nothing found: no image in the index matches z*." in said(
        "query", "red", "--index", "shards/*", "-g", "z*", code=1
    )
    assert "under: " in said("query", "red", "--index", "shards/*", "--under", "nowhere")
    several = "shards/* are several indexes; this takes one. Name one, or make one of them: clipsearch merge"
    for command in (
        ["status"],
        ["duplicates"],
        ["export", "-o", "x.npy"],
        ["cluster"],
        ["score", "p/1.png", "-t", "x"],
    ):
        assert several in said(*command, "--index", "shards/*")
    assert said("query", "red", code=0, CLIPSEARCH_INDEX="shards/*") == said(
        "query", "red", "--index", "merged", code=0
    )
    assert several in said("status", CLIPSEARCH_INDEX="shards/*")


def test_an_index_without_images_is_passed_over(shelf: Path, run: Run, tmp_path: Path) -> None:
    shutil.copytree(shelf / "shards", tmp_path / "shards")
    shutil.copytree(shelf / "shards" / "1", tmp_path / "shards" / "begun")
    with closing(sqlite3.connect(tmp_path / "shards" / "begun" / DATABASE)) as database, database:
        database.executescript(
            """DELETE FROM images; UPDATE roots SET options = '{}';
            UPDATE meta SET value = replace(value, '"finished"', '"unfinished"') WHERE key = 'last_run'"""
        )
    done = run("query", "red", "--json", "--index", "shards/*", cwd=tmp_path)
    assert len(json.loads(done.stdout)) == 5
    assert b"shards/begun holds no image: the run that was to make it was ended at its beginning." in done.stderr


def test_python_opens_several(shelf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(shelf)
    with clipsearch.open_indexes(["shards/*"]) as several, clipsearch.open_index("merged") as one:
        assert known(several.search("red")) == known(one.search("red"))
