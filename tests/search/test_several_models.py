"""Several models for one folder: an index for each, side by side."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import families
import pytest
from conftest import SAMPLES, Run, index

from clipsearch.api import load_model


@pytest.fixture
def two(tmp_path: Path, run: Run) -> tuple[Path, Path]:
    """A folder with pictures, an index of picturebook and one of a SigLIP beside it; and that model."""
    folder = tmp_path / "two"
    shutil.copytree(SAMPLES / "dogs", folder / "dogs")
    model = families.make("siglip", tmp_path / "siglip")
    index(run, "dogs", "--model", "picturebook", cwd=folder)
    index(run, "dogs", "--model", model, "--index", ".clipsearch-siglip", cwd=folder)
    return folder, model


def hits(run: Run, *arguments: str, cwd: Path) -> list[dict[str, Any]]:
    done = run("query", "a dog is sleeping", "-k", "all", "--json", *arguments, cwd=cwd)
    assert done.returncode == 0, done.stderr.decode()
    return list(json.loads(done.stdout))


def test_each_index_answers_with_its_own_model(two: tuple[Path, Path], run: Run) -> None:
    folder, _ = two
    some, others = hits(run, cwd=folder), hits(run, "--index", ".clipsearch-siglip", cwd=folder)
    assert len(some) == len(others) == 9
    assert [hit["score"] for hit in some] != [hit["score"] for hit in others]
    assert index(run, cwd=folder)["reused"] == 9
    assert index(run, "--index", ".clipsearch-siglip", cwd=folder)["reused"] == 9


def test_comparing_two_models_takes_the_vectors_of_both_indexes(two: tuple[Path, Path], run: Run) -> None:
    folder, model = two
    captions = "".join(
        f"dogs/{path.name},a dog number {i}\n" for i, path in enumerate(sorted((folder / "dogs").iterdir()))
    )
    (folder / "captions.csv").write_text("image,caption\n" + captions)
    done = run("eval", "captions.csv", "--compare", "picturebook", model, "--json", "--verbose", cwd=folder)
    assert done.returncode == 0, done.stderr.decode()
    assert [row["model"] for row in json.loads(done.stdout)] == ["picturebook"] * 2 + [str(model)] * 2
    said = done.stderr.decode()
    assert said.count("pictures: 9 of 9 known to the index") == 2
    assert "index: .clipsearch-siglip" in said.replace(f"{folder.resolve()}/", "")
    assert "device:" not in said  # neither model was loaded


def test_a_model_is_found_in_the_index_beside_the_nearest_one(
    two: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    folder, model = two
    monkeypatch.chdir(folder / "dogs")
    with load_model(str(model)) as embedder:
        assert embedder.uses_index
    with load_model(str(model), folder) as embedder:  # asked for the index of the other model
        assert not embedder.uses_index
    (folder / ".clipsearch-broken").mkdir()
    (folder / ".clipsearch-broken" / "index.db").write_text("no database")
    shutil.rmtree(folder / ".clipsearch-siglip")
    with load_model(str(model)) as embedder:
        assert not embedder.uses_index
    other = families.make("siglip2", tmp_path / "other")
    with load_model(str(other)) as embedder:
        assert not embedder.uses_index


def test_an_index_of_one_model_is_not_extended_with_another(two: tuple[Path, Path], run: Run) -> None:
    folder, model = two
    done = run("index", "dogs", "--model", model, cwd=folder)
    assert (done.returncode, done.stdout) == (2, b"")
    assert b"--model picturebook" in done.stderr
    assert b"--index DIR" in done.stderr
    assert len(hits(run, cwd=folder)) == 9
