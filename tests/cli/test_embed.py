"""`clipsearch embed`: the real command on real pictures."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from conftest import SAMPLES, Run, paint
from fresh import COMMAND, HEAVY, loaded_by

import clipsearch
from clipsearch.models.disk.files import locate
from clipsearch.models.in_torch.encoder import Encoder

MODEL = ("--model", "picturebook")


def embedded(run: Run, *arguments: str | Path | bytes, cwd: Path, code: int = 0) -> str:
    done = run("embed", *arguments, cwd=cwd)
    assert (done.returncode, done.stdout) == (code, b""), done.stderr.decode()
    return done.stderr.decode()


def names(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", errors="surrogateescape", newline="") as file:
        return list(csv.DictReader(file))


def test_images_get_the_vectors_of_the_model_and_bad_ones_are_left_out_of_both(run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    for i, path in enumerate(sorted((SAMPLES / "dogs").glob("*.webp"))[:2]):
        folder.mkdir(exist_ok=True)
        shutil.copy(path, folder / f"{i}.webp")
    (folder / "1a.png").write_bytes(b"no picture")
    odd = os.fsencode(folder) + b"/z\xff\n.png"
    paint(tmp_path / "odd.png", "red")
    os.rename(os.fsencode(tmp_path / "odd.png"), odd)
    said = embedded(run, "in", "in/0.webp", "-o", "v.npy", "--strict", *MODEL, cwd=tmp_path, code=2)
    unread, wrote = said.splitlines()
    assert "in/1a.png: " in unread
    assert re.search(r"\b3 x 512 float32\b.* v\.npy\b.* 1 ", wrote)
    assert sorted(os.listdir(tmp_path)) == ["in", "v.csv", "v.json", "v.npy"]

    assert [(row["row"], os.fsencode(row["path"])) for row in names(tmp_path / "v.csv")] == [
        ("0", os.fsencode(folder / "0.webp")),
        ("1", os.fsencode(folder / "1.webp")),
        ("2", odd),
    ]
    about = json.loads((tmp_path / "v.json").read_text())
    assert {name: about[name] for name in ("model", "rows", "dim", "dtype")} == {
        "model": "picturebook",
        "rows": 3,
        "dim": 512,
        "dtype": "float32",
    }
    vectors = np.load(tmp_path / "v.npy")
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    assert ((vectors[:2] * reference(folder)).sum(axis=1) > 0.9999).all()


def reference(folder: Path) -> npt.NDArray[Any]:
    """(2, D) what transformers makes of the two pictures."""
    import torch
    from PIL import Image
    from transformers import AutoImageProcessor, CLIPModel

    model = locate("picturebook").folder
    processor = AutoImageProcessor.from_pretrained(model, backend="pil")
    pictures = [Image.open(folder / f"{i}.webp").convert("RGB") for i in (0, 1)]
    with torch.inference_mode():
        out = CLIPModel.from_pretrained(model).get_image_features(**processor(pictures, return_tensors="pt"))
    return np.asarray(torch.nn.functional.normalize(out.pooler_output, dim=1))


def test_images_of_an_index_need_no_model(sample_index: Path, environment: dict[str, str], tmp_path: Path) -> None:
    target = tmp_path / "v.npy"
    arguments = ["clipsearch", "embed", "sample-images/dogs", "-o", str(target)]
    assert not loaded_by(COMMAND.format(arguments=arguments), environment, sample_index) & {"torch", "transformers"}
    with clipsearch.open_index(sample_index) as index:
        matrix = index.store.matrix()[0]
        for row, vector in zip(names(tmp_path / "v.csv"), np.load(target), strict=True):
            number = index.store.row_of(os.fsencode(row["path"]))
            np.testing.assert_allclose(vector, matrix[number], atol=1e-3)


def test_texts_get_the_vectors_that_queries_have(run: Run, tmp_path: Path) -> None:
    (tmp_path / "texts.txt").write_text('a "red" car, at night\n\nsmørrebrød\n', "utf-8")
    embedded(run, "--text", "a dog", "--texts-from", "texts.txt", "-o", "t.npy", *MODEL, cwd=tmp_path)
    texts = ["a dog", 'a "red" car, at night', "smørrebrød"]
    assert [row["text"] for row in names(tmp_path / "t.csv")] == texts
    wanted = Encoder(locate("picturebook"), device="cpu").encode_texts(texts)
    np.testing.assert_allclose(np.load(tmp_path / "t.npy"), wanted, atol=1e-5)

    other = ("--text", "a cat", "-o", "t.npy", "--dtype", "float16", *MODEL)
    assert "t.npy" in embedded(run, *other, cwd=tmp_path, code=2)
    assert len(np.load(tmp_path / "t.npy")) == 3
    embedded(run, *other, "--force", cwd=tmp_path)
    assert [row["text"] for row in names(tmp_path / "t.csv")] == ["a cat"]
    assert np.load(tmp_path / "t.npy").dtype == np.float16


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ([], "--text TEXT"),
        (["--text", "a dog", "picture.png"], "--text TEXT"),
        (["missing"], "missing"),
        (["empty"], "empty"),
        (["--text", " "], "blank"),
        (["--texts-from", "missing"], "missing"),
        (["bad"], "v.npy"),
    ],
)
def test_what_cannot_be_done_is_told_and_writes_nothing(
    arguments: list[str], reason: str, run: Run, tmp_path: Path
) -> None:
    paint(tmp_path / "picture.png", "red")
    (tmp_path / "empty").mkdir()
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "bad.png").write_bytes(b"bad")
    said = embedded(run, *arguments, "-o", "v.npy", *MODEL, cwd=tmp_path, code=2)
    assert reason in said
    assert sorted(os.listdir(tmp_path)) == ["bad", "empty", "picture.png"]


@pytest.mark.parametrize("command", ["embed", "export", "import"])
def test_help_loads_no_library(command: str, environment: dict[str, str], tmp_path: Path) -> None:
    loaded = loaded_by(COMMAND.format(arguments=["clipsearch", command, "--help"]), environment, tmp_path)
    assert not loaded & (HEAVY | {"numpy", "tokenizers", "pyarrow"})
