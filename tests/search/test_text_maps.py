"""Where in an image texts fit: equal to torch's arithmetic, in the right place, and over the part that is seen."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import families
import numpy as np
import numpy.typing as npt
import pytest
import torch
from conftest import PICTUREBOOK, SAMPLES, make_clip
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import AutoImageProcessor, AutoModel, CLIPConfig, CLIPModel

import clipsearch
from clipsearch.errors import InputError, ModelError
from clipsearch.models.disk.files import ModelFiles
from clipsearch.models.encoder_options import EncoderOptions
from clipsearch.models.in_numpy import extraction
from clipsearch.models.in_numpy.image_tower import ImageTower
from clipsearch.models.preprocessing import Patches, Preprocessing
from clipsearch.search.embedder import Embedder

Array = npt.NDArray[np.float32]
DOG = SAMPLES / "dogs" / "dog_0.webp"


def opened(folder: Path) -> Embedder:
    return Embedder(ModelFiles("test", folder, None), options=EncoderOptions(exact=True))


def noise(width: int, height: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8))


def in_torch(folder: Path, image: Image.Image) -> Array:
    """(T, D) unit vectors of the patches, through the layers of transformers' own model.

    CLIP: in the last layer, the attention of SCLIP alone. SigLIP: the head is given one patch at a time.
    """
    model: Any = AutoModel.from_pretrained(folder, dtype=torch.float32)
    processor: Any = AutoImageProcessor.from_pretrained(folder, backend="pil")
    inputs = processor(images=[image], return_tensors="pt")
    tower = model.vision_model
    with torch.no_grad():
        if hasattr(tower, "head"):
            patches = tower(**inputs).last_hidden_state[0]
            if "spatial_shapes" in inputs:
                patches = patches[: int(inputs["spatial_shapes"][0].prod())]
            out = torch.cat([tower.head(patch[None, None]) for patch in patches])
        else:
            states = tower(pixel_values=inputs["pixel_values"], output_hidden_states=True).hidden_states[-2]
            layer = tower.encoder.layers[-1]
            seen, heads = layer.layer_norm1(states), layer.self_attn.num_heads
            q, k, v = (
                getattr(layer.self_attn, f"{part}_proj")(seen).unflatten(-1, (heads, -1)).transpose(1, 2)
                for part in "qkv"
            )
            weights = sum((one @ one.mT / one.shape[-1] ** 0.5).softmax(dim=-1) for one in (q, k))
            attended = layer.self_attn.out_proj((weights @ v).transpose(1, 2).flatten(2))
            out = model.visual_projection(tower.post_layernorm(attended))[0, 1:]
    return np.asarray(torch.nn.functional.normalize(out, dim=-1).numpy())


@pytest.mark.parametrize("threads", ["1", None])
@pytest.mark.parametrize("family", ["clip", "siglip", "siglip2"])
def test_patches_have_the_vectors_that_torch_gives_them(
    family: str, threads: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if threads is None:
        monkeypatch.delenv("OPENBLAS_NUM_THREADS", raising=False)
    if family == "clip":
        folder = make_clip(tmp_path / "model")
        families.save(CLIPModel.from_pretrained(folder), folder, families.CLIP_PICTURES)
    else:
        folder = families.make(family, tmp_path / "model")
    image = noise(150, 90)
    with opened(folder) as embedder:
        tower = embedder.image_tower
        ours = tower.patch_vectors(tower.preprocessing(image))
    assert ours.dtype == np.float32
    assert ours.shape[2] == tower.dim
    assert (ours.shape[0] == ours.shape[1]) == (family != "siglip2")
    assert np.ptp(ours, axis=(0, 1)).max() > 0.01  # they differ at all
    np.testing.assert_allclose(ours.reshape(-1, tower.dim), in_torch(folder, image), atol=1e-5, rtol=0)


def test_patches_have_the_vectors_that_torch_gives_them_at_real_size(tmp_path: Path) -> None:
    torch.manual_seed(0)
    text = {"num_hidden_layers": 1, "vocab_size": 1000, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1}
    sides = {"size": {"shortest_edge": 224}, "crop_size": {"height": 224, "width": 224}}
    folder = families.save(CLIPModel(CLIPConfig(text_config=text)), tmp_path, families.CLIP_PICTURES | sides)
    files = ModelFiles("test", folder, None)
    found = extraction.image_tower(files)
    assert found is not None
    preprocessing = Preprocessing(**{**vars(Preprocessing.load(files)), "exact": True})
    ours = ImageTower(*found, preprocessing).patch_vectors(preprocessing(noise(300, 260)))
    assert ours.shape == (7, 7, 512)
    np.testing.assert_allclose(ours.reshape(-1, 512), in_torch(folder, noise(300, 260)), atol=1e-5, rtol=0)


def test_a_map_is_the_cosines_of_patches_and_texts() -> None:
    texts = ["a dog", "a pizza", "a red car"]
    with clipsearch.load_model("picturebook") as model, Image.open(DOG) as image:
        found = model.text_map(DOG, texts)
        tower = model.image_tower
        patches = tower.patch_vectors(tower.preprocessing(image.convert("RGB")))
        wanted = np.stack([patches @ vector for vector in model.embed_texts(texts)])
        of_pillow = model.text_map(image, texts)
    assert found.dtype == np.float32
    assert found.shape == (3, 6, 6)
    np.testing.assert_allclose(found, wanted, atol=1e-6)
    np.testing.assert_allclose(of_pillow, wanted, atol=1e-6)


def test_a_map_points_at_the_thing() -> None:
    """Four pictures in one: each text fits best in the quarter that shows what it names."""
    shown = {
        "a pizza": "food/pizza_room.jpg",
        "a red car": "vehicles/red_car_city.png",
        "a yellow apple": "food/yellow_apple_park.webp",
        "a white owl": "birds/white_owl_flying_forest_night.png",
    }
    together = Image.new("RGB", (600, 600))
    for place, name in enumerate(shown.values()):
        with Image.open(SAMPLES / name) as image:
            together.paste(image.convert("RGB").resize((300, 300)), (place % 2 * 300, place // 2 * 300))
    with clipsearch.load_model("picturebook") as model:
        maps = model.text_map(together, list(shown))
    for place, one in enumerate(maps):
        row, column = np.unravel_index(one.argmax(), one.shape)
        assert (row // 3 * 2 + column // 3) == place


def test_an_image_that_cannot_be_read_has_no_map(tmp_path: Path) -> None:
    (tmp_path / "bad.png").write_bytes(b"no picture")
    with clipsearch.load_model("picturebook") as model:
        for name in ("bad.png", "gone.png"):
            with pytest.raises(InputError, match=name):
                model.text_map(tmp_path / name, ["a dog"])


def test_damaged_weights_make_an_error_and_no_map(tmp_path: Path) -> None:
    folder = make_clip(tmp_path / "model")
    weights = load_file(folder / "model.safetensors")
    weights["vision_model.encoder.layers.1.self_attn.v_proj.weight"][:] = float("nan")
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with opened(folder) as model, pytest.raises(ModelError, match="test"):
        model.text_map(DOG, ["a dog"])


@pytest.mark.parametrize("family", ["groupvit", "chinese_clip"])
def test_a_tower_that_numpy_cannot_compute_has_no_map(family: str, tmp_path: Path) -> None:
    with opened(families.make(family, tmp_path / "model")) as model, pytest.raises(ModelError, match="test"):
        model.text_map(DOG, ["a dog"])


@pytest.mark.parametrize(
    ("resize", "crop"),
    [
        (40, (40, 40)),
        (40, (32, 24)),
        ((40, 56), None),
        ((40, 40), (20, 20)),
        (40, (60, 60)),
        (None, (50, 50)),
        (Patches(8, 36), None),
    ],
    ids=str,
)
@pytest.mark.parametrize("size", [(100, 100), (200, 100), (90, 230), (97, 96)])
@pytest.mark.parametrize("exact", [True, False])
def test_the_part_that_is_seen_is_where_its_pixels_are_from(
    resize: int | tuple[int, int] | Patches | None, crop: tuple[int, int] | None, size: tuple[int, int], *, exact: bool
) -> None:
    """Red grows from left to right and green from top to bottom, so a pixel's colour tells its place."""
    width, height = size
    x, y = (np.arange(length) + 0.5 for length in size)
    levels = np.zeros((height, width, 3))
    levels[..., 0], levels[..., 1], levels[..., 2] = x, y[:, np.newaxis], 255
    preprocessing = Preprocessing(resize, crop, Image.Resampling.BILINEAR, 1 / 255, (0, 0, 0), (1, 1, 1), exact=exact)
    pixels = preprocessing(Image.fromarray(levels.astype(np.uint8))).astype(float)
    left, top, right, bottom = preprocessing.part_seen(width, height)
    rows, columns = pixels.shape[:2]
    inside = pixels[..., 2] > 254  # what a crop has added is black
    wanted_x = np.broadcast_to(left + (np.arange(columns) + 0.5) / columns * (right - left), (rows, columns))
    wanted_y = np.broadcast_to(top + (np.arange(rows) + 0.5) / rows * (bottom - top), (columns, rows)).T
    assert inside.mean() > 0.1
    # Three levels: colours are rounded, and at the edges of the image the filter finds nothing beyond.
    edge = 3 + max(right - left, bottom - top) / min(rows, columns)
    assert np.abs(pixels[..., 0] - wanted_x)[inside].max() < edge
    assert np.abs(pixels[..., 1] - wanted_y)[inside].max() < edge
    assert not inside[(wanted_x < -1) | (wanted_x > width + 1) | (wanted_y < -1) | (wanted_y > height + 1)].any()


def test_the_bundled_model_sees_the_square_in_the_middle() -> None:
    preprocessing = Preprocessing.load(ModelFiles("test", PICTUREBOOK, None))
    np.testing.assert_allclose(preprocessing.part_seen(400, 300), (50, 0, 350, 300), atol=3)
