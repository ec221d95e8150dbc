"""Image files of every kind come out as a person sees them, and nothing else comes out of what is none."""

from __future__ import annotations

import io
import os
import struct
import subprocess
import sys
import threading
import time
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from conftest import REPOSITORY, Run, paint
from hypothesis import given, settings
from hypothesis import strategies as st
from image_files import (
    COLOUR,
    GREY,
    HEIGHT,
    WIDTH,
    ImageFile,
    Pixels,
    directory,
    dng,
    heic,
    icns,
    image_files,
    png,
    png_chunk,
    rgb,
    saved,
    tiff,
    with_channels,
    without_targa_footer,
)
from PIL import Image

from clipsearch.errors import UnreadableImageError
from clipsearch.images.codecs import decoding, limits, reasons, recognising
from clipsearch.images.codecs.decoding import DecodedImage, decode
from clipsearch.images.codecs.limits import default_max_pixels
from clipsearch.images.codecs.optional_packages import readers
from clipsearch.images.codecs.recognising import DECODERS

EXIF_PHOTOS = REPOSITORY.parent / "shared" / "photos" / "exif-orientation"
FILES = {file.name: file for file in image_files()}
STORED_FOR = {
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}
"""How a camera stores an upright picture that it gives this EXIF orientation."""
ORIENTATION, DATE_TIME, EXIF, DATE_TIME_ORIGINAL = 0x0112, 0x0132, 0x8769, 0x9003


def stored_for(orientation: int) -> Pixels:
    undo = STORED_FOR[orientation]
    upright = Image.fromarray(COLOUR)
    return np.asarray(upright if undo is None else upright.transpose(undo))


def pixels(picture: DecodedImage) -> Pixels:
    assert picture.image.mode == "RGB"
    return np.asarray(picture.image)


def reason(content: bytes, name: bytes = b"", *, max_pixels: int | None = None) -> str:
    with pytest.raises(UnreadableImageError) as caught:
        decode(content, name, max_pixels=max_pixels)
    return str(caught.value)


