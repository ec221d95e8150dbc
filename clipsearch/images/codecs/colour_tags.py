"""Colour space that a file declares without an ICC profile: PNG chunks, and CICP in PNG, AVIF and HEIF.

Knows which declaration counts where there are several. Decodes nothing.

Sources: PNG (third edition), 4.3 (which chunk counts) and 11.3.2; ITU-T H.273, tables 2 and 3 (CICP).
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from typing import Any, NamedTuple

from PIL import Image

from clipsearch.images.codecs import avif

Curve = float | str
"""Transfer function from stored values to light: the exponent of a power, or "srgb", "pq" or "hlg"."""
Chromaticities = tuple[float, float, float, float, float, float, float, float]
"""x and y of white, red, green and blue."""


class Encoding(NamedTuple):
    """Colour space of an image: primaries with white point, and transfer function."""

    primaries: Chromaticities
    curve: Curve

    @property
    def is_hdr(self) -> bool:
        """Whether values reach far beyond diffuse white."""
        return self.curve in ("pq", "hlg")


_D65 = (0.3127, 0.3290)
REC_709: Chromaticities = (*_D65, 0.64, 0.33, 0.30, 0.60, 0.15, 0.06)
"""Chromaticities of BT.709, which are also those of sRGB."""
SRGB = Encoding(REC_709, "srgb")
_PRIMARIES: Mapping[int, Chromaticities] = {
    1: REC_709,
    4: (0.310, 0.316, 0.67, 0.33, 0.21, 0.71, 0.14, 0.08),
    5: (*_D65, 0.64, 0.33, 0.29, 0.60, 0.15, 0.06),
    6: (*_D65, 0.630, 0.340, 0.310, 0.595, 0.155, 0.070),
    7: (*_D65, 0.630, 0.340, 0.310, 0.595, 0.155, 0.070),
    9: (*_D65, 0.708, 0.292, 0.170, 0.797, 0.131, 0.046),
    11: (0.314, 0.351, 0.680, 0.320, 0.265, 0.690, 0.150, 0.060),
    12: (*_D65, 0.680, 0.320, 0.265, 0.690, 0.150, 0.060),
    22: (*_D65, 0.630, 0.340, 0.295, 0.605, 0.155, 0.077),
}
_CURVES: Mapping[int, Curve] = {4: 2.2, 5: 2.8, 8: 1.0, 16: "pq", 18: "hlg"}
"""Transfer characteristics (ITU-T H.273) -> curve. All others are shown like sRGB, as those of television are."""
_POWERS = (0.1, 10.0)
"""Least and greatest exponent of a gamma that is no mistake."""


def encoding(image: Image.Image, content: bytes, kind: str | None, *, has_profile: bool) -> Encoding | None:
    """Return the colour space that a file declares without an ICC profile; None if it declares none or has a profile.

    A PNG's cICP chunk has precedence over its profile; everything else does not.

    Args:
        image: As decoded from `content`; its `info` holds what Pillow has read.
        content: The file.
        kind: Pillow's name of the file's format.
        has_profile: Whether there is an ICC profile.
    """
    codes: tuple[int, int] | None = None
    if kind == "PNG":
        codes = _png_codes(content)
        if codes is None:
            return None if has_profile or "srgb" in image.info else _of_png(image.info)
    elif has_profile:
        return None
    elif kind == "AVIF":
        codes = avif.colour_codes(content)
    elif nclx := image.info.get("nclx_profile"):  # HEIF
        codes = nclx["color_primaries"], nclx["transfer_characteristics"]
    if codes is None:
        return None
    primaries, transfer = codes
    return Encoding(_PRIMARIES.get(primaries, REC_709), _CURVES.get(transfer, "srgb"))


def _of_png(info: Mapping[Any, Any]) -> Encoding | None:
    """Encoding from the chunks gAMA and cHRM. If one of them is missing, sRGB's value stands in, as in browsers."""
    gamma: float | None = info.get("gamma")
    chromaticities: Any = info.get("chromaticity")
    power = 1 / gamma if gamma else math.inf
    curve: Curve = power if _POWERS[0] <= power <= _POWERS[1] else "srgb"
    if not gamma and not chromaticities:
        return None
    return Encoding(chromaticities if len(chromaticities or ()) == len(REC_709) else REC_709, curve)


def _png_codes(content: bytes) -> tuple[int, int] | None:
    """Primaries and transfer characteristics in the chunk cICP, or None."""
    at = 8
    while at + 12 <= len(content):
        length, kind = struct.unpack_from(">I4s", content, at)
        if kind == b"cICP" and length == 4:  # noqa: PLR2004
            return content[at + 8], content[at + 9]
        if kind in (b"IDAT", b"IEND"):
            return None
        at += 12 + length
    return None
