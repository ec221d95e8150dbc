"""The layout of regions: what holds for images of any size, and what common ones get."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clipsearch.images.codecs.box import Box
from clipsearch.images.regions import layout

lengths, sides = st.integers(1, 9000), st.sampled_from([96, 224, 336, 384])


def laid_out(width: int, height: int, side: int = 224) -> tuple[int, int]:
    """Return the number of columns and of rows."""
    boxes = layout(width, height, side)
    return len({box.left for box in boxes}), len({box.top for box in boxes})


@given(width=lengths, height=lengths, side=sides)
def test_regions_are_equal_squares_of_whole_pixels_within_the_image(width: int, height: int, side: int) -> None:
    boxes = layout(width, height, side)
    for box in boxes:
        assert all(isinstance(edge, int) for edge in box[:4])
        assert 0 <= box.left < box.right <= width
        assert 0 <= box.top < box.bottom <= height
        assert box.in_pixels(width, height) == box[:4]
    assert len({(box.right - box.left, box.bottom - box.top) for box in boxes}) <= 1
    assert all(box.right - box.left == box.bottom - box.top for box in boxes)
    assert len(set(boxes)) == len(boxes)


@given(width=lengths, height=lengths, side=sides)
def test_only_an_image_clearly_larger_than_the_input_has_regions(width: int, height: int, side: int) -> None:
    boxes = layout(width, height, side)
    assert bool(boxes) == (min(width, height) >= 1.5 * side)
    # A region is never stretched much: not more than an image that is just too small for regions is reduced.
    assert all(box.right - box.left >= side / 1.5 for box in boxes)


@given(width=lengths, height=lengths, side=sides)
def test_the_whole_image_is_covered_with_an_overlap(width: int, height: int, side: int) -> None:
    boxes = layout(width, height, side)
    if not boxes:
        return
    for total, edges in (
        (width, sorted({(box.left, box.right) for box in boxes})),
        (height, sorted({(box.top, box.bottom) for box in boxes})),
    ):
        assert (edges[0][0], edges[-1][1]) == (0, total)
        for (_, end), (start, _) in pairwise(edges):
            assert end - start >= 0.12 * edges[0][1]
    # Every column with every row: the grid has no holes.
    assert len(boxes) == len({box.left for box in boxes}) * len({box.top for box in boxes})


@given(width=lengths, height=lengths, side=sides)
def test_an_image_on_its_side_has_the_same_regions_on_their_side(width: int, height: int, side: int) -> None:
    turned = {Box(box.top, box.left, box.bottom, box.right) for box in layout(height, width, side)}
    assert turned == set(layout(width, height, side))


@given(short=st.integers(150, 6000), aspect=st.floats(1, 16), side=sides)
def test_the_number_of_regions_is_limited(short: int, aspect: float, side: int) -> None:
    assert len(layout(round(short * aspect), short, side)) <= 22


def test_every_pixel_is_in_a_region() -> None:
    for width in range(336, 1400, 61):
        for height in range(336, 2400, 97):
            seen = np.zeros((height, width), bool)
            for left, top, right, bottom, _ in layout(width, height, 224):
                seen[int(top) : int(bottom), int(left) : int(right)] = True
            assert seen.all(), (width, height)


@pytest.mark.parametrize(
    ("size", "grid"),
    [
        ((335, 336), (0, 0)),
        ((336, 336), (2, 2)),
        ((1791, 1791), (2, 2)),
        ((1792, 1792), (4, 4)),
        ((1600, 1200), (3, 2)),
        ((1500, 1000), (3, 2)),
        ((1920, 1080), (4, 2)),
        ((4000, 3000), (4, 3)),
        ((3000, 4000), (3, 4)),
        ((6000, 4000), (5, 3)),
        ((3840, 2160), (6, 3)),
        ((8000, 2000), (5, 1)),
        ((20000, 2000), (13, 1)),
    ],
)
def test_the_layouts_of_common_sizes(size: tuple[int, int], grid: tuple[int, int]) -> None:
    assert laid_out(*size) == grid


def test_regions_come_row_by_row() -> None:
    boxes = layout(1000, 800, 224)
    assert boxes == sorted(boxes, key=lambda box: (box.top, box.left))
