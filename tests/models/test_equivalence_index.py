"""Every shortcut of indexing, beside the plain way, with its bound."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from conftest import PICTUREBOOK, REPOSITORY, SAMPLES
from image_files import ImageFile, image_files
from PIL import Image
from transformers import CLIPConfig, CLIPModel

from clipsearch.errors import DeviceError, InputError, UnreadableImageError
from clipsearch.images.codecs.decoding import decode
from clipsearch.models.disk.files import ModelFiles
from clipsearch.models.in_torch.encoder import Encoder
from clipsearch.models.in_torch.image_tower import ImageTower, PlainTower
from clipsearch.models.in_torch.precision import choose_precision
from clipsearch.models.preprocessing import Preprocessing

PHOTOS = REPOSITORY.parent / "shared" / "photos"
CPU = torch.device("cpu")
CLIP = Preprocessing(224, (224, 224), Image.Resampling.BICUBIC, 1 / 255, (0.48, 0.46, 0.41), (0.27, 0.26, 0.28))
REDUCED_COSINE, BF16_COSINE = 0.9999, 0.999
"""The least that a shortcut may leave."""


@pytest.fixture(scope="module")
def picturebook() -> Encoder:
    return Encoder(ModelFiles("picturebook", PICTUREBOOK, None), "cpu", "fp32")


@pytest.fixture(scope="module")
def vit_b_32() -> CLIPModel:
    """The image tower is of real size, with random weights."""
    torch.manual_seed(0)
    return CLIPModel(CLIPConfig(text_config={"num_hidden_layers": 1, "vocab_size": 1000, "eos_token_id": 1}))


def cosines(some: npt.NDArray[np.float32], others: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    return np.asarray((some * others).sum(axis=1))


def unit(vectors: torch.Tensor) -> npt.NDArray[np.float32]:
    return np.asarray(torch.nn.functional.normalize(vectors.detach().float(), dim=-1).numpy())


# -- decoding ------------------------------------------------------------------------------------------------


def landscape(size: tuple[int, int], seed: int) -> Image.Image:
    """Random, and like a photograph in that fine detail is weak."""
    rng = np.random.default_rng(seed)
    pixels = np.full((size[1], size[0], 3), 128.0)
    for cells, strength in ((4, 60), (16, 30), (64, 15), (512, 8)):
        grid = Image.fromarray(rng.integers(0, 256, (cells * 3 // 4, cells, 3), np.uint8))
        pixels += (np.asarray(grid.resize(size, Image.Resampling.BICUBIC)) / 128 - 1) * strength
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def encoded(image: Image.Image, kind: str) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **({"quality": 90} if kind == "JPEG" else {}))
    return file.getvalue()


def large_files() -> Iterator[bytes]:
    # For 448 pixels these are halved once, for 192 twice.
    kinds = [("JPEG", "JPEG2000", "PNG", "WEBP"), ("JPEG", "JPEG2000"), ("JPEG", "JPEG2000"), ("JPEG",), ("JPEG",)]
    for seed, size in enumerate([(905, 1203), (1200, 1000), (1000, 1201), (1800, 900), (1261, 901)]):
        image = landscape(size, seed)
        # Those of the formats that are decoded reduced, and once of others.
        for kind in kinds[seed]:
            yield encoded(image, kind)


def differing_pixels(contents: Iterable[bytes], preprocessings: Sequence[Preprocessing]) -> list[npt.NDArray[np.uint8]]:
    """(2, N, H, W, 3) for each: prepared from what is decoded reduced and in full, where that makes a difference."""
    pairs: list[list[Any]] = [[] for _ in preprocessings]
    for content in contents:
        full = decode(content)
        for preprocessing, found in zip(preprocessings, pairs, strict=True):
            reduced = decode(content, at_least=preprocessing.enough)
            pair = preprocessing(reduced.image, reduced.box), replace(preprocessing, exact=True)(full.image)
            if not np.array_equal(*pair):
                found.append(pair)
    assert min(map(len, pairs)) >= 5
    return [np.stack(found, axis=1) for found in pairs]


def assert_alike(contents: Iterable[bytes], picturebook: Encoder, vit: CLIPModel) -> None:
    """Decoded in full and reduced, for a trained model of 96 pixels and one of real size."""
    small, large = differing_pixels(contents, [picturebook.preprocessing, CLIP])
    ours, theirs = map(picturebook.encode_images, small)
    assert cosines(ours, theirs).min() >= REDUCED_COSINE
    tower = ImageTower.of_clip(vit, torch.float32, CPU)
    ours, theirs = (
        np.concatenate([unit(tower(torch.from_numpy(part).permute(0, 3, 1, 2) / 127.5 - 1)) for part in parts])
        for parts in (np.array_split(half, 8) for half in large)
    )
    assert cosines(ours, theirs).min() >= REDUCED_COSINE


def test_reduced_decoding_of_large_images(picturebook: Encoder, vit_b_32: CLIPModel) -> None:
    assert_alike(large_files(), picturebook, vit_b_32)


def test_reduced_decoding_of_real_photos(picturebook: Encoder, vit_b_32: CLIPModel) -> None:
    photos = [
        *sorted((PHOTOS / "exif-orientation").rglob("*.jpg"))[::3],
        *sorted((PHOTOS / "clothing").rglob("*.jpg"))[::6],
    ]
    if not photos:
        pytest.skip("needs the reference material beside the project (shared/photos)")
    assert len(photos) > 40
    assert_alike([photo.read_bytes() for photo in photos], picturebook, vit_b_32)


@pytest.mark.parametrize(
    ("size", "at_least", "seen"),
    [
        ((1600, 1200), 300, (400, 300)),
        ((1600, 1200), 301, (800, 600)),
        ((4000, 3000), 717, (1000, 750)),
        ((1200, 1600), 448, (600, 800)),
        ((1601, 1203), 300, (401, 301)),
        ((1600, 100), 101, (1600, 100)),
        ((64, 64), 448, (64, 64)),
        ((1600, 1600), 1, (200, 200)),
    ],
)
def test_a_jpeg_is_halved_as_long_as_enough_is_left(
    size: tuple[int, int], at_least: int, seen: tuple[int, int]
) -> None:
    picture = decode(encoded(Image.new("RGB", size, "teal"), "JPEG"), at_least=at_least)
    assert picture.image.size == seen
    assert (picture.width, picture.height) == size


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_reduced_photo_has_its_true_size_and_edges_however_it_is_turned(orientation: int) -> None:
    exif = Image.Exif()
    exif[274] = orientation
    file = io.BytesIO()
    Image.new("RGB", (1601, 1203)).save(file, "JPEG", exif=exif)
    whole, picture = decode(file.getvalue()), decode(file.getvalue(), at_least=300)
    assert (whole.width, whole.height) == (picture.width, picture.height) == whole.image.size
    assert picture.image.size == ((401, 301) if orientation < 5 else (301, 401))
    left, top, right, bottom = picture.box
    assert (right - left, bottom - top) == (whole.width / 4, whole.height / 4)
    # The file's last column and line are narrower than the others; EXIF says at which edges of the picture they are.
    assert (left > 0, top > 0) == (orientation in (2, 3, 6, 7), orientation in (3, 4, 7, 8))
    assert whole.box == (0, 0, *whole.image.size)


@pytest.mark.parametrize("file", image_files(), ids=lambda file: file.name)
def test_small_images_of_all_formats_are_the_same(file: ImageFile) -> None:
    whole, asked = decode(file.content), decode(file.content, at_least=10_000)
    np.testing.assert_array_equal(np.asarray(whole.image), np.asarray(asked.image))
    assert (whole.width, whole.height, whole.taken_at) == (asked.width, asked.height, asked.taken_at)


def test_a_truncated_jpeg_is_the_same_when_reduced_too() -> None:
    content = encoded(landscape((1600, 1200), 0), "JPEG")
    with pytest.raises(UnreadableImageError, match=r"truncated: .*; \d+% of it is there"):
        decode(content[: int(len(content) * 0.2)], at_least=192)
    for share in (0.7, 0.9):
        cut = content[: int(len(content) * share)]
        reduced, full = decode(cut, at_least=192), decode(cut)
        assert 0 < reduced.missing == full.missing
        assert (reduced.width, reduced.height) == (1600, 1200)


# -- the tower -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("activation", ["quick_gelu", "gelu", "gelu_new"])
@pytest.mark.parametrize("shape", [(64, 4, 1, 16, 64), (96, 3, 3, 8, 40), (128, 2, 2, 32, 96)])
def test_the_tower_equals_transformers(activation: str, shape: tuple[int, int, int, int, int]) -> None:
    width, heads, layers, patch, image = shape
    torch.manual_seed(width)
    vision = {
        "hidden_size": width,
        "intermediate_size": 3 * width,
        "num_attention_heads": heads,
        "num_hidden_layers": layers,
        "patch_size": patch,
        "image_size": image,
        "hidden_act": activation,
    }
    text = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    model = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=24))
    with torch.no_grad():
        for parameter in model.parameters():  # fresh biases are zero and fresh norms one
            parameter.add_(torch.randn_like(parameter) * 0.1)
        pixels = torch.randn(5, 3, image, image)
        theirs = unit(model.get_image_features(pixel_values=pixels).pooler_output)
    np.testing.assert_allclose(unit(ImageTower.of_clip(model, torch.float32, CPU)(pixels)), theirs, atol=5e-6, rtol=0)


def test_the_tower_of_real_size_equals_transformers_and_in_bf16_nearly(vit_b_32: CLIPModel) -> None:
    pixels = torch.randn(4, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        theirs = unit(vit_b_32.get_image_features(pixel_values=pixels).pooler_output)
        ours = unit(ImageTower.of_clip(vit_b_32, torch.float32, CPU)(pixels))
        rough = unit(ImageTower.of_clip(vit_b_32, torch.bfloat16, CPU)(pixels.bfloat16()))
    np.testing.assert_allclose(ours, theirs, atol=2e-6, rtol=0)
    assert cosines(rough, theirs).min() >= BF16_COSINE


@pytest.mark.parametrize("name", ["bf16", "fp16"])
def test_fewer_bits_cost_little_on_the_samples(picturebook: Encoder, name: str) -> None:
    rough = Encoder(ModelFiles("picturebook", PICTUREBOOK, None), "cpu", name)
    paths = sorted(path for path in SAMPLES.rglob("*") if path.suffix in (".png", ".jpg", ".webp"))[::4]
    pixels = np.stack([rough.preprocessing(decode(path.read_bytes()).image) for path in paths])
    assert rough.precision == name
    assert rough.precision_reason.startswith("as asked for")
    assert cosines(rough.encode_images(pixels), picturebook.encode_images(pixels)).min() >= BF16_COSINE


# -- choices -------------------------------------------------------------------------------------------------


def test_the_default_precision_is_measured_and_its_vectors_are_nearly_the_same(
    picturebook: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (2, 96, 96, 3), np.uint8)
    assert choose_precision("auto", CPU, 192) == ("fp32", "the model is small")
    monkeypatch.setattr("clipsearch.models.in_torch.precision._LEAST_WIDTH", 1)
    by_itself = Encoder(ModelFiles("picturebook", PICTUREBOOK, None), "cpu")
    assert by_itself.precision in ("fp32", "bf16")
    assert by_itself.precision_reason.startswith("measured: a layer takes ")
    assert cosines(by_itself.encode_images(pixels), picturebook.encode_images(pixels)).min() >= BF16_COSINE


@pytest.mark.parametrize(("native", "name"), [(True, "bf16"), (False, "fp16")])
def test_a_gpu_computes_in_half_the_bits(monkeypatch: pytest.MonkeyPatch, *, native: bool, name: str) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (8, 0) if native else (7, 5))
    assert choose_precision("auto", torch.device("cuda"), 768).name == name


def test_an_unknown_precision_is_an_error() -> None:
    with pytest.raises(InputError, match="'int3'"):
        choose_precision("int3", CPU, 768)


def test_batches_are_halved_where_memory_is_too_small(monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = Encoder(ModelFiles("picturebook", PICTUREBOOK, None), "cpu", batch_size=16)
    real, sizes = encoder._encode_images, []

    def small(pixels: npt.NDArray[np.uint8], tower: ImageTower | PlainTower) -> npt.NDArray[np.float32]:
        sizes.append(len(pixels))
        if len(pixels) > room:
            raise torch.OutOfMemoryError
        return real(pixels, tower)

    room = 5
    pixels = np.random.default_rng(0).integers(0, 256, (16, 96, 96, 3), np.uint8)
    plain = encoder.encode_images(pixels)
    monkeypatch.setattr(encoder, "_encode_images", small)
    np.testing.assert_allclose(encoder.encode_images(pixels), plain, atol=2e-6)
    assert sizes == [16, 8, 4, 4, 8, 4, 4]
    assert encoder.batch_size == 4
    room = 0
    with pytest.raises(DeviceError) as caught:
        encoder.encode_images(pixels[:3])
    assert caught.value.hints == ("cpu",)


def test_cores_are_divided_among_the_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[int] = []
    monkeypatch.setattr(torch, "set_num_threads", given.append)
    for available, calls, threads in ((1, 1, 1), (2, 2, 1), (8, 8, 1), (12, 8, 1), (64, 8, 8)):
        monkeypatch.setattr("clipsearch.system.cores.available", lambda count=available: count)
        encoder = Encoder(ModelFiles("picturebook", PICTUREBOOK, None), "cpu")
        encoder.divide_cores()
        assert (encoder.calls, given[-1]) == (calls, threads)
