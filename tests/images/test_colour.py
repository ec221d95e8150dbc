"""Colours come out as a screen shows them, whatever a file says its numbers mean; what is nearly sRGB, to the bit."""

from __future__ import annotations

import contextlib
import struct
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.typing as npt
import pytest
from colour_files import (
    ADOBE,
    CICP,
    GAMA,
    P3,
    P3_CHRM,
    PROPHOTO,
    REC_709,
    SRGB,
    TRANSFER,
    chrm,
    cmyk_profile,
    gama,
    gamma,
    grey_profile,
    hdr_file,
    lab_of_srgb,
    matrix_profile,
    nclx_avif,
    rgb_table_profile,
    srgb_curve,
    stored,
    to_hdr,
    xyb_like,
)
from image_files import Pixels, Samples, png, png_chunk, rgb, saved, tiff
from PIL import Image, ImageCms

from clipsearch.errors import UnreadableImageError
from clipsearch.images.codecs import colour, colour_tags, pixels
from clipsearch.images.codecs.decoding import decode

D50 = (0.3457, 0.3585)
ROWS, COLUMNS = np.mgrid[0:48, 0:64]
SCENE: Pixels = np.dstack([40 + COLUMNS * 3, 200 - ROWS * 3, 90 + COLUMNS + ROWS]).astype(np.uint8)
"""Soft colours, which every space here has."""
GREYS: Pixels = (COLUMNS * 4).astype(np.uint8)
PROFILES = {
    "display-p3": matrix_profile(P3, srgb_curve()),
    "adobe-rgb": matrix_profile(ADOBE, gamma(2.2)),
    "prophoto": matrix_profile(PROPHOTO, gamma(1.8), D50),
    "linear": matrix_profile(REC_709, gamma(1.0)),
    "old-mac": matrix_profile(REC_709, gamma(1.8)),
    "swapped": matrix_profile(REC_709, srgb_curve(), order="gbr"),
}
LINEAR_GREY = grey_profile(gamma(1.0))


