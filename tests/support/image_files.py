"""One small file of every kind of image that clipsearch reads, and what a person sees in it.

Pillow writes what it can write. The rest is written here by hand, from the formats' specifications: bit depths,
byte orders, interlacing and transparency that Pillow reads but does not write, and camera RAW.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
import PIL
import pillow_heif
from PIL import Image

Pixels = npt.NDArray[np.uint8]
"""(H, W, 3) or, grey, (H, W)."""
Samples = npt.NDArray[np.integer[Any]]
"""The same of any depth."""
Tags = Mapping[int, tuple[str, Sequence[int] | bytes]]
"""A TIFF directory: tag -> (`struct` letter of its type, values). `s` is text and `R` are fractions."""

pillow_heif.register_heif_opener()  # which lets Pillow write it, too

WIDTH, HEIGHT = 64, 32
CHUNKY, SEPARATE = 1, 2
"""How TIFF lays out the channels."""


@dataclass(frozen=True)
class ImageFile:
    """A file and what is to be seen in it."""

    name: str
    content: bytes
    pixels: Pixels
    """(H, W, 3): as a person sees it."""
    tolerance: int = 0
    """How far a lossy format may be from that."""
    misread: bool = False
    """Whether Pillow's own `convert` shows something else."""


def quadrants(upper_left: Any, upper_right: Any, lower_left: Any, lower_right: Any) -> Pixels:  # noqa: ANN401
    """A picture in four even fields; 16 pixels and their multiples keep lossy formats from bleeding over."""
    upper, lower = [upper_left, upper_right], [lower_left, lower_right]
    fields = np.array([upper, lower], np.uint8)
    return fields.repeat(HEIGHT // 2, axis=0).repeat(WIDTH // 2, axis=1)


RED, GREEN, BLUE, AMBER, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (204, 102, 0), (255, 255, 255)
COLOUR = quadrants(RED, GREEN, BLUE, AMBER)
GREY = quadrants(0, 85, 170, 255)
"""Levels that every depth from two bits on can hold."""
BILEVEL = quadrants(0, 255, 255, 0)
ALPHA = quadrants(255, 255, 128, 0)
ON_WHITE = quadrants(RED, GREEN, (127, 127, 255), WHITE)
"""`COLOUR` through `ALPHA`."""
GREY_ON_WHITE = quadrants(0, 85, 212, 255)
"""`GREY` through `ALPHA`."""


def rgb(pixels: Pixels) -> Pixels:
    """Grey as (H, W, 3)."""
    return pixels if pixels.ndim == 3 else np.stack([pixels] * 3, axis=-1)


def saved(pixels: Samples | Image.Image, kind: str, **options: Any) -> bytes:  # noqa: ANN401  (Pillow's)
    """What Pillow writes."""
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def frames(kind: str, **options: Any) -> bytes:  # noqa: ANN401  (Pillow's)
    """An animation of `COLOUR` and its negative."""
    return saved(COLOUR, kind, save_all=True, append_images=[Image.fromarray(255 - COLOUR)], **options)


# --- PNG ---

_PNG_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
_ADAM7 = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))
"""First row, first column, row step, column step of the seven passes."""


