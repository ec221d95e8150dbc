"""Searching by codes first: what it finds, and what it refuses."""

from __future__ import annotations

import json
import mmap
import os
import shutil
from contextlib import closing
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from conftest import SAMPLES, Run
from tiny import FixedEncoders

from clipsearch.errors import IndexDamagedError, InputError
from clipsearch.index.format import CODES, HEADER_BYTES, ModelRecord, Record
from clipsearch.index.matrix_file import announce
from clipsearch.index.reading import Store
from clipsearch.index.writing import Writer
from clipsearch.search import approximate, ranking
from clipsearch.search.index import Index

Floats = npt.NDArray[np.float32]
ROWS, DIM = 6000, 128


def vectors() -> Floats:
    """Unit vectors in several cones within a larger one."""
    rng = np.random.default_rng(0)
    middles = 2 + rng.standard_normal((20, DIM))
    rows = middles[rng.integers(0, 20, ROWS)] + rng.standard_normal((ROWS, DIM))
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An index of vectors with codes, all but the last 100."""
    home, rows = tmp_path_factory.mktemp("made") / "index", vectors()
    with Writer.locked(home) as writer:
        writer.set_model(ModelRecord("tiny", None, "f", DIM))
        writer.want_codes(wanted=True)
        for part in (slice(0, ROWS - 100), slice(ROWS - 100, ROWS)):
            names = [f"/{'odd' if number % 2 else 'even'}/{number}.jpg" for number in range(ROWS)[part]]
            writer.add([Record(name.encode(), None, 1, 1, name.encode()) for name in names], rows[part])
            writer.commit()
            if part.start == 0:
                writer.make_codes()
    return home


@pytest.fixture
def folder(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it; few of its rows are compared exactly."""
    monkeypatch.setattr(approximate, "_CANDIDATES", 400)
    shutil.copytree(made, tmp_path / "index")
    return tmp_path / "index"


def query_near(row: int) -> Floats:
    near = vectors()[row] + 0.5 * vectors()[row - 1]
    return np.asarray(near / np.linalg.norm(near), np.float32)[np.newaxis]


def found(folder: Path, query: Floats, **options: object) -> list[tuple[bytes, float]]:
    with Index(Store.open(folder), FixedEncoders(query)) as index:
        hits = index.search("anything", **options)  # type: ignore[arg-type]
    return [(os.fsencode(hit.path), hit.score) for hit in hits]


@pytest.mark.parametrize("options", [{}, {"k": 1}, {"k": 12}, {"under": "/odd"}, {"min_score": 0.9}])
def test_the_best_are_those_of_an_exact_search(folder: Path, options: dict[str, object]) -> None:
    same = every = 0
    for row in range(17, ROWS, 500):
        exactly = found(folder, query_near(row), **options)
        nearly = found(folder, query_near(row), approximate=True, **options)
        assert len(exactly) == len(nearly)
        same += len(set(exactly) & set(nearly))  # names and scores, to the last digit
        every += len(exactly)
    assert every >= 12
    assert same >= 0.95 * every


