"""The sample pictures are what their README says."""

from __future__ import annotations

import csv
import os

import numpy as np
from conftest import SAMPLES
from PIL import Image

from clipsearch.images.finding import find_images


def test_samples_are_many_small_and_captioned() -> None:
    files = {file.path.decode(): file for file in find_images(os.fsencode(SAMPLES))}
    assert len(files) >= 200
    assert sum(file.size for file in files.values()) <= 8_000_000
    with (SAMPLES / "captions.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert {str(SAMPLES / row["image"]) for row in rows} == set(files)
    assert all(row["caption"].strip() for row in rows)
    assert {path.rsplit(".", 1)[1] for path in files} == {"png", "jpg", "webp"}
    for path in files:
        with Image.open(path) as image:
            assert min(image.size) >= 256


def test_there_are_nine_dogs_in_different_places() -> None:
    with (SAMPLES / "captions.csv").open(encoding="utf-8", newline="") as file:
        captions = {row["image"]: row["caption"] for row in csv.DictReader(file)}
    dogs = sorted((name, caption) for name, caption in captions.items() if name.startswith("dogs/"))
    assert [name.split(".")[0] for name, _ in dogs] == [f"dogs/dog_{i}" for i in range(9)]
    for i, (_, caption) in enumerate(dogs):
        assert ("sleeping", "running", "sitting")[i // 3] in caption
    places = [caption.split("ing ", 1)[1] for _, caption in dogs]
    assert len(set(places)) == 9
    assert not any("dog" in caption for name, caption in captions.items() if not name.startswith("dogs/"))


def test_no_two_samples_are_the_same_image() -> None:
    seen = {np.asarray(Image.open(path).convert("RGB").resize((24, 24))).tobytes() for path in SAMPLES.glob("*/*.*")}
    assert len(seen) == len(list(SAMPLES.glob("*/*.*")))
