"""Header of a JPEG XL file: size, channels and EXIF. Decodes nothing.

Source: ISO/IEC 18181-1, annex D (the headers), and 18181-2 (the container).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from clipsearch.images.codecs.boxes import bodies

CODESTREAM, CONTAINER = b"\xff\x0a", b"\0\0\0\x0cJXL \r\n\x87\n"
"""First bytes of a file that is a bare codestream, and of one with boxes like those of JPEG 2000."""
_RATIOS = ((1, 1), (12, 10), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1))
"""Ratios of width to height, by which the header can leave out the width."""
ALPHA, BLACK = 0, 4
_SPOT, _FILTER = 2, 5  # kinds of extra channel, like the two above
_LONGEST_HEADER = 4096
"""Bytes of the codestream that are read."""


@dataclass(frozen=True)
class Header:
    """What the header of a JPEG XL file says. The decoder applies the orientation."""

    width: int
    """Pixels, as stored."""
    height: int
    """Pixels, as stored."""
    bits: int
    """Bits of a sample; white is 2**bits - 1 if samples are integers."""
    extras: tuple[int, ...] = ()
    """Kind of each extra channel: `ALPHA`, `BLACK` or another number of the format."""
    is_premultiplied: bool = False
    """Whether colours are multiplied by alpha."""


class _Bits:
    """Reader of numbers from a bit stream, lowest bit first."""

    def __init__(self, data: bytes) -> None:
        self._bits = int.from_bytes(data, "little")
        self._left = 8 * len(data)

    def take(self, count: int) -> int:
        """Read the next `count` bits as a number.

        Raises:
            ValueError: there are fewer.
        """
        if count > self._left:
            raise ValueError("the header is cut off")
        value = self._bits & ((1 << count) - 1)
        self._bits >>= count
        self._left -= count
        return value

    def choose(self, *choices: tuple[int, int]) -> int:
        """Read a variable-length number: two bits choose one of four (offset, number of bits that are added to it)."""
        offset, count = choices[self.take(2)]
        return offset + self.take(count)


def header(content: bytes) -> Header | None:
    """Read the header of a JPEG XL file; None if it is broken or truncated."""
    bits = _Bits(_codestream(content)[2:_LONGEST_HEADER])
    try:
        width, height = _size(bits)
        if bits.take(1):  # all default values
            return Header(width, height, 8)
        has_more = bits.take(1)
        if has_more:
            _pass_over_more(bits)
        depth = _depth(bits)
        bits.take(1)
        extras = [_extra(bits) for _ in range(bits.choose((0, 0), (1, 0), (2, 4), (1, 12)))]
        kinds = tuple(kind for kind, _ in extras)
        return Header(width, height, depth, kinds, any(kind == ALPHA and flag for kind, flag in extras))
    except ValueError:
        return None


def exif(content: bytes) -> bytes:
    """EXIF block of a container, in the form of a TIFF; empty if there is none."""
    for kind, body in bodies(content):
        if kind == b"Exif" and len(body) > 4:  # noqa: PLR2004
            (start,) = struct.unpack_from(">I", body)
            return body[4 + start :]
    return b""


def _codestream(content: bytes) -> bytes:
    if content.startswith(CODESTREAM):
        return content
    for kind, body in bodies(content):
        if kind == b"jxlc":
            return body
        if kind == b"jxlp":
            return body[4:]  # a number comes first
    return b""


def _size(bits: _Bits) -> tuple[int, int]:
    is_small = bits.take(1)  # a multiple of eight

    def side() -> int:
        return 8 * (bits.take(5) + 1) if is_small else bits.choose((1, 9), (1, 13), (1, 18), (1, 30))

    height = side()
    ratio = bits.take(3)
    return (height * _RATIOS[ratio - 1][0] // _RATIOS[ratio - 1][1] if ratio else side()), height


def _preview_size(bits: _Bits) -> None:
    is_small = bits.take(1)

    def side() -> int:
        if is_small:
            return 8 * bits.choose((16, 0), (32, 0), (1, 5), (33, 9))
        return bits.choose((1, 6), (65, 8), (321, 10), (1345, 12))

    side()
    if not bits.take(3):
        side()


def _pass_over_more(bits: _Bits) -> None:
    bits.take(3)  # the orientation
    if bits.take(1):
        _size(bits)  # in which it is meant to be shown
    if bits.take(1):
        _preview_size(bits)
    if bits.take(1):  # an animation: its speed, as a fraction, how often, and whether frames have times
        bits.choose((100, 0), (1000, 0), (1, 10), (1, 30))
        bits.choose((1, 0), (1001, 0), (1, 8), (1, 10))
        bits.choose((0, 0), (0, 3), (0, 16), (0, 32))
        bits.take(1)


def _depth(bits: _Bits) -> int:
    if bits.take(1):  # real numbers, and the bits of their exponent
        depth = bits.choose((32, 0), (16, 0), (24, 0), (1, 6))
        bits.take(4)
        return depth
    return bits.choose((8, 0), (10, 0), (12, 0), (1, 6))


def _extra(bits: _Bits) -> tuple[int, bool]:
    """Kind of an extra channel, and whether it is an alpha that the colours are multiplied by."""
    if bits.take(1):  # all default values
        return ALPHA, False
    kind = bits.choose((0, 0), (1, 0), (2, 4), (18, 6))
    _depth(bits)
    bits.choose((0, 0), (3, 0), (4, 0), (1, 3))  # how much coarser it is
    bits.take(8 * bits.choose((0, 0), (0, 4), (16, 5), (48, 10)))  # its name
    if kind == _SPOT:
        bits.take(4 * 16)
    elif kind == _FILTER:
        bits.choose((1, 0), (0, 2), (3, 4), (19, 8))
    return kind, kind == ALPHA and bool(bits.take(1))