def png_chunk(kind: bytes, data: bytes) -> bytes:
    """With its length and checksum."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(
    samples: Samples,
    depth: int,
    colour_type: int,
    chunks: Iterable[tuple[bytes, bytes]] = (),
    *,
    interlaced: bool = False,
) -> bytes:
    """A PNG of (H, W) or (H, W, C) samples with `depth` bits each."""
    height, width = samples.shape[:2]
    assert samples.reshape(height, width, -1).shape[2] == _PNG_CHANNELS[colour_type]
    passes = [samples[row::rows, column::columns] for row, column, rows, columns in _ADAM7] if interlaced else [samples]
    rows = [line for part in passes if part.size for line in part.reshape(len(part), -1)]
    data = b"".join(b"\0" + _packed(line, depth) for line in rows)
    header = struct.pack(">IIBBBBB", width, height, depth, colour_type, 0, 0, interlaced)
    parts = [(b"IHDR", header), *chunks, (b"IDAT", zlib.compress(data)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(png_chunk(kind, data) for kind, data in parts)


def _packed(line: Samples, depth: int) -> bytes:
    if depth == 16:
        return line.astype(">u2").tobytes()
    bits = np.unpackbits(line.astype(np.uint8)[:, None], axis=1)[:, -depth:]
    return np.packbits(bits).tobytes()


def _png_files() -> Iterable[ImageFile]:
    indices = quadrants(0, 1, 2, 3)
    palette = (b"PLTE", bytes((*RED, *GREEN, *BLUE, *AMBER)))
    rgba = np.dstack([COLOUR, ALPHA])
    grey_alpha = np.dstack([GREY, ALPHA])
    wide = COLOUR.astype(np.uint16) * 257
    last_on_white = quadrants(RED, GREEN, BLUE, WHITE)
    yield ImageFile("rgb.png", saved(COLOUR, "PNG"), COLOUR)
    yield ImageFile("rgba.png", saved(rgba, "PNG"), ON_WHITE)
    yield ImageFile("interlaced.png", png(COLOUR, 8, 2, interlaced=True), COLOUR)
    yield ImageFile("palette-2.png", png(indices, 2, 3, [palette]), COLOUR)
    yield ImageFile("palette-8.png", png(indices, 8, 3, [palette]), COLOUR)
    yield ImageFile("palette-cutout.png", png(indices, 8, 3, [palette, (b"tRNS", b"\xff\xff\xff\0")]), last_on_white)
    yield ImageFile("palette-alpha.png", png(indices, 8, 3, [palette, (b"tRNS", b"\xff\xff\x80\0")]), ON_WHITE)
    yield ImageFile("grey-1.png", png(BILEVEL // 255, 1, 0), rgb(BILEVEL))
    yield ImageFile("grey-2.png", png(GREY // 85, 2, 0), rgb(GREY))
    yield ImageFile("grey-4.png", png(GREY // 17, 4, 0), rgb(GREY))
    yield ImageFile("grey-8.png", saved(GREY, "PNG"), rgb(GREY))
    yield ImageFile("grey-16.png", png(GREY.astype(np.uint16) * 257, 16, 0), rgb(GREY))
    yield ImageFile("grey-alpha-8.png", saved(Image.fromarray(grey_alpha, "LA"), "PNG"), rgb(GREY_ON_WHITE))
    yield ImageFile("grey-alpha-16.png", png(grey_alpha.astype(np.uint16) * 257, 16, 4), rgb(GREY_ON_WHITE))
    yield ImageFile("rgb-16.png", png(wide, 16, 2), COLOUR)
    yield ImageFile("rgba-16.png", png(rgba.astype(np.uint16) * 257, 16, 6), ON_WHITE)
    # One colour of the picture is declared transparent, in the depth of the file.
    for depth, level in ((1, 0), (2, 1), (4, 5), (8, 85), (16, 85 * 257)):
        source = BILEVEL if depth == 1 else GREY
        stored = source.astype(np.uint32) * (2**depth - 1) // 255
        seen = np.where(stored == level, 255, source).astype(np.uint8)
        name = f"grey-{depth}-cutout.png"
        yield ImageFile(name, png(stored, depth, 0, [(b"tRNS", struct.pack(">H", level))]), rgb(seen))
    for depth, stored in ((8, COLOUR), (16, wide)):
        transparent = struct.pack(">3H", *(int(sample) for sample in stored[-1, -1]))
        yield ImageFile(f"rgb-{depth}-cutout.png", png(stored, depth, 2, [(b"tRNS", transparent)]), last_on_white)
    yield ImageFile("animated.png", frames("PNG"), COLOUR)


# --- JPEG and its successors ---


def _cmyk() -> Image.Image:
    return Image.fromarray(COLOUR).convert("CMYK")


def without_segment(jpeg: bytes, marker: int) -> bytes:
    """The JPEG without its first segment of that kind."""
    at = jpeg.index(bytes((0xFF, marker)))
    (length,) = struct.unpack_from(">H", jpeg, at + 2)
    return jpeg[:at] + jpeg[at + 2 + length :]


def _ycck() -> bytes:
    """YCCK as Adobe writes it: the inks C, M, Y turned into YCbCr as if they were R, G, B; and black inverted."""
    inks = np.asarray(Image.fromarray(255 - COLOUR).convert("YCbCr"))
    no_black = np.full_like(inks[..., :1], 255)
    # Pillow inverts what it writes as CMYK.
    jpeg = saved(Image.fromarray(255 - np.dstack([inks, no_black]), "CMYK"), "JPEG", quality=95)
    transform = jpeg.index(b"Adobe") + 11
    return jpeg[:transform] + b"\2" + jpeg[transform + 1 :]


def _jpeg_files() -> Iterable[ImageFile]:
    photo = {"quality": 95, "subsampling": "4:4:4"}
    cmyk = saved(_cmyk(), "JPEG", quality=95)
    yield ImageFile("444.jpg", saved(COLOUR, "JPEG", **photo), COLOUR, 3)
    yield ImageFile("420.jpg", saved(COLOUR, "JPEG", quality=90, subsampling="4:2:0"), COLOUR, 3)
    yield ImageFile("progressive.jpg", saved(COLOUR, "JPEG", progressive=True, **photo), COLOUR, 3)
    yield ImageFile("restarts.jpg", saved(COLOUR, "JPEG", restart_marker_blocks=2, **photo), COLOUR, 3)
    yield ImageFile("grey.jpg", saved(GREY, "JPEG", quality=95), rgb(GREY), 3)
    yield ImageFile("cmyk.jpg", cmyk, COLOUR, 3)
    yield ImageFile("cmyk-without-adobe.jpg", without_segment(cmyk, 0xEE), COLOUR, 3)
    yield ImageFile("ycck.jpg", _ycck(), COLOUR, 4)
    yield ImageFile("two-pictures.mpo", frames("MPO", **photo), COLOUR, 3)


def _successor_files() -> Iterable[ImageFile]:
    rgba = np.dstack([COLOUR, ALPHA])
    yield ImageFile("lossless.webp", saved(COLOUR, "WEBP", lossless=True), COLOUR)
    yield ImageFile("lossy.webp", saved(COLOUR, "WEBP", quality=90), COLOUR, 12)
    yield ImageFile("alpha.webp", saved(rgba, "WEBP", lossless=True, exact=True), ON_WHITE)
    yield ImageFile("animated.webp", frames("WEBP", lossless=True), COLOUR)
    yield ImageFile("444.avif", saved(COLOUR, "AVIF", quality=95, subsampling="4:4:4"), COLOUR, 6)
    yield ImageFile("420.avif", saved(COLOUR, "AVIF", quality=90), COLOUR, 8)
    yield ImageFile("alpha.avif", saved(rgba, "AVIF", quality=95, subsampling="4:4:4"), ON_WHITE, 8)
    yield ImageFile("animated.avif", frames("AVIF", quality=95), COLOUR, 8)
    yield ImageFile("444.heic", heic(COLOUR), COLOUR, 4)
    yield ImageFile("420.heic", heic(COLOUR, quality=90, chroma=420), COLOUR, 8)
    yield ImageFile("alpha.heic", heic(rgba), ON_WHITE, 6)
    yield ImageFile("grey.heic", heic(GREY), rgb(GREY), 4)
    yield ImageFile("rgb.jp2", saved(COLOUR, "JPEG2000"), COLOUR)
    yield ImageFile("rgba.jp2", saved(rgba, "JPEG2000"), ON_WHITE)
    yield ImageFile("grey.jp2", saved(GREY, "JPEG2000"), rgb(GREY))
    yield ImageFile("grey-16.jp2", saved(GREY.astype(np.uint16) * 257, "JPEG2000"), rgb(GREY))
    yield ImageFile("lossy.jp2", saved(COLOUR, "JPEG2000", irreversible=True, quality_layers=[10]), COLOUR, 16)
    yield ImageFile("codestream.j2k", saved(COLOUR, "JPEG2000", no_jp2=True), COLOUR)
    blue_first = saved(COLOUR[..., ::-1].copy(), "JPEG2000", mct=0)
    yield ImageFile(
        "blue-first.jp2", with_channels(blue_first, [(0, 0, 3), (1, 0, 2), (2, 0, 1)]), COLOUR, misread=True
    )
    alpha_first = saved(np.dstack([ALPHA, COLOUR]), "JPEG2000", mct=0)
    channels = [(0, 1, 0), (1, 0, 1), (2, 0, 2), (3, 0, 3)]
    yield ImageFile("alpha-first.jp2", with_channels(alpha_first, channels), ON_WHITE)
    for kind, tolerance in (("JPEG", 3), ("AVIF", 6), ("WEBP", 12), ("PNG", 0), ("TIFF", 0)):
        turned = saved(COLOUR, kind, xmp=XMP_UPSIDE_DOWN, **({"quality": 95} if tolerance else {}))
        if kind == "PNG":
            text = b"XML:com.adobe.xmp" + bytes(5) + XMP_UPSIDE_DOWN
            turned = png(COLOUR, 8, 2, [(b"iTXt", text)])
        yield ImageFile(f"turned-by-xmp.{kind.lower()}", turned, COLOUR, tolerance)


XMP_UPSIDE_DOWN = (
    b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    b'<rdf:Description xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="3"/></rdf:RDF></x:xmpmeta>'
)
"""Says that the picture has to be turned by half. Where EXIF says nothing, viewers do not."""


def with_channels(jp2: bytes, channels: Sequence[tuple[int, int, int]]) -> bytes:
    """A JPEG 2000 with a box that says what each channel is: (number, 0 for a colour or 1 for alpha, which colour)."""
    entries = b"".join(struct.pack(">3H", *channel) for channel in channels)
    if (known := jp2.find(b"cdef")) >= 0:  # Pillow writes one where there is alpha
        return jp2[: known + 6] + entries + jp2[known + 6 + len(entries) :]
    box = struct.pack(">I4sH", 10 + len(entries), b"cdef", len(channels)) + entries
    start = jp2.index(b"jp2h") - 4
    (size,) = struct.unpack_from(">I", jp2, start)
    end = start + size
    return jp2[:start] + struct.pack(">I", size + len(box)) + jp2[start + 4 : end] + box + jp2[end:]


def heic(pixels: Pixels, *, quality: int = -1, chroma: int = 444) -> bytes:
    """HEIF with HEVC; quality -1 is lossless but for the conversion of colours."""
    return saved(pixels, "HEIF", quality=quality, chroma=chroma)


# --- TIFF ---

_TIFF_TYPES = {"B": 1, "s": 2, "H": 3, "I": 4, "R": 5, "Q": 16}


def directory(tags: Tags, at: int, order: str = "<", following: int = 0) -> bytes:
    """A TIFF image file directory for the offset `at`, with the values that do not fit into it behind it."""
    entries, values = b"", b""
    behind = at + 2 + 12 * len(tags) + 4
    for tag, (letter, numbers) in sorted(tags.items()):
        if isinstance(numbers, bytes):
            count, data = len(numbers), numbers
        else:
            count = len(numbers) // 2 if letter == "R" else len(numbers)
            data = struct.pack(f"{order}{len(numbers)}{letter.replace('R', 'I')}", *numbers)
        entries += struct.pack(f"{order}HHI", tag, _TIFF_TYPES[letter], count)
        if len(data) <= 4:
            entries += data.ljust(4, b"\0")
        else:
            entries += struct.pack(f"{order}I", behind + len(values))
            values += data + b"\0" * (len(data) % 2)
    return struct.pack(f"{order}H", len(tags)) + entries + struct.pack(f"{order}I", following) + values


def tiff(
    samples: bytes,
    bits: Sequence[int],
    photometric: int,
    tags: Tags | None = None,
    *,
    order: str = "<",
    compression: int = 1,
    planes: int = CHUNKY,
    size: tuple[int, int] = (WIDTH, HEIGHT),
) -> bytes:
    """A TIFF of one strip (or one for each plane)."""
    width, height = size
    start = 8
    strips = len(bits) if planes == SEPARATE else 1
    length = len(samples) // strips
    entries = {
        256: ("I", [width]),
        257: ("I", [height]),
        258: ("H", list(bits)),
        259: ("H", [compression]),
        262: ("H", [photometric]),
        273: ("I", [start + strip * length for strip in range(strips)]),
        277: ("H", [len(bits)]),
        278: ("I", [height]),
        279: ("I", [length] * strips),
        284: ("H", [planes]),
    } | dict(tags or {})
    at = start + len(samples) + len(samples) % 2
    magic = b"II*\0" if order == "<" else b"MM\0*"
    return magic + struct.pack(f"{order}I", at) + samples.ljust(at - start, b"\0") + directory(entries, at, order)


def _wide_tiff_files() -> Iterable[ImageFile]:
    """More than eight bits a sample."""
    wide = GREY.astype(np.uint16) * 257
    seen = rgb(GREY)
    signed, real = {339: ("H", [2])}, {339: ("H", [3])}
    twelve = (GREY.astype(np.uint32) * 4095 // 255).reshape(-1, 2)
    packed = np.stack([twelve[:, 0] >> 4, (twelve[:, 0] & 15) << 4 | twelve[:, 1] >> 8, twelve[:, 1] & 255], axis=-1)
    yield ImageFile("grey-12.tiff", tiff(packed.astype(np.uint8).tobytes(), [12], 1), seen)
    for order, name in (("<", "little"), (">", "big")):
        yield ImageFile(f"grey-16-{name}.tiff", tiff(wide.astype(f"{order}u2").tobytes(), [16], 1, order=order), seen)
        # Signed values have no fixed black and white: the least is black and the largest is white.
        shifted = (wide.astype(np.int32) - 32768).astype(f"{order}i2")
        yield ImageFile(f"grey-signed-{name}.tiff", tiff(shifted.tobytes(), [16], 1, signed, order=order), seen)
        numbers = (wide.astype(np.int32) * 1000).astype(f"{order}i4")
        yield ImageFile(f"grey-32-{name}.tiff", tiff(numbers.tobytes(), [32], 1, signed, order=order), seen)
        unit = (GREY / np.float32(255)).astype(f"{order}f4")
        yield ImageFile(f"float-{name}.tiff", tiff(unit.tobytes(), [32], 1, real, order=order), seen)
        colour = (COLOUR.astype(np.uint16) * 257).astype(f"{order}u2")
        yield ImageFile(f"rgb-16-{name}.tiff", tiff(colour.tobytes(), [16] * 3, 2, order=order), COLOUR)
    unsigned = (GREY.astype(np.uint32) * 16843009).astype("<u4")
    yield ImageFile("grey-32-unsigned.tiff", tiff(unsigned.tobytes(), [32], 1), seen)
    yield ImageFile("grey-16-white-is-zero.tiff", tiff((65535 - wide).astype("<u2").tobytes(), [16], 0), seen)
    yield ImageFile("float-white-is-zero.tiff", tiff((1 - GREY / 255).astype("<f4").tobytes(), [32], 0, real), seen)
    planes = (COLOUR.astype("<u2") * 257).transpose(2, 0, 1)
    yield ImageFile("planes-16.tiff", tiff(planes.tobytes(), [16] * 3, 2, planes=SEPARATE), COLOUR, misread=True)
    yield ImageFile("grey-16-lzw.tiff", saved(wide, "TIFF", compression="tiff_lzw"), seen)


def _tiff_files() -> Iterable[ImageFile]:
    rgba = np.dstack([COLOUR, ALPHA])
    premultiplied = np.dstack([COLOUR.astype(int) * ALPHA[..., None] // 255, ALPHA]).astype(np.uint8)
    grey_premultiplied = np.dstack([GREY.astype(int) * ALPHA // 255, ALPHA]).astype(np.uint8)
    indices = quadrants(0, 1, 2, 3)
    colours = np.zeros((3, 256), int)
    colours[:, :4] = np.array([RED, GREEN, BLUE, AMBER]).T * 257
    colour_map = {320: ("H", colours.ravel().tolist())}
    bilevel = Image.fromarray(BILEVEL).convert("1")
    for compression in ("raw", "tiff_lzw", "tiff_adobe_deflate", "packbits"):
        yield ImageFile(f"rgb-{compression}.tiff", saved(COLOUR, "TIFF", compression=compression), COLOUR)
    yield ImageFile("rgb-jpeg.tiff", saved(COLOUR, "TIFF", compression="jpeg", quality=95), COLOUR, 3)
    for compression in ("raw", "group3", "group4", "tiff_ccitt"):
        yield ImageFile(f"bilevel-{compression}.tiff", saved(bilevel, "TIFF", compression=compression), rgb(BILEVEL))
    yield ImageFile("planes.tiff", tiff(COLOUR.transpose(2, 0, 1).tobytes(), [8] * 3, 2, planes=SEPARATE), COLOUR)
    yield ImageFile("white-is-zero.tiff", tiff((255 - GREY).tobytes(), [8], 0), rgb(GREY))
    yield ImageFile("rgba.tiff", tiff(rgba.tobytes(), [8] * 4, 2, {338: ("H", [2])}), ON_WHITE)
    yield ImageFile("premultiplied.tiff", tiff(premultiplied.tobytes(), [8] * 4, 2, {338: ("H", [1])}), ON_WHITE, 1)
    if int(PIL.__version__.split(".")[0]) >= 13:  # older ones cannot read it
        grey = tiff(grey_premultiplied.tobytes(), [8] * 2, 1, {338: ("H", [1])})
        yield ImageFile("grey-premultiplied.tiff", grey, rgb(GREY_ON_WHITE), 1)
    yield ImageFile("palette.tiff", tiff(indices.tobytes(), [8], 3, colour_map), COLOUR)
    small_map = {320: ("H", (colours // 257).ravel().tolist())}
    yield ImageFile("palette-to-255.tiff", tiff(indices.tobytes(), [8], 3, small_map), COLOUR, misread=True)
    palette_alpha = tiff(np.dstack([indices, ALPHA]).tobytes(), [8] * 2, 3, {338: ("H", [2])} | colour_map)
    yield ImageFile("palette-alpha.tiff", palette_alpha, ON_WHITE)
    yield ImageFile("cmyk.tiff", tiff(_cmyk().tobytes(), [8] * 4, 5), COLOUR)
    yield ImageFile("lab.tiff", tiff(_lab(), [8] * 3, 8), rgb(quadrants(0, 119, 119, 255)), 1)
    yield ImageFile("pages.tiff", frames("TIFF"), COLOUR)
    yield from _wide_tiff_files()


def _lab() -> bytes:
    """CIELAB of black, middle grey twice and white: L* in 0 to 255, a* and b* signed."""
    lightness = quadrants(0, 128, 128, 255)
    return np.dstack([lightness, np.zeros_like(lightness), np.zeros_like(lightness)]).tobytes()


# --- the old ones ---


def _netpbm_files() -> Iterable[ImageFile]:
    size = f"{WIDTH} {HEIGHT}"
    wide = GREY.astype(np.uint16) * 257
    bits = np.packbits(BILEVEL == 0, axis=1)
    plain = "\n".join(" ".join(map(str, row)) for row in COLOUR.reshape(HEIGHT, -1))
    yield ImageFile("plain.pbm", f"P1 {size}\n{_digits(BILEVEL == 0)}\n".encode(), rgb(BILEVEL))
    yield ImageFile("plain.pgm", f"P2\n# comment\n{size}\n255\n{_digits(GREY, ' ')}\n".encode(), rgb(GREY))
    yield ImageFile("plain.ppm", f"P3 {size} 255\n{plain}\n".encode(), COLOUR)
    yield ImageFile("raw.pbm", f"P4 {size}\n".encode() + bits.tobytes(), rgb(BILEVEL))
    yield ImageFile("raw.pgm", f"P5 {size} 255\n".encode() + GREY.tobytes(), rgb(GREY))
    yield ImageFile("grey-16.pgm", f"P5 {size} 65535\n".encode() + wide.astype(">u2").tobytes(), rgb(GREY))
    yield ImageFile("grey-10.pgm", f"P5 {size} 1023\n".encode() + _scaled(GREY, 1023), rgb(GREY), 1)
    yield ImageFile("raw.ppm", f"P6 {size} 255\n".encode() + COLOUR.tobytes(), COLOUR)
    yield ImageFile("rgb-16.ppm", f"P6 {size} 65535\n".encode() + _scaled(COLOUR, 65535), COLOUR)
    # Rows from the bottom up; a negative scale means little endian.
    yield ImageFile("grey.pfm", f"Pf\n{size}\n-1.0\n".encode() + (GREY[::-1] / 255).astype("<f4").tobytes(), rgb(GREY))


def _digits(values: npt.NDArray[Any], between: str = "") -> str:
    return "\n".join(between.join(str(int(value)) for value in row) for row in values)


def _scaled(pixels: Pixels, white: int) -> bytes:
    return (pixels.astype(np.uint32) * white // 255).astype(">u2").tobytes()


def _bitmap_files() -> Iterable[ImageFile]:
    rgba = np.dstack([COLOUR, ALPHA])
    palette = Image.fromarray(COLOUR).convert("P", palette=Image.Palette.ADAPTIVE, colors=4)
    bilevel = Image.fromarray(BILEVEL).convert("1")
    cutout = Image.fromarray(np.dstack([COLOUR, quadrants(255, 255, 255, 0)]))
    yield ImageFile("rgb.bmp", saved(COLOUR, "BMP"), COLOUR)
    yield ImageFile("palette.bmp", saved(palette, "BMP"), COLOUR)
    yield ImageFile("grey.bmp", saved(GREY, "BMP"), rgb(GREY))
    yield ImageFile("bilevel.bmp", saved(bilevel, "BMP"), rgb(BILEVEL))
    yield ImageFile("runs.bmp", _run_length_bitmap(), COLOUR)
    yield ImageFile("no-alpha.bmp", _bitmap_with_alpha(np.zeros_like(ALPHA)), COLOUR)
    yield ImageFile("alpha.bmp", _bitmap_with_alpha(ALPHA), ON_WHITE)
    yield ImageFile("rgb.dib", saved(COLOUR, "DIB"), COLOUR)
    yield ImageFile("still.gif", saved(palette, "GIF"), COLOUR)
    yield ImageFile("grey.gif", saved(GREY, "GIF"), rgb(GREY))
    yield ImageFile("cutout.gif", saved(cutout, "GIF"), quadrants(RED, GREEN, BLUE, WHITE))
    yield ImageFile("animated.gif", frames("GIF"), COLOUR)
    yield ImageFile("small-frame.gif", _small_frame(saved(palette, "GIF")), _framed(COLOUR), misread=True)
    yield ImageFile("small-cutout.gif", _small_frame(saved(cutout, "GIF")), _framed(quadrants(RED, GREEN, BLUE, WHITE)))
    yield ImageFile("png.ico", saved(rgba, "ICO", sizes=[(WIDTH, HEIGHT)]), ON_WHITE)
    yield ImageFile("bitmap.ico", saved(rgba, "ICO", sizes=[(WIDTH, HEIGHT)], bitmap_format="bmp"), ON_WHITE)


_SCREEN = WIDTH + 20, HEIGHT + 10
_CORNER = 8, 4


def _small_frame(gif: bytes) -> bytes:
    """A GIF on a larger screen, with its upper left corner at `_CORNER`."""
    at = gif.index(b"," + bytes(4) + struct.pack("<2H", WIDTH, HEIGHT))
    return gif[:6] + struct.pack("<2H", *_SCREEN) + gif[10 : at + 1] + struct.pack("<2H", *_CORNER) + gif[at + 5 :]


def _framed(pixels: Pixels) -> Pixels:
    """How that is seen: white around it."""
    left, top = _CORNER
    right, lower = _SCREEN[0] - WIDTH - left, _SCREEN[1] - HEIGHT - top
    return np.pad(pixels, ((top, lower), (left, right), (0, 0)), constant_values=255)


def _bitmap_with_alpha(alpha: Pixels) -> bytes:
    """BMP of 32 bits, whose header has a mask for alpha (BITMAPV4)."""
    data = np.dstack([COLOUR[..., ::-1], alpha])[::-1].tobytes()
    masks = (0xFF0000, 0xFF00, 0xFF, 0xFF000000)
    header = struct.pack("<IiiHHIIiiII4I", 108, WIDTH, HEIGHT, 1, 32, 3, len(data), 0, 0, 0, 0, *masks).ljust(
        108, b"\0"
    )
    start = 14 + len(header)
    return b"BM" + struct.pack("<IHHI", start + len(data), 0, 0, start) + header + data


def _run_length_bitmap() -> bytes:
    """BMP with compression RLE8: from the bottom up, (count, index) pairs; 0 0 ends a row and 0 1 the picture."""
    half = WIDTH // 2
    indices = quadrants(0, 1, 2, 3)[::-1]
    rows = [bytes((half, row[0], half, row[half])) for row in indices.tolist()]
    data = b"\0\0".join(rows) + b"\0\1"
    palette = b"".join(bytes((blue, green, red, 0)) for red, green, blue in (RED, GREEN, BLUE, AMBER))
    header = struct.pack("<IiiHHIIiiII", 40, WIDTH, HEIGHT, 1, 8, 1, len(data), 0, 0, 4, 0)
    start = 14 + len(header) + len(palette)
    return b"BM" + struct.pack("<IHHI", start + len(data), 0, 0, start) + header + palette + data


def _targa_files() -> Iterable[ImageFile]:
    rgba = np.dstack([COLOUR, ALPHA])
    palette = Image.fromarray(COLOUR).convert("P", palette=Image.Palette.ADAPTIVE, colors=4)
    for name, image, seen in (
        ("rgb", Image.fromarray(COLOUR), COLOUR),
        ("rgba", Image.fromarray(rgba), ON_WHITE),
        ("no-alpha", Image.fromarray(np.dstack([COLOUR, np.zeros_like(ALPHA)])), COLOUR),
        ("grey", Image.fromarray(GREY), rgb(GREY)),
        ("palette", palette, COLOUR),
    ):
        yield ImageFile(f"{name}.tga", saved(image, "TGA"), seen)
        yield ImageFile(f"{name}-old.tga", without_targa_footer(saved(image, "TGA")), seen)
        yield ImageFile(f"{name}-runs.tga", without_targa_footer(saved(image, "TGA", compression="tga_rle")), seen)


def without_targa_footer(content: bytes) -> bytes:
    """As the first version of the format ended: with the pixels."""
    assert content.endswith(b"TRUEVISION-XFILE.\0")
    return content[:-26]


def _seldom_files() -> Iterable[ImageFile]:
    """What games, old workstations, Photoshop and Macs leave behind."""
    rgba = np.dstack([COLOUR, ALPHA])
    palette = Image.fromarray(COLOUR).convert("P", palette=Image.Palette.ADAPTIVE, colors=4)
    bilevel = Image.fromarray(BILEVEL).convert("1")
    grey_alpha = Image.fromarray(np.dstack([GREY, ALPHA]), "LA")
    yield ImageFile("rgb.qoi", saved(COLOUR, "QOI"), COLOUR)
    yield ImageFile("rgba.qoi", saved(rgba, "QOI"), ON_WHITE)
    yield ImageFile("rgb.dds", saved(COLOUR, "DDS"), COLOUR)
    yield ImageFile("rgba.dds", saved(rgba, "DDS"), ON_WHITE)
    yield ImageFile("grey.dds", saved(GREY, "DDS"), rgb(GREY))
    yield ImageFile("grey-alpha.dds", saved(grey_alpha, "DDS"), rgb(GREY_ON_WHITE))
    for blocks in ("DXT1", "DXT3", "DXT5", "BC2", "BC3"):
        yield ImageFile(f"{blocks.lower()}.dds", saved(Image.fromarray(COLOUR), "DDS", pixel_format=blocks), COLOUR, 8)
    yield ImageFile("rgb.pcx", saved(COLOUR, "PCX"), COLOUR)
    yield ImageFile("grey.pcx", saved(GREY, "PCX"), rgb(GREY))
    yield ImageFile("palette.pcx", saved(palette, "PCX"), COLOUR)
    yield ImageFile("bilevel.pcx", saved(bilevel, "PCX"), rgb(BILEVEL))
    for channels, pixels, seen in (("rgb", COLOUR, COLOUR), ("rgba", rgba, ON_WHITE), ("grey", GREY, rgb(GREY))):
        yield ImageFile(f"{channels}.sgi", saved(pixels, "SGI"), seen)
        yield ImageFile(f"{channels}-16.sgi", saved(pixels, "SGI", bpc=2), seen)
        yield ImageFile(f"{channels}-runs.sgi", _run_length_sgi(pixels), seen)
    yield from _photoshop_files()
    png_icon, small = saved(rgba, "PNG"), saved(rgba[:16, :16], "PNG")
    yield ImageFile("png.icns", icns((b"icp4", small), (b"ic07", png_icon), (b"TOC ", b"")), ON_WHITE, misread=True)
    yield ImageFile("jp2.icns", icns((b"ic08", saved(rgba, "JPEG2000")), (b"icp4", small)), ON_WHITE, misread=True)
    square, mask = COLOUR[:, 16:48], ALPHA[:, 16:48]
    bare = ((b"il32", square.tobytes()), (b"l8mk", mask.tobytes()))
    yield ImageFile("bare.icns", icns(*bare), ON_WHITE[:, 16:48])


def _run_length_sgi(pixels: Pixels) -> bytes:
    """SGI with a table of where each line begins; channel after channel, from the bottom up."""
    channels = pixels.reshape(HEIGHT, WIDTH, -1).transpose(2, 0, 1)[:, ::-1]
    half = WIDTH // 2
    lines = [bytes((half, line[0], half, line[half], 0)) for line in channels.reshape(-1, WIDTH).tolist()]
    header = bytearray(saved(pixels, "SGI")[:512])
    header[2] = 1
    first = 512 + 8 * len(lines)
    starts = struct.pack(f">{len(lines)}I", *range(first, first + 5 * len(lines), 5))
    return bytes(header) + starts + struct.pack(f">{len(lines)}I", *[5] * len(lines)) + b"".join(lines)


def psd(
    pixels: Pixels, mode: int = 3, *, bits: int = 8, palette: bytes = b"", layers: int | None = None, runs: bool = False
) -> bytes:
    """A Photoshop file of (H, W) or (H, W, C) samples; `layers` is what it says of them, negative if one is alpha."""
    channels = pixels.reshape(HEIGHT, len(pixels[0]), -1).transpose(2, 0, 1)
    header = b"8BPS" + struct.pack(">H6xHIIHH", 1, len(channels), HEIGHT, WIDTH, bits, mode)
    info = b"" if layers is None else struct.pack(">Ihxx", 4, layers)
    sections = b"".join(struct.pack(">I", len(part)) + part for part in (palette, b"", info))
    if not runs:
        return header + sections + b"\0\0" + channels.tobytes()
    half = WIDTH // 2
    lines = [bytes((257 - half, line[0], 257 - half, line[half])) for line in channels.reshape(-1, WIDTH).tolist()]
    return header + sections + b"\0\1" + struct.pack(">H", 4) * len(lines) + b"".join(lines)


def _photoshop_files() -> Iterable[ImageFile]:
    rgba = np.dstack([COLOUR, ALPHA])
    indices = quadrants(0, 1, 2, 3)
    colours = np.zeros((3, 256), np.uint8)
    colours[:, :4] = np.array([RED, GREEN, BLUE, AMBER]).T
    yield ImageFile("rgb.psd", psd(COLOUR), COLOUR)
    yield ImageFile("rgb-runs.psd", psd(COLOUR, runs=True), COLOUR)
    yield ImageFile("alpha.psd", psd(rgba, layers=-1), ON_WHITE)
    yield ImageFile("selection.psd", psd(rgba, layers=1), COLOUR)
    yield ImageFile("selection-without-layers.psd", psd(rgba), COLOUR)
    yield ImageFile("grey.psd", psd(GREY, 1), rgb(GREY))
    yield ImageFile("palette.psd", psd(indices, 2, palette=colours.tobytes()), COLOUR)
    yield ImageFile("bilevel.psd", psd(np.packbits(BILEVEL == 0, axis=1), 0, bits=1), rgb(BILEVEL), misread=True)
    yield ImageFile("cmyk.psd", psd(255 - np.asarray(_cmyk()), 4), COLOUR)


def icns(*icons: tuple[bytes, bytes]) -> bytes:
    """Apple's icons: kind and content of each."""
    body = b"".join(kind + struct.pack(">I", len(data) + 8) + data for kind, data in icons)
    return b"icns" + struct.pack(">I", len(body) + 8) + body


