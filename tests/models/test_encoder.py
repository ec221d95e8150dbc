"""Image vectors are those of transformers' CLIPModel and processor, called directly."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from conftest import PICTUREBOOK, REPOSITORY, SAMPLES
from PIL import Image

from clipsearch.images.codecs.decoding import decode
from clipsearch.models.disk.files import ModelFiles
from clipsearch.models.in_torch.encoder import Encoder
from clipsearch.models.preprocessing import Preprocessing

GOLDENS = REPOSITORY.parent / "shared" / "goldens"


def plain_transformers(folder: Path, images: list[Image.Image]) -> npt.NDArray[np.float32]:
    """What a short notebook would do."""
    import torch
    from transformers import AutoImageProcessor, CLIPModel

    processor = AutoImageProcessor.from_pretrained(folder, backend="pil")
    model = CLIPModel.from_pretrained(folder, dtype=torch.float32)  # in evaluation mode
    with torch.no_grad():
        features = model.get_image_features(**processor(images=images, return_tensors="pt")).pooler_output
    vectors: npt.NDArray[np.float32] = torch.nn.functional.normalize(features, dim=-1).numpy()
    return vectors


def embed(folder: Path, images: list[Image.Image]) -> npt.NDArray[np.float32]:
    encoder = Encoder(ModelFiles("test", folder, None), "cpu", exact=True)
    return encoder.encode_images(np.stack([encoder.preprocessing(image) for image in images]))


@pytest.mark.parametrize("size", [(320, 320), (500, 375), (120, 400), (64, 64), (31, 47), (1000, 67)])
def test_random_images_equal_plain_transformers(small_clip: Path, size: tuple[int, int]) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    images = [Image.fromarray(noise), Image.new("RGB", size, "orange")]
    for folder in (small_clip, PICTUREBOOK):
        np.testing.assert_allclose(embed(folder, images), plain_transformers(folder, images), atol=2e-5, rtol=0)


def test_sample_files_equal_plain_transformers() -> None:
    paths = sorted(path for path in SAMPLES.rglob("*") if path.suffix in (".png", ".jpg", ".webp"))[::10]
    ours = embed(PICTUREBOOK, [decode(path.read_bytes()).image for path in paths])
    theirs = plain_transformers(PICTUREBOOK, [Image.open(path).convert("RGB") for path in paths])
    assert len(paths) > 15
    np.testing.assert_allclose(ours, theirs, atol=2e-5, rtol=0)


def test_published_preprocessing_of_a_photo() -> None:
    if not GOLDENS.is_dir():
        pytest.skip("needs the reference material beside the project (shared/goldens)")
    wanted = np.load(GOLDENS / "franz-kafka.preprocessed.npy").squeeze()
    mean, std = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
    preprocess = Preprocessing(224, (224, 224), Image.Resampling.BICUBIC, 1 / 255, mean, std, exact=True)
    pixels = preprocess(decode((GOLDENS / "franz-kafka.jpg").read_bytes()).image)
    levels = (wanted.transpose(1, 2, 0) * std + mean) * 255
    assert np.abs(levels - np.rint(levels)).max() < 1e-4
    np.testing.assert_array_equal(pixels, np.rint(levels))


def test_batch_size_does_not_change_vectors() -> None:
    encoder = Encoder(ModelFiles("test", PICTUREBOOK, None), "cpu")
    pixels = np.random.default_rng(1).integers(0, 256, (7, 96, 96, 3), dtype=np.uint8)
    together = encoder.encode_images(pixels)
    for size in (1, 2, 5):
        parts = [encoder.encode_images(pixels[i : i + size]) for i in range(0, 7, size)]
        np.testing.assert_allclose(np.concatenate(parts), together, atol=2e-6, rtol=0)
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, atol=1e-6)


@pytest.mark.parametrize("exact", [True, False])
@pytest.mark.parametrize("size", [(1, 60_000), (60_000, 1), (3, 5_000)])
def test_very_long_images_take_no_gigabytes(
    monkeypatch: pytest.MonkeyPatch, size: tuple[int, int], *, exact: bool
) -> None:
    resized: list[tuple[int, int]] = []
    real = Image.Image.resize

    def resize(image: Image.Image, to: tuple[int, int], *rest: Any) -> Image.Image:  # noqa: ANN401  (Pillow's)
        resized.append(to)
        return real(image, to, *rest)

    monkeypatch.setattr(Image.Image, "resize", resize)
    preprocess = Preprocessing(224, (224, 224), Image.Resampling.BICUBIC, 1 / 255, (0, 0, 0), (1, 1, 1), exact=exact)
    image = Image.new("RGB", size, "red")
    width, height = size
    middle = (
        max(width // 2 - 20, 0),
        max(height // 2 - 20, 0),
        min(width // 2 + 20, width),
        min(height // 2 + 20, height),
    )
    image.paste("blue", middle)
    pixels = preprocess(image)
    assert pixels.shape == (224, 224, 3)
    assert max(resized[0]) <= 224 * 51
    assert pixels[..., 2].max() == 255  # the middle is what is seen
