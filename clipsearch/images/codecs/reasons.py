"""Words for why an image cannot be read: what kind of file it is, by its header, and whether that kind is unsupported.

Decoders only say "not identified by this driver" or "decoder error -2". Reads headers only.

Sources: TIFF 6.0 and its technical notes, Microsoft's BITMAPINFOHEADER, ITU-T T.81, ISO/IEC 15444-1, the TGA and PNG
specifications.
"""

from __future__ import annotations

import re
import struct

from clipsearch.images.codecs.boxes import boxes
from clipsearch.images.codecs.header_checks import TRUNCATED
from clipsearch.images.codecs.metadata_stripping import segments
from clipsearch.images.codecs.tiff_tags import whole_numbers
from clipsearch.system.counting import plural

_SAYS_KIND = re.compile(
    r"unsupported (bmp|\w+ mode)|unknown (pixel|raw|tga) (mode|depth)|cannot handle|unable to determine|not supported",
    re.IGNORECASE,
)
"""Decoder messages that mean an unsupported kind, not broken data."""
_SAYS_NOTHING = re.compile(r"decoder error|not identified|broken data stream|unknown error|decoding error|cannot load")
"""Decoder messages that help nobody."""
_SAYS_TRUNCATED = re.compile(
    r"truncat|end of file|not enough (image )?data|not large enough|only got|reached eof|requires a buffer",
    re.IGNORECASE,
)
_PYTHON_REPR = re.compile(r"0x[0-9a-f]{6}|\\x|<.*>")
"""Objects and bytes as Python prints them."""
_PILLOW_NAME = re.compile(r"\b(PIL|Pillow|\w+Plugin|Image\w*\.\w+|[A-Z]+_[A-Z_]+)\b")
"""Names in Pillow's code, which mean nothing to users."""
_LONGEST = 200


def first_reason(error: Exception) -> str:
    """Turn an exception of a decoder into one line for users."""
    text = "".join(character for character in " ".join(str(error).split()) if character.isprintable())
    text = re.sub(r"\bb(?=['\"])", "", text)  # the prefix of bytes: b'IHDR'
    if _SAYS_TRUNCATED.search(text):
        return TRUNCATED
    if "MAX_TEXT" in text:
        return "broken image: a text or a profile in it is too large"
    if _PILLOW_NAME.search(text):
        return "broken image"
    cause = error.__cause__ or error
    if not text or _PYTHON_REPR.search(text) or isinstance(cause, (LookupError, TypeError, ArithmeticError)):
        return "broken image"
    return f"broken image: {text}"[:_LONGEST]


def reason(content: bytes, name: str, said: str, before: str) -> str:
    """Return why a file cannot be read, in better words than `before` if there are any.

    Args:
        content: The file.
        name: Pillow's name of its format.
        said: The message of the decoder.
        before: The reason so far, from `first_reason`.
    """
    return _better_reason(content, name, said, before)[:_LONGEST]


def _better_reason(content: bytes, name: str, said: str, before: str) -> str:
    if not before.startswith("broken image"):
        return before
    if name in ("AVIF", "HEIF", "JPEG2000") and _is_box_truncated(content):
        return TRUNCATED
    lacking, kind = False, {"PPM": "Netpbm"}.get(name, name)
    try:
        if name in _KINDS:
            lacking, kind = _KINDS[name](content)
    except (struct.error, IndexError, ValueError, OverflowError):  # not even the header is whole
        return TRUNCATED
    if lacking or _SAYS_KIND.search(said):
        return f"unsupported: {kind}"
    if before == "broken image" or _SAYS_NOTHING.search(said):
        return f"broken image: the pixels of this {kind} cannot be decoded"
    return before


def _is_box_truncated(content: bytes) -> bool:
    ends = [end for *_, end in boxes(content)]
    return content[4:8] in (b"ftyp", b"jP  ") and bool(ends) and ends[-1] > len(content)


def _bits(numbers: tuple[int, ...]) -> str:
    """Words for the bits of each channel: "8 bits", or "5-6-5 bits"."""
    if len(set(numbers)) > 1:
        return f"{'-'.join(map(str, numbers))} bits"
    return plural(numbers[0], "bit")


def _channels(number: int) -> str:
    return plural(number, "channel")


# Each returns whether the kind is known to be unsupported, and its name for users.


def _bmp(content: bytes) -> tuple[bool, str]:
    start = 14 if content.startswith(b"BM") else 0
    (size,) = struct.unpack_from("<I", content, start)
    if size == 12:  # noqa: PLR2004  (OS/2's first)
        (depth,) = struct.unpack_from("<H", content, start + 10)
        return depth not in (1, 4, 8, 16, 24), f"BMP with {_bits((depth,))} a pixel"
    depth, compression = struct.unpack_from("<HI", content, start + 14)
    packed = {
        1: "runs of 8 bits",
        2: "runs of 4 bits",
        3: "bit masks",
        4: "a JPEG in it",
        5: "a PNG in it",
        6: "bit masks",
    }
    detail = f" and {packed.get(compression, f'compression {compression}')}" if compression else ""
    if compression in (3, 6) and len(content) >= start + 52:
        masks = struct.unpack_from("<3I", content, start + 40)
        detail = f" in bit masks of {_bits(tuple(mask.bit_count() for mask in masks))}"
    lacking = depth not in (1, 4, 8, 16, 24, 32) or compression not in (0, 1, 2, 3, 6)
    return lacking, f"BMP with {_bits((depth,))} a pixel{detail}"


