"""Removal of metadata (texts, comments, profiles, times) from image files. Decodes nothing.

For a file that its decoder refuses: broken metadata must not make an image unreadable. What is removed is not unpacked,
so a text that unpacks to gigabytes does no harm.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterator
from typing import NamedTuple

from clipsearch.images.codecs.boxes import boxes
from clipsearch.images.codecs.tiff_tags import directory

_Stripper = Callable[[bytes, bool], bytes]
"""Strips a file; the second argument says whether to keep valid metadata about time, orientation and colours."""


def stripped(content: bytes, name: str) -> Iterator[bytes]:
    """Yield the content without most metadata, then without any; `name` is Pillow's name of its format.

    The first keeps valid metadata about time, orientation and colours. A version that equals the content or the one
    before is left out.
    """
    strip = _STRIPPERS.get(name)
    if strip is None:
        return
    before = content
    for keep in (True, False):
        less = strip(content, keep)
        if less not in (before, content):
            yield less
        before = less


# --- PNG ---

_PNG_START = 8
_MOST_UNPACKED = 1 << 20
"""Bytes of an unpacked text or profile; Pillow refuses more."""
_PNG_SIZES = {b"gAMA": 4, b"cHRM": 32, b"sRGB": 1, b"cICP": 4}
_XMP = b"XML:com.adobe.xmp\0"
_TRANSPARENT_BYTES = {0: (2,), 2: (6,), 3: range(1, 257)}
"""Colour type -> valid lengths of the chunk tRNS."""


def _png(content: bytes, keep: bool) -> bytes:  # noqa: FBT001  (a `_Stripper`)
    parts = [content[:_PNG_START]]
    at = _PNG_START
    while at + 8 <= len(content):
        length, kind = struct.unpack_from(">I4s", content, at)
        if not kind.isalpha():
            break
        end = at + 12 + length
        is_critical = kind[:1].isupper()
        if is_critical or (_is_sound(kind, content, at, length) and (keep or kind == b"tRNS")):
            parts.append(content[at:end])
        at = end
    return b"".join(parts)


def _is_sound(kind: bytes, png: bytes, at: int, length: int) -> bool:
    """Whether a chunk is about the image and valid."""
    data = png[at + 8 : at + 8 + length]
    if png[at + 8 + length : at + 12 + length] != zlib.crc32(kind + data).to_bytes(4, "big"):
        return False
    if kind == b"tRNS":
        return length in _TRANSPARENT_BYTES.get(png[25], ())
    if kind == b"iCCP":
        _, _, packed = data.partition(b"\0")
        return packed[:1] == b"\0" and _unpacks(packed[1:])
    if kind == b"iTXt":
        packed = data[len(_XMP) + 2 :].split(b"\0", 2)[-1]
        return data.startswith(_XMP) and (data[len(_XMP)] == 0 or _unpacks(packed))
    return kind == b"eXIf" or _PNG_SIZES.get(kind) == length


def _unpacks(packed: bytes) -> bool:
    unpacking = zlib.decompressobj()
    try:
        unpacking.decompress(packed, _MOST_UNPACKED)
    except zlib.error:
        return False
    return not unpacking.unconsumed_tail


# --- JPEG ---


class Segment(NamedTuple):
    """Position of a JPEG segment: a marker and its parameters."""

    marker: int
    """Second byte of the marker."""
    start: int
    """Offset of the marker."""
    end: int
    """Offset after the parameters, which is past the end of a truncated file."""


_START_OF_SCAN, _END_OF_IMAGE, _COMMENT = 0xDA, 0xD9, 0xFE
_ALONE = (0x01, *range(0xD0, 0xD9), _END_OF_IMAGE)
"""Markers without parameters."""
_JFIF, _EXIF, _PROFILE, _ADOBE = 0xE0, 0xE1, 0xE2, 0xEE
_MARKS_OF_COLOURS = {_JFIF: (b"JFIF\0", 14), _ADOBE: (b"Adobe", 12)}
"""Application segments that decoders need, since they say how colours are coded -> (prefix, least length)."""


def segments(jpeg: bytes, start: int = 2) -> Iterator[Segment]:
    """Yield the segments of a JPEG from offset `start` on, up to and including the next scan."""
    at = start
    while True:
        at = jpeg.find(b"\xff", at)
        if at < 0 or at + 2 > len(jpeg):
            return
        marker = jpeg[at + 1]
        if marker in (0, 0xFF):
            at += 1
            continue
        length = 0 if marker in _ALONE else int.from_bytes(jpeg[at + 2 : at + 4], "big")
        segment = Segment(marker, at, at + 2 + max(length, 0 if marker in _ALONE else 2))
        yield segment
        if marker in (_START_OF_SCAN, _END_OF_IMAGE):
            return
        at = segment.end


def _jpeg(content: bytes, keep: bool) -> bytes:  # noqa: FBT001  (a `_Stripper`)
    parts, at = [content[:2]], 2
    for segment in segments(content):
        part = content[segment.start : segment.end]
        if _is_part_of_image(segment.marker, part) or (keep and _tells_of_image(segment.marker, part)):
            parts.append(part)
        at = segment.end
    return b"".join([*parts, content[at:]])


def _is_part_of_image(marker: int, part: bytes) -> bool:
    if marker == _COMMENT or marker in range(0xE0, 0xF0):
        begins, least = _MARKS_OF_COLOURS.get(marker, (b"", len(part)))
        return part[4:].startswith(begins) and len(part) - 4 >= least if begins else False
    return True


def _tells_of_image(marker: int, part: bytes) -> bool:
    data = part[4:]
    if marker == _EXIF:
        return data.startswith((b"Exif\0\0", b"http://ns.adobe.com/xap/1.0/\0"))
    return marker == _PROFILE and data.startswith(b"ICC_PROFILE\0") and len(data) > len(b"ICC_PROFILE\0") + 2


# --- WebP ---

_CANVAS, _ANIMATION, _FRAME, _ALPHA = b"VP8X", b"ANIM", b"ANMF", b"ALPH"
_PIXELS = (b"VP8 ", b"VP8L")
_WEBP_FLAGS = {b"ICCP": 0x20, b"EXIF": 0x08, b"XMP ": 0x04}
"""Chunk of metadata -> the flag in the chunk VP8X that announces it."""


def webp_chunks(content: bytes) -> Iterator[tuple[bytes, bytes, int]]:
    """Yield kind and data of each chunk of a WebP, and the number of bytes that it lacks."""
    at = 12
    while at + 8 <= len(content):
        kind, size = struct.unpack_from("<4sI", content, at)
        data = content[at + 8 : at + 8 + size]
        yield kind, data, size - len(data)
        at += 8 + size + (size & 1)


def webp(chunks: list[tuple[bytes, bytes]]) -> bytes:
    """Build a WebP of these chunks."""
    body = b"".join(
        kind + struct.pack("<I", len(data)) + data + bytes(len(data) & 1) for kind, data in _announced(chunks)
    )
    return b"RIFF" + struct.pack("<I", len(body) + 4) + b"WEBP" + body


def _announced(chunks: list[tuple[bytes, bytes]]) -> Iterator[tuple[bytes, bytes]]:
    """Yield the chunks; the flags of VP8X announce only metadata that is there."""
    kinds = {kind for kind, _ in chunks}
    absent = sum(flag for kind, flag in _WEBP_FLAGS.items() if kind not in kinds)
    for kind, data in chunks:
        yield kind, bytes([data[0] & ~absent]) + data[1:] if kind == _CANVAS and data else data


def _webp(content: bytes, keep: bool) -> bytes:  # noqa: FBT001  (a `_Stripper`)
    kept: list[tuple[bytes, bytes]] = []
    for kind, data, missing in webp_chunks(content):
        has_image = any(known in (*_PIXELS, _FRAME) for known, _ in kept)
        if missing and (has_image or kind in _WEBP_FLAGS):
            continue  # a later frame, or metadata
        if kind in (_CANVAS, _ANIMATION, _FRAME, _ALPHA, *_PIXELS) or (keep and kind in _WEBP_FLAGS):
            if missing:
                return content
            kept.append((kind, data))
    return webp(kept)


# --- GIF ---

_IMAGE, _EXTENSION, _GRAPHIC_CONTROL = 0x2C, 0x21, 0xF9


def _gif(content: bytes, keep: bool) -> bytes:  # noqa: ARG001, FBT001  (a `_Stripper`)
    """Remove extensions before the first image; what follows it is never read."""
    if len(content) < 13:  # noqa: PLR2004  (its header)
        return content
    flags = content[10]
    at = 13 + (3 << ((flags & 7) + 1) if flags & 0x80 else 0)
    parts = [content[:at]]
    while at + 2 <= len(content) and content[at] == _EXTENSION:
        end = at + 2
        while end < len(content) and content[end]:
            end += 1 + content[end]
        if content[at + 1] == _GRAPHIC_CONTROL:
            parts.append(content[at : end + 1])
        at = end + 1
    return b"".join([*parts, content[at:]])


# --- TIFF ---

_NEEDED_TAGS = frozenset(
    {
        *(254, 256, 257, 258, 259, 262, 266, 273, 274, 277, 278, 279, 284, 292, 293, 297, 317, 320, 321, 322, 323, 324),
        *(325, 330, 332, 334, 338, 339, 340, 341, 342, 347, 50706),
        *range(512, 533),
    }
)
"""Tags of a TIFF that are needed to read its pixels."""
_METADATA_TAGS = frozenset({306, 700, 34665, 34675})
"""Tags of date, XMP, EXIF and colour profile."""


def _tiff(content: bytes, keep: bool) -> bytes:  # noqa: FBT001  (a `_Stripper`)
    """Remove entries from the first directory."""
    found = directory(content)
    if found is None or found.end > len(content):
        return content
    wanted = _NEEDED_TAGS | (_METADATA_TAGS if keep else frozenset())
    entries = [content[at : at + found.entry_bytes] for at in range(found.first, found.end, found.entry_bytes)]
    kept = [item for item in entries if struct.unpack(found.order + "H", item[:2])[0] in wanted]
    count = struct.pack(found.order + ("Q" if found.is_big else "H"), len(kept))
    shorter = count + b"".join(kept) + bytes(8 if found.is_big else 4)
    return content[: found.start] + shorter + content[found.start + len(shorter) :]


# --- JPEG 2000 ---

_NEEDED_BOXES = (b"jP  ", b"ftyp", b"jp2h", b"jp2c")
_NEEDED_HEADER_BOXES = (b"ihdr", b"bpcc", b"colr", b"pclr", b"cmap", b"cdef")


def _jpeg2000(content: bytes, keep: bool) -> bytes:  # noqa: ARG001, FBT001  (a `_Stripper`)
    parts = []
    for kind, start, inner, end in boxes(content):
        if kind == b"jp2h":
            header = content[inner:end]
            body = b"".join(header[a:b] for known, a, _, b in boxes(header) if known in _NEEDED_HEADER_BOXES)
            parts.append(struct.pack(">I4s", 8 + len(body), kind) + body)
        elif kind in _NEEDED_BOXES:
            parts.append(content[start:end])
    return b"".join(parts) if content[4:8] == b"jP  " else content


_STRIPPERS: dict[str, _Stripper] = {
    "GIF": _gif,
    "JPEG": _jpeg,
    "JPEG2000": _jpeg2000,
    "PNG": _png,
    "TIFF": _tiff,
    "WEBP": _webp,
}