def assert_alike(seen: Pixels, painted: Pixels, tolerance: int) -> None:
    """Lossy formats bleed at the edges, so there only the middles of the four fields count."""
    assert seen.shape == painted.shape
    height, width = (side // 2 for side in painted.shape[:2])
    step = (slice(height // 2, None, height), slice(width // 2, None, width)) if tolerance else ...
    difference = np.abs(seen[step].astype(int) - painted[step])
    assert difference.max() <= tolerance


# --- every format ---


@pytest.mark.parametrize("file", FILES.values(), ids=FILES)
def test_a_file_is_seen_as_it_was_painted(file: ImageFile) -> None:
    picture = decode(file.content)
    assert_alike(pixels(picture), file.pixels, file.tolerance)
    assert (picture.height, picture.width) == file.pixels.shape[:2]
    assert type(picture.image) is Image.Image  # not Pillow's image of a file, which keeps the content


def test_images_are_the_same_when_they_are_seen_part_by_part(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = [pixels(decode(file.content)) for file in FILES.values()]
    for part in (1, 100, WIDTH * 5):
        monkeypatch.setattr("clipsearch.images.codecs.pixels._PART", part)
        for name, seen in zip(FILES, whole, strict=True):
            np.testing.assert_array_equal(pixels(decode(FILES[name].content)), seen, name)


def test_all_decoders_are_tried_by_these_files() -> None:
    kinds = set()
    for file in FILES.values():
        with Image.open(io.BytesIO(file.content)) as image:
            kinds.add(image.format)
    assert kinds - {"MPO"} == set(DECODERS)  # MPO is JPEG with more pictures behind it


def has_rgb(file: ImageFile) -> bool:
    """Whether there is nothing in a file to be laid over white, or to be brought to 8 bits, or that Pillow misreads."""
    if file.misread:
        return False
    with Image.open(io.BytesIO(file.content)) as image:
        image.load()
        return not (image.has_transparency_data or image.mode.startswith(("I", "F")))


@pytest.mark.parametrize("file", [pytest.param(file, id=name) for name, file in FILES.items() if has_rgb(file)])
def test_what_pillow_converts_well_is_converted_by_pillow(file: ImageFile) -> None:
    with Image.open(io.BytesIO(file.content)) as image:
        np.testing.assert_array_equal(pixels(decode(file.content)), np.asarray(image.convert("RGB")))


def test_the_name_of_a_file_does_not_matter() -> None:
    for file, name in zip(FILES.values(), reversed(FILES), strict=True):
        if file.content[:2] not in (b"II", b"MM"):
            assert_alike(pixels(decode(file.content, name.encode())), file.pixels, file.tolerance)
            assert_alike(pixels(decode(file.content, b"a.nef")), file.pixels, file.tolerance)


def test_many_threads_see_what_one_sees() -> None:
    with ThreadPoolExecutor(8) as pool:
        pictures = list(pool.map(lambda file: decode(file.content), list(FILES.values()) * 2))
    for picture, file in zip(pictures, list(FILES.values()) * 2, strict=True):
        assert_alike(pixels(picture), file.pixels, file.tolerance)


# --- upright ---


@pytest.mark.parametrize("orientation", STORED_FOR)
@pytest.mark.parametrize(
    ("kind", "options", "tolerance"),
    [
        ("PNG", {}, 0),
        ("TIFF", {}, 0),
        ("TIFF", {"compression": "tiff_lzw"}, 0),
        ("WEBP", {"lossless": True}, 0),
        ("JPEG", {"quality": 95}, 3),
        ("AVIF", {"quality": 95}, 8),
        ("HEIF", {"quality": -1, "chroma": 444}, 4),
    ],
)
def test_exif_orientation_is_honoured(kind: str, options: dict[str, Any], tolerance: int, orientation: int) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    exif[DATE_TIME] = "2024:02:29 12:34:56"
    picture = decode(saved(stored_for(orientation), kind, exif=exif.tobytes(), **options))
    assert (picture.width, picture.height) == (WIDTH, HEIGHT)
    assert_alike(pixels(picture), COLOUR, tolerance)
    assert picture.taken_at == "2024-02-29T12:34:56"


@pytest.mark.parametrize("kind", ["AVIF", "HEIF"])
@pytest.mark.parametrize("container", [6, 1])
def test_in_heif_and_avif_the_container_tells_how_to_turn(kind: str, container: int) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = container  # which the encoder writes into the container, too
    exif[ORIENTATION + 1] = 6
    content = saved(stored_for(container), kind, exif=exif.tobytes(), quality=95)
    assert (b"irot" in content) == (container == 6)
    # Now EXIF says 6 in any case.
    entry, mended = (struct.pack(">HHI", tag, 3, 1) for tag in (ORIENTATION + 1, ORIENTATION))
    assert entry in content
    assert_alike(pixels(decode(content.replace(entry, mended))), COLOUR, 8)


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_an_impossible_orientation_is_none(orientation: int) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    np.testing.assert_array_equal(pixels(decode(saved(COLOUR, "PNG", exif=exif))), COLOUR)


def test_real_photos_in_all_orientations_come_out_alike() -> None:
    if not EXIF_PHOTOS.is_dir():
        pytest.skip("needs the reference material beside the project (shared/photos)")
    for kind in ("Landscape", "Portrait"):
        photos = sorted(EXIF_PHOTOS.glob(f"{kind}_*.jpg"))
        small = [decode(path.read_bytes()).image.resize((32, 32)) for path in photos]
        assert len(small) == 9
        for image in small[1:]:
            difference = np.abs(np.asarray(image, float) - np.asarray(small[0], float)).mean()
            assert difference < 4


# --- EXIF ---


def test_the_time_a_photo_was_taken_beats_the_time_it_was_changed() -> None:
    exif = Image.Exif()
    exif[DATE_TIME] = "2025:01:01 00:00:00"
    exif.get_ifd(EXIF)[DATE_TIME_ORIGINAL] = "2024:02:29 12:34:56\0"
    for kind in ("JPEG", "PNG", "WEBP", "AVIF", "HEIF"):
        assert decode(saved(COLOUR, kind, exif=exif.tobytes())).taken_at == "2024-02-29T12:34:56", kind
    assert decode(saved(COLOUR, "JPEG")).taken_at is None


def test_a_tiff_has_its_times_in_its_own_tags() -> None:
    samples = COLOUR.tobytes()
    details = directory({DATE_TIME_ORIGINAL: ("s", b"2024:02:29 12:34:56\0")}, 8 + len(samples))
    tags = {DATE_TIME: ("s", b"2025:01:01 00:00:00\0"), EXIF: ("I", [8 + len(samples)])}
    assert decode(tiff(samples + details, [8, 8, 8], 2, tags)).taken_at == "2024-02-29T12:34:56"
    assert decode(tiff(samples, [8, 8, 8], 2, {DATE_TIME: tags[DATE_TIME]})).taken_at == "2025-01-01T00:00:00"


@pytest.mark.parametrize("text", ["0000:00:00 00:00:00", "    :  :     :  :  ", "yesterday", "2024:02:30 12:00:00"])
def test_an_impossible_time_is_none(text: str) -> None:
    exif = Image.Exif()
    exif[DATE_TIME] = text
    assert decode(saved(COLOUR, "JPEG", exif=exif)).taken_at is None


BROKEN_EXIF = {
    "no TIFF": b"????????",
    "outside": b"MM\0*\xff\xff\xff\xf0",
    "circle": b"MM\0*\0\0\0\0",
    "entries": b"MM\0*\0\0\0\x08\xff\xff",
    "type": b"MM\0*\0\0\0\x08\0\1\x01\x12\xff\xff",
    "values": b"MM\0*\0\0\0\x08\0\1\x01\x12\0\3\xff\xff\xff\xff",
}


@pytest.mark.filterwarnings("ignore")  # Pillow's, which the command line does not show
@pytest.mark.parametrize("damage", BROKEN_EXIF.values(), ids=BROKEN_EXIF)
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "AVIF", "HEIF"])
def test_broken_exif_does_not_cost_the_image(kind: str, damage: bytes) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = 1
    exif[DATE_TIME] = "2024:02:29 12:34:56"
    content = saved(COLOUR, kind, exif=exif, quality=95)
    at = content.index(exif.tobytes()[6:14])
    content = content[:at] + damage + content[at + len(damage) :]
    if kind == "PNG":
        start = content.index(b"eXIf")
        (length,) = struct.unpack_from(">I", content, start - 4)
        chunk = png_chunk(b"eXIf", content[start + 4 : start + 4 + length])
        content = content[: start - 4] + chunk + content[start + 8 + length :]
    picture = decode(content)
    assert_alike(pixels(picture), COLOUR, 12)


# --- more than eight bits ---


def wide_tiff(values: npt.NDArray[Any]) -> bytes:
    height, width = values.shape
    sample_format = {"u": 1, "i": 2, "f": 3}[values.dtype.kind]
    tags = {339: ("H", [sample_format])}
    return tiff(values.tobytes(), [values.itemsize * 8], 1, tags, size=(width, height))


def levels(values: list[float], kind: str) -> list[int]:
    """The grey levels that a row of samples is shown with."""
    seen: Pixels = pixels(decode(wide_tiff(np.array([values], kind))))
    assert (seen == seen[..., :1]).all()
    return [int(level) for level in seen[0, :, 0]]


def test_sixteen_bits_are_scaled_and_never_stretched_or_clipped() -> None:
    assert levels([0, 128, 256, 1000, 32768, 65535], "<u2") == [0, 0, 1, 4, 128, 255]
    assert levels([0, 100, 200], "<u2") == [0, 0, 1]  # a dark picture stays dark


def test_integers_are_like_sixteen_bits_where_they_fit_and_stretched_otherwise() -> None:
    assert levels([0, 257, 65535], "<i4") == [0, 1, 255]
    assert levels([0, 65536, 131072], "<i4") == [0, 128, 255]
    assert levels([-(2**31), 0, 2**31 - 1], "<i4") == [0, 128, 255]
    assert levels([0, 2**31, 2**32 - 1], "<u4") == [0, 128, 255]
    assert levels([-32768, -1, 32767], "<i2") == [0, 127, 255]


def test_real_numbers_are_seen_in_the_range_they_are_meant_for() -> None:
    assert levels([0, 0.25, 0.5], "<f4") == [0, 64, 128]
    assert levels([0, 1.5, 128], "<f4") == [0, 2, 128]
    assert levels([0, 500, 1000], "<f4") == [0, 128, 255]
    assert levels([-1, 0, 1], "<f4") == [0, 128, 255]
    assert levels([-3e38, 0, 3e38], "<f4") == [0, 128, 255]


def test_what_is_no_number_does_not_spoil_the_others() -> None:
    nan, infinity = float("nan"), float("inf")
    assert levels([0, nan, 0.5, infinity, -infinity], "<f4") == [0, 0, 128, 255, 0]
    assert levels([-1, nan, 0, 1, infinity, -infinity], "<f4") == [0, 0, 128, 255, 255, 0]
    assert levels([nan, nan], "<f4") == [0, 0]


def test_a_number_that_signals_is_no_number_without_a_warning() -> None:
    samples = np.array([[0x3F800000, 0x7F800001]], np.uint32).view(np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert pixels(decode(saved(Image.fromarray(samples), "TIFF")))[..., 0].ravel().tolist() == [255, 0]


def test_one_value_everywhere_is_an_image_too() -> None:
    assert levels([40000, 40000], "<u2") == [156, 156]
    assert levels([70000, 70000], "<i4") == [0, 0]
    assert levels([-5, -5], "<f4") == [0, 0]
    assert levels([1, 1], "<f4") == [255, 255]


def test_a_line_is_an_image_of_any_length() -> None:
    values = np.arange(3 << 20, dtype="<u2")
    for shape in ((1, -1), (-1, 1)):
        seen = pixels(decode(wide_tiff(values.reshape(shape))))[..., 0].ravel()
        np.testing.assert_array_equal(seen, np.rint(values / 257).astype(np.uint8))


@given(st.lists(st.floats(width=32), min_size=1, max_size=9))
@settings(max_examples=50, deadline=None)
def test_lighter_numbers_are_never_seen_darker(values: list[float]) -> None:
    numbers = [value for value in values if value == value]  # noqa: PLR0124  (not NaN)
    seen = [level for value, level in zip(values, levels(values, "<f4"), strict=True) if value == value]  # noqa: PLR0124
    assert [level for _, level in sorted(zip(numbers, seen, strict=True))] == sorted(seen)


# --- how large ---


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims to be so large, and has no pixels."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + png_chunk(b"IDAT", zlib.compress(b""))


def test_what_is_too_large_is_refused_for_what_its_header_says() -> None:
    assert reason(png_header(60000, 60000), max_pixels=300_000_000) == (
        "too large: 60000 x 60000 pixels, more than the limit of 300 million"
    )
    jpeg = FILES["444.jpg"].content
    at = jpeg.index(b"\xff\xc0") + 5
    larger = jpeg[:at] + struct.pack(">HH", 65000, 60000) + jpeg[at + 4 :]
    assert reason(larger, max_pixels=10**9).startswith(
        "too large: 60000 x 65000 pixels, more than the limit of 1,000 m"
    )


@pytest.mark.parametrize("file", FILES.values(), ids=FILES)
def test_every_format_has_the_limit(file: ImageFile) -> None:
    height, width = file.pixels.shape[:2]
    size = width * height
    assert decode(file.content, max_pixels=size).width == width
    said = reason(file.content, max_pixels=size - 1)
    assert said == f"too large: {width} x {height} pixels, more than the limit of {(size - 1) / 1e6:g} million"


def test_an_image_within_an_icon_has_the_limit_before_it_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    bomb = png_header(20000, 20000)
    icon = struct.pack("<HHHBBBBHHII", 0, 1, 1, 64, 64, 0, 0, 1, 32, len(bomb), 22) + bomb
    monkeypatch.setattr("PIL.Image.core.new", lambda *_: pytest.fail("memory was taken"))
    assert reason(icon, max_pixels=10**6).startswith("too large: 20000 x 20000")
    assert reason(bomb, max_pixels=10**6).startswith("too large: 20000 x 20000")


def test_pillows_own_limit_does_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("rgb-tiff_lzw.tiff", "rgb-raw.tiff", "lossless.webp", "png.ico", "still.gif", "rgb.png"):
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
        assert decode(FILES[name].content).width == WIDTH, name
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
        assert decode(FILES[name].content).width == WIDTH, name


def test_texts_and_profiles_that_unpack_to_very_much_cost_nothing() -> None:
    bomb = zlib.compress(bytes(80 << 20))
    for kind, data in ((b"zTXt", b"x\0\0" + bomb), (b"iTXt", b"x\0\1\0\0\0" + bomb), (b"iCCP", b"x\0\0" + bomb)):
        picture = decode(png(COLOUR, 8, 2, [(kind, data)]))
        assert_alike(pixels(picture), COLOUR, 0)
        assert picture.missing == 0


def test_indices_without_a_palette_are_no_image() -> None:
    assert reason(png(COLOUR[..., 0], 8, 3)) == "broken image: it has no palette"


def test_too_little_memory_is_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_memory(*_: object) -> Image.Image:
        raise MemoryError

    monkeypatch.setattr(decoding, "as_seen", no_memory)
    assert reason(FILES["rgb.png"].content) == "too large: there is not enough memory for it"


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, SystemExit])
def test_interruptions_pass(monkeypatch: pytest.MonkeyPatch, interruption: type[BaseException]) -> None:
    def interrupt(*_: object) -> None:
        raise interruption

    monkeypatch.setattr("PIL.Image.core.new", interrupt)
    with pytest.raises(interruption):
        decode(FILES["rgb.png"].content)


def test_mistakes_in_our_own_code_are_not_taken_for_broken_images(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoding, "as_seen", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        decode(FILES["rgb.png"].content)


def test_the_default_limit_is_what_fits_a_quarter_of_the_memory() -> None:
    assert default_max_pixels() == limits._memory() // 80
    if hasattr(os, "sysconf"):
        assert limits._memory() <= os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.parametrize(
    ("groups", "files", "found"),
    [
        ("0::/\n", {"memory.max": "1000"}, [1000]),
        ("0::/a/b\n", {"a/b/memory.max": "max", "a/memory.max": "2000", "memory.max": "max"}, [2000]),
        ("0::/not/in/our/view\n", {"memory.max": "3000"}, [3000]),
        ("5:cpu:/x\n4:memory:/x\n0::/\n", {"memory/x/memory.limit_in_bytes": "4000"}, [4000]),
        ("", {}, []),
    ],
)
def test_the_memory_of_a_container_counts(tmp_path: Path, groups: str, files: dict[str, str], found: list[int]) -> None:
    for name, text in {"proc/self/cgroup": groups, **{f"sys/fs/cgroup/{n}": t for n, t in files.items()}}.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert list(limits._control_group_limits(tmp_path)) == found
    assert limits._memory(tmp_path) == min([*found, limits._memory(tmp_path / "nowhere")])


def test_a_system_that_does_not_tell_its_memory_is_taken_for_a_small_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(os, "sysconf", raising=False)
    assert limits._memory(tmp_path) == 8 << 30


def test_images_are_decoded_together_as_long_as_their_pixels_are_within_the_limit() -> None:
    inside, most, watch = 0, 0, threading.Lock()
    meeting = threading.Barrier(4, timeout=10)

    def hold(pixels: int) -> None:
        nonlocal inside, most
        meeting.wait()
        with limits.in_turn(pixels, 80):
            with watch:
                inside += 1
                most = max(most, inside)
            if pixels <= 20:
                meeting.wait()  # only passes if all four are here at the same time
            with watch:
                inside -= 1

    for pixels, together in ((41, 1), (20, 4)):
        most = 0
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(hold, [pixels] * 4))
        assert most == together


def test_a_large_image_gets_its_turn_before_small_ones_that_come_later() -> None:
    order: list[str] = []
    entered = {name: threading.Event() for name in ("first", "large", "late")}
    leave = threading.Event()

    def decode_one(name: str, pixels: int) -> None:
        entered[name].set()
        with limits.in_turn(pixels, 100):
            order.append(name)
            if name == "first":
                assert leave.wait(10)

    with ThreadPoolExecutor(3) as pool:
        for name, pixels in (("first", 50), ("large", 90), ("late", 20)):
            pool.submit(decode_one, name, pixels)
            assert entered[name].wait(10)
            while name == "first" and not order:
                time.sleep(0.001)
            time.sleep(0.02)  # until it waits
        leave.set()
    assert order == ["first", "large", "late"]


def lossless_jpeg(grey: npt.NDArray[np.uint8]) -> bytes:
    """A JPEG of the lossless process: each pixel is its left neighbour plus a difference."""
    before = np.concatenate([np.concatenate([[128], grey[:-1, 0]])[:, np.newaxis], grey[:, :-1]], axis=1)
    bits = ""
    for difference in (grey.astype(int) - before).ravel().tolist():
        length = abs(difference).bit_length()
        bits += f"{length:04b}"
        if length:
            bits += f"{difference if difference > 0 else difference + 2**length - 1:0{length}b}"
    bits += "1" * (-len(bits) % 8)
    coded = int(bits, 2).to_bytes(len(bits) // 8, "big").replace(b"\xff", b"\xff\0")
    height, width = grey.shape
    frame = struct.pack(">HBHHB3B", 11, 8, height, width, 1, 1, 0x11, 0)
    codes = struct.pack(">HB16B", 28, 0, 0, 0, 0, 9, *[0] * 12) + bytes(range(9))
    scan = struct.pack(">HB2B3B", 8, 1, 1, 0, 1, 0, 0)
    return b"\xff\xd8\xff\xc3" + frame + b"\xff\xc4" + codes + b"\xff\xda" + scan + coded + b"\xff\xd9"


def test_what_cannot_be_decoded_smaller_is_decoded_in_full() -> None:
    content = lossless_jpeg(GREY)
    for at_least in (None, 8):
        picture = decode(content, at_least=at_least)
        np.testing.assert_array_equal(pixels(picture), rgb(GREY))


def test_a_camera_raw_whose_end_is_missing_is_not_taken_for_a_dark_image() -> None:
    whole = dng(None)
    sensor = whole.index(np.full(64, 2000, "<u2").tobytes())
    size = 96 * 64 * 2
    lost = whole[: sensor + size // 2] + bytes(size // 2) + whole[sensor + size :]  # as LibRaw leaves what it lacks
    assert decode(whole).width == 96
    assert reason(lost) == "truncated: the file ends before the picture does"


@pytest.mark.parametrize("channels", [[(0, 0, 1)], [(9, 0, 1), (1, 0, 2), (2, 0, 3)], [(0, 0, 1)] * 3, []])
def test_channels_that_are_not_there_change_nothing(channels: list[tuple[int, int, int]]) -> None:
    jp2 = with_channels(saved(COLOUR, "JPEG2000"), channels)
    try:
        seen = pixels(decode(jp2))
    except UnreadableImageError:
        return
    np.testing.assert_array_equal(seen, COLOUR)


# --- what is no image, or a broken one ---


@pytest.mark.parametrize(
    "content",
    [
        b"not an image",
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
        b"%PDF-1.7\n",
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        b"8BPX\0\1" + bytes(40),
        b"\xd7\xcd\xc6\x9a" + bytes(60),
        b"SIMPLE  =                    T" + b" " * 50,
        b"\0\0\2\0\1\0" + bytes(40),
        b"\0\0\0\x18ftypisom\0\0\0\0isommp42" + bytes(40),
        b"PK\3\4" + bytes(40),
        b"\0",
        bytes(1000),
    ],
    ids=["text", "EPS", "PDF", "SVG", "PSD", "WMF", "FITS", "cursor", "MP4", "zip", "a byte", "zeros"],
)
def test_other_files_are_no_images(content: bytes) -> None:
    assert reason(content) == "not an image of a known format"


def changed(content: bytes, *changes: tuple[int, bytes]) -> bytes:
    """With other bytes at these places."""
    mended = bytearray(content)
    for at, new in changes:
        mended[at : at + len(new)] = new
    return bytes(mended)


PSD, PCX, SGI = FILES["rgb.psd"].content, FILES["palette.pcx"].content, FILES["rgb.sgi"].content
NO_PICTURE = b"8BIM" + struct.pack(">HHI", 1057, 0, 6) + b"\0\0\0\1\0\0"
"""Photoshop's own: "saved without a flattened picture"."""


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (changed(PSD, (5, b"\2")), "unsupported: PSB"),
        (changed(PSD, (23, b"\x10")), "unsupported: PSD with 16 bits a channel"),
        (changed(PSD, (25, b"\7")), "unsupported: PSD with several spot colours"),
        (changed(PSD, (39, b"\2")), "unsupported: PSD whose flattened picture is zipped"),
        (changed(PSD, (33, bytes([len(NO_PICTURE)]) + NO_PICTURE)), "unsupported: PSD without a flattened picture"),
        (PSD[:36], "truncated: "),
        (changed(PCX, (3, b"\4")), "unsupported: PCX with 1 planes of 4 bits"),
        (changed(PCX, (1, b"\3"), (3, b"\1"), (65, b"\4")), "unsupported: PCX in colours of a screen"),
        (PCX[:-1], "truncated: "),  # else the palette's indices were taken for levels of grey
        (changed(SGI, (104, b"\0\0\0\2")), "unsupported: SGI picture with a colour map"),
        (changed(SGI, (11, b"\2")), "unsupported: SGI picture with 2 channels"),
        (SGI[:-1], "truncated: "),
        (FILES["rgb-runs.sgi"].content[:600], "truncated: "),
        (FILES["jp2.icns"].content[:-1], "truncated: "),  # the picture itself is whole
    ],
)
def test_what_pillow_would_show_wrongly_is_refused_by_name(content: bytes, said: str) -> None:
    assert reason(content).startswith(said)


def test_the_largest_of_apples_icons_has_the_limit_of_all_images() -> None:
    jp2 = FILES["rgb.jp2"].content
    for size in ((WIDTH, HEIGHT), (HEIGHT, WIDTH)):  # it says so in both ways
        jp2 = jp2.replace(struct.pack(">II", *size), struct.pack(">II", 60000, 60000))
    for bomb in (png_header(60000, 60000), jp2):
        icons = icns((b"ic07", FILES["rgba.png"].content), (b"ic08", bomb))
        assert reason(icons).startswith("too large: 60000 x 60000"), bomb[:12]


@pytest.mark.parametrize(("name", "at", "byte"), [("palette.pcx", 2, 0), ("palette.pcx", 4, 255), ("rgb.sgi", 2, 2)])
def test_two_right_bytes_make_no_image(name: str, at: int, byte: int) -> None:
    content = FILES[name].content
    assert reason(changed(content, (at, bytes([byte])), (at + 1, b"\0"))) == "not an image of a known format"
    assert reason(content[:2] + b"Dear Sir or Madam,\n" * 100) == "not an image of a known format"


def test_an_empty_file_is_called_empty() -> None:
    assert reason(b"") == "empty file"


@given(st.binary(min_size=18, max_size=200))
@settings(max_examples=200, deadline=None)
def test_random_bytes_are_no_targa(content: bytes) -> None:
    assert recognising.format_of(content) != "TGA" or content.endswith(b"TRUEVISION-XFILE.\0")


def test_a_targa_without_footer_must_fit_its_header() -> None:
    old = without_targa_footer(saved(COLOUR, "TGA"))
    assert decode(old).width == WIDTH
    damages = {"a kind of 4": (2, b"\4"), "a colour map": (1, b"\1"), "depth": (16, b"\x1e"), "flags": (17, b"\xc0")}
    for what, (at, byte) in damages.items():
        assert reason(old[:at] + byte + old[at + 1 :]) == "not an image of a known format", what
    assert reason(old[:-1]) == "not an image of a known format"


CUTS = (1 / 8, 1 / 4, 3 / 8, 1 / 2, 5 / 8, 3 / 4, 7 / 8, 0.95)


@pytest.mark.filterwarnings("ignore")  # Pillow's, which the command line does not show
@pytest.mark.parametrize("file", FILES.values(), ids=FILES)
def test_a_truncated_file_is_refused_or_tells_how_much_is_missing(file: ImageFile) -> None:
    whole = pixels(decode(file.content)).astype(int)
    cuts = {int(len(file.content) * cut) for cut in CUTS} | {len(file.content) - 1}
    for cut in sorted(cuts):
        try:
            picture = decode(file.content[:cut])
        except UnreadableImageError:
            continue
        assert picture.missing <= 1 / 2
        differ = (np.abs(pixels(picture) - whole) > max(8, file.tolerance)).any(axis=2)
        # What a JPEG 2000 loses is detail everywhere.
        if picture.missing == 0 or not file.name.endswith((".jp2", ".j2k", ".icns")):
            assert differ.mean() <= picture.missing + 1e-9, f"{cut} of {len(file.content)} bytes"


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "name",
    [
        "444.jpg",
        "progressive.jpg",
        "rgb.png",
        "lossless.webp",
        "444.heic",
        "rgb.jp2",
        "codestream.j2k",
        "rgb-raw.tiff",
        "rgb-tiff_lzw.tiff",
        "still.gif",
        "rgb.bmp",
        "png.ico",
        "raw.ppm",
        "rgb-runs.tga",
    ],
)
def test_a_truncated_file_is_called_truncated(name: str) -> None:
    content = FILES[name].content
    said = reason(content[: len(content) * 4 // 9])
    assert said.startswith("truncated: ")


def test_a_truncated_animation_still_has_its_first_frame() -> None:
    for name in ("animated.gif", "animated.png", "pages.tiff", "two-pictures.mpo"):
        content = FILES[name].content
        assert_alike(pixels(decode(content[:-40])), COLOUR, FILES[name].tolerance)


def test_reasons_are_short_lines_for_people() -> None:
    for error in (
        OSError("a\nb\t\x1b[31mc"),
        ValueError("cannot identify image file <_io.BytesIO object at 0x7f0000000000>"),
        ValueError(repr(bytes(range(256)))),
        SyntaxError("broken PNG file (bad header checksum in b'eXIf')"),
        KeyError(320),
        OSError("x" * 1000),
        OSError(),
    ):
        said = reasons.first_reason(error)
        assert said.startswith("broken image")
        assert said.isprintable()
        assert len(said) <= 200
        assert "0x" not in said
        assert "\\x" not in said
    assert reasons.first_reason(SyntaxError("bad b'eXIf'")) == "broken image: bad 'eXIf'"


# --- camera RAW ---

PREVIEW = saved(COLOUR, "JPEG", quality=95, subsampling="4:4:4")


@pytest.mark.parametrize("orientation", STORED_FOR)
def test_the_preview_of_a_raw_is_seen_upright(orientation: int) -> None:
    preview = saved(stored_for(orientation), "JPEG", quality=95, subsampling="4:4:4")
    picture = decode(dng(preview, orientation=orientation, size=(96, 64)))
    assert_alike(pixels(picture), COLOUR, 3)
    assert (picture.width, picture.height) == ((64, 96) if orientation > 4 else (96, 64))
    assert picture.taken_at == "2024-02-29T12:34:56"


def test_a_preview_of_bare_pixels_is_passed_over() -> None:
    # How many there are only the file says, and a broken one made rawpy read beyond them.
    assert pixels(decode(dng(COLOUR))).tolist() == pixels(decode(dng(None))).tolist()


@pytest.mark.parametrize(("own", "turned"), [(None, 6), (6, 6), (1, 1)])
def test_what_a_preview_says_of_itself_comes_first(own: int | None, turned: int) -> None:
    exif = Image.Exif()
    exif[DATE_TIME] = "2020:01:01 00:00:00"
    if own is not None:
        exif[ORIENTATION] = own
    jpeg = saved(stored_for(turned), "JPEG", quality=95, subsampling="4:4:4", exif=exif)
    # LibRaw leaves EXIF alone if it comes first, where cameras write it.
    jfif = jpeg.index(b"\xff\xe0")
    (length,) = struct.unpack_from(">H", jpeg, jfif + 2)
    jpeg = jpeg[:jfif] + jpeg[jfif + 2 + length :]
    assert_alike(pixels(decode(dng(jpeg, orientation=6))), COLOUR, 3)


@pytest.mark.parametrize("orientation", STORED_FOR)
def test_a_raw_without_a_preview_is_developed(orientation: int) -> None:
    picture = decode(dng(None, orientation=orientation, size=(96, 64)))
    upright = (64, 96) if orientation > 4 else (96, 64)
    assert (picture.width, picture.height) == upright
    assert picture.image.size == (upright[0] // 2, upright[1] // 2)
    assert picture.image.mode == "RGB"


def test_a_raw_is_developed_within_the_limit_only() -> None:
    assert reason(dng(None, size=(96, 64)), max_pixels=6000).startswith("too large: 96 x 64 pixels")
    assert reason(dng(PREVIEW), max_pixels=2000).startswith("too large: 64 x 32 pixels")


def test_a_raw_with_an_unknown_time_has_none() -> None:
    undated = dng(PREVIEW).replace(b"2024:02:29 12:34:56", b"                   ")
    assert decode(undated).taken_at is None


def test_raw_is_known_by_its_content_or_a_tiff_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rawpy", None)
    plain = FILES["rgb-raw.tiff"].content
    canon = b"II*\0\x10\0\0\0CR\2\0" + bytes(100)
    for content, name in (
        (dng(PREVIEW), b""),
        (plain, b"/home/me/\xff.NEF"),
        (canon, b""),
        (b"FUJIFILMCCD-RAW 0201" + bytes(100), b""),
        (b"\0\0\0\x18ftypcrx " + bytes(100), b""),
        (b"IIRO\x08\0\0\0" + bytes(100), b""),
        (b"IIU\0\x18\0\0\0" + bytes(100), b""),
        (b"FOVb" + bytes(100), b""),
        (b"\0MRM" + bytes(100), b""),
    ):
        assert reason(content, name) == (
            "camera RAW: its preview is read once you install the extra: pip install 'clipsearch[raw]'"
        )
    np.testing.assert_array_equal(pixels(decode(plain, b"a.tiff")), COLOUR)


def test_a_plain_tiff_with_the_name_of_a_raw_is_read_as_one() -> None:
    np.testing.assert_array_equal(pixels(decode(FILES["rgb-raw.tiff"].content, b"a.dng")), COLOUR)


def test_a_raw_with_a_broken_preview_is_developed() -> None:
    raw = dng(PREVIEW, size=(96, 64))
    start, end = raw.index(b"\xff\xd8"), raw.index(b"\xff\xd9")
    assert decode(raw[: start + 2] + bytes(end - start - 2) + raw[end:]).image.size == (48, 32)


def test_the_raw_of_a_camera_without_colours_is_grey() -> None:
    grey = dng(None).replace(struct.pack("<HHIHH", 262, 3, 1, 32803, 0), struct.pack("<HHIHH", 262, 3, 1, 34892, 0))
    seen = pixels(decode(grey))
    assert (seen == seen[..., :1]).all()


def test_a_broken_raw_says_so() -> None:
    assert reason(b"FUJIFILMCCD-RAW 0201" + bytes(1000)).startswith("broken camera RAW: ")


# --- the process ---


def python(code: str, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code, *options], capture_output=True, text=True, timeout=60, check=False, cwd=REPOSITORY
    )


def test_seldom_needed_decoders_are_loaded_when_they_are_needed(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(FILES["rgb.png"].content)
    (tmp_path / "a.heic").write_bytes(heic(COLOUR))
    code = """
import sys
from pathlib import Path
from clipsearch.images.codecs.decoding import decode
from clipsearch.images.codecs.optional_packages import readers
readers()
decode(Path(sys.argv[1], "a.png").read_bytes())
assert not {"pillow_heif", "rawpy"} & set(sys.modules)
decode(Path(sys.argv[1], "a.heic").read_bytes())
assert "pillow_heif" in sys.modules
"""
    done = python(code, str(tmp_path))
    assert done.returncode == 0, done.stderr


def test_readers_names_what_decides_which_files_can_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    from importlib import metadata

    known = {"pillow": "12.0.0", "pillow-heif": "1.1.0"}

    def version(package: str) -> str:
        if package not in known:
            raise metadata.PackageNotFoundError(package)
        return known[package]

    assert readers().startswith(f"pillow {metadata.version('pillow')}, pillow-heif ")
    monkeypatch.setattr(metadata, "version", version)
    assert readers.__wrapped__() == "pillow 12.0.0, pillow-heif 1.1.0, no rawpy, no imagecodecs, no tifffile"


NOISE = """
import io, logging, os, sys, warnings
from pathlib import Path
from PIL import Image
from clipsearch.images.codecs.quiet import quiet_decoders

def noise():
    broken = Path(sys.argv[1]).read_bytes()
    try:
        Image.open(io.BytesIO(broken)).load()  # libtiff complains
    except OSError:
        pass
    os.write(2, b"from C\\n")
    warnings.warn_explicit("from Pillow", UserWarning, "Image.py", 1, "PIL.Image")
    logging.getLogger("PIL.TiffImagePlugin").error("from the log")
"""


@pytest.fixture
def broken_tiff(tmp_path: Path) -> Path:
    content = bytearray(FILES["rgb-tiff_adobe_deflate.tiff"].content)
    content[12:30] = b"\xff" * 18
    path = tmp_path / "broken.tiff"
    path.write_bytes(content)
    return path


def test_decoders_are_noisy_without_more_ado(broken_tiff: Path) -> None:
    done = python(NOISE + "noise()", str(broken_tiff))
    for noise in ("ZIPDecode", "from C", "from Pillow", "from the log"):
        assert noise in done.stderr


def test_decoders_can_be_silenced_without_silencing_others(broken_tiff: Path) -> None:
    code = """
stderr = sys.stderr
encoding, errors = stderr.encoding, stderr.errors
print("before", file=sys.stderr)
with quiet_decoders():
    noise()
    print("mine \\udcff", file=sys.stderr)
    warnings.warn("another's")
    assert sys.stderr.isatty() == os.isatty(stderr.fileno())
    assert (sys.stderr.encoding, sys.stderr.errors) == (encoding, errors)
assert sys.stderr is stderr
os.write(2, b"after\\n")
"""
    done = python(NOISE + code, str(broken_tiff))
    assert done.returncode == 0, done.stderr
    lines = done.stderr.splitlines()
    assert lines[0] == "before"
    assert lines[1] == "mine \\udcff"
    assert "another's" in lines[2]
    assert lines[-1] == "after"
    assert "from" not in done.stderr


def test_commands_pass_nothing_on_of_what_decoders_write(broken_tiff: Path, tmp_path: Path, run: Run) -> None:
    paint(tmp_path / "good.png", "red")
    done = run("score", "good.png", broken_tiff, "--text", "red", "--model", "picturebook", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert b"broken.tiff" in done.stderr
    assert b"ZIPDecode" not in done.stderr


def test_a_crash_is_heard_while_decoders_are_silent(broken_tiff: Path) -> None:
    done = python(NOISE + "import faulthandler\nwith quiet_decoders(): faulthandler._sigsegv()", str(broken_tiff))
    assert done.returncode != 0
    assert "Segmentation fault" in done.stderr


@pytest.mark.parametrize("stderr", ["None", "io.StringIO()", "open(os.devnull, 'w')"])
def test_decoders_can_be_silenced_whatever_stderr_is(broken_tiff: Path, stderr: str) -> None:
    code = f"""
sys.stderr = stderr = {stderr}
with quiet_decoders():
    noise()
    assert sys.stderr is stderr
os.write(2, b"after\\n")
"""
    done = python(NOISE + code, str(broken_tiff))
    assert (done.returncode, done.stderr) == (0, "after\n")


def test_decoders_can_be_silenced_where_descriptor_2_is_closed(broken_tiff: Path) -> None:
    code = "os.close(2); sys.stderr = None\nwith quiet_decoders(): pass\nprint('done')"
    assert python(NOISE + code, str(broken_tiff)).stdout == "done\n"