_COMPRESSIONS = {
    1: "none",
    2: "CCITT runs",
    3: "CCITT Group 3",
    4: "CCITT Group 4",
    5: "LZW",
    6: "old JPEG",
    7: "JPEG",
    8: "Deflate",
    32766: "NeXT runs",
    32773: "PackBits",
    32809: "ThunderScan",
    32946: "Deflate",
    34661: "JBIG",
    34676: "SGI Log",
    34677: "SGI Log",
    34712: "JPEG 2000",
    34887: "LERC",
    34892: "lossy JPEG of DNG",
    34925: "LZMA",
    50000: "Zstandard",
    50001: "WebP",
    50002: "JPEG XL",
}
_USUAL = (1, 2, 3, 4, 5, 7, 8, 32773, 32946)
_COLOURS = {0: "grey", 1: "grey", 2: "RGB", 3: "palette", 4: "mask", 5: "CMYK", 6: "YCbCr", 8: "CIELAB", 9: "ICCLAB"}
_COLOURS |= {10: "ITULAB", 32803: "colour filter", 32844: "LogL", 32845: "LogLUV"}
_NUMBERS = {1: "", 2: " signed", 3: " as real numbers", 5: " as complex integers", 6: " as complex numbers"}


def _tiff(content: bytes) -> tuple[bool, str]:
    tags = whole_numbers(content)
    if not tags:
        raise ValueError("there is no whole directory")
    photometric, compression = tags.get(262, (1,))[0], tags.get(259, (1,))[0]
    samples, numbers = tags.get(277, (1,))[0], tags.get(339, (1,))[0]
    kind = f"TIFF in {_COLOURS.get(photometric, f'colours of kind {photometric}')}"
    kind += f", {_channels(samples)} of {_bits(tags.get(258) or (1,))}{_NUMBERS.get(numbers, '')}"
    if compression != 1:
        kind += f", compressed with {_COMPRESSIONS.get(compression, f'method {compression}')}"
    return compression not in _USUAL and compression not in (34925, 50000, 50001), kind


_FRAMES = {0xC3: "lossless", 0xC5: "hierarchical", 0xC6: "hierarchical", 0xC7: "hierarchical", 0xCB: "lossless"}
_FRAMES |= {0xCD: "hierarchical", 0xCE: "hierarchical", 0xCF: "hierarchical", 0xDE: "hierarchical"}
_FRAMES |= {0xC9: "arithmetic", 0xCA: "arithmetic"}


def _jpeg(content: bytes) -> tuple[bool, str]:
    for segment in segments(content):
        is_frame = 0xC0 <= segment.marker <= 0xCF and segment.marker not in (0xC4, 0xC8, 0xCC)  # noqa: PLR2004
        if is_frame or segment.marker == 0xDE:  # noqa: PLR2004
            bits, channels = content[segment.start + 4], content[segment.start + 9]
            coding = f"{_FRAMES[segment.marker]} " if segment.marker in _FRAMES else ""
            lacking = coding == "hierarchical " or bits != 8 or channels not in (1, 3, 4)  # noqa: PLR2004
            return lacking, f"{coding}JPEG with {_channels(channels)} of {_bits((bits,))}"
    return False, "JPEG without a frame"


def _png(content: bytes) -> tuple[bool, str]:
    if content[12:16] == b"CgBI":
        return True, "PNG in the form of Apple's programs for telephones (CgBI)"
    depth, colours = content[24], content[25]
    names = {0: "grey", 2: "RGB", 3: "palette", 4: "grey with alpha", 6: "RGBA"}
    return False, f"PNG in {names.get(colours, f'colours of kind {colours}')} of {_bits((depth,))}"


def _jpeg2000(content: bytes) -> tuple[bool, str]:
    start = content.index(b"\xff\x4f\xff\x51")
    (channels,) = struct.unpack_from(">H", content, start + 40)
    depths = tuple((content[start + 42 + 3 * channel] & 127) + 1 for channel in range(min(channels, 8)))
    return False, f"JPEG 2000 with {_channels(channels)} of {_bits(depths)}"


def _targa(content: bytes) -> tuple[bool, str]:
    kind, map_bits, depth = content[2], content[7], content[16]
    colours = {1: "palette", 2: "RGB", 3: "grey"}.get(kind & 7, f"colours of kind {kind}")
    with_map = f", a colour map of {map_bits} bits" if content[1] else ""
    return False, f"TGA in {colours} with {_bits((depth,))} a pixel{with_map}"


_KINDS = {
    "BMP": _bmp,
    "DIB": _bmp,
    "JPEG": _jpeg,
    "JPEG2000": _jpeg2000,
    "PNG": _png,
    "TGA": _targa,
    "TIFF": _tiff,
}
