"""Pictures of rare kinds, which Pillow lacks or shows wrongly, and what a person sees in each.

What the second decoder's own libraries write is written by them; the rest by hand.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterable
from functools import cache
from typing import Any

import imagecodecs
import numpy as np
import numpy.typing as npt
import tifffile
from image_files import (
    ALPHA,
    AMBER,
    BILEVEL,
    BLUE,
    COLOUR,
    GREEN,
    GREY,
    GREY_ON_WHITE,
    HEIGHT,
    ON_WHITE,
    RED,
    SEPARATE,
    WIDTH,
    ImageFile,
    Pixels,
    Samples,
    quadrants,
    rgb,
    saved,
    tiff,
    with_channels,
)
from PIL import Image

RGBA = np.dstack([COLOUR, ALPHA])
GREY_ALPHA = np.dstack([GREY, ALPHA])


def deep(pixels: Pixels, bits: int) -> npt.NDArray[np.uint16]:
    """The same in more bits, or fewer."""
    return np.asarray(np.rint(pixels.astype(np.float64) * (2**bits - 1) / 255), np.uint16)


def box(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I4s", 8 + len(content), kind) + content


def _jpeg_xl_files() -> Iterable[ImageFile]:
    def jxl(samples: Samples | npt.NDArray[np.floating[Any]], **options: Any) -> bytes:  # noqa: ANN401
        return bytes(imagecodecs.jpegxl_encode(samples, lossless=True, **options))

    yield ImageFile("rgb.jxl", jxl(COLOUR), COLOUR)
    yield ImageFile("container.jxl", jxl(COLOUR, usecontainer=True), COLOUR)
    yield ImageFile("lossy.jxl", bytes(imagecodecs.jpegxl_encode(COLOUR, level=90)), COLOUR, 12)
    yield ImageFile("rgba.jxl", jxl(RGBA), ON_WHITE)
    yield ImageFile("grey.jxl", jxl(GREY), rgb(GREY))
    yield ImageFile("grey-alpha.jxl", jxl(GREY_ALPHA), rgb(GREY_ON_WHITE))
    yield ImageFile("rgb-10.jxl", jxl(deep(COLOUR, 10), bitspersample=10), COLOUR)
    yield ImageFile("rgb-16.jxl", jxl(deep(COLOUR, 16)), COLOUR)
    yield ImageFile("rgba-16.jxl", jxl(deep(RGBA, 16)), ON_WHITE)
    yield ImageFile("float.jxl", jxl((COLOUR / 255).astype(np.float32)), COLOUR)
    yield ImageFile("animated.jxl", jxl(np.stack([COLOUR, 255 - COLOUR])), COLOUR)


def _jpeg_2000_files() -> Iterable[ImageFile]:
    def jp2(samples: Samples, bits: int = 8) -> bytes:
        return bytes(imagecodecs.jpeg2k_encode(samples, level=0, bitspersample=bits, codecformat="jp2", mct=False))

    for bits in (10, 12, 16):
        yield ImageFile(f"rgb-{bits}.jp2", jp2(deep(COLOUR, bits), bits), COLOUR)
    yield ImageFile("rgba-16.jp2", jp2(deep(RGBA, 16), 16), ON_WHITE)
    yield ImageFile("grey-alpha-16.jp2", jp2(deep(GREY_ALPHA, 16), 16), rgb(GREY_ON_WHITE))
    yield ImageFile("grey-2.jp2", jp2(deep(GREY, 2).astype(np.uint8), 2), rgb(GREY))
    yield ImageFile("bilevel.jp2", jp2(deep(BILEVEL, 1).astype(np.uint8), 1), rgb(BILEVEL))
    cmyk = jp2(deep(np.asarray(Image.fromarray(COLOUR).convert("CMYK")), 16), 16)
    yield ImageFile("cmyk-16.jp2", _in_space(cmyk, 12), COLOUR)
    ycc = jp2(deep(np.asarray(Image.fromarray(COLOUR).convert("YCbCr")), 16), 16)
    yield ImageFile("ycc-16.jp2", _in_space(ycc, 18), COLOUR, 2)
    alpha_first = jp2(deep(np.dstack([ALPHA, COLOUR]), 16), 16)
    channels = [(0, 1, 0), (1, 0, 1), (2, 0, 2), (3, 0, 3)]
    yield ImageFile("alpha-first-16.jp2", with_channels(alpha_first, channels), ON_WHITE)
    yield ImageFile("signed.jp2", jp2(GREY.astype(np.int16) - 128, 16), rgb(GREY))
    yield ImageFile("palette.jp2", _with_palette(saved(quadrants(0, 1, 2, 3), "JPEG2000")), COLOUR)


def _in_space(jp2: bytes, number: int) -> bytes:
    at = jp2.index(b"colr") + 7
    return jp2[:at] + struct.pack(">I", number) + jp2[at + 4 :]


def _with_palette(jp2: bytes) -> bytes:
    colours = bytes((*RED, *GREEN, *BLUE, *AMBER))
    palette = box(b"pclr", struct.pack(">HB3B", 4, 3, 7, 7, 7) + colours)
    palette += box(b"cmap", b"".join(struct.pack(">HBB", 0, 1, column) for column in range(3)))
    start = jp2.index(b"jp2h") - 4
    (size,) = struct.unpack_from(">I", jp2, start)
    end = start + size
    return jp2[:start] + struct.pack(">I", size + len(palette)) + jp2[start + 4 : end] + palette + jp2[end:]


def _jpeg_files() -> Iterable[ImageFile]:
    for bits, is_lossless in ((12, False), (12, True), (16, True)):
        for name, samples, seen in (("grey", GREY, rgb(GREY)), ("rgb", COLOUR, COLOUR)):
            jpeg = imagecodecs.jpeg8_encode(deep(samples, bits), level=95, bitspersample=bits, lossless=is_lossless)
            kind = "lossless" if is_lossless else "lossy"
            yield ImageFile(f"{name}-{kind}-{bits}.jpg", bytes(jpeg), seen, 0 if is_lossless else 4)
    yield ImageFile("rgb-ls.jpg", bytes(imagecodecs.jpegls_encode(COLOUR)), COLOUR)
    yield ImageFile("grey-ls-16.jpg", bytes(imagecodecs.jpegls_encode(deep(GREY, 16))), rgb(GREY))


def alpha_without_size(avif: bytes) -> bytes:
    """An AVIF whose transparency does not say how large it is, as one encoder left it."""
    start = avif.index(b"ipma")
    old, new = b"\0\2\4\1", b"\0\2\4\5"  # of the second item, the first of four properties
    assert avif.count(old, start, start + 40) == 1
    at = avif.index(old, start)
    return avif[:at] + new + avif[at + 4 :]


def _avif_files() -> Iterable[ImageFile]:
    plain = saved(RGBA, "AVIF", quality=95, subsampling="4:4:4")
    yield ImageFile("alpha-without-size.avif", alpha_without_size(plain), ON_WHITE, 8)


def _lab(bits: int, *, signed: bool = True) -> bytes:
    """CIELAB of black, a grey of L* = 50 twice, and white."""
    lightness = np.array(quadrants(0, 128, 128, 255), float) * (2**bits - 1) / 255
    middle = 0 if signed else 2 ** (bits - 1)
    others = np.full_like(lightness, middle)
    samples: npt.NDArray[Any] = np.rint(np.dstack([lightness, others, others]))
    return samples.astype(f"<u{bits // 8}").tobytes()


def _tiff_files() -> Iterable[ImageFile]:
    real, signed, alpha = {339: ("H", [3] * 3)}, {339: ("H", [2] * 3)}, {338: ("H", [2])}
    unit = (COLOUR / 255).astype("<f4")
    for order, name in (("<", "little"), (">", "big")):
        data = unit.astype(f"{order}f4").tobytes()
        yield ImageFile(f"rgb-float-{name}.tiff", tiff(data, [32] * 3, 2, real, order=order), COLOUR)
    yield ImageFile("rgb-half.tiff", tiff(unit.astype("<f2").tobytes(), [16] * 3, 2, real), COLOUR, 1)
    yield ImageFile("rgb-float-to-255.tiff", tiff(COLOUR.astype("<f4").tobytes(), [32] * 3, 2, real), COLOUR)
    planes = unit.transpose(2, 0, 1).tobytes()
    yield ImageFile("rgb-float-planes.tiff", tiff(planes, [32] * 3, 2, real, planes=SEPARATE), COLOUR)
    rgba = np.dstack([unit, (ALPHA / 255).astype("<f4")]).tobytes()
    yield ImageFile("rgba-float.tiff", tiff(rgba, [32] * 4, 2, {339: ("H", [3] * 4), **alpha}), ON_WHITE)
    shifted = (COLOUR.astype(np.int32) * 257 - 32768).astype("<i2").tobytes()
    yield ImageFile("rgb-signed.tiff", tiff(shifted, [16] * 3, 2, signed), COLOUR)
    yield ImageFile("rgb-4.tiff", tiff(_packed(deep(COLOUR, 4), 4), [4] * 3, 2), COLOUR)
    yield ImageFile("rgb-12.tiff", tiff(_packed(deep(COLOUR, 12), 12), [12] * 3, 2), COLOUR)
    yield ImageFile("grey-10.tiff", tiff(_packed(deep(GREY, 10), 10), [10], 1), rgb(GREY))
    white_is_zero = (65535 - deep(GREY, 16)).astype(">u2").tobytes()
    yield ImageFile("grey-16-white-is-zero-big.tiff", tiff(white_is_zero, [16], 0, order=">"), rgb(GREY))
    grey = deep(GREY_ALPHA, 16).astype("<u2").tobytes()
    yield ImageFile("grey-alpha-16.tiff", tiff(grey, [16] * 2, 1, alpha), rgb(GREY_ON_WHITE))
    cmyk = np.asarray(Image.fromarray(COLOUR).convert("CMYK"))
    spot = np.dstack([cmyk, np.full_like(GREY, 7)]).tobytes()
    yield ImageFile("cmyk-and-spot.tiff", tiff(spot, [8] * 5, 5, {338: ("H", [0])}), COLOUR)
    lab = rgb(quadrants(0, 119, 119, 255))
    yield ImageFile("lab-16.tiff", tiff(_lab(16), [16] * 3, 8), lab, 1)
    yield ImageFile("icc-lab.tiff", tiff(_lab(8, signed=False), [8] * 3, 9), lab, 1)
    premultiplied = np.dstack([unit * (ALPHA / 255)[..., None], ALPHA / 255]).astype("<f4").tobytes()
    multiplied = {339: ("H", [3] * 4), 338: ("H", [1])}
    yield ImageFile("premultiplied-float.tiff", tiff(premultiplied, [32] * 4, 2, multiplied), ON_WHITE, 2)
    ycc = np.asarray(Image.fromarray(COLOUR).convert("YCbCr"))
    planes = ycc.transpose(2, 0, 1).tobytes()
    yield ImageFile("ycc-planes.tiff", tiff(planes, [8] * 3, 6, {530: ("H", [1, 1])}, planes=SEPARATE), COLOUR, 2)
    parts = [ycc[row::2, column::2, 0] for row in (0, 1) for column in (0, 1)] + [ycc[::2, ::2, 1], ycc[::2, ::2, 2]]
    blocks = np.stack(parts, axis=-1).tobytes()
    for name, tags in (("ycc-420", {530: ("H", [2, 2])}), ("ycc-420-turned", {274: ("H", [3])})):
        seen = COLOUR[::-1, ::-1] if 274 in tags else COLOUR
        yield ImageFile(f"{name}.tiff", tiff(blocks, [8] * 3, 6, tags), seen, 2)
    real_lab = np.frombuffer(_lab(8), np.uint8).reshape(-1, 3) * np.array([100 / 255, 1, 1])
    yield ImageFile("lab-float.tiff", tiff(real_lab.astype("<f4").tobytes(), [32] * 3, 8, real), lab, 1)
    lab_planes = np.frombuffer(_lab(8), np.uint8).reshape(HEIGHT, WIDTH, 3).transpose(2, 0, 1).tobytes()
    yield ImageFile("lab-planes.tiff", tiff(lab_planes, [8] * 3, 8, planes=SEPARATE), lab, 1)
    for name, options in (
        ("rgb-bigtiff-big", {"bigtiff": True, "byteorder": ">"}),
        ("rgb-lerc", {"compression": "lerc"}),
        ("rgb-jpegxl", {"compression": "jpegxl", "compressionargs": {"lossless": True}}),
    ):
        file = io.BytesIO()
        tifffile.imwrite(file, COLOUR, photometric="rgb", metadata=None, **options)
        yield ImageFile(f"{name}.tiff", file.getvalue(), COLOUR)


def _packed(samples: npt.NDArray[np.uint16], bits: int) -> bytes:
    """Return lines of samples with this number of bits, the highest bit first."""
    lines = samples.reshape(HEIGHT, -1)
    places = np.arange(bits - 1, -1, -1, dtype=np.uint16)
    return b"".join(np.packbits((line[:, None] >> places & 1).astype(np.uint8)).tobytes() for line in lines)


@cache
def rare_files() -> tuple[ImageFile, ...]:
    """One of each kind that the second decoder reads."""
    makers = (_jpeg_xl_files, _jpeg_2000_files, _jpeg_files, _avif_files, _tiff_files)
    return tuple(file for maker in makers for file in maker())


# --- read without the second decoder ---


def bitmap(pixels: Pixels, bits: int, masks: tuple[int, ...], *, header: int = 40, compression: int = 3) -> bytes:
    """BMP of 16 or 32 bits a pixel, whose masks say where red, green, blue and maybe alpha are."""
    data = _masked(pixels[::-1], bits, masks)
    start = struct.pack("<IiiHHIIiiII", header, WIDTH, HEIGHT, 1, bits, compression, len(data), 0, 0, 0, 0)
    head = (start + struct.pack(f"<{len(masks)}I", *masks)).ljust(header, b"\0")
    return b"BM" + struct.pack("<IHHI", 14 + len(head) + len(data), 0, 0, 14 + len(head)) + head + data


def texture(pixels: Pixels, bits: int, masks: tuple[int, ...]) -> bytes:
    """The same as DDS, from the top down."""
    size = struct.pack("<5I", 124, 0x1007, HEIGHT, WIDTH, 0).ljust(72, b"\0")
    flags = 0x40 | (len(masks) == 4)
    kind = struct.pack("<4I4I", 32, flags, 0, bits, *masks, *[0] * (4 - len(masks)))
    return b"DDS " + (size + kind).ljust(124, b"\0") + _masked(pixels, bits, masks)


def _masked(pixels: Pixels, bits: int, masks: tuple[int, ...]) -> bytes:
    values = np.zeros((HEIGHT, WIDTH), np.uint64)
    for channel, mask in enumerate(masks):
        shift = (mask & -mask).bit_length() - 1
        levels = np.rint(pixels[..., channel].astype(float) * (mask >> shift) / 255).astype(np.uint64)
        values |= levels << np.uint64(shift)
    return np.ascontiguousarray(values.astype("<u8")).view(np.uint8).reshape(-1, 8)[:, : bits // 8].tobytes()