def test_only_candidates_are_compared_exactly(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With as many candidates as hits, and codes that say nothing, it could not find what it finds."""
    monkeypatch.setattr(approximate, "_CANDIDATES", 10)
    monkeypatch.setattr(approximate, "_PER_HIT", 1)
    monkeypatch.setattr(approximate, "_SHARE", ROWS)
    exactly = {path for path, _ in found(folder, query_near(100))}
    few = {path for path, _ in found(folder, query_near(100), approximate=True)}
    assert exactly != few
    assert exactly & few


@pytest.mark.parametrize(("share", "candidates"), [(ROWS, 10), (20, ROWS // 20), (40, ROWS // 40)])
def test_of_more_images_more_are_candidates(
    folder: Path, monkeypatch: pytest.MonkeyPatch, share: int, candidates: int
) -> None:
    monkeypatch.setattr(approximate, "_CANDIDATES", 10)
    monkeypatch.setattr(approximate, "_SHARE", share)
    with closing(Store.open(folder)) as store, store.snapshot():
        matrix, _ = store.matrix()
        chosen = approximate.Approximate(store, matrix).candidates(query_near(100), 0, None, ROWS)
    assert chosen is not None
    assert candidates <= np.count_nonzero(chosen[: ROWS - 100]) < 1.1 * candidates  # those that tie are among them
    assert chosen[ROWS - 100 :].all()


@pytest.mark.parametrize(
    ("options", "few", "announced"),
    [
        ({"approximate": True}, 8, True),
        ({"files": [f"/odd/{number}.jpg" for number in range(1, 101, 2)]}, 64, True),
        ({"approximate": True}, 64, False),
        ({"under": "/odd"}, 8, False),
        ({}, 8, False),
    ],
)
def test_the_system_is_told_of_few_rows_only(
    folder: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, object], few: int, *, announced: bool
) -> None:
    told: list[npt.NDArray[np.int64]] = []
    monkeypatch.setattr(ranking, "_FEW", few)
    monkeypatch.setattr(ranking, "announce", lambda _, rows: told.append(rows))
    hits = found(folder, query_near(5), **options)
    assert len(told) == announced
    if announced:
        assert len(told[0]) * few < ROWS
        assert {int(Path(os.fsdecode(path)).stem) for path, _ in hits} <= set(told[0].tolist())


class Told:
    """What a mapping was told."""

    def __init__(self) -> None:
        self.pages: list[int] = []

    def madvise(self, advice: int, start: int, size: int) -> None:
        assert advice == mmap.MADV_WILLNEED
        assert start % mmap.PAGESIZE == size % mmap.PAGESIZE == 0
        self.pages += range(start // mmap.PAGESIZE, (start + size) // mmap.PAGESIZE)


@pytest.mark.skipif(not hasattr(mmap, "MADV_WILLNEED"), reason="the system takes no such advice")
@pytest.mark.parametrize("columns", [7, 512, 768, 5000])
def test_the_pages_of_announced_rows_are_named_once_and_no_others(columns: int) -> None:
    class Mapping(np.ndarray):
        _mmap = Told()

    rows = np.flatnonzero(np.random.default_rng(columns).random(500) < 0.1)
    mapping = np.empty((500, columns), np.float16).view(Mapping)
    size = 2 * columns
    touched = {byte // mmap.PAGESIZE for row in rows for byte in range(128 + row * size, 128 + (row + 1) * size)}
    announce(mapping, rows)
    assert mapping._mmap.pages == sorted(touched)


def test_rows_are_read_where_no_advice_is_taken(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError

    with closing(Store.open(folder)) as store:
        matrix, _ = store.matrix()
        announce(matrix, np.arange(0, ROWS, 500))  # as it is
        announce(matrix, np.empty(0, np.int64))
        announce(np.asarray(matrix[:5]), np.arange(5))  # in memory
        monkeypatch.setattr(Told, "madvise", refuse)
        monkeypatch.setattr(matrix, "_mmap", Told())
        announce(matrix, np.arange(5))
        monkeypatch.delattr(mmap, "MADV_WILLNEED", raising=False)
        announce(matrix, np.arange(5))


def test_rows_without_codes_are_compared_exactly(folder: Path) -> None:
    for row in range(ROWS - 100, ROWS, 9):
        assert found(folder, vectors()[row : row + 1], k=1, approximate=True)[0][0].endswith(f"/{row}.jpg".encode())


def test_few_images_are_compared_exactly(folder: Path) -> None:
    query = query_near(5)
    listed = {"files": [f"/odd/{number}.jpg" for number in range(1, 801, 2)]}
    assert found(folder, query, approximate=True, **listed) == found(folder, query, **listed)


def test_all_hits_are_compared_exactly(folder: Path) -> None:
    query = query_near(5)
    assert found(folder, query, k=None, approximate=True) == found(folder, query, k=None)


def test_codes_of_other_vectors_are_refused(folder: Path) -> None:
    content = (folder / CODES.name).read_bytes()
    (folder / CODES.name).write_bytes(content[:HEADER_BYTES] + content[:HEADER_BYTES:-1] + content[-1:])
    with pytest.raises(IndexDamagedError, match="codes") as caught:
        found(folder, query_near(5), approximate=True)
    assert "codes-again" in str(caught.value.hints)
    assert found(folder, query_near(5))


def test_an_index_without_codes_and_one_with_regions_are_refused(folder: Path) -> None:
    with Writer.locked(folder) as writer:
        writer.begin_regions(4)
        writer.commit()
    with pytest.raises(InputError, match="egions"):
        found(folder, query_near(5), approximate=True)
    assert found(folder, query_near(5), approximate=True, whole=True)
    with Writer.locked(folder) as writer:
        writer.want_codes(wanted=False)
        writer.commit()
    with pytest.raises(InputError, match="no codes"):
        found(folder, query_near(5), approximate=True, whole=True)


def test_the_commands(tmp_path: Path, run: Run) -> None:
    """On a few samples, which are compared exactly."""

    def done(*arguments: str) -> bytes:
        ended = run(*arguments, "--index", "here", cwd=tmp_path)
        assert ended.returncode == 0, ended.stderr
        return ended.stdout

    done("index", str(SAMPLES / "dogs"), "--codes")
    assert json.loads(done("status", "--json"))["codes"] > 5
    for command in (["query", "a dog"], ["similar", str(SAMPLES / "dogs" / "dog_1.png")]):
        assert done(*command, "--json", "--approximate") == done(*command, "--json")
    done("index", "--no-codes")
    assert json.loads(done("status", "--json"))["codes"] is None
    refused = run("query", "a dog", "--index", "here", "--approximate", cwd=tmp_path)
    assert refused.returncode == 2
    assert b"index --codes" in refused.stderr
