"""Searching by a part of an image: `similar --box`, `query --image --box`."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from conftest import SAMPLES, Run
from PIL import Image

import clipsearch


@pytest.fixture
def two_halves(tmp_path: Path) -> Path:
    """An image with a dog on its left and a car on its right."""
    both = Image.new("RGB", (800, 400), "white")
    for place, name in enumerate(("dogs/dog_0.webp", "vehicles/red_car_city.png")):
        with Image.open(SAMPLES / name) as image:
            both.paste(image.convert("RGB").resize((400, 400)), (400 * place, 0))
    both.save(tmp_path / "both.png")
    return tmp_path / "both.png"


@pytest.mark.parametrize("left", [("0,0,400,400", "400,0,800,400"), ("0%,0%,50%,100%", "50%,0%,100%,100%")])
def test_a_part_of_an_image_is_searched_as_if_it_were_a_file_of_its_own(
    left: tuple[str, str], two_halves: Path, sample_index: Path, run: Run, tmp_path: Path
) -> None:
    for box, kind, edges in zip(left, ("dogs", "vehicles"), ((0, 0, 400, 400), (400, 0, 800, 400)), strict=True):
        with Image.open(two_halves) as image:
            image.crop(edges).save(tmp_path / "part.png")
        wanted = json.loads(run("similar", tmp_path / "part.png", "--json", cwd=sample_index).stdout)
        for arguments in (["similar", two_halves, "--box", box], ["query", "--image", two_halves, "--box", box]):
            assert json.loads(run(*arguments, "--json", cwd=sample_index).stdout) == wanted
        assert f"/{kind}/" in wanted[0]["path"]


def test_several_images_take_a_box_each(two_halves: Path, sample_index: Path, run: Run) -> None:
    images = ["--image", two_halves, "--image", f"-1:{two_halves}"]
    boxes = ["--box", "0%,0%,50%,100%", "--box", "50%,0%,100%,100%"]
    hits = json.loads(run("query", *images, *boxes, "-k", "1", "--json", cwd=sample_index).stdout)
    assert "/dogs/" in hits[0]["path"]
    done = run("query", *images, *boxes[:2], cwd=sample_index)
    assert (done.returncode, done.stdout) == (2, b"")
    assert b"--box" in done.stderr


@pytest.mark.parametrize("box", ["0,0,801,400", "9,9,5,20", "10,10,10,20", "1,2,3", ""])
def test_a_box_that_is_none_of_the_image_is_one_line(box: str, two_halves: Path, sample_index: Path, run: Run) -> None:
    done = run("similar", two_halves, "--box", box, cwd=sample_index)
    assert (done.returncode, done.stdout) == (2, b"")
    assert len(done.stderr.splitlines()) == 1


def test_a_part_of_an_image_that_the_index_knows_is_embedded(sample_index: Path) -> None:
    with clipsearch.open_index(sample_index) as index:
        dog = sample_index / "sample-images" / "dogs" / "dog_0.webp"
        whole = index.similar(dog, 3)
        parts = index.similar(dog, 3, box=clipsearch.Box(0, 0, 25, 25, percent=True))
        assert [hit.score for hit in whole] != [hit.score for hit in parts]
        everything = index.similar(dog, 3, box=clipsearch.Box(0, 0, 100, 100, percent=True))
        np.testing.assert_allclose([hit.score for hit in everything], [hit.score for hit in whole], atol=2e-3)
