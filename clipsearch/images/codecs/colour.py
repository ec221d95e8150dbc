"""Conversion of a decoded image to sRGB, if its file declares another colour space.

Owns ICC profiles, HDR tone mapping and PNG's gamma. An image that is nearly sRGB stays the same to the bit, since
CLIP's own processor ignores profiles. Knows nothing of transparency or of models.

Sources: ICC.1:2001-04, 6 (profiles); ITU-R BT.2100-2, tables 4 and 5 (PQ, HLG); BT.2408-4, 2.1 (203 cd/m² for white);
BT.2390-8, 5.4.1 (the tone curve).
"""

from __future__ import annotations

import functools
import io
import struct
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFilter

from clipsearch.images.codecs import avif, bitmaps, jpeg2000
from clipsearch.images.codecs.colour_tags import REC_709, SRGB, Chromaticities, Curve, Encoding, encoding

Conversion = Callable[[Image.Image], Image.Image]
"""Converts RGB or RGBA to the same mode in sRGB, or CMYK to RGB in sRGB."""
_Numbers = npt.NDArray[np.float64]

_NEARLY = 8
"""A profile that changes no level (0 to 255) by more is ignored. A gamma of 2.2 changes levels by up to 6 and gives
vectors with a cosine of 0.997 or more to those of sRGB; 2.0 changes them by 9, with 0.95 or more
(scripts/bench_colour.py).
"""
_LARGEST_PROFILE = 4 << 20
"""Bytes. Profiles of printing presses have up to 3 MB."""
_PROFILES = 8
"""Conversions that are cached: most folders have one or two profiles, and the memory for the largest is bounded."""
_STEPS = 9
"""Levels of each channel that are sampled to see how much a profile changes."""
_HDR_STEPS = 65
"""Levels of each channel in the lookup table for HDR, the most that Pillow takes; others are interpolated."""
_GREY, _WIDE_GREY = ("1", "L", "LA", "La"), ("I", "F")
"""Grey modes of Pillow with up to 8 bits, and prefixes of those with more."""

_BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])
_D50 = np.array([0.9642, 1.0, 0.8249])
"""White point of ICC profiles: X, Y and Z."""
_SRGB_CURVE = (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)
"""Parameters of sRGB as an ICC parametric curve of type 3: exponent, a, b, c, d."""

_WHITE = 203.0
"""cd/m² of diffuse white in an HDR image, which becomes white in sRGB."""
_PEAK = 1000.0
"""cd/m² of the brightest light that is distinguished from brighter ones: the peak of common HDR screens."""
_PQ_PEAK = 10000.0


def conversion(image: Image.Image, content: bytes, kind: str | None) -> Conversion | None:
    """Return the conversion of `image` to sRGB; None if the file declares no colours, nearly sRGB, or is broken there.

    Args:
        image: As decoded, before any change of mode.
        content: The file it was decoded from.
        kind: Pillow's name of the file's format.
    """
    profile = _profile(image, content, kind)
    stated = encoding(image, content, kind, has_profile=bool(profile))
    if stated is not None and stated.is_hdr:
        return _tone_mapping(stated)
    if stated is not None:
        profile = b"" if stated == SRGB else _matrix_profile(stated.primaries, stated.curve)
    return _by_profile(profile, image) if 0 < len(profile) <= _LARGEST_PROFILE else None


def _profile(image: Image.Image, content: bytes, kind: str | None) -> bytes:
    """ICC profile of the image, or empty bytes. For some formats it is read here, since Pillow does not."""
    found = image.info.get("icc_profile")
    if not found and kind == "JPEG2000":
        found = jpeg2000.profile(content)
    elif not found and kind == "AVIF":
        found = avif.profile(content)
    elif not found and kind in ("BMP", "DIB"):
        found = bitmaps.profile(content)
    return found if isinstance(found, bytes) else b""


# --- ICC profiles ---


def _by_profile(profile: bytes, image: Image.Image) -> Conversion | None:
    # A profile for another number of channels does not apply.
    space, mode = profile[16:20], image.mode
    if space == b"RGB " and mode not in ("CMYK", "LAB"):
        return _profile_conversion(profile, "RGB")
    if space == b"GRAY" and (mode in _GREY or mode.startswith(_WIDE_GREY)):
        return _profile_conversion(profile, "L")
    if space == b"CMYK" and mode == "CMYK" and not image.has_transparency_data:
        return _profile_conversion(profile, "CMYK")
    return None


