"""What inner layers make of images: equal to transformers, whatever is asked for, and refused where there is none."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import families
import numpy as np
import numpy.typing as npt
import pytest
import torch
from conftest import SAMPLES, Run
from PIL import Image
from transformers import AutoImageProcessor, AutoModel

import clipsearch
from clipsearch.cli.embed import Tokens
from clipsearch.errors import InputError, ModelError
from clipsearch.models.crops import Crops
from clipsearch.models.disk.files import ModelFiles
from clipsearch.models.encoder_options import EncoderOptions
from clipsearch.search.embedder import Embedder
from clipsearch.search.inner_layers import TOKENS

DOGS = sorted((SAMPLES / "dogs").glob("*.webp"))[:3]
Array = npt.NDArray[np.float32]


def opened(folder: Path) -> Embedder:
    return Embedder(ModelFiles("test", folder, None), options=EncoderOptions(exact=True))


def transformers_own(folder: Path, images: list[Path]) -> list[Array]:
    """(N, T, W) of each layer."""
    model: Any = AutoModel.from_pretrained(folder, dtype=torch.float32).vision_model
    processor: Any = AutoImageProcessor.from_pretrained(folder, backend="pil")
    pixels = processor(images=[Image.open(path).convert("RGB") for path in images], return_tensors="pt")
    with torch.no_grad():
        states = model(pixel_values=pixels["pixel_values"], output_hidden_states=True).hidden_states
    return [np.asarray(one.numpy()) for one in states]


@pytest.mark.parametrize("family", ["clip", "siglip", "siglip2-fixed"])
def test_every_layer_equals_that_of_transformers(family: str, tmp_path: Path, small_clip: Path) -> None:
    folder = small_clip if family == "clip" else families.make(family, tmp_path / "model")
    theirs = transformers_own(folder, DOGS)
    with opened(folder) as embedder:
        for layer in range(-len(theirs), len(theirs)):
            ours = embedder.hidden_states(DOGS, layer, tokens="all")
            np.testing.assert_allclose(ours, theirs[layer], atol=1e-5, rtol=1e-5)
            assert ours.dtype == np.float32


def test_the_command_takes_all_tokens_that_there_are() -> None:
    assert (*Tokens,) == TOKENS  # two lists, since the command's help may not wait for NumPy


def test_tokens_are_patches_or_the_class_token_or_both(small_clip: Path) -> None:
    with opened(small_clip) as embedder:
        both, patches, token = (embedder.hidden_states(DOGS, -2, tokens=kind) for kind in ("all", "patch", "cls"))
    np.testing.assert_array_equal(both, np.concatenate([token, patches], axis=1))
    assert token.shape[1] == 1


def test_the_command_writes_them_with_names(run: Run, tmp_path: Path) -> None:
    (tmp_path / "bad.webp").write_bytes(b"no picture")
    model = ("--model", "picturebook", "--layer", "-2")
    done = run("embed", DOGS[0], "bad.webp", DOGS[1], "-o", "states.npy", *model, cwd=tmp_path)
    assert done.returncode == 0, done.stderr.decode()
    assert b"bad.webp" in done.stderr
    with clipsearch.load_model("picturebook") as embedder:
        np.testing.assert_array_equal(np.load(tmp_path / "states.npy"), embedder.hidden_states(DOGS[:2], -2))
    about = json.loads((tmp_path / "states.json").read_text())
    assert (about["layer"], about["tokens"], about["rows"]) == (-2, "patch", 2)
    assert (tmp_path / "states.csv").read_text().count("\n") == 3
    half = run("embed", DOGS[0], "-o", "half.npy", "--dtype", "float16", "--tokens", "all", *model, cwd=tmp_path)
    assert half.returncode == 0
    assert np.load(tmp_path / "half.npy").dtype == np.float16


@pytest.mark.parametrize("family", ["clip", "siglip"])
def test_crops_are_what_transformers_makes_of_each_view(
    family: str, run: Run, tmp_path: Path, small_clip: Path
) -> None:
    folder = small_clip if family == "clip" else families.make(family, tmp_path / "model")
    wide, tall, bad = tmp_path / "wide.png", tmp_path / "tall.png", tmp_path / "bad.png"
    for path, size in ((wide, (300, 180)), (tall, (90, 200))):
        levels = np.random.default_rng(0).integers(0, 256, (*size[::-1], 3), np.uint8)
        Image.fromarray(levels).save(path)
    bad.write_bytes(b"no picture")
    done = run(
        "embed", wide, bad, tall, "-o", "x.npy", "--layer", "-2", "--crops", "6", "--model", folder, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr.decode()
    assert b"bad.png" in done.stderr

    with (tmp_path / "x.csv").open(encoding="utf-8", newline="") as file:
        rows = [tuple(row.values()) for row in csv.DictReader(file)]
    names = [(wide, view, 2, 3) for view in range(7)] + [(tall, view, 3, 2) for view in range(7)]
    assert rows == [(str(row), *map(str, name)) for row, name in enumerate(names)]
    about = json.loads((tmp_path / "x.json").read_text())
    assert (about["layer"], about["tokens"], about["crops"], about["rows"]) == (-2, "patch", 6, 14)
    # Each view as an image of its own.
    with opened(folder) as embedder:
        crops = Crops.of(embedder.image_tower.preprocessing, 6)
    views: list[Path] = []
    for path in (wide, tall):
        image = Image.open(path)
        for view in crops.views(crops(image, (0, 0, *image.size))):
            views.append(tmp_path / f"view{len(views)}.png")
            Image.fromarray(view).save(views[-1])
    theirs = transformers_own(folder, views)[-2]
    np.testing.assert_allclose(
        np.load(tmp_path / "x.npy"), theirs[:, 1:] if family == "clip" else theirs, atol=1e-4, rtol=1e-4
    )


@pytest.mark.parametrize("layer", [99, -99])
def test_a_layer_that_is_not_there_is_refused_with_those_that_are(layer: int) -> None:
    with clipsearch.load_model("picturebook") as embedder, pytest.raises(InputError, match=f"{layer}.* from 0 to "):
        embedder.hidden_states(DOGS, layer)


def test_siglip_has_no_class_token(tmp_path: Path) -> None:
    with (
        opened(families.make("siglip", tmp_path / "model")) as embedder,
        pytest.raises(InputError, match="class token"),
    ):
        embedder.hidden_states(DOGS, -1, tokens="cls")


@pytest.mark.parametrize("family", ["siglip2", "groupvit"])
def test_crops_of_a_model_without_them_are_one_line_and_write_nothing(family: str, run: Run, tmp_path: Path) -> None:
    folder = families.make(family, tmp_path / "model")
    out = ("-o", "x.npy", "--layer", "-1", "--crops", "4", "--model", folder)
    (here := tmp_path / "here").mkdir()
    done = run("embed", DOGS[0], *out, cwd=here)
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (2, b"", 1), done.stderr.decode()
    assert not list(here.iterdir())


def test_images_of_any_proportions_have_no_common_number_of_patches(tmp_path: Path) -> None:
    with (
        opened(families.make("siglip2", tmp_path / "model")) as embedder,
        pytest.raises(InputError, match="proportions"),
    ):
        embedder.hidden_states(DOGS, -1)


def test_a_family_that_numpy_cannot_compute_is_refused(tmp_path: Path) -> None:
    with opened(families.make("groupvit", tmp_path / "model")) as embedder, pytest.raises(ModelError, match="test"):
        embedder.hidden_states(DOGS, -1)


@pytest.mark.parametrize(
    "arguments",
    [
        ["--text", "a dog", "--layer", "-1"],
        [str(DOGS[0]), "--tokens", "all"],
        [str(DOGS[0]), "--layer", "99"],
        [str(DOGS[0]), "--layer", "-1", "--engine", "torch"],
        [str(DOGS[0]), "--crops", "4"],
        [str(DOGS[0]), "--layer", "99", "--crops", "4"],
        [str(DOGS[0]), "--layer", "-1", "--crops", "0"],
        [str(DOGS[0]), "--layer", "-1", "--crops", "65"],
        ["--text", "a dog", "--layer", "-1", "--crops", "4"],
    ],
    ids=str,
)
def test_what_has_no_layer_is_one_line_and_writes_nothing(arguments: list[str], run: Run, tmp_path: Path) -> None:
    done = run("embed", *arguments, "-o", "x.npy", "--model", "picturebook", cwd=tmp_path)
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (2, b"", 1)
    assert not list(tmp_path.iterdir())
