"""`--distinct`: one hit for images that show the same, against what a plain look at all pairs says."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from conftest import SAMPLES, Run, index

import clipsearch
from clipsearch.errors import InputError
from clipsearch.search.hit import Hit
from clipsearch.search.index import Index

PB = ("--model", "picturebook")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, run: Run) -> Path:
    """Sixty pictures; of the dogs six copies each in `copies`. Tests read it only."""
    folder = tmp_path_factory.mktemp("distinct")
    for name in ("dogs", "cats", "sea", "weather"):
        shutil.copytree(SAMPLES / name, folder / "p" / name)
    for path in sorted((SAMPLES / "dogs").iterdir()):
        for number in range(6):
            (folder / "p" / "copies").mkdir(exist_ok=True)
            shutil.copy(path, folder / "p" / "copies" / f"{number}-{path.name}")
    index(run, "p", *PB, cwd=folder)
    return folder


def plainly(opened: Index, hits: Sequence[Hit], threshold: float) -> list[tuple[bytes, int]]:
    """Of all hits those that stand for themselves, and for how many they stand."""
    matrix = opened.store.matrix()[0].astype(np.float32)
    matrix /= np.linalg.norm(matrix, axis=1, keepdims=True)
    records = {record.path: record for record in opened.store.records()}
    kept: list[tuple[bytes, int]] = []
    for hit in hits:
        record = records[hit.path_bytes]
        for place, (path, number) in enumerate(kept):
            close = threshold < 1 and float(matrix[records[path].row or 0] @ matrix[record.row or 0]) >= threshold
            if close or records[path].hash == record.hash:
                kept[place] = path, number + 1
                break
        else:
            kept.append((hit.path_bytes, 0))
    return kept


@pytest.mark.parametrize("threshold", [1.0, 0.95, 0.7, 0.3])
@pytest.mark.parametrize("query", ["a dog is sleeping", "a ship at sea"])
def test_each_kind_comes_once_and_says_for_how_many_it_stands(folder: Path, threshold: float, query: str) -> None:
    with clipsearch.open_index(folder) as opened:
        expected = plainly(opened, opened.search(query, None), threshold)
        found = opened.search(query, None, distinct=threshold)
        assert [(hit.path_bytes, hit.others) for hit in found] == expected
        assert [hit.rank for hit in found] == list(range(1, len(found) + 1))
        if threshold == 1:
            assert sum(hit.others == 6 for hit in found) == len(list((SAMPLES / "dogs").iterdir()))
        few = opened.search(query, 4, distinct=threshold)
        assert [hit.path_bytes for hit in few] == [path for path, _ in expected[:4]]
        assert all(hit.others is not None for hit in few)


def test_the_number_of_the_others_does_not_depend_on_k(folder: Path) -> None:
    with clipsearch.open_index(folder) as opened:
        for threshold in (1.0, 0.9):
            every = opened.search("a dog", None, distinct=threshold)
            for k in (1, 3, 7):
                few = opened.search("a dog", k, distinct=threshold)
                assert [hit.path for hit in few] == [hit.path for hit in every[:k]]
            assert opened.search("a dog", 1, distinct=1)[0].others == 6


def test_filters_cut_offs_and_many_queries_hold_for_what_is_counted(folder: Path) -> None:
    with clipsearch.open_index(folder) as opened:
        hits = opened.search("a dog", None, distinct=1, under=folder / "p" / "copies")
        assert {hit.others for hit in hits} == {5}
        least = opened.search("a dog", 9)[8].score
        assert all(hit.score >= least for hit in opened.search("a dog", None, min_score=least, distinct=0.9))
        many = opened.search_many(["a dog", "the sea"], 3, distinct=1)
        for query, found in zip(("a dog", "the sea"), many, strict=True):
            alone = opened.search(query, 3, distinct=1)
            assert [(hit.path, hit.others) for hit in found] == [(hit.path, hit.others) for hit in alone]
        assert opened.search("a dog", 3)[0].others is None


def test_similar_takes_it_too(folder: Path) -> None:
    dog = next(iter(sorted((folder / "p" / "dogs").iterdir())))
    with clipsearch.open_index(folder) as opened:
        best = opened.similar(dog, 2, distinct=1)
        assert best[0].path.name.endswith(dog.name)
        assert best[0].others == 5  # the picture itself takes no part
        assert not best[1].path.name.endswith(dog.name)


@pytest.mark.parametrize("threshold", [0, -0.5, 1.5, float("nan")])
def test_a_threshold_that_means_nothing_is_refused(folder: Path, threshold: float) -> None:
    with clipsearch.open_index(folder) as opened, pytest.raises(InputError, match=f"{threshold:g}"):
        opened.search("a dog", distinct=threshold)


@pytest.mark.parametrize(
    ("arguments", "threshold"),
    [
        (["--distinct", "a dog"], 1),
        (["a dog", "--distinct"], 1),
        (["a dog", "--distinct", "-k", "10"], 1),
        (["a dog", "--distinct", "0.9"], 0.9),
        (["--distinct=.9", "a dog"], 0.9),
        (["--distinct", "--", "a dog"], 1),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_the_number_may_be_left_out(folder: Path, run: Run, arguments: list[str], threshold: float) -> None:
    done = run("query", "--json", *arguments, cwd=folder)
    assert done.returncode == 0, done.stderr.decode()
    with clipsearch.open_index(folder) as opened:
        expected = [(os.fspath(hit.path), hit.others) for hit in opened.search("a dog", 10, distinct=threshold)]
    assert [(str(folder / hit["path"]), hit["others"]) for hit in json.loads(done.stdout)] == expected


def test_every_format_tells_the_number(folder: Path, run: Run) -> None:
    def lines(form: str, *more: str) -> list[str]:
        return run("query", "a dog", "-k2", "--format", form, *more, cwd=folder).stdout.decode().splitlines()

    assert [line.split("\t")[4] for line in lines("tsv", "--distinct")] == ["6", "6"]
    assert [len(line.split("\t")) for line in lines("tsv")] == [4, 4]
    assert lines("csv", "--distinct")[0].endswith(",date,date_source,others")
    assert lines("table", "--distinct")[0].endswith("others")
    assert [line.split()[-1] for line in lines("table", "--distinct")[1:]] == ["+6", "+6"]
    assert "others" not in lines("table")[0]