@cache
def image_files() -> tuple[ImageFile, ...]:
    """Every format and variant but camera RAW."""
    makers: Sequence[Callable[[], Iterable[ImageFile]]] = (
        _jpeg_files,
        _png_files,
        _successor_files,
        _tiff_files,
        _bitmap_files,
        _netpbm_files,
        _targa_files,
        _seldom_files,
    )
    return tuple(file for maker in makers for file in maker())


# --- camera RAW ---


def dng(preview: bytes | Pixels | None, *, orientation: int = 1, size: tuple[int, int] = (96, 64)) -> bytes:
    """An evenly grey camera RAW in Adobe's DNG, with a preview as JPEG, as plain pixels, or without one."""
    content = bytearray(8)

    def place(data: bytes) -> int:
        content.extend(b"\0" * (len(content) % 2))
        content.extend(data)
        return len(content) - len(data)

    width, height = size
    sensor = np.full((height, width), 2000, "<u2").tobytes()
    raw: Tags = {
        254: ("I", [0]),
        256: ("I", [width]),
        257: ("I", [height]),
        258: ("H", [16]),
        259: ("H", [1]),
        262: ("H", [32803]),  # colour filter array
        273: ("I", [place(sensor)]),
        277: ("H", [1]),
        278: ("I", [height]),
        279: ("I", [len(sensor)]),
        33421: ("H", [2, 2]),
        33422: ("B", [0, 1, 1, 2]),  # red, green, green, blue
        50717: ("I", [4095]),
    }
    identity = [1 if row == column else 0 for row in range(3) for column in range(3)]
    first: dict[int, tuple[str, Sequence[int] | bytes]] = {
        254: ("I", [1]),  # a smaller version of another image in the file
        271: ("s", b"clipsearch\0"),
        272: ("s", b"test\0"),
        274: ("H", [orientation]),
        306: ("s", b"2024:02:29 12:34:56\0"),
        330: ("I", [place(directory(raw, len(content) + len(content) % 2))]),
        50706: ("B", [1, 4, 0, 0]),
        50708: ("s", b"clipsearch test\0"),
        50721: ("R", [number for value in identity for number in (value, 1)]),
        50728: ("R", [1, 1, 1, 1, 1, 1]),
        50778: ("H", [21]),
    }
    if preview is not None:
        first |= _preview_tags(preview, place)
    at = place(directory(first, len(content) + len(content) % 2))
    content[:8] = b"II*\0" + struct.pack("<I", at)
    return bytes(content)


def _preview_tags(preview: bytes | Pixels, place: Callable[[bytes], int]) -> Tags:
    if isinstance(preview, bytes):
        data, compression, photometric = preview, 7, 6
        with Image.open(io.BytesIO(preview)) as image:
            width, height = image.size
    else:
        data, compression, photometric = preview.tobytes(), 1, 2
        height, width = preview.shape[:2]
    return {
        256: ("I", [width]),
        257: ("I", [height]),
        258: ("H", [8, 8, 8]),
        259: ("H", [compression]),
        262: ("H", [photometric]),
        273: ("I", [place(data)]),
        277: ("H", [3]),
        278: ("I", [height]),
        279: ("I", [len(data)]),
    }
