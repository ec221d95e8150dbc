"""Reading image files as a person sees them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from conftest import REPOSITORY, paint
from PIL import Image

from clipsearch.errors import UnreadableImageError
from clipsearch.images.decoding import decode

EXIF_PHOTOS = REPOSITORY.parent / "shared" / "photos" / "exif-orientation"


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_honoured(tmp_path: Path, orientation: int) -> None:
    upright = Image.new("RGB", (40, 20), "white")
    upright.paste("red", (0, 0, 10, 10))  # the upper left corner tells all eight apart
    undo = {
        1: None,
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }[orientation]
    stored = upright if undo is None else upright.transpose(undo)
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored.save(tmp_path / "a.png", exif=exif)
    picture = decode((tmp_path / "a.png").read_bytes())
    assert (picture.width, picture.height) == (40, 20)
    np.testing.assert_array_equal(np.asarray(picture.image), np.asarray(upright))


def test_real_photos_in_all_orientations_come_out_alike() -> None:
    if not EXIF_PHOTOS.is_dir():
        pytest.skip("needs the reference material beside the project (shared/photos)")
    for kind in ("Landscape", "Portrait"):
        photos = sorted(EXIF_PHOTOS.glob(f"{kind}_*.jpg"))
        small = [decode(path.read_bytes()).image.resize((32, 32)) for path in photos]
        assert len(small) == 9
        for image in small[1:]:
            difference = np.abs(np.asarray(image, float) - np.asarray(small[0], float)).mean()
            assert difference < 4


def test_transparency_is_shown_on_white(tmp_path: Path) -> None:
    Image.new("RGBA", (4, 4), (255, 0, 0, 0)).save(tmp_path / "a.png")
    assert decode((tmp_path / "a.png").read_bytes()).image.getpixel((0, 0)) == (255, 255, 255)


def test_an_animation_is_its_first_frame(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    assert decode((tmp_path / "a.gif").read_bytes()).image.getpixel((0, 0)) == (255, 0, 0)


def test_the_time_of_a_photo_comes_from_exif(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0132] = "2024:02:29 12:34:56"
    path = paint(tmp_path / "a.jpg", "red", exif=exif)
    assert decode(path.read_bytes()).taken_at == "2024-02-29T12:34:56"
    assert decode(paint(tmp_path / "b.jpg", "red").read_bytes()).taken_at is None


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "gif", "bmp", "tiff", "avif"])
def test_formats_are_read_by_content_not_by_name(tmp_path: Path, suffix: str) -> None:
    path = paint(tmp_path / f"a.{suffix}", "red")
    picture = decode(path.read_bytes())
    assert picture.image.mode == "RGB"
    np.testing.assert_allclose(np.asarray(picture.image)[2, 2], (255, 0, 0), atol=12)


def test_broken_files_say_why(tmp_path: Path) -> None:
    whole = paint(tmp_path / "a.jpg", "red", (300, 300)).read_bytes()
    for content, reason in (
        (b"", "empty file"),
        (b"not an image", "not an image of a known format"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not an image of a known format"),
        (whole[: len(whole) // 2], "broken image"),
    ):
        with pytest.raises(UnreadableImageError, match=reason):
            decode(content)
