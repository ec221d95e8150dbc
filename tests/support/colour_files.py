"""Files whose colours are not sRGB, and the ICC profiles that say so.

Profiles are written byte by byte, since LittleCMS, as Pillow has it, makes no others than sRGB, CIELAB and XYZ.

Source: ICC.1:2001-04 (version 2 of the format), 6.1 (header) and 6.5 (curves, numbers and tables).
"""

from __future__ import annotations

import io
import struct
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import pillow_heif
from image_files import Pixels, png, saved
from PIL import Image, ImageCms

_Matrix = npt.NDArray[np.float64]
_D50 = np.array([0.9642, 1.0, 0.8249])
_D65 = (0.3127, 0.3290)
_BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])
Primaries = Sequence[tuple[float, float]]
"""Chromaticities x and y of red, green and blue."""
REC_709: Primaries = ((0.64, 0.33), (0.30, 0.60), (0.15, 0.06))
P3: Primaries = ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060))
ADOBE: Primaries = ((0.64, 0.33), (0.21, 0.71), (0.15, 0.06))
PROPHOTO: Primaries = ((0.734699, 0.265301), (0.159597, 0.840403), (0.036598, 0.000105))
_D50_XY = (0.3457, 0.3585)


def matrix_profile(primaries: Primaries, curve: bytes, white: tuple[float, float] = _D65, order: str = "rgb") -> bytes:
    """A display's profile: a curve for each channel, then a matrix. `order` says which colour each channel has."""
    columns = _to_d50(primaries, white).T
    tags = {b"wtpt": _xyz(_D50)}
    for channel, colour in zip("rgb", order, strict=True):
        tags[f"{channel}XYZ".encode()] = _xyz(columns["rgb".index(colour)])
        tags[f"{channel}TRC".encode()] = curve
    return _profile(b"mntr", b"RGB ", b"XYZ ", tags)


def grey_profile(curve: bytes) -> bytes:
    """A profile of one channel."""
    return _profile(b"mntr", b"GRAY", b"XYZ ", {b"wtpt": _xyz(_D50), b"kTRC": curve})


def gamma(exponent: float) -> bytes:
    """A curve that is a power; it has eight bits behind the point."""
    return b"curv" + bytes(4) + struct.pack(">IH", 1, round(exponent * 256)) + bytes(2)


def srgb_curve() -> bytes:
    """The curve of sRGB as a table."""
    x = np.linspace(0, 1, 1024)
    linear = np.where(x <= 0.04045, x / 12.92, ((x + 0.055) / 1.055) ** 2.4)
    table: bytes = np.rint(linear * 65535).astype(">u2").tobytes()
    return b"curv" + bytes(4) + struct.pack(">I", 1024) + table


def cmyk_profile(lab: Callable[[_Matrix], _Matrix], points: int = 9) -> bytes:
    """A printer's profile: `lab` gives (N, 3) CIELAB for (N, 4) amounts of ink from 0 to 1."""
    axis = np.linspace(0, 1, points)
    inks = np.stack(np.meshgrid(axis, axis, axis, axis, indexing="ij"), axis=-1).reshape(-1, 4)
    return _profile(b"prtr", b"CMYK", b"Lab ", {b"wtpt": _xyz(_D50), b"A2B0": _table(lab(inks), 4, points)})


def rgb_table_profile(lab: Callable[[_Matrix], _Matrix], points: int = 17) -> bytes:
    """The same for three channels, red, green and blue by name and whatever they are."""
    axis = np.linspace(0, 1, points)
    channels = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), axis=-1).reshape(-1, 3)
    return _profile(b"mntr", b"RGB ", b"Lab ", {b"wtpt": _xyz(_D50), b"A2B0": _table(lab(channels), 3, points)})


def lab_of_srgb(rgb: _Matrix) -> _Matrix:
    """(N, 3) CIELAB, as the white of ICC profiles has it, of (N, 3) sRGB from 0 to 1."""
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    ratio = linear @ _to_d50(REC_709, _D65).T / _D50
    root = np.where(ratio > (6 / 29) ** 3, np.cbrt(ratio), ratio / (3 * (6 / 29) ** 2) + 4 / 29)
    x, y, z = root.T
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=-1)


def _table(lab: _Matrix, channels: int, points: int) -> bytes:
    """lut16Type: CIELAB in 16 bits, L* 100 as 0xff00 and a* or b* 0 as 0x8000; straight curves before and behind."""
    straight = struct.pack(">2H", 0, 65535)
    scaled = np.rint((lab + np.array([0, 128, 128])) * np.array([65280 / 100, 256, 256])).clip(0, 65535).astype(">u2")
    head = b"mft2" + bytes(4) + bytes((channels, 3, points, 0))
    identity = struct.pack(">9i", *(65536 if at % 4 == 0 else 0 for at in range(9)))
    table: bytes = head + identity + struct.pack(">2H", 2, 2) + straight * channels + scaled.tobytes() + straight * 3
    return table


def _to_d50(primaries: Primaries, white: tuple[float, float]) -> _Matrix:
    """(3, 3) from linear red, green and blue to XYZ under D50, by Bradford's transform."""
    xyz = np.array([[x / y, 1, (1 - x - y) / y] for x, y in (*primaries, white)])
    matrix = xyz[:3].T * np.linalg.solve(xyz[:3].T, xyz[3])
    scale = (_BRADFORD @ _D50) / (_BRADFORD @ xyz[3])
    adapted: _Matrix = np.linalg.inv(_BRADFORD) @ np.diag(scale) @ _BRADFORD @ matrix
    return adapted


