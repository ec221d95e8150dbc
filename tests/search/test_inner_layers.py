"""What inner layers make of images: equal to transformers, whatever is asked for, and refused where there is none."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import families
import numpy as np
import numpy.typing as npt
import pytest
import torch
from conftest import SAMPLES, Run
from transformers import AutoImageProcessor, AutoModel

import clipsearch
from clipsearch.cli.embed import Tokens
from clipsearch.errors import InputError, ModelError
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
    from PIL import Image

    model: Any = AutoModel.from_pretrained(folder, dtype=torch.float32).vision_model
    processor: Any = AutoImageProcessor.from_pretrained(folder, backend="pil")  # type: ignore[no-untyped-call]
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
    ],
    ids=str,
)
def test_what_has_no_layer_is_one_line_and_writes_nothing(arguments: list[str], run: Run, tmp_path: Path) -> None:
    done = run("embed", *arguments, "-o", "x.npy", "--model", "picturebook", cwd=tmp_path)
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (2, b"", 1)
    assert not list(tmp_path.iterdir())
