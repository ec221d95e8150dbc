"""`clipsearch export` and `clipsearch import`: the real commands, and other programs that read what they write."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import REPOSITORY, SAMPLES, Run, index, paint
from tiny import update

import clipsearch
from clipsearch.exchange.reading import read_paths
from clipsearch.index.format import FOLDER


@pytest.fixture(scope="module")
def dogs(tmp_path_factory: pytest.TempPathFactory, run: Run) -> Path:
    """A folder with a few of the sample pictures, their index, and an export of it. Tests read it only."""
    folder = tmp_path_factory.mktemp("few")
    for path in sorted((SAMPLES / "dogs").iterdir())[:4]:
        (folder / "dogs").mkdir(exist_ok=True)
        shutil.copy2(path, folder / "dogs")
    paint(folder / "dogs" / "late.jpg", "red", (80, 48))
    assert index(run, "dogs", "--model", "picturebook", cwd=folder)["embedded"] == 5
    done = run("export", "-o", "dogs.npy", cwd=folder)
    assert (done.returncode, done.stdout) == (0, b""), done.stderr.decode()
    return folder


def imported(run: Run, *arguments: str | Path, cwd: Path) -> dict[str, Any]:
    done = run("import", *arguments, "--json", cwd=cwd)
    assert done.returncode == 0, done.stderr.decode()
    summary: dict[str, Any] = json.loads(done.stdout)
    return summary


def refused(run: Run, *arguments: str | Path, cwd: Path) -> str:
    """One line that says why; nothing is written."""
    before = sorted(os.listdir(cwd))
    done = run("import", *arguments, cwd=cwd)
    assert (done.returncode, done.stdout) == (2, b"")
    assert sorted(os.listdir(cwd)) == before
    lines = done.stderr.decode().splitlines()
    return lines[-1]


def test_an_export_says_what_the_index_knows(dogs: Path) -> None:
    with (dogs / "dogs.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    with clipsearch.open_index(dogs) as opened:
        records = list(opened.store.records())
        matrix = opened.store.matrix()[0]
        assert [row["path"] for row in rows] == [os.fsdecode(record.path) for record in records]
        for number, (row, record) in enumerate(zip(rows, records, strict=True)):
            assert record.hash is not None
            assert row == {
                "row": str(number),
                "path": os.fsdecode(record.path),
                "width": str(record.width),
                "height": str(record.height),
                "bytes": str(os.path.getsize(record.path)),
                "taken_at": record.taken_at or "",
                "date_source": record.date_source or "",
                "mtime_ns": str(os.stat(record.path).st_mtime_ns),
                "hash": record.hash.hex(),
            }
            np.testing.assert_allclose(np.load(dogs / "dogs.npy")[number], matrix[record.row], atol=1e-3)
        model = opened.store.model()
    assert model is not None
    about = json.loads((dogs / "dogs.json").read_text())
    assert (about["model"], about["fingerprint"], about["rows"]) == ("picturebook", model.fingerprint, 5)


def test_filters_and_formats(run: Run, dogs: Path, tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    where = ("--index", dogs, "--glob", "late.jpg")
    for form, dtype in (("jsonl", "float16"), ("parquet", "float32")):
        done = run("export", "-o", form, "--format", form, "--dtype", dtype, *where, cwd=tmp_path)
        assert done.returncode == 0, done.stderr.decode()
        assert read_paths(tmp_path / form / f"embeddings.{form}") == [os.fsencode(dogs / "dogs" / "late.jpg")]
        vectors = np.load(tmp_path / form / "embeddings.npy")
        assert (vectors.shape, vectors.dtype) == ((1, 512), dtype)
    done = run("export", "-o", "none.npy", "--min-width", "9999", "--index", dogs, cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.count(b"\n") == 1
    done = run("export", "-o", "jsonl", "--format", "jsonl", *where, cwd=tmp_path)
    assert done.returncode == 2
    assert b"--force" in done.stderr
    assert sorted(os.listdir(tmp_path)) == ["jsonl", "parquet"]


def test_what_was_exported_comes_back_and_is_never_embedded_again(run: Run, dogs: Path, tmp_path: Path) -> None:
    summary = imported(run, dogs / "dogs.npy", dogs / "dogs.csv", cwd=tmp_path)
    assert summary == {
        "imported": 5,
        "known": 0,
        "skipped": [],
        "images": 5,
        "roots": [{"path": str(dogs / "dogs")}],
        "compared": 5,
        "lowest_cosine": pytest.approx(1, abs=1e-3),
    }
    again = index(run, cwd=tmp_path)
    assert (again["embedded"], again["reused"], again["images"]) == (0, 5, 5)
    answers = [run("query", "a dog", "--json", "--index", place, cwd=tmp_path).stdout for place in (dogs, tmp_path)]
    one, other = map(json.loads, answers)
    assert one == other
    assert run("status", "--verify", cwd=tmp_path).returncode == 0


def test_the_layout_of_clip_retrieval_is_imported(run: Run, dogs: Path, tmp_path: Path) -> None:
    pa, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    paths, vectors = read_paths(dogs / "dogs.csv"), np.load(dogs / "dogs.npy").astype(np.float16)
    for folder in ("img_emb", "metadata"):
        (tmp_path / "out" / folder).mkdir(parents=True)
    for number, part in ((0, slice(0, 3)), (1, slice(3, 5))):
        np.save(tmp_path / "out" / "img_emb" / f"img_emb_{number}.npy", vectors[part])
        table = pa.table(
            {"image_path": [os.fsdecode(path) for path in paths[part]], "caption": ["x"] * len(paths[part])}
        )
        parquet.write_table(table, tmp_path / "out" / "metadata" / f"metadata_{number}.parquet")
    assert "Name it: --model" in refused(run, "--clip-retrieval", "out", cwd=tmp_path)
    summary = imported(run, "--clip-retrieval", "out", "--model", "picturebook", cwd=tmp_path)
    assert (summary["imported"], summary["images"]) == (5, 5)


def test_an_existing_index_takes_more_of_its_own_model_only(
    run: Run, dogs: Path, pictures: Path, tmp_path: Path
) -> None:
    files = (dogs / "dogs.npy", dogs / "dogs.csv")
    update(tmp_path / FOLDER, pictures)
    assert "was made with model tiny, not picturebook" in refused(run, *files, cwd=tmp_path)
    said = refused(run, *files, "--model", "openai", cwd=tmp_path)
    assert re.search(r"\btiny\b.* openai\b", said)
    shutil.copytree(dogs, tmp_path / "copy")
    summary = imported(run, *files, cwd=tmp_path / "copy")
    assert (summary["imported"], summary["images"]) == (5, 10)
    assert run("status", "--verify", cwd=tmp_path / "copy").returncode == 0


def test_what_cannot_be_imported_is_told_in_one_line(run: Run, dogs: Path, tmp_path: Path) -> None:
    vectors = dogs / "dogs.npy"
    assert "--clip-retrieval DIR" in refused(run, vectors, cwd=tmp_path)
    assert "no output of clip-retrieval" in refused(
        run, "--clip-retrieval", dogs, "--model", "picturebook", cwd=tmp_path
    )
    assert "Cannot read missing.csv" in refused(run, vectors, "missing.csv", cwd=tmp_path)
    assert "not on this disk" in refused(run, vectors, dogs / "dogs.csv", "--model", "openai", cwd=tmp_path)
    (tmp_path / "swapped.txt").write_bytes(b"".join(path + b"\n" for path in reversed(read_paths(dogs / "dogs.csv"))))
    assert "names in another order" in refused(run, vectors, "swapped.txt", cwd=tmp_path)


def test_the_example_with_faiss_finds_what_a_query_finds(
    run: Run, sample_index: Path, environment: dict[str, str], tmp_path: Path
) -> None:
    pytest.importorskip("faiss")
    text = (REPOSITORY / "docs" / "exchange.md").read_text("utf-8").split("## FAISS")[1]
    (code,) = re.findall(r"^```python\n(.*?)^```$", text.split("\n## ")[0], re.MULTILINE | re.DOTALL)
    done = run("export", "-o", "vectors.npy", "--index", sample_index, cwd=tmp_path)
    assert done.returncode == 0, done.stderr.decode()
    found = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=environment | {"CLIPSEARCH_INDEX": str(sample_index)},
        capture_output=True,
        check=False,
    )
    assert found.returncode == 0, found.stderr.decode()
    query = run(
        "query", "a dog is sleeping", "-k", "3", "--json", cwd=tmp_path, env={"CLIPSEARCH_INDEX": str(sample_index)}
    )
    wanted = json.loads(query.stdout)
    printed = [line.split(" ", 1) for line in found.stdout.decode().splitlines()]
    assert [path for _, path in printed] == [hit["path"] for hit in wanted]
    assert [float(score) for score, _ in printed] == pytest.approx([hit["score"] for hit in wanted], abs=5e-4)


def test_nothing_is_imported_into_a_part(dogs: Path, tmp_path: Path, run: Run) -> None:
    update(tmp_path / "i", dogs / "dogs", part="1/2")
    done = run("import", dogs / "dogs.npy", dogs / "dogs.csv", "--index", tmp_path / "i", cwd=dogs)
    assert (done.returncode, b"holds part 1/2 of its folders only. Make a second" in done.stderr) == (2, True), (
        done.stderr
    )