def _xyz(values: npt.ArrayLike) -> bytes:
    return b"XYZ " + bytes(4) + struct.pack(">3i", *np.rint(np.asarray(values) * 65536).astype(int).tolist())


def _profile(kind: bytes, space: bytes, connection: bytes, tags: dict[bytes, bytes]) -> bytes:
    description = b"test\0"
    tags = {
        b"desc": b"desc" + bytes(4) + struct.pack(">I", len(description)) + description + bytes(78),
        b"cprt": b"text" + bytes(4) + b"none\0",
        **tags,
    }
    entries, body = b"", b""
    start = 128 + 4 + 12 * len(tags)
    for name, data in tags.items():
        entries += name + struct.pack(">2I", start + len(body), len(data))
        body += data + bytes(-len(data) % 4)
    size = start + len(body)
    header = struct.pack(">I4sI", size, b"none", 0x02400000) + kind + space + connection
    header += struct.pack(">6H", 2026, 1, 1, 0, 0, 0) + b"acsp"
    header = header.ljust(68, b"\0") + struct.pack(">3i", *np.rint(_D50 * 65536).astype(int).tolist())
    return header.ljust(128, b"\0") + struct.pack(">I", len(tags)) + entries + body


# --- files ---


def stored(scene: Pixels, profile: bytes) -> Image.Image:
    """`scene`, which is sRGB, in the numbers of another profile, as LittleCMS has them."""
    own = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    image = Image.fromarray(scene)
    ImageCms.profileToProfile(image, ImageCms.createProfile("sRGB"), own, inPlace=True)
    image.info.clear()
    return image


def xyb_like(scene: Pixels) -> tuple[Pixels, bytes]:
    """The scene in channels of which none is red, green or blue and whose zeros are no black, and their profile."""

    def lab(channels: _Matrix) -> _Matrix:
        difference, mean, blue = channels.T
        return lab_of_srgb(np.stack([mean + difference - 0.5, mean - difference + 0.5, blue], axis=-1).clip(0, 1))

    red, green, blue = scene.astype(float).transpose(2, 0, 1)
    channels = np.dstack([127.5 + (red - green) / 2, (red + green) / 2, blue]).round().astype(np.uint8)
    return channels, rgb_table_profile(lab, 33)


GAMA, CHRM, SRGB, CICP = b"gAMA", b"cHRM", b"sRGB", b"cICP"


def gama(power: float) -> tuple[bytes, bytes]:
    return GAMA, struct.pack(">I", round(100000 / power) if power else 0)


def chrm(*numbers: float) -> tuple[bytes, bytes]:
    return CHRM, struct.pack(">8I", *(round(number * 100000) for number in numbers))


P3_CHRM = chrm(0.3127, 0.3290, *(number for point in P3 for number in point))


REC_2020 = np.array([[0.6274, 0.3293, 0.0433], [0.0691, 0.9195, 0.0114], [0.0164, 0.0880, 0.8956]])
"""From linear sRGB, as ITU-R BT.2087 has it."""


def to_hdr(scene: Pixels, curve: str) -> npt.NDArray[np.float64]:
    """The numbers from 0 to 1 that a camera of BT.2100 writes of an sRGB scene whose white is at 203 cd/m²."""
    level = scene / 255
    linear = np.where(level <= 0.04045, level / 12.92, ((level + 0.055) / 1.055) ** 2.4)
    light = 203 * linear @ REC_2020.T
    if curve == "pq":
        power = (light / 10000) ** 0.1593017578125
        pq: npt.NDArray[np.float64] = ((0.8359375 + 18.8515625 * power) / (1 + 18.6875 * power)) ** 78.84375
        return pq
    luminance = (light / 1000) @ np.array([0.2627, 0.6780, 0.0593])
    e = light / 1000 * (np.where(luminance > 0, luminance, 1) ** (1 / 1.2 - 1))[..., None]
    hlg: npt.NDArray[np.float64] = np.where(
        e <= 1 / 12, np.sqrt(3 * e), 0.17883277 * np.log(12 * e.clip(1 / 12) - 0.28466892) + 0.55991073
    )
    return hlg


TRANSFER = {"pq": 16, "hlg": 18}


def hdr_file(scene: Pixels, kind: str, curve: str) -> bytes:
    """The scene in HDR: a PNG of 16 bits, a HEIF of 10 or an AVIF of 8."""
    numbers = to_hdr(scene, curve)
    levels = (numbers * 255).round().astype(np.uint8)
    if kind == "PNG":
        wide = (numbers * 65535).round().astype(np.uint16)
        return png(wide, 16, 2, [(CICP, bytes((9, TRANSFER[curve], 0, 1)))])
    if kind == "HEIF":
        return _heif_10_bits(numbers, TRANSFER[curve])
    return nclx_avif(levels, 9, TRANSFER[curve])


def _heif_10_bits(numbers: npt.NDArray[np.float64], transfer: int) -> bytes:
    height, width = numbers.shape[:2]
    wide = (numbers * 65535).round().astype(np.uint16)
    file = io.BytesIO()
    heif = pillow_heif.from_bytes("RGB;16", (width, height), wide.tobytes())
    codes = {"color_primaries": 9, "transfer_characteristics": transfer, "matrix_coefficients": 9}
    heif.save(file, quality=90, **codes, full_range_flag=1)
    return file.getvalue()


def nclx_avif(levels: Pixels, primaries: int, transfer: int, **options: object) -> bytes:
    """Pillow writes sRGB into the box, whatever it is asked for."""
    content = bytearray(saved(levels, "AVIF", quality=95, subsampling="4:4:4", **options))
    struct.pack_into(">2H", content, content.index(b"nclx") + 4, primaries, transfer)
    return bytes(content)