@functools.lru_cache(maxsize=_PROFILES)
def _profile_conversion(profile: bytes, mode: str) -> Conversion | None:
    """Conversion by a profile for images of this mode; None if it changes next to nothing, or is broken."""
    try:
        from PIL import ImageCms  # takes long to import; some builds of Pillow lack it
    except ImportError:
        return None
    samples = _samples(mode)
    # Perceptual intent would take what three zeros stand for as black, which it need not be: in XYB it is not.
    intent = ImageCms.Intent.RELATIVE_COLORIMETRIC
    # LittleCMS's shortcuts are too coarse for dark greys, and for 256 levels none are needed.
    flags = ImageCms.Flags.NOOPTIMIZE if mode == "L" else ImageCms.Flags.NONE
    try:
        own, srgb = ImageCms.ImageCmsProfile(io.BytesIO(profile)), ImageCms.createProfile("sRGB")
        transforms = {mode: ImageCms.buildTransform(own, srgb, mode, "RGB", intent, flags)}
        managed = transforms[mode].apply(samples)
        if mode == "RGB":
            transforms["RGBA"] = ImageCms.buildTransform(own, srgb, "RGBA", "RGBA", intent, flags)
    except (ImageCms.PyCMSError, OSError, TypeError, ValueError):
        return None
    difference = np.asarray(managed, np.int16) - np.asarray(samples.convert("RGB"), np.int16)
    if np.abs(difference).max() <= _NEARLY:
        return None
    if mode == "L":
        every = Image.fromarray(np.arange(256, dtype=np.uint8)[None])
        return _by_levels(np.asarray(transforms[mode].apply(every))[0])

    def convert(image: Image.Image) -> Image.Image:
        converted = transforms[image.mode].apply(image)
        converted.info.clear()
        return converted

    return convert


def _samples(mode: str) -> Image.Image:
    """One row of colours that covers the whole space of a mode."""
    axis = np.linspace(0, 255, _STEPS).round().astype(np.uint8)
    if mode == "L":
        return Image.fromarray(axis[None])
    channels = len(Image.new(mode, (1, 1)).getbands())
    colours = np.stack(np.meshgrid(*[axis] * channels, indexing="ij"), axis=-1).reshape(1, -1, channels)
    return Image.frombytes(mode, (colours.shape[1], 1), colours.tobytes())


def _by_levels(levels: npt.NDArray[np.uint8]) -> Conversion:
    """Conversion that maps grey level i to the colour `levels[i]` ((256, 3) uint8) and keeps alpha."""
    table = levels.T.ravel().tolist()

    def convert(image: Image.Image) -> Image.Image:
        return image.point(table + list(range(256)) if image.mode == "RGBA" else table)

    return convert


def _matrix_profile(primaries: Chromaticities, curve: Curve) -> bytes:
    """ICC profile with these primaries and this curve, for LittleCMS; empty if the primaries make no sense."""
    matrix = _to_xyz(primaries)
    if matrix is None:
        return b""
    with np.errstate(all="ignore"):
        adapted = _adaptation(matrix.sum(axis=1)) @ matrix
    if not np.abs(adapted).max() < 2**15:  # not `>=`: this is also true for NaN
        return b""
    kind, numbers = (0, (curve,)) if isinstance(curve, float) else (3, _SRGB_CURVE)
    trc = b"para" + struct.pack(f">4xHxx{len(numbers)}i", kind, *(round(number * 65536) for number in numbers))
    tags = [(b"wtpt", _xyz_tag(_D50))]
    tags += [(f"{name}XYZ".encode(), _xyz_tag(adapted[:, column])) for column, name in enumerate("rgb")]
    tags += [(f"{name}TRC".encode(), trc) for name in "rgb"]
    at = 128 + 4 + 12 * len(tags)
    entries, body = b"", b""
    for name, data in tags:
        entries += name + struct.pack(">2I", at + len(body), len(data))
        body += data  # whose length is a multiple of four
    head = struct.pack(">I4xI4s4s4s", at + len(body), 0x04000000, b"mntr", b"RGB ", b"XYZ ")
    head = (head.ljust(36, b"\0") + b"acsp").ljust(68, b"\0") + _xyz_tag(_D50)[8:]
    return head.ljust(128, b"\0") + struct.pack(">I", len(tags)) + entries + body


def _xyz_tag(xyz: _Numbers) -> bytes:
    return b"XYZ " + struct.pack(">4x3i", *np.rint(xyz * 65536).astype(int).tolist())


def _to_xyz(primaries: Chromaticities) -> _Numbers | None:
    """(3, 3) matrix from linear RGB to XYZ, or None if no RGB space has these chromaticities."""
    points = np.array(primaries, np.float64).reshape(4, 2)
    if not np.isfinite(points).all() or (points[:, 1] <= 0).any():
        return None
    x, y = points.T
    white, *colours = np.stack([x / y, np.ones(4), (1 - x - y) / y], axis=-1)
    try:
        return np.stack(colours, axis=-1) * np.linalg.solve(np.stack(colours, axis=-1), white)
    except np.linalg.LinAlgError:
        return None


