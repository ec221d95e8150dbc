"""A file that no decoder takes is called by its kind, and not by what the decoder said of itself."""

from __future__ import annotations

import struct
import zlib

import pytest
from image_files import COLOUR, png_chunk, saved

from clipsearch.errors import UnreadableImageError
from clipsearch.images.codecs.decoding import decode


def reason(content: bytes) -> str:
    with pytest.raises(UnreadableImageError) as caught:
        decode(content)
    return str(caught.value)


def changed(content: bytes, at: int, by: bytes) -> bytes:
    return content[:at] + by + content[at + len(by) :]


def with_tag(tag: int, value: int) -> bytes:
    """A TIFF of `COLOUR` that says this of itself."""
    content = saved(COLOUR, "TIFF")
    at = content.index(struct.pack("<HHI", tag, 3, 1))
    return changed(content, at + 8, struct.pack("<I", value))


BMP, JPEG, PNG = saved(COLOUR, "BMP"), saved(COLOUR, "JPEG"), saved(COLOUR, "PNG")
BARE = zlib.compress(b"".join(b"\0" + row.tobytes() for row in COLOUR))[2:-4]
OF_APPLE = PNG[:8] + png_chunk(b"CgBI", bytes(4)) + PNG[8:33] + png_chunk(b"IDAT", BARE) + PNG[-12:]
FRAME = JPEG.index(b"\xff\xc0")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (changed(BMP, 30, struct.pack("<I", 4)), "unsupported: BMP with 24 bits a pixel and a JPEG in it"),
        (changed(BMP, 30, struct.pack("<I", 5)), "unsupported: BMP with 24 bits a pixel and a PNG in it"),
        (changed(BMP, 28, struct.pack("<H", 2)), "unsupported: BMP with 2 bits a pixel"),
        (changed(JPEG, FRAME + 1, b"\xc5"), "unsupported: hierarchical JPEG with 3 channels of 8 bits"),
        (changed(JPEG, FRAME + 9, b"\2"), "unsupported: JPEG with 2 channels of 8 bits"),
        (OF_APPLE, "unsupported: PNG in the form of Apple's programs"),
        (with_tag(259, 34661), "unsupported: TIFF in RGB, 3 channels of 8 bits, compressed with JBIG"),
        (with_tag(259, 40000), "unsupported: TIFF in RGB, 3 channels of 8 bits, compressed with method 40000"),
    ],
)
def test_a_kind_that_no_decoder_has_is_named(content: bytes, said: str) -> None:
    assert reason(content).startswith(said)


def test_broken_pixels_are_no_fault_of_their_kind() -> None:
    content = saved(COLOUR, "TIFF", compression="tiff_lzw")
    broken = content[:8] + bytes([0xFF]) * 60 + content[68:]
    assert reason(broken) == (
        "broken image: the pixels of this TIFF in RGB, 3 channels of 8 bits, compressed with LZW cannot be decoded"
    )


@pytest.mark.parametrize("kind", ["AVIF", "HEIF", "JPEG2000"])
def test_what_ends_within_a_box_is_truncated(kind: str) -> None:
    content = saved(COLOUR, kind)
    for share in (1 / 4, 1 / 2):
        assert reason(content[: int(len(content) * share)]).startswith("truncated: ")