def _lab_of_inks(inks: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """CIELAB of a printer whose black is grey and whose cyan is dull."""
    red = 1 - 0.6 * inks[:, 0]
    green, blue = 1 - inks[:, 1], 1 - inks[:, 2]
    return lab_of_srgb(np.stack([red, green, blue], axis=-1) * (1 - 0.7 * inks[:, 3:]))


CMYK = cmyk_profile(_lab_of_inks)
INKS = (204, 51, 0, 51)
PRINTED = tuple(round(level * (1 - 0.7 * 0.2) * 255) for level in (1 - 0.6 * 0.8, 1 - 0.2, 1))
"""What `INKS` are to that printer."""


def seen(content: bytes, at_least: int | None = None) -> npt.NDArray[np.int16]:
    image = decode(content, at_least=at_least).image
    assert image.mode == "RGB"
    return np.asarray(image).astype(np.int16)


def apart(content: bytes, wanted: Samples) -> int:
    """The greatest difference of a level."""
    return int(np.abs(seen(content) - wanted).max())


# --- ICC profiles ---


@pytest.mark.parametrize("name", PROFILES)
def test_a_profile_is_applied(name: str) -> None:
    image = stored(SCENE, PROFILES[name])
    assert apart(saved(image, "PNG"), SCENE) > 8  # otherwise this shows nothing
    # Eight bits are coarse in a wide space, and so is linear light where it is dark.
    assert apart(saved(image, "PNG", icc_profile=PROFILES[name]), SCENE) <= 6


@pytest.mark.parametrize(
    ("kind", "options", "tolerance"),
    [
        ("JPEG", {"quality": 98, "subsampling": 0}, 6),
        ("WEBP", {"lossless": True}, 2),
        ("TIFF", {}, 2),
        ("AVIF", {"quality": 95, "subsampling": "4:4:4"}, 8),
        ("HEIF", {"quality": -1, "chroma": 444}, 6),
    ],
)
def test_a_profile_is_applied_in_every_format(kind: str, options: dict[str, object], tolerance: int) -> None:
    profile = PROFILES["swapped"]
    assert apart(saved(stored(SCENE, profile), kind, icc_profile=profile, **options), SCENE) <= tolerance


def test_the_profile_of_a_jpeg_2000_is_applied() -> None:
    profile = PROFILES["swapped"]
    content = bytearray(saved(stored(SCENE, profile), "JPEG2000"))
    # Its colour box says "enumerated: sRGB"; in its place comes one with a profile.
    at = content.index(b"colr") - 4
    (size,) = struct.unpack_from(">I", content, at)
    content[at : at + size] = struct.pack(">I4s3B", 11 + len(profile), b"colr", 2, 0, 0) + profile
    header = content.index(b"jp2h") - 4
    (whole,) = struct.unpack_from(">I", content, header)
    struct.pack_into(">I", content, header, whole - size + 11 + len(profile))
    assert apart(bytes(content), SCENE) <= 2


def test_the_profile_of_what_the_second_decoder_reads_is_applied() -> None:
    pytest.importorskip("imagecodecs")
    profile = PROFILES["swapped"]
    samples = (np.asarray(stored(SCENE, profile)) / 255).astype("<f4").tobytes()
    tags = {339: ("H", [3] * 3), 34675: ("B", profile)}
    assert apart(tiff(samples, [32] * 3, 2, tags, size=(64, 48)), SCENE) <= 2


@pytest.mark.parametrize(
    "profile",
    [
        ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes(),
        matrix_profile(REC_709, srgb_curve()),
        matrix_profile(REC_709, gamma(2.2)),
    ],
    ids=["littlecms", "table", "gamma-2.2"],
)
def test_what_is_nearly_srgb_stays_as_it_is(profile: bytes) -> None:
    assert apart(saved(SCENE, "PNG", icc_profile=profile), SCENE) == 0
    photo = Image.fromarray(SCENE)
    with_profile, without = saved(photo, "JPEG", icc_profile=profile), saved(photo, "JPEG")
    assert np.array_equal(seen(with_profile), seen(without))


def test_a_profile_of_tables_is_applied() -> None:
    channels, profile = xyb_like(SCENE)
    assert apart(saved(channels, "PNG", icc_profile=profile), SCENE) <= 8
    assert apart(saved(channels, "PNG"), SCENE) > 60


def test_a_jpeg_decoded_smaller_is_managed() -> None:
    profile = PROFILES["swapped"]
    large = np.asarray(Image.fromarray(SCENE).resize((640, 480)))
    content = saved(stored(large, profile), "JPEG", quality=98, icc_profile=profile)
    picture = decode(content, at_least=60)
    assert picture.image.size == (80, 60)
    wanted = np.asarray(Image.fromarray(large).resize((80, 60), Image.Resampling.BOX)).astype(int)
    assert np.abs(np.asarray(picture.image) - wanted).max() <= 6


@pytest.mark.parametrize("size", [(640, 480), (641, 487)])
def test_a_large_image_is_averaged_down_before_it_is_managed(size: tuple[int, int]) -> None:
    profile = PROFILES["display-p3"]
    large = np.asarray(Image.fromarray(SCENE).resize(size))
    content = saved(stored(large, profile), "PNG", icc_profile=profile)
    picture = decode(content, at_least=150)
    assert picture.image.size == (-(-size[0] // 3), -(-size[1] // 3))
    assert (picture.width, picture.height) == size
    assert picture.box == (0.0, 0.0, size[0] / 3, size[1] / 3)
    wanted = np.asarray(Image.fromarray(large).reduce(3)).astype(int)
    assert np.abs(np.asarray(picture.image) - wanted).max() <= 3
    assert decode(saved(large, "PNG"), at_least=150).image.size == size  # as CLIP's own processor has it


def test_the_profile_of_a_bmp_is_applied() -> None:
    profile = PROFILES["swapped"]
    plain = saved(stored(SCENE, profile), "BMP")
    data = plain[54:]
    # BITMAPV5HEADER: "MBED", and at its end where the profile lies, counted from the header on.
    header = struct.pack("<I36s16x4s52x3I", 124, plain[18:54], b"DEBM", 124 + len(data), len(profile), 0)
    start = 14 + len(header)
    file = b"BM" + struct.pack("<IHHI", start + len(data) + len(profile), 0, 0, start) + header + data + profile
    assert apart(file, SCENE) <= 2
    for cut in range(start, 60, -7):  # a broken header ends in no other error
        with contextlib.suppress(UnreadableImageError):
            decode(file[:cut])


@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_cmyk_is_managed_by_its_profile(kind: str) -> None:
    """JPEG has it inverted, TIFF has not."""
    inks = Image.new("CMYK", (64, 48), INKS)
    options = {"quality": 100} if kind == "JPEG" else {}
    assert apart(saved(inks, kind, icc_profile=CMYK, **options), np.array(PRINTED)) <= 3
    plain = [round((255 - ink) * (255 - INKS[3]) / 255) for ink in INKS[:3]]
    for profile in (b"", CMYK[:200], PROFILES["swapped"]):
        assert apart(saved(inks, kind, icc_profile=profile, **options), np.array(plain)) <= 3


@pytest.mark.parametrize("mode", ["L", "LA", "I;16", "palette"])
def test_grey_is_managed_by_its_profile(mode: str) -> None:
    linear = GREYS / 255
    wanted = rgb(np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055) * 255)
    if mode == "palette":  # of grey colours, in RGB: a profile of one channel is not for it
        content = saved(Image.fromarray(rgb(GREYS)), "PNG", icc_profile=LINEAR_GREY)
        assert apart(content, rgb(GREYS)) == 0
        return
    opaque = np.dstack([GREYS, np.full_like(GREYS, 255)])
    samples = {"L": GREYS, "LA": opaque, "I;16": GREYS.astype(np.uint16) * 257}[mode]
    assert apart(saved(samples, "PNG", icc_profile=LINEAR_GREY), wanted) <= 1


def test_grey_that_is_nearly_that_of_srgb_stays_as_it_is() -> None:
    assert apart(saved(GREYS, "PNG", icc_profile=grey_profile(gamma(2.2))), rgb(GREYS)) == 0


def test_grey_with_a_profile_for_colour_is_managed() -> None:
    managed = seen(saved(GREYS, "PNG", icc_profile=PROFILES["linear"]))
    assert np.abs(managed - seen(saved(GREYS, "PNG", icc_profile=LINEAR_GREY))).max() <= 1


def test_colours_are_managed_before_they_come_on_white() -> None:
    profile = PROFILES["linear"]
    half = np.full((48, 64, 1), 128, np.uint8)
    content = saved(np.dstack([np.full((48, 64, 3), 55, np.uint8), half]), "PNG", icc_profile=profile)
    # Linear 55 of 255 is 128 in sRGB; and half of it is on white.
    assert apart(content, np.array(round(128 * 128 / 255 + 127))) <= 2


def test_a_palette_is_managed() -> None:
    profile = PROFILES["swapped"]
    indexed = Image.new("P", (64, 48), 1)
    indexed.putpalette([0, 0, 0, 250, 100, 50])
    assert apart(saved(indexed, "PNG", icc_profile=profile), np.array([50, 250, 100])) <= 1
    assert apart(saved(indexed, "PNG", icc_profile=profile, transparency=0), np.array([50, 250, 100])) <= 1


def test_large_images_are_managed_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    content = saved(stored(SCENE, PROFILES["swapped"]), "PNG", icc_profile=PROFILES["swapped"])
    whole = seen(content)
    monkeypatch.setattr(pixels, "_PART", 7 * 64)
    assert np.array_equal(seen(content), whole)


def test_threads_share_a_profile() -> None:
    contents = [
        saved(stored(SCENE, profile), "PNG", icc_profile=profile) for profile in PROFILES.values() for _ in range(8)
    ]
    one_by_one = [seen(content) for content in contents]
    colour._profile_conversion.cache_clear()
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(seen, contents))
    assert all(np.array_equal(one, other) for one, other in zip(one_by_one, together, strict=True))


def test_a_broken_profile_costs_nothing() -> None:
    profile = PROFILES["swapped"]
    too_large = profile.ljust(5 << 20, b"\0")
    broken = [b"x", bytes(200), profile[:128], profile[:-300], profile[:16] + b"Lab " + profile[20:], too_large]
    for data in broken:
        assert apart(saved(SCENE, "TIFF", icc_profile=data), SCENE) == 0


def test_damaged_profiles_end_in_some_image() -> None:
    random = np.random.default_rng(0)
    for profile in (PROFILES["display-p3"], rgb_table_profile(lab_of_srgb, 3)):
        for _ in range(40):
            damaged = bytearray(profile)
            for at in random.integers(0, len(profile), 3):
                damaged[at] = random.integers(256)
            assert seen(saved(SCENE, "TIFF", icc_profile=bytes(damaged))).shape == SCENE.shape


def test_without_littlecms_colours_stay_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    content = saved(SCENE, "PNG", icc_profile=PROFILES["swapped"])
    colour._profile_conversion.cache_clear()
    monkeypatch.setitem(sys.modules, "PIL.ImageCms", None)
    monkeypatch.delattr("PIL.ImageCms")
    assert apart(content, SCENE) == 0
    colour._profile_conversion.cache_clear()


def test_images_without_a_profile_need_no_littlecms() -> None:
    program = (
        "import io, sys; from PIL import Image; from clipsearch.images.codecs.decoding import decode; "
        "file = io.BytesIO(); "
        "Image.new('RGB', (9, 9)).save(file, 'PNG'); decode(file.getvalue()); print('PIL.ImageCms' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


# --- PNG's own words ---

SRGB_CHUNK = (SRGB, b"\0")


@pytest.mark.parametrize("power", [1.0, 1.5, 1.8, 2.8])
def test_the_gamma_of_a_png_is_applied(power: float) -> None:
    linear = ((GREYS / 255 + 0.055) / 1.055) ** 2.4
    samples = (np.where(GREYS <= 10, GREYS / 255 / 12.92, linear) ** (1 / power) * 65535).round().astype(np.uint16)
    tolerance = 12 if power < 1.5 else 3  # of 16 bits eight are looked at
    bright = GREYS >= 30
    found = seen(png(samples, 16, 0, [gama(power)]))
    assert np.abs(found - rgb(GREYS))[bright].max() <= tolerance
    coloured = seen(png(np.dstack([samples] * 3), 16, 2, [gama(power)]))
    assert np.abs(coloured - rgb(GREYS))[bright].max() <= tolerance


def test_a_gamma_that_is_nearly_that_of_srgb_changes_nothing() -> None:
    for chunk in (gama(2.2), gama(0), (GAMA, struct.pack(">I", 45455)), (GAMA, struct.pack(">I", 2**31 - 1))):
        assert apart(png(SCENE, 8, 2, [chunk]), SCENE) == 0


def test_the_primaries_of_a_png_are_applied() -> None:
    content = png(np.asarray(stored(SCENE, PROFILES["display-p3"])), 8, 2, [gama(2.2), P3_CHRM])
    # The exponent is not quite sRGB's curve, which shows where it is dark.
    assert apart(content, SCENE) <= 8
    assert apart(png(np.asarray(stored(SCENE, PROFILES["display-p3"])), 8, 2, [P3_CHRM]), SCENE) <= 2


def test_primaries_that_are_none_change_nothing() -> None:
    for numbers in ([0.0] * 8, [0.3] * 8, [0.3127, 0.329, 0.64, 0.33, 0.64, 0.33, 0.15, 0.06], [40000.0] * 8):
        assert apart(png(SCENE, 8, 2, [chrm(*numbers)]), SCENE) == 0


def test_what_counts_more_in_a_png_counts() -> None:
    swapped = stored(SCENE, PROFILES["swapped"])
    as_is = apart(png(SCENE, 8, 2, [SRGB_CHUNK, gama(1.0), P3_CHRM]), SCENE)
    by_profile = apart(_with_chunk(saved(swapped, "PNG", icc_profile=PROFILES["swapped"]), *gama(1.0)), SCENE)
    codes = _with_chunk(saved(SCENE, "PNG", icc_profile=PROFILES["swapped"]), CICP, bytes((1, 13, 0, 1)))
    assert (as_is, apart(codes, SCENE)) == (0, 0)
    assert by_profile <= 2


def _with_chunk(content: bytes, kind: bytes, data: bytes) -> bytes:
    return content[:33] + png_chunk(kind, data) + content[33:]


# --- HDR ---

HDR_SCENE: Pixels = np.asarray(Image.fromarray(SCENE).resize((256, 192)))


@pytest.mark.parametrize("curve", TRANSFER)
@pytest.mark.parametrize("kind", ["PNG", "HEIF", "AVIF"])
def test_hdr_is_shown_as_on_a_usual_screen(kind: str, curve: str) -> None:
    washed_out = np.abs(to_hdr(HDR_SCENE, curve) * 255 - HDR_SCENE).mean()
    found = np.abs(seen(hdr_file(HDR_SCENE, kind, curve)) - HDR_SCENE)
    dark = HDR_SCENE.max(axis=-1) < 160  # what is brighter is made a little darker, so that highlights have room
    assert washed_out > 15
    assert found.mean() < 4
    assert np.percentile(found[dark], 99) <= 16


@pytest.mark.parametrize("curve", TRANSFER)
def test_tone_mapping_keeps_order_and_leaves_grey_grey(curve: str) -> None:
    ramp = np.repeat(np.linspace(0, 1, 1001)[:, None], 3, axis=1)
    mapped = colour.tone_mapped(ramp, colour_tags.Encoding(colour_tags._PRIMARIES[9], curve))
    assert mapped is not None
    assert mapped[0].max() == 0
    assert mapped.max() == pytest.approx(1, abs=1e-6)
    assert np.ptp(mapped, axis=1).max() < 1e-6
    assert (np.diff(mapped[:, 0]) >= -1e-9).all()


def test_tone_mapping_meets_known_lights() -> None:
    light = np.array([20.0, 90.0, 203.0, 1000.0, 4000.0])
    numbers = np.repeat(colour._light_to_pq(light)[:, None], 3, axis=1)
    mapped = colour.tone_mapped(numbers, colour_tags.Encoding(colour_tags.REC_709, "pq"))
    assert mapped is not None
    linear = ((mapped[:, 0] + 0.055) / 1.055) ** 2.4
    assert linear[:2] * 203 == pytest.approx(light[:2], rel=0.001)
    assert 0.7 < linear[2] < 0.9
    assert linear[3:] == pytest.approx(1)


def test_the_wide_colours_of_avif_are_applied() -> None:
    content = nclx_avif(np.asarray(stored(SCENE, PROFILES["display-p3"])), 12, 13)
    assert apart(content, SCENE) <= 8
    assert apart(content.replace(b"nclx", b"none"), SCENE) > 20


def test_a_profile_counts_more_than_the_numbers_in_an_avif() -> None:
    profile = PROFILES["swapped"]
    content = nclx_avif(np.asarray(stored(SCENE, profile)), 9, 16, icc_profile=profile)
    assert apart(content, SCENE) <= 8


def box(kind: bytes, *parts: bytes) -> bytes:
    content = b"".join(parts)
    return struct.pack(">I4s", 8 + len(content), kind) + content


def colr(primaries: int, transfer: int) -> bytes:
    return box(b"colr", b"nclx", struct.pack(">3HB", primaries, transfer, 1, 128))


@pytest.mark.parametrize("wide", [False, True])
def test_the_colours_of_a_gain_map_are_not_those_of_the_image(wide: bool) -> None:  # noqa: FBT001
    """Items 1 and 2 have a box each; which one is the picture's, the container says."""
    essential, numbers = (0x8000, ">HBH") if wide else (0x80, ">HBB")
    entries = [struct.pack(numbers, item, 1, essential | item) for item in (1, 2)]
    associations = box(b"ipma", struct.pack(">II", int(wide), 2), *entries)
    properties = box(b"iprp", box(b"ipco", colr(9, 16), colr(1, 13)), associations)
    image = Image.new("RGB", (9, 9))
    for item, curve in ((1, "pq"), (2, "srgb")):
        meta = box(b"meta", bytes(4), box(b"pitm", struct.pack(">IH", 0, item)), properties)
        stated = colour_tags.encoding(image, box(b"ftyp", b"avif", bytes(4)) + meta, "AVIF", has_profile=False)
        assert stated is not None
        assert stated.curve == curve
        for cut in range(len(meta)):  # no length of a broken file may end in anything but an answer
            colour_tags.encoding(image, box(b"ftyp", b"avif", bytes(4)) + meta[:cut], "AVIF", has_profile=False)
