"""Headers of PSD, PCX, SGI, TGA and ICNS, and the variants of them that Pillow would show wrongly. Decodes nothing.

Sources: Adobe's "Photoshop File Formats Specification", ZSoft's "PCX Technical Reference Manual", SGI's "Image File
Format Specification", and for Apple's icons the types that Pillow knows.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from clipsearch.errors import UnreadableImageError
from clipsearch.images.codecs import jpeg2000

TRUNCATED = "truncated: the file ends before the picture does"

_PSD_MODES = {0: (1, 8), 1: (8,), 2: (8,), 3: (8,), 4: (8,), 8: (8,), 9: (8,)}
"""Colour mode -> supported bits of a channel: bitmap, grey, palette, RGB, CMYK, duotone (shown in grey), CIELAB."""
_PSD_RAW, _PSD_RUNS = 0, 1
_PSD_VERSION_INFO = 1057
"""Number of the resource that says whether there is a flattened image."""

_SGI_HEADER, _PCX_HEADER = 512, 128
_PCX_PALETTE = 769
"""Bytes of the palette of 256 colours at the end of a PCX, with the byte 12 before it."""
_PCX_GREY = 2
_PCX_VERSIONS = (0, 2, 3, 5)
_PCX_WITHOUT_PALETTE = (0, 3)

_ICON_HEADER = 8
_PNG = b"\x89PNG\r\n\x1a\n"
_JPEG_2000 = (b"\xff\x4f\xff\x51", b"\0\0\0\x0cjP  \r\n\x87\n")
_BARE_ICONS = {b"it32": 128, b"ih32": 48, b"il32": 32, b"is32": 16}
"""Type of an icon that is stored as bare pixels, which Pillow reads -> its width."""
_LONGEST_HEADER = 4096
"""Bytes in which the size of a JPEG 2000 is searched for."""


def check(content: bytes, name: str) -> None:
    """Refuse a file that Pillow would show wrongly, or would refuse without saying why. `name` is Pillow's format name.

    Raises:
        UnreadableImageError: the content is such a file, or its header is truncated.
    """
    checks = {"PSD": _check_psd, "PCX": _check_pcx, "SGI": _check_sgi, "JPEG2000": _check_jpeg_2000}
    if name in checks:
        try:
            checks[name](content)
        except struct.error as error:
            raise UnreadableImageError(TRUNCATED) from error


def _check_jpeg_2000(content: bytes) -> None:
    found = jpeg2000.header(content)
    if found is not None and found.colour_space == jpeg2000.CIELAB:
        raise UnreadableImageError("unsupported: JPEG 2000 in CIELAB")


# --- Photoshop ---


def _check_psd(content: bytes) -> None:
    version, bits, mode = struct.unpack_from(">H16xHH", content, 4)
    if version != 1:
        raise UnreadableImageError("unsupported: PSB, the form of PSD for very large pictures")
    if bits not in _PSD_MODES.get(mode, ()):
        kinds = {7: "with several spot colours and no colour space"}
        raise UnreadableImageError(f"unsupported: PSD {kinds.get(mode, f'with {bits} bits a channel')}")
    resources, _, merged = _psd_sections(content)
    for kind, data in _psd_resources(resources):
        if kind == _PSD_VERSION_INFO and len(data) > 4 and not data[4]:  # noqa: PLR2004
            raise UnreadableImageError("unsupported: PSD without a flattened picture (saved without compatibility)")
    (compression,) = struct.unpack_from(">H", content, merged)
    if compression not in (_PSD_RAW, _PSD_RUNS):
        raise UnreadableImageError("unsupported: PSD whose flattened picture is zipped")


def psd_has_alpha(content: bytes) -> bool:
    """Whether the fourth channel of a PSD is transparency, and not a saved selection."""
    try:
        _, layers, _ = _psd_sections(content)
        (count,) = struct.unpack_from(">h", layers, 4)
    except struct.error:
        return False
    return bool(count < 0)


def _psd_sections(content: bytes) -> tuple[bytes, bytes, int]:
    """Resources and layers of a PSD, and the offset of its flattened image."""
    at = 26
    sections = []
    for _ in range(3):  # the first has the colours of a palette
        (size,) = struct.unpack_from(">I", content, at)
        sections.append(content[at + 4 : at + 4 + size])
        at += 4 + size
    return sections[1], sections[2], at


def _psd_resources(section: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield number and content of each resource of a PSD."""
    at = 0
    while at + 12 <= len(section):
        kind, length = struct.unpack_from(">4xHB", section, at)
        at += 6 + (length + 2) // 2 * 2  # the name and its length fill an even number of bytes
        if at + 4 > len(section):
            return
        (size,) = struct.unpack_from(">I", section, at)
        yield kind, section[at + 4 : at + 4 + size]
        at += 4 + (size + 1) // 2 * 2


