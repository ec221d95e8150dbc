"""Crops of an image: the grids and the pixels of Phi-3-vision's transform."""

from __future__ import annotations

import math

import numpy as np
import pytest
from PIL import Image

from clipsearch.models.crops import Crops

SIDE = 32
SIZES = [(100, 100), (160, 90), (90, 160), (97, 61), (1000, 7), (7, 1000), (5, 3), (1, 1), (1296, 141)]


def crops(most: int, *, exact: bool = True) -> Crops:
    return Crops(SIDE, most, Image.Resampling.BICUBIC, exact)


def noise(width: int, height: int) -> Image.Image:
    levels = np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)
    return Image.fromarray(levels).resize((width, height), Image.Resampling.BICUBIC)


def published(image: Image.Image, most: int) -> Image.Image:
    """The transform in the steps in which it was published: a tall image is turned on its side and back."""
    if image.width < image.height:
        return published(image.transpose(Image.Transpose.TRANSPOSE), most).transpose(Image.Transpose.TRANSPOSE)
    ratio = image.width / image.height
    scale = 1
    while scale * math.ceil(scale / ratio) <= most:
        scale += 1
    scale -= 1
    width, height = scale * SIDE, max(1, int(scale * SIDE / ratio))
    resized = image.resize((width, height), Image.Resampling.BICUBIC)
    full = math.ceil(height / SIDE) * SIDE
    padded = Image.new("RGB", (width, full), "white")
    padded.paste(resized, (0, (full - height) // 2))
    return padded


@pytest.mark.parametrize("most", [1, 2, 4, 16, 64])
@pytest.mark.parametrize("size", SIZES)
def test_pixels_are_those_of_the_published_steps(size: tuple[int, int], most: int) -> None:
    image = noise(*size)
    expected = np.asarray(published(image, most))
    pixels = crops(most)(image, (0, 0, *size))
    assert pixels.shape == expected.shape
    # A tall image is resized across before it is resized down; turned on its side, the other way round.
    assert np.abs(pixels.astype(int) - expected).max() <= (2 if size[0] < size[1] else 0)
    h, w = crops(most).grid(*size)
    assert pixels.shape == (h * SIDE, w * SIDE, 3)
    assert 1 <= h * w <= most


def test_shapes_are_used_as_far_as_the_number_allows() -> None:
    assert [crops(16).grid(*size) for size in ((300, 300), (400, 300), (300, 400), (200, 100), (2000, 100))] == [
        (4, 4),
        (3, 4),
        (4, 3),
        (3, 5),
        (1, 16),
    ]


def test_views_are_the_whole_and_then_the_crops_row_by_row() -> None:
    pixels = crops(6)(noise(150, 100), (0, 0, 150, 100))
    assert pixels.shape == (2 * SIDE, 3 * SIDE, 3)
    whole, *parts = crops(6).views(pixels)
    rows = [np.concatenate(parts[3 * row : 3 * row + 3], axis=1) for row in range(2)]
    np.testing.assert_array_equal(np.concatenate(rows), pixels)
    small = Image.fromarray(pixels).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    np.testing.assert_array_equal(whole, np.asarray(small))


def test_shortcuts_change_little() -> None:
    image = noise(3000, 2000)
    exact, quick = (crops(4, exact=exact)(image, (0, 0, 3000, 2000)).astype(int) for exact in (True, False))
    assert np.abs(exact - quick).max() <= 4
    assert crops(4).enough is None
    assert (crops(4, exact=False).enough or 0) > 2 * SIDE * 2
