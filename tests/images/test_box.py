"""A part of an image: how it is written, and which pixels it is."""

from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from clipsearch.errors import InputError
from clipsearch.images.codecs.box import Box, parse_box
from clipsearch.images.codecs.decoding import decode


@pytest.mark.parametrize(
    ("written", "box"),
    [
        ("10,20,300,400", Box(10, 20, 300, 400)),
        (" 0 , 0.5 ,1, 2.", Box(0, 0.5, 1, 2)),
        ("0%,10%,50%,100%", Box(0, 10, 50, 100, percent=True)),
    ],
)
def test_pixels_or_percent(written: str, box: Box) -> None:
    assert parse_box(written) == box
    assert parse_box(str(box)) == box


@pytest.mark.parametrize(
    "written",
    ["", "1,2,3", "1,2,3,4,5", "a,b,c,d", "1,2,3%,4%", "1;2;3;4", "nan,0,1,1", "1e3,0,2e3,9", "5,5,5,9", "9,9,1,1"],
)
def test_what_is_no_box_is_refused(written: str) -> None:
    with pytest.raises(InputError, match="LEFT,TOP,RIGHT,BOTTOM"):
        parse_box(written)


@pytest.mark.parametrize(
    "box", [Box(0, 0, 101, 50), Box(0, 0, 100, 50.1), Box(-1, 0, 9, 9), Box(0, 0, 100, 101, percent=True)]
)
def test_a_box_beyond_the_image_is_refused_with_its_size(box: Box) -> None:
    with pytest.raises(InputError, match="100 x 50 pixels"):
        box.in_pixels(100, 50)


sides, shares = st.integers(1, 5000), st.floats(0, 100)


@given(width=sides, height=sides, x=st.tuples(shares, shares), y=st.tuples(shares, shares))
def test_a_box_has_a_pixel_at_least_and_never_leaves_the_image(
    width: int, height: int, x: tuple[float, float], y: tuple[float, float]
) -> None:
    left, top, right, bottom = Box(min(x), min(y), max(x), max(y), percent=True).in_pixels(width, height)
    assert 0 <= left < right <= width
    assert 0 <= top < bottom <= height


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_part_is_cut_from_the_image_as_it_is_seen(orientation: int) -> None:
    file = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = orientation
    pixels = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
    Image.fromarray(pixels).save(file, "PNG", exif=exif)
    decoded = decode(file.getvalue())
    part = np.asarray(decoded.part(Box(5, 10, 25, 35)))
    np.testing.assert_array_equal(part, np.asarray(decoded.image)[10:35, 5:25])
    half = np.asarray(decoded.part(Box(50, 0, 100, 100, percent=True)))
    np.testing.assert_array_equal(half, np.asarray(decoded.image)[:, decoded.width // 2 :])


def test_a_part_of_an_image_that_was_decoded_smaller_is_scaled() -> None:
    assert Box(0, 0, 50, 50, percent=True).scaled(4000, 3000, (0, 0, 400, 300)) == (0, 0, 200, 150)
    assert Box(2000, 0, 4000, 3000).scaled(4000, 3000, (10, 20, 410, 320)) == (210, 20, 410, 320)
    assert Box(3999, 2999, 4000, 3000).scaled(4000, 3000, (0, 0, 40, 30)) == (39, 29, 40, 30)