# --- PCX and SGI, whose signatures have only two bytes ---


def is_pcx(content: bytes) -> bool:
    """Whether the content starts with a valid PCX header."""
    try:
        magic, version, runs, bits, left, top, right, bottom = struct.unpack_from("<4B4H", content)
        planes, line = struct.unpack_from("<BH", content, 65)
    except struct.error:
        return False
    if magic != 10 or version not in _PCX_VERSIONS or runs != 1 or len(content) <= _PCX_HEADER:  # noqa: PLR2004
        return False
    fits = right >= left and bottom >= top and line * 8 >= (right - left + 1) * bits
    return fits and bits in (1, 2, 4, 8) and planes in (1, 2, 3, 4)


def _check_pcx(content: bytes) -> None:
    version, bits, planes, kind = content[1], content[3], content[65], content[68]
    if (bits, planes) not in ((1, 1), (1, 2), (1, 4), (8, 1), (8, 3)):
        raise UnreadableImageError(f"unsupported: PCX with {planes} planes of {bits} bits")
    if bits == 1 and planes > 1 and (version in _PCX_WITHOUT_PALETTE or not any(content[16 : 16 + 3 * 2**planes])):
        raise UnreadableImageError("unsupported: PCX in colours of a screen that it does not name")
    if (bits, planes) == (8, 1) and kind != _PCX_GREY and content[-_PCX_PALETTE:][:1] != b"\x0c":
        raise UnreadableImageError(TRUNCATED)  # the palette is its end


def is_sgi(content: bytes) -> bool:
    """Whether the content starts with a valid SGI header."""
    try:
        magic, runs, size, dimensions, width, height, channels = struct.unpack_from(">HBBHHHH", content)
    except struct.error:
        return False
    known = magic == 474 and runs in (0, 1) and size in (1, 2) and dimensions in (1, 2, 3)  # noqa: PLR2004
    return known and bool(width and height and channels)


def _check_sgi(content: bytes) -> None:
    runs, size, dimensions, width, height, channels = struct.unpack_from(">BBHHHH", content, 2)
    (colours,) = struct.unpack_from(">I", content, 104)
    if colours:
        raise UnreadableImageError("unsupported: SGI picture with a colour map")
    if dimensions == 3 and channels not in (3, 4):  # noqa: PLR2004
        raise UnreadableImageError(f"unsupported: SGI picture with {channels} channels")
    least = 8 * height * (channels if dimensions == 3 else 1)  # noqa: PLR2004  (a table says where each line begins)
    if not runs:
        least = least // 8 * width * size
    if len(content) < _SGI_HEADER + least:
        raise UnreadableImageError(TRUNCATED)


# --- TGA ---

_MAPPED = 1
_FIFTEEN = (15, 16)
"""Bits of a colour with five for each channel, and one left over."""


def targa_as_pillow_has_it(content: bytes) -> bytes:
    """Declare 15-bit colours as 16-bit ones: both take two bytes, and Pillow supports only the latter."""
    at = 7 if content[1] == _MAPPED else 16
    return content[:at] + b"\x10" + content[at + 1 :] if content[at] == _FIFTEEN[0] else content


def targa_has_alpha(content: bytes) -> bool:
    """Whether the header of a TGA with 16-bit colours declares the last bit as alpha; True with more bits."""
    bits = content[7] if content[1] == _MAPPED else content[16]
    return bits not in _FIFTEEN or bool(content[17] & 15)


# --- Apple's icons ---


def icon_image(content: bytes) -> bytes | None:
    """Return the largest image in an Apple icon file if it is a PNG or JPEG 2000; None if it is stored as bare pixels.

    The caller decodes it as a file of its own, with all checks of its format.

    Raises:
        UnreadableImageError: the file is truncated, and the missing part may hold the largest image.
    """
    if int.from_bytes(content[4:8], "big") > len(content):
        raise UnreadableImageError(TRUNCATED)
    best: tuple[int, bytes | None] = (0, None)
    for kind, data in _icons(content):
        width, image = _BARE_ICONS.get(kind, 0), None
        if data.startswith(_PNG) and len(data) > 24:  # noqa: PLR2004
            width, image = int.from_bytes(data[16:20], "big"), data
        elif data.startswith(_JPEG_2000):
            start = data.find(_JPEG_2000[0], 0, _LONGEST_HEADER)
            width, image = int.from_bytes(data[start + 8 : start + 12], "big"), data
        best = max(best, (width, image), key=lambda icon: icon[0])
    return best[1]


def _icons(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    at = _ICON_HEADER
    while at + _ICON_HEADER <= len(content):
        kind, size = struct.unpack_from(">4sI", content, at)
        if size < _ICON_HEADER:
            return
        yield kind, content[at + _ICON_HEADER : at + size]
        at += size
