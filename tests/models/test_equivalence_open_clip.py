"""Vectors, pixels and token ids are those of open_clip, called directly with the same checkpoint."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import open_clip_reference
import pytest
from conftest import Run, index
from open_clip_reference import Arrays
from PIL import Image
from warm import Warm

from clipsearch.images.codecs.decoding import decode
from clipsearch.models.disk.clip_bpe import VOCABULARY
from clipsearch.models.disk.files import locate
from clipsearch.models.in_numpy import extraction, tower_cache
from clipsearch.models.in_numpy.image_tower import ImageTower
from clipsearch.models.in_torch.encoder import Encoder

BOUND = 2e-6
"""Of each component of a unit vector; 3e-7 were seen."""
TEXTS = [
    "a photo of a dog",
    "  Two CATS &amp; “a mouse” — it's 1,000 <end_of_text> times",
    "강아지가 자고 있다 🐶",
    "schÃ¶n",
    "a very long sentence about everything " * 20,
    "",
]
SIZES = [
    (300, 224),
    (227, 224),
    (224, 225),
    (229, 600),
    (31, 47),
    (1, 1),
    (2, 3),
    (1_600, 1_201),
    (900, 41),
    (337, 336),
]
"""Such that surplus columns and rows cannot be divided in halves, in all ways; tiny, large and long pictures."""
MODES = ["RGB", "L", "RGBA", "P", "1", "LA", "CMYK"]
SMALL_TEXT = {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 4, "layers": 2}
SMALL: dict[str, dict[str, Any]] = {
    # The shape of ViT-L-14-336: as many patches as large, in fewer and narrower layers.
    "large-14-336": {
        "config": {
            "embed_dim": 48,
            "quick_gelu": True,
            "vision_cfg": {"image_size": 336, "patch_size": 14, "layers": 3, "width": 128},
            "text_cfg": SMALL_TEXT,
        }
    },
    # Whatever a configuration may say of a CLIP, in another way than it usually does.
    "unusual": {
        "config": {
            "embed_dim": 40,
            "custom_text": True,
            "nonscalar_logit_scale": True,
            "vision_cfg": {
                "image_size": [256, 256],
                "patch_size": 32,
                "layers": 2,
                "width": 96,
                "head_width": 24,
                "mlp_ratio": 2.5,
                "patch_dropout": 0.5,
                "pos_embed_type": "sin_cos_2d",
            },
            "text_cfg": SMALL_TEXT | {"context_length": 24, "heads": 2, "mlp_ratio": 3.0},
        },
        "preprocess": {
            "mean": [0.5, 0.4, 0.3],
            "std": [0.5, 0.25, 0.3],
            "size": 99,
            "interpolation": "bilinear",
            "resize_mode": "squash",
        },
    },
    "small-32-256": {
        "config": {
            "embed_dim": 32,
            "vision_cfg": {"image_size": 256, "layers": 2, "width": 64, "patch_size": 32},
            "text_cfg": SMALL_TEXT,
        }
    },
}


REAL = ("ViT-B-32", "ViT-B-32-quickgelu")


@dataclass(frozen=True)
class Reference:
    """A random model of open_clip, and what open_clip made of pictures and `TEXTS` with it."""

    folder: Path
    pictures: Sequence[Path]
    """In RGB."""
    answer: Arrays


def make_pictures(folder: Path) -> list[Path]:
    """Noise of all sizes and modes, made RGB by clipsearch: open_clip itself resizes before that, palettes included."""
    folder.mkdir()
    chance = np.random.default_rng(0)
    for i, (width, height) in enumerate(SIZES):
        noise = Image.fromarray(chance.integers(0, 256, (height, width, 4), dtype=np.uint8), "RGBA")
        mode = MODES[i % len(MODES)]
        kind = "tif" if mode == "CMYK" else "png"
        (noise if mode == "RGBA" else noise.convert("RGB").convert(mode)).save(
            folder / f"{i}-as-it-was.{kind}", compress_level=0
        )
        seen = decode((folder / f"{i}-as-it-was.{kind}").read_bytes()).image
        assert seen.mode == "RGB"
        seen.save(folder / f"{i}.png", compress_level=0)  # it is noise
    return [folder / f"{i}.png" for i in range(len(SIZES))]


def make(place: Path, requests: Mapping[str, dict[str, Any]], with_torch: Warm) -> dict[str, Reference]:
    """The models that `requests` describe, as `open_clip_reference` wants it, by their names."""
    pictures = make_pictures(place / "pictures")
    shared = {"what": "model", "pictures": [str(path) for path in pictures], "texts": TEXTS}
    named = [{**shared, **request, "folder": str(place / name)} for name, request in requests.items()]
    answers = open_clip_reference.ask(with_torch, place, *named)
    for name in requests:
        shutil.copy(open_clip_reference.available() / "open_clip" / VOCABULARY, place / name)
    return {name: Reference(place / name, pictures, answer) for name, answer in zip(requests, answers, strict=True)}


@pytest.fixture(scope="module")
def small_ones(tmp_path_factory: pytest.TempPathFactory, with_torch: Warm) -> dict[str, Reference]:
    return make(tmp_path_factory.mktemp("open_clip"), SMALL, with_torch)


@pytest.fixture(params=SMALL)
def small(request: pytest.FixtureRequest, small_ones: dict[str, Reference]) -> Reference:
    return small_ones[request.param]


def load(reference: Reference) -> Encoder:
    return Encoder(locate(str(reference.folder)), "cpu", "fp32", exact=True)


def seen_pixels(encoder: Encoder, reference: Reference) -> npt.NDArray[np.uint8]:
    """(N, H, W, 3)."""
    return np.stack([encoder.preprocessing(Image.open(path)) for path in reference.pictures])


def check_pixels(encoder: Encoder, reference: Reference) -> None:
    """The same grey levels, and the same numbers made of them."""
    ours = seen_pixels(encoder, reference)
    prepared = encoder.preprocessing
    mean, std = (np.array(values).reshape(1, 3, 1, 1) for values in (prepared.mean, prepared.std))
    theirs = reference.answer["pixels"]
    assert len(theirs) == len(SIZES)
    normalised = (ours.transpose(0, 3, 1, 2) / 255 - mean) / std
    np.testing.assert_array_equal(ours.transpose(0, 3, 1, 2), np.rint((theirs.astype(np.float64) * std + mean) * 255))
    np.testing.assert_allclose(normalised, theirs, atol=2e-6, rtol=0)


def check_images(encoder: Encoder, reference: Reference) -> None:
    """In torch and in numpy."""
    pixels = seen_pixels(encoder, reference)
    np.testing.assert_allclose(encoder.encode_images(pixels), reference.answer["images"], atol=BOUND, rtol=0)
    found = extraction.image_tower(locate(str(reference.folder)))
    assert found is not None
    vectors = ImageTower(*found, encoder.preprocessing).encode_images(list(pixels))
    np.testing.assert_allclose(vectors, reference.answer["images"], atol=1e-5, rtol=0)


def check_texts(encoder: Encoder, reference: Reference) -> None:
    """By transformers and by the text tower that queries use, made with torch and without."""
    assert encoder.save_text_tower()
    tower = tower_cache.load(encoder.fingerprint)
    assert tower is not None
    assert tower_cache.make("f" * 32, locate(str(reference.folder)))
    folders = [tower_cache.tower_folder(fingerprint) for fingerprint in ("f" * 32, encoder.fingerprint)]
    for name in ("text_tower.safetensors", "tokens.safetensors", "tokens.json"):
        made, wanted = ((folder / name).read_bytes() for folder in folders)
        assert made == wanted, name
    shutil.rmtree(folders[0])  # the next model has another
    for ours in (encoder, tower):
        for text, wanted in zip(TEXTS, reference.answer["ids"], strict=True):
            ids = ours.tokenize(text).ids
            assert ids + [0] * (len(wanted) - len(ids)) == [*wanted]
        np.testing.assert_allclose(ours.encode_texts(TEXTS), reference.answer["texts"], atol=BOUND, rtol=0)
        assert ours.logits.scale == pytest.approx(reference.answer["scale"].item(), rel=1e-6)


def test_pixels_equal_open_clips(small: Reference) -> None:
    check_pixels(load(small), small)


def test_image_vectors_equal_open_clips(small: Reference) -> None:
    check_images(load(small), small)


def test_ids_and_text_vectors_equal_open_clips(small: Reference) -> None:
    check_texts(load(small), small)


def test_vectors_tell_the_images_and_texts_apart(small: Reference) -> None:
    """Or else being equal would mean little."""
    for vectors in (small.answer["images"], small.answer["texts"]):
        apart = np.abs(vectors[:, np.newaxis] - vectors).max(axis=-1) + np.eye(len(vectors))
        assert apart.min() > 100 * BOUND


def test_a_wrong_activation_would_be_noticed(small: Reference, tmp_path: Path) -> None:
    folder = shutil.copytree(small.folder, tmp_path / "model")
    config = json.loads((folder / "open_clip_config.json").read_text())
    config["model_cfg"]["quick_gelu"] = not config["model_cfg"].get("quick_gelu", False)
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    with pytest.raises(AssertionError):
        check_images(load(Reference(folder, small.pictures, small.answer)), small)
    with pytest.raises(AssertionError):
        check_texts(load(Reference(folder, small.pictures, small.answer)), small)


def test_at_real_size_everything_equals_open_clip(tmp_path: Path, with_torch: Warm) -> None:
    one, other = REAL  # of the same shape
    few: dict[str, Any] = {"layers": 3}  # of twelve, which are alike
    first, second = few | {"architecture": one}, few | {"architecture": other, "weights": str(tmp_path / one)}
    requests = {one: first, other: second}
    for reference in make(tmp_path, requests, with_torch).values():
        encoder = load(reference)
        assert encoder.dim == 512
        check_pixels(encoder, reference)
        check_images(encoder, reference)
        check_texts(encoder, reference)
        shutil.rmtree(reference.folder, ignore_errors=True)  # 250 MB, which pytest would keep for days


def test_the_command_finds_what_open_clip_would(small_ones: dict[str, Reference], run: Run, tmp_path: Path) -> None:
    reference = small_ones["large-14-336"]
    for path in reference.pictures:
        shutil.copy(path, tmp_path)
    summary = index(run, ".", "--model", reference.folder, "--exact", "--precision", "fp32", cwd=tmp_path)
    assert summary["embedded"] == len(SIZES)
    scores = reference.answer["texts"] @ reference.answer["images"].T
    for text, wanted in zip(TEXTS[:4], scores, strict=False):
        done = run("query", text, "-k", str(len(SIZES)), "--json", cwd=tmp_path)
        assert done.returncode == 0, done.stderr.decode()
        found = {int(Path(hit["path"]).stem): hit["score"] for hit in json.loads(done.stdout)}
        assert [found[i] for i in range(len(SIZES))] == pytest.approx(wanted, abs=1e-3)  # rows are float16
