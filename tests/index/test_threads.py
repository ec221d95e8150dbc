"""One opened index for several threads, and texts that go through the text tower once."""

from __future__ import annotations

import sqlite3
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from conftest import COLOURS, Run, paint
from conftest import index as make

import clipsearch
from clipsearch.errors import InputError
from clipsearch.index.format import FOLDER, guarded
from clipsearch.index.reading import Store
from clipsearch.models.in_numpy import text_tower
from clipsearch.models.in_numpy.text_tower import TextTower, Tokens
from clipsearch.search.index import Index
from clipsearch.search.query_terms import ContentTerm, ImageTerm, Term, TextTerm
from clipsearch.unit import Array

QUERIES = ("a dog", "a red car in the snow", "two cats", "a house at night")


@pytest.fixture
def folder(sample_index: Path) -> Path:
    return sample_index / FOLDER


def answers(index: Index) -> list[list[tuple[str, float]]]:
    """What every kind of question says: words, filters, and a picture that the index knows."""
    known = index.search("a dog", 1)[0].path
    asked = [index.search(query, 5, glob=["*.webp", "*.png", "*.jpg"]) for query in QUERIES]
    return [[(hit.path.name, hit.score) for hit in hits] for hits in (*asked, index.similar(known, 3))]


def test_an_index_is_asked_from_several_threads_at_the_same_time(folder: Path) -> None:
    with clipsearch.open_index(folder) as index:
        start = threading.Barrier(4)

        def ask(_: int) -> list[list[list[tuple[str, float]]]]:
            start.wait(60)  # also the loading of the model is a race
            return [answers(index) for _ in range(3)]

        with ThreadPoolExecutor(4) as pool:
            many = [one for thread in pool.map(ask, range(4)) for one in thread]
        assert len(many) == 12
        assert many.count(answers(index)) == 12


def test_threads_that_came_and_went_leave_no_connection(folder: Path) -> None:
    with clipsearch.open_index(folder) as index:
        index.store.count()
        for _ in range(5):
            thread = threading.Thread(target=index.store.count)
            thread.start()
            thread.join()
        assert len(index.store._connections._of) == 2  # of this thread, and of the last one until another comes


def test_an_index_may_be_closed_by_another_thread_and_then_says_so(folder: Path) -> None:
    index = clipsearch.open_index(folder)
    thread = threading.Thread(target=index.close)
    thread.start()
    thread.join()
    with pytest.raises(InputError, match="closed"):
        index.search("a dog")


def test_a_mistake_in_the_use_of_the_database_is_not_called_damage(tmp_path: Path) -> None:
    database = sqlite3.connect(tmp_path / "any.db")
    database.close()
    with pytest.raises(sqlite3.ProgrammingError), guarded(tmp_path):
        database.execute("SELECT 1")


def test_a_snapshot_of_one_thread_is_none_of_another(folder: Path) -> None:
    store = Store.open(folder)
    inside: list[bool] = []
    with store.snapshot():
        thread = threading.Thread(target=lambda: inside.append(store._database.in_transaction))
        thread.start()
        thread.join()
        assert store._database.in_transaction
    assert inside == [False]
    store.close()


def test_an_image_of_the_index_is_a_term_by_its_content_and_its_file_is_not_read(folder: Path) -> None:
    with clipsearch.open_index(folder) as index:
        (best,) = index.search("a dog", 1)
        assert best.content is not None
        assert best.row is not None
        assert index.store.image(best.row).path == best.path_bytes
        like: list[Term] = [TextTerm("snow", 0.5), ImageTerm(best.path)]
        assert index.search([like[0], ContentTerm(best.content)], 5) == index.search(like, 5)
        assert index.search(ContentTerm(best.content), 1)[0].content == best.content
        with pytest.raises(InputError, match="not in the index any more"):
            index.search(ContentTerm(b"\0" * 16))


def test_threads_search_while_images_come_and_go_and_the_matrix_is_compacted(tmp_path: Path, run: Run) -> None:
    pictures = tmp_path / "pictures"
    for colour in COLOURS:
        paint(pictures / f"{colour}.png", colour)
    make(run, "pictures", "--model", "picturebook", cwd=tmp_path)
    changes, done = [0], threading.Event()

    def ask(index: Index) -> set[int]:
        seen = set()
        while not done.is_set():
            version = index.store.version()
            hits = index.search("a red square", None)
            assert len({hit.path for hit in hits}) == len({hit.row for hit in hits}) == len(hits)
            assert all(hit.score <= 1 for hit in hits)
            seen.add(version)
        return seen

    with clipsearch.open_index(tmp_path / FOLDER) as index, ThreadPoolExecutor(3) as pool:
        asking = [pool.submit(ask, index) for _ in range(3)]
        try:
            kept = index.store.matrix()[0]
            assert index.store.matrix()[0] is kept  # it stays mapped as long as it is the same
            for change in range(4):  # each leaves more than a quarter of the rows dead
                for colour in COLOURS[change::2]:
                    paint(pictures / f"{colour}.png", colour, (65 + change, 48))
                before = index.store.version()
                make(run, cwd=tmp_path)
                assert index.store.version() != before
                changes.append(index.store.contents().dead_rows)
        finally:
            done.set()
        assert len(set().union(*(one.result() for one in asking))) > 1
        assert len(index.search("a red square", None)) == len(COLOURS)
        assert max(changes) < len(COLOURS) / 2  # it was compacted meanwhile
        assert index.store.matrix()[0] is not kept


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each text is tokenised, and under "encoded: TEXT" how often it goes through the text tower."""
    counts: Counter[str] = Counter()
    tokenize: Callable[[TextTower, str], Tokens] = TextTower.tokenize
    encode = TextTower.encode_tokens

    def counted(tower: TextTower, text: str) -> Tokens:
        counts[text] += 1
        return tokenize(tower, text)

    def encoded(tower: TextTower, texts: list[Tokens]) -> Array:
        counts.update(f"encoded: {one.text}" for one in texts)
        return encode(tower, texts)

    monkeypatch.setattr(TextTower, "tokenize", counted)
    monkeypatch.setattr(TextTower, "encode_tokens", encoded)
    return counts


def test_each_text_is_tokenised_and_embedded_once_also_what_to_stay_away_from(folder: Path, seen: Counter[str]) -> None:
    with clipsearch.open_index(folder) as index:
        index.search_many([["a dog", TextTerm("snow", -1)], ["a cat", TextTerm("snow", -1)], "a dog"], 3)
    of_the_query = {text: seen[text] for text in ("a dog", "a cat", "snow")}
    assert of_the_query == {"a dog": 1, "a cat": 1, "snow": 1}
    assert {text: seen[f"encoded: {text}"] for text in of_the_query} == of_the_query


def test_the_vocabulary_is_read_from_the_fiftieth_text_on(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with clipsearch.open_index(folder) as index:
        tower = index._encoders._model.text_encoder  # type: ignore[attr-defined]
        assert isinstance(tower, TextTower)
        slow: list[str] = []

        def by_the_library(_: object, text: str, __: int) -> Tokens:
            slow.append(text)
            return Tokens(text, [0, 1], None)

        monkeypatch.setattr(text_tower, "tokenize", by_the_library)
        index._encoders.embed_texts(["a dog"] * text_tower._FEW)
        assert not slow
        index._encoders.embed_texts(["a cat"])
        assert slow == ["a cat"]
