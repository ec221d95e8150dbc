"""The colours of a decoded picture into sRGB, where its file says that they are others.

Owns what is done about ICC profiles, HDR and PNG's gamma. What is nearly sRGB stays as it is to the bit, as CLIP's own
processor has it. Knows nothing of transparency or of models.

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

from clipsearch.images import avif, bitmaps, jpeg2000
from clipsearch.images.colour_tags import REC_709, SRGB, Chromaticities, Curve, Encoding, encoding

Conversion = Callable[[Image.Image], Image.Image]
"""RGB or RGBA into the same in sRGB; or CMYK into RGB."""
_Numbers = npt.NDArray[np.float64]

_NEARLY = 8
"""A profile that changes no level by more leaves vectors as they are: a gamma of 2.2 (6) leaves cosines of 0.997 and
more, one of 2.0 (9) of 0.95 and more (scripts/bench_colour.py)."""
_LARGEST_PROFILE = 4 << 20
"""Bytes. Those of printing presses have up to 3 MB."""
_PROFILES = 8
"""How many are kept at hand: most folders have one or two, and memory for the largest ones is bounded."""
_STEPS = 9
"""So many levels of each channel are looked at, to tell what a profile does."""
_HDR_STEPS = 65
"""So many levels of each channel a table of HDR has, the most that Pillow takes; levels between are interpolated."""
_GREY, _WIDE_GREY = ("1", "L", "LA", "La"), ("I", "F")
"""Modes of Pillow, and how others begin."""

_BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])
_D50 = np.array([0.9642, 1.0, 0.8249])
"""The white of ICC profiles, X, Y and Z."""
_SRGB_CURVE = (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)
"""As a profile's parametric curve of kind 3 has it: exponent, a, b, c, d."""

_WHITE = 203.0
"""cd/m² that a sheet of white paper has in an HDR picture; a screen's white in others."""
_PEAK = 1000.0
"""cd/m² of the brightest light that is told apart from brighter ones: that of common HDR screens."""
_PQ_PEAK = 10000.0


def conversion(image: Image.Image, content: bytes, kind: str | None) -> Conversion | None:
    """What makes sRGB of `image`, which was decoded from the file `content` of this kind; None if nothing has to.

    That is: nothing is said of its colours, they are nearly sRGB, or what is said is broken.
    """
    profile = _profile(image, content, kind)
    stated = encoding(image, content, kind, has_profile=bool(profile))
    if stated is not None and stated.is_hdr:
        return _tone_mapping(stated)
    if stated is not None:
        profile = b"" if stated == SRGB else _matrix_profile(stated.primaries, stated.curve)
    return _by_profile(profile, image) if 0 < len(profile) <= _LARGEST_PROFILE else None


def _profile(image: Image.Image, content: bytes, kind: str | None) -> bytes:
    """The ICC profile; empty if there is none. Not every decoder tells it."""
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
    # A profile for pixels of another kind says nothing of these.
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
    """What a profile for pictures of this mode does; None if that is next to nothing, or it is broken."""
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
    """Colours from the whole space of a mode, one beside the other."""
    axis = np.linspace(0, 255, _STEPS).round().astype(np.uint8)
    if mode == "L":
        return Image.fromarray(axis[None])
    channels = len(Image.new(mode, (1, 1)).getbands())
    colours = np.stack(np.meshgrid(*[axis] * channels, indexing="ij"), axis=-1).reshape(1, -1, channels)
    return Image.frombytes(mode, (colours.shape[1], 1), colours.tobytes())


def _by_levels(levels: npt.NDArray[np.uint8]) -> Conversion:
    """What gives each of 256 levels of grey its (256, 3) colour, and leaves transparency."""
    table = levels.T.ravel().tolist()

    def convert(image: Image.Image) -> Image.Image:
        return image.point(table + list(range(256)) if image.mode == "RGBA" else table)

    return convert


def _matrix_profile(primaries: Chromaticities, curve: Curve) -> bytes:
    """A profile that says this, for LittleCMS; empty if no light can be made so."""
    matrix = _to_xyz(primaries)
    if matrix is None:
        return b""
    with np.errstate(all="ignore"):
        adapted = _adaptation(matrix.sum(axis=1)) @ matrix
    if not np.abs(adapted).max() < 2**15:  # or no number
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
    """(3, 3) from linear red, green and blue to X, Y and Z; None if these chromaticities are none."""
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
    """(3, 3) from colours under this white to those under D50."""
    scale = (_BRADFORD @ _D50) / (_BRADFORD @ white)
    adaptation: _Numbers = np.linalg.inv(_BRADFORD) @ np.diag(scale) @ _BRADFORD
    return adaptation


# --- HDR ---


@functools.lru_cache(maxsize=_PROFILES)
def _tone_mapping(stated: Encoding) -> Conversion | None:
    """HDR as a usual screen shows it, through a table of colours."""
    axis = np.linspace(0, 1, _HDR_STEPS)
    blue, green, red = np.meshgrid(axis, axis, axis, indexing="ij")  # red changes fastest in Pillow's tables
    colours = tone_mapped(np.stack([red, green, blue], axis=-1).reshape(-1, 3), stated)
    if colours is None:
        return None
    table = ImageFilter.Color3DLUT(_HDR_STEPS, colours.astype(np.float32).ravel())
    return lambda image: image.filter(table)


def tone_mapped(rgb: _Numbers, stated: Encoding) -> _Numbers | None:
    """(N, 3) sRGB from 0 to 1 of (N, 3) numbers of PQ or HLG from 0 to 1; None if their primaries are none.

    Light up to about 90 cd/m² stays as it is, where 203 is white, and what is brighter up to 1000 is brought into the
    rest, by the brightest channel, so that hues stay. Colours that sRGB lacks are cut off.
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
"""For a screen of 1000 cd/m²."""


def _pq_to_light(pq: _Numbers) -> _Numbers:
    """cd/m² of numbers from 0 to 1."""
    root = pq ** (1 / _M2)
    light: _Numbers = _PQ_PEAK * ((root - _C1).clip(0) / (_C2 - _C3 * root)) ** (1 / _M1)
    return light


def _light_to_pq(light: _Numbers) -> _Numbers:
    power = (light / _PQ_PEAK) ** _M1
    pq: _Numbers = ((_C1 + _C2 * power) / (1 + _C3 * power)) ** _M2
    return pq


def _hlg_to_light(hlg: _Numbers, luminance: _Numbers) -> _Numbers:
    """cd/m² on a screen of `_PEAK` of (N, 3) numbers from 0 to 1; `luminance` is what red, green and blue give."""
    scene = np.where(hlg <= 0.5, hlg**2 / 3, (np.exp((hlg - _C) / _A) + _B) / 12)  # noqa: PLR2004
    whole = (scene @ luminance)[:, None]
    return _PEAK * np.where(whole > 0, whole, 1) ** (_HLG_GAMMA - 1) * scene


def _compressed(light: _Numbers) -> _Numbers:
    """cd/m² from 0 to `_PEAK` into 0 to `_WHITE`: unchanged up to a knee, and a smooth curve from there on."""
    peak, white = _light_to_pq(np.array([_PEAK, _WHITE]))
    most = white / peak
    knee = 1.5 * most - 0.5
    level = (_light_to_pq(light) / peak).clip(0, 1)
    t = (level - knee) / (1 - knee)
    curve = (2 * t**3 - 3 * t**2 + 1) * knee + (t**3 - 2 * t**2 + t) * (1 - knee) + (3 * t**2 - 2 * t**3) * most
    return np.where(level < knee, light, _pq_to_light(np.where(level < knee, level, curve) * peak))