def _adaptation(white: _Numbers) -> _Numbers:
    """(3, 3) matrix that adapts XYZ from this white point to D50 (Bradford)."""
    scale = (_BRADFORD @ _D50) / (_BRADFORD @ white)
    adaptation: _Numbers = np.linalg.inv(_BRADFORD) @ np.diag(scale) @ _BRADFORD
    return adaptation


# --- HDR ---


@functools.lru_cache(maxsize=_PROFILES)
def _tone_mapping(stated: Encoding) -> Conversion | None:
    """Conversion of HDR to sRGB by a lookup table."""
    axis = np.linspace(0, 1, _HDR_STEPS)
    blue, green, red = np.meshgrid(axis, axis, axis, indexing="ij")  # red changes fastest in Pillow's tables
    colours = tone_mapped(np.stack([red, green, blue], axis=-1).reshape(-1, 3), stated)
    if colours is None:
        return None
    table = ImageFilter.Color3DLUT(_HDR_STEPS, colours.astype(np.float32).ravel())
    return lambda image: image.filter(table)


def tone_mapped(rgb: _Numbers, stated: Encoding) -> _Numbers | None:
    """Tone-map HDR: (N, 3) PQ or HLG values from 0 to 1 to (N, 3) sRGB values from 0 to 1.

    Light up to about 90 cd/m² is unchanged, with white at 203; light up to 1000 cd/m² is compressed into the rest, by
    the brightest channel, so that hues stay. Colours outside sRGB are clipped. Returns None if the primaries make no
    sense.
    """
    own, srgb = _to_xyz(stated.primaries), _to_xyz(REC_709)
    if own is None or srgb is None:
        return None
    light = _pq_to_light(rgb) if stated.curve == "pq" else _hlg_to_light(rgb, own[1])
    brightest = light.max(axis=-1, keepdims=True)
    factor = np.divide(_compressed(brightest), brightest, out=np.ones_like(brightest), where=brightest > 0)
    linear: _Numbers = (light * factor / _WHITE @ (np.linalg.inv(srgb) @ own).T).clip(0, 1)
    return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)  # noqa: PLR2004


_M1, _M2, _C1, _C2, _C3 = 2610 / 16384, 2523 / 32, 3424 / 4096, 2413 / 128, 2392 / 128
_A, _B, _C = 0.17883277, 0.28466892, 0.55991073
_HLG_GAMMA = 1.2
"""System gamma of HLG for a screen of 1000 cd/m²."""


def _pq_to_light(pq: _Numbers) -> _Numbers:
    """Light in cd/m² of PQ values from 0 to 1."""
    root = pq ** (1 / _M2)
    light: _Numbers = _PQ_PEAK * ((root - _C1).clip(0) / (_C2 - _C3 * root)) ** (1 / _M1)
    return light


def _light_to_pq(light: _Numbers) -> _Numbers:
    power = (light / _PQ_PEAK) ** _M1
    pq: _Numbers = ((_C1 + _C2 * power) / (1 + _C3 * power)) ** _M2
    return pq


def _hlg_to_light(hlg: _Numbers, luminance: _Numbers) -> _Numbers:
    """Light in cd/m² of (N, 3) HLG values from 0 to 1, on a screen with the peak `_PEAK`.

    `luminance` holds the shares of red, green and blue in Y.
    """
    scene = np.where(hlg <= 0.5, hlg**2 / 3, (np.exp((hlg - _C) / _A) + _B) / 12)  # noqa: PLR2004
    whole = (scene @ luminance)[:, None]
    return _PEAK * np.where(whole > 0, whole, 1) ** (_HLG_GAMMA - 1) * scene


def _compressed(light: _Numbers) -> _Numbers:
    """Compress light from 0 to `_PEAK` into 0 to `_WHITE` cd/m²: unchanged up to a knee, then a smooth curve."""
    peak, white = _light_to_pq(np.array([_PEAK, _WHITE]))
    most = white / peak
    knee = 1.5 * most - 0.5
    level = (_light_to_pq(light) / peak).clip(0, 1)
    t = (level - knee) / (1 - knee)
    curve = (2 * t**3 - 3 * t**2 + 1) * knee + (t**3 - 2 * t**2 + t) * (1 - knee) + (3 * t**2 - 2 * t**3) * most
    return np.where(level < knee, light, _pq_to_light(np.where(level < knee, level, curve) * peak))
