"""Valid pictures of rare kinds come out as a person sees them, or are refused by name; never wrong, never a crash."""

from __future__ import annotations

import json
import os
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from image_files import ALPHA, COLOUR, ON_WHITE, ImageFile, image_files, rgb, saved, tiff, without_targa_footer
from PIL import Image
from rare_files import RGBA, bitmap, box, rare_files, texture
from test_decoding import assert_alike, pixels, reason

from clipsearch.errors import UnreadableImageError
from clipsearch.images.codecs import avif, jpegxl, second_decoder
from clipsearch.images.codecs.decoding import decode
from clipsearch.images.codecs.limits import NoMemoryError
from clipsearch.images.codecs.recognising import format_of
from clipsearch.images.codecs.second_decoder_kinds import header

FILES = {file.name: file for file in rare_files()}
RGB_FLOAT, JXL = FILES["rgb-float-little.tiff"].content, FILES["rgb.jxl"].content


@pytest.fixture
def fresh() -> Iterator[None]:
    """The process is started by the test, and its successor by the next one."""
    second_decoder._process.stop()
    yield
    second_decoder._process.stop()


# --- what is seen ---


@pytest.mark.parametrize("file", FILES.values(), ids=FILES)
def test_an_image_of_a_rare_kind_is_seen_as_it_was_painted(file: ImageFile) -> None:
    picture = decode(file.content)
    assert_alike(pixels(picture), file.pixels, file.tolerance)
    assert (picture.height, picture.width) == file.pixels.shape[:2]


@pytest.mark.parametrize("file", FILES.values(), ids=FILES)
def test_it_has_the_limit_of_all_images_before_the_second_decoder_sees_it(
    file: ImageFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(second_decoder._process, "ask", lambda *_: pytest.fail("it was decoded"))
    height, width = file.pixels.shape[:2]
    assert reason(file.content, max_pixels=width * height - 1).startswith(f"too large: {width} x {height} pixels")


@pytest.mark.parametrize("file", FILES.values(), ids=FILES)
def test_without_the_second_decoder_it_is_refused_by_name(file: ImageFile, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(second_decoder, "is_installed", lambda _extra: False)
    extra = "jxl" if file.name.endswith(".jxl") else "formats"
    said = reason(file.content)
    kind, _, rest = said.partition(": ")
    assert kind.partition(" ")[0].upper() in ("JPEG", "AVIF", "TIFF", "BIGTIFF", "GREY", "LOSSLESS", "JPEG-LS"), said
    assert rest == f"read once you install the extra: pip install 'clipsearch[{extra}]'"


@pytest.mark.parametrize("file", FILES.values(), ids=FILES)
def test_a_truncated_one_is_refused_or_shows_the_whole_image(file: ImageFile) -> None:
    whole = pixels(decode(file.content))
    for cut in (len(file.content) // 2, len(file.content) * 3 // 4, len(file.content) - 1):
        try:
            seen = pixels(decode(file.content[:cut]))
        except UnreadableImageError:
            continue
        np.testing.assert_array_equal(seen, whole, f"{cut} of {len(file.content)} bytes")


def test_what_pillow_reads_well_is_left_to_pillow() -> None:
    found = [file.name for file in image_files() if header(file.content, format_of(file.content))]
    assert found == ["rgb.qoi", "rgba.qoi"]  # which it reads well, and slowly


def test_without_the_second_decoder_pillow_reads_qoi(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("clipsearch.images.codecs.second_decoder_kinds.is_installed", lambda _extra: False)
    monkeypatch.setattr(second_decoder._process, "ask", lambda *_: pytest.fail("it was asked"))
    for file in image_files():
        if file.name.endswith(".qoi"):
            np.testing.assert_array_equal(pixels(decode(file.content)), file.pixels)


def test_jpeg_2000_in_tiles_with_coarser_colours_is_left_to_the_second_decoder() -> None:
    tiled = saved(COLOUR, "JPEG2000", tile_size=(16, 16))
    whole = saved(COLOUR, "JPEG2000")
    for content, kind in ((tiled, "JPEG 2000 in tiles whose colours have a lower resolution"), (whole, None)):
        marker = content.index(b"\xff\x4f\xff\x51")
        coarse = content[: marker + 46] + b"\2\2" + content[marker + 48 :]  # of the second channel, every other pixel
        found = header(coarse, "JPEG2000")
        assert (found and found.kind) == kind
        assert header(content, "JPEG2000") is None


def test_orientation_and_date_come_from_where_each_kind_has_them() -> None:
    exif = Image.Exif()
    exif[0x0112], exif[0x0132] = 6, "2024:02:29 12:34:56"
    jxl = FILES["container.jxl"].content + box(b"Exif", struct.pack(">I", 0) + exif.tobytes()[6:])
    picture = decode(jxl)  # whose own header says that it is upright
    assert (picture.taken_at, picture.width) == ("2024-02-29T12:34:56", 64)
    jpeg = FILES["grey-lossy-12.jpg"].content
    segment = b"\xff\xe1" + struct.pack(">H", 2 + len(exif.tobytes())) + exif.tobytes()
    picture = decode(jpeg[:2] + segment + jpeg[2:])
    assert (picture.taken_at, picture.width) == ("2024-02-29T12:34:56", 32)
    at = RGB_FLOAT.index(struct.pack("<HHI", 284, 3, 1))  # its planes, which are as usual
    turned = RGB_FLOAT[:at] + struct.pack("<HHIHH", 0x0112, 3, 1, 6, 0) + RGB_FLOAT[at + 12 :]
    assert decode(turned).width == 32


def test_the_container_says_how_an_avif_is_turned() -> None:
    for number in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = number
        content = saved(RGBA, "AVIF", exif=exif.tobytes())
        found = avif.header(content)
        assert found is not None
        assert (found.orientation, found.width, found.height, found.bits) == (number, 64, 32, 8)
        assert not found.alpha_lacks_size


@pytest.mark.parametrize(
    ("bits", "masks", "header", "compression"),
    [
        (16, (0xF00, 0xF0, 0xF), 40, 3),
        (16, (0xF00, 0xF0, 0xF, 0xF000), 56, 3),
        (16, (0xF00, 0xF0, 0xF, 0xF000), 40, 6),
        (16, (0xE0, 0x1C, 3), 40, 3),
        (32, (0xFFE00000, 0x1FFC00, 0x3FF), 40, 3),
        (32, (0x3FF00000, 0xFFC00, 0x3FF), 108, 3),
        (32, (0xFF00, 0xFF0000, 0xFF000000, 0xFF), 124, 3),
        (32, (0xFF, 0xFF00, 0xFF0000), 40, 3),
        (32, (0x3FFFFF, 0xC00000, 0xFF000000), 40, 3),
    ],
)
def test_a_bitmap_may_have_its_channels_in_any_bits(
    bits: int, masks: tuple[int, ...], header: int, compression: int
) -> None:
    content = bitmap(RGBA, bits, masks, header=header, compression=compression)
    tolerances = [max(1, 128 // max(1, (mask >> (mask & -mask).bit_length() - 1))) for mask in masks]
    expected = ON_WHITE if len(masks) == 4 else COLOUR
    for file in (content, content[14:]):  # as a file, and as the clipboard has it
        seen = pixels(decode(file)).astype(int)
        assert np.abs(seen - expected).max() <= max(tolerances)
        assert seen[0, 0].tolist() == [255, 0, 0]
        assert reason(file[:-1]) == "truncated: the file ends before the picture does"
        assert reason(file, max_pixels=2047).startswith("too large: 64 x 32")
    opaque = bitmap(np.dstack([COLOUR, np.zeros_like(ALPHA)]), bits, masks, header=header, compression=compression)
    assert np.abs(pixels(decode(opaque)).astype(int) - COLOUR).max() <= max(tolerances)


@pytest.mark.parametrize(
    ("bits", "masks"),
    [
        (16, (0xF800, 0x7E0, 0x1F)),
        (16, (0xF00, 0xF0, 0xF, 0xF000)),
        (24, (0xFF0000, 0xFF00, 0xFF)),
        (32, (0x3FF, 0xFFC00, 0x3FF00000)),
        (32, (0xFF, 0xFF00, 0xFF0000, 0xFF000000)),
    ],
)
def test_a_texture_may_have_its_channels_in_any_bits(bits: int, masks: tuple[int, ...]) -> None:
    content = texture(RGBA, bits, masks)
    expected = ON_WHITE if len(masks) == 4 else COLOUR
    tolerance = 128 // min(mask >> (mask & -mask).bit_length() - 1 for mask in masks)
    assert np.abs(pixels(decode(content)).astype(int) - expected).max() <= tolerance
    assert reason(content[:-1]) == "truncated: the file ends before the picture does"
    assert reason(content, max_pixels=2047).startswith("too large: 64 x 32")


def test_targa_of_fifteen_bits_and_from_any_corner() -> None:
    fields = {"left": 0x20, "right": 0x30, "lower left": 0, "lower right": 0x10}
    picture = np.arange(256, dtype=np.uint8).reshape(16, 16)
    flips: dict[int, Any] = {0: np.s_[::-1], 0x10: np.s_[::-1, ::-1], 0x20: np.s_[:], 0x30: np.s_[:, ::-1]}
    for corner in fields.values():
        head = struct.pack("<BBBHHBHHHHBB", 0, 0, 3, 0, 0, 0, 0, 0, 16, 16, 8, corner)
        np.testing.assert_array_equal(pixels(decode(head + picture[flips[corner]].tobytes())), rgb(picture))
    colours = struct.pack("<4H", 31 << 10, 31 << 5, 31, 0x8000 | 25 << 10 | 12 << 5)
    seen = [[255, 0, 0], [0, 255, 0], [0, 0, 255], [205, 98, 0]]
    for depth in (15, 16):
        indices = bytes(range(4)) * 4
        mapped = struct.pack("<BBBHHBHHHHBB", 0, 1, 1, 0, 4, depth, 0, 0, 4, 4, 8, 0x20) + colours + indices
        assert pixels(decode(mapped))[0].tolist() == seen
        plain = struct.pack("<BBBHHBHHHHBB", 0, 0, 2, 0, 0, 0, 0, 0, 4, 4, depth, 0x20) + colours * 4
        assert pixels(decode(plain))[0].tolist() == seen
    assert format_of(without_targa_footer(saved(COLOUR, "TGA"))) == "TGA"


def jxl_header(*fields: tuple[int, int]) -> bytes:
    """A codestream of 64 x 32 pixels that begins with these numbers and their lengths in bits, lowest bit first."""
    value = shift = 0
    for number, count in ((1, 1), (3, 5), (0, 3), (7, 5), *fields):
        value |= number << shift
        shift += count
    return b"\xff\x0a" + value.to_bytes(200, "little")


USUAL_DEPTH, NO_NAME, FULL_SIZE = ((0, 1), (0, 2)), (0, 2), (0, 2)
TURNED, SHOWN_AT_8_X_8, PREVIEW = ((5, 3),), ((1, 1), (1, 1), (0, 5), (1, 3)), ((1, 1), (1, 1), (0, 2), (1, 3))
ANIMATION = ((1, 1), (0, 2), (0, 2), (0, 2), (0, 1))
SPOT_COLOUR = ((0, 1), (2, 2), (0, 4), *USUAL_DEPTH, FULL_SIZE, (1, 2), (2, 4), (0x6968, 16), (0, 64))
"""With a name of two letters, and its red, green, blue and share."""
BLACK = ((0, 1), (2, 2), (2, 4), *USUAL_DEPTH, FULL_SIZE, NO_NAME)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ([(1, 1)], {}),
        ([(0, 1), (0, 1), (0, 1), (1, 2)], {"bits": 10}),
        ([(0, 1), (0, 1), (0, 1), (3, 2), (15, 6)], {"bits": 16}),
        ([(0, 1), (0, 1), (1, 1), (0, 2), (7, 4)], {"bits": 32}),  # real numbers
        ([(0, 1), (1, 1), *TURNED, *SHOWN_AT_8_X_8, *PREVIEW, *ANIMATION, (0, 1), (2, 2)], {"bits": 12}),
        ([(0, 1), (0, 1), *USUAL_DEPTH, (0, 1), (1, 2), (1, 1)], {"extras": (0,)}),
        (
            [(0, 1), (0, 1), *USUAL_DEPTH, (0, 1), (1, 2), (0, 1), (0, 2), *USUAL_DEPTH, FULL_SIZE, NO_NAME, (1, 1)],
            {"extras": (0,), "is_premultiplied": True},
        ),
        ([(0, 1), (0, 1), *USUAL_DEPTH, (0, 1), (2, 2), (0, 4), *SPOT_COLOUR, *BLACK], {"extras": (2, 4)}),
    ],
)
def test_headers_of_jpeg_xl_are_understood(fields: list[tuple[int, int]], expected: dict[str, Any]) -> None:
    header = jpegxl.Header(64, 32, **({"bits": 8} | expected))
    assert jpegxl.header(jxl_header(*fields)) == header
    found = b"\0\0\0\x0cJXL \r\n\x87\n" + box(b"jxlp", bytes(4) + jxl_header(*fields))
    assert jpegxl.header(found) == header


def test_what_neither_decoder_shows_right_is_refused_by_name() -> None:
    assert reason(jxl_header((0, 1), (0, 1), *USUAL_DEPTH, (0, 1), (1, 2), *BLACK)) == "unsupported: JPEG XL in CMYK"
    assert reason(b"\xff\x0a\1") == "broken image: JPEG XL whose header makes no sense, or is cut off"
    avif = saved(COLOUR, "AVIF")
    at = avif.index(b"nclx") + 8
    assert reason(avif[:at] + b"\0\x0e" + avif[at + 2 :]) == (
        "unsupported: AVIF whose colours are coded by a rare formula (14)"
    )
    lab = saved(COLOUR, "JPEG2000")
    at = lab.index(b"colr") + 7
    assert reason(lab[:at] + b"\0\0\0\x0e" + lab[at + 4 :]) == "unsupported: JPEG 2000 in CIELAB"


def test_colours_without_all_their_channels_are_no_image() -> None:
    for photometric, samples in ((5, 3), (8, 2), (2, 2)):
        content = tiff(bytes(64 * 32 * 4 * samples), [32] * samples, photometric, {339: ("H", [3] * samples)})
        assert reason(content).startswith("broken image: TIFF in ")


def test_a_place_beyond_all_counting_is_beyond_the_end() -> None:
    content = FILES["rgb-bigtiff-big.tiff"].content
    beyond = b"\xff" * 8
    bits = content.index(struct.pack(">HHQ", 258, 3, 3))
    value = content[:bits] + struct.pack(">HHQ", 258, 16, 3) + beyond + content[bits + 20 :]
    for file in (content[:8] + beyond + content[16:], value):
        assert reason(file) == "truncated: the file ends before the picture does"


# --- the process ---


def child() -> int:
    assert second_decoder._process._child is not None
    return second_decoder._process._child.pid


def test_one_process_answers_all_threads(fresh: None) -> None:
    del fresh
    with ThreadPoolExecutor(8) as pool:
        pictures = list(pool.map(lambda file: decode(file.content), FILES.values()))
        number = child()
        again = list(pool.map(lambda file: decode(file.content), FILES.values()))
    assert child() == number
    for first, next_, file in zip(pictures, again, FILES.values(), strict=True):
        assert_alike(pixels(first), file.pixels, file.tolerance)
        np.testing.assert_array_equal(pixels(first), pixels(next_))


def test_it_is_started_again_after_somebody_killed_it(fresh: None) -> None:
    del fresh
    decode(JXL)
    number = child()
    os.kill(number, signal.SIGKILL)
    time.sleep(0.1)
    np.testing.assert_array_equal(pixels(decode(JXL)), COLOUR)
    assert child() != number


@pytest.mark.parametrize(
    ("what", "error", "said"),
    [
        ("os.abort()", UnreadableImageError, "broken image: JPEG XL"),
        ("time.sleep(100)", UnreadableImageError, "broken image: JPEG XL"),
        ("bytearray(1 << 50)", NoMemoryError, "^too large: "),
        ("1 / 0", UnreadableImageError, "broken image: JPEG XL"),
        ("print('noise', flush=True) or os.write(1, b'noise') and 1 / 0", UnreadableImageError, "broken image"),
    ],
)
def test_a_decoder_that_fails_costs_one_image(
    what: str, error: type[Exception], said: str, monkeypatch: pytest.MonkeyPatch, fresh: None
) -> None:
    del fresh
    patched = (
        "import os, time; from clipsearch.images.codecs import second_decoder_worker as w; "
        f"w._decode = lambda *_: {what}; "
    )
    with monkeypatch.context() as patch:
        patch.setattr(second_decoder, "_START", second_decoder._START.replace("from clip", patched + "from clip"))
        patch.setattr(second_decoder, "_SECONDS", 0.5)
        with pytest.raises(error, match=said):
            decode(JXL)
    second_decoder._process.stop()
    np.testing.assert_array_equal(pixels(decode(JXL)), COLOUR)


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs a timer that sends a signal")
def test_an_answer_that_nobody_waited_for_is_not_taken_for_the_next_image(
    monkeypatch: pytest.MonkeyPatch, fresh: None
) -> None:
    del fresh
    black = "time.sleep(1) or ('RGB', numpy.zeros((2, 2, 3), 'u1'))"
    patched = "import time, numpy; from clipsearch.images.codecs import second_decoder_worker as w; "
    patched += f"w._decode = lambda *_: {black}; "

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    with monkeypatch.context() as patch:
        patch.setattr(second_decoder, "_START", second_decoder._START.replace("from clip", patched + "from clip"))
        signal.setitimer(signal.ITIMER_REAL, 0.3)
        with pytest.raises(KeyboardInterrupt):
            decode(JXL)
    signal.signal(signal.SIGALRM, before)
    np.testing.assert_array_equal(pixels(decode(JXL)), COLOUR)


ENDS = """
import sys, time
from clipsearch.images.codecs import avif, jpegxl, second_decoder
from clipsearch.images.codecs.decoding import decode
decode(open(sys.argv[1], "rb").read())
print(second_decoder._process._child.pid, flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("killed", [False, True], ids=["at its end", "killed"])
def test_the_process_ends_with_the_one_that_started_it(tmp_path: os.PathLike[str], *, killed: bool) -> None:
    path = os.path.join(tmp_path, "a.jxl")
    with open(path, "wb") as file:
        file.write(JXL)
    command = [sys.executable, "-c", ENDS, path]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as starter:
        assert starter.stdin is not None
        assert starter.stdout is not None
        number = int(starter.stdout.readline())
        os.kill(number, 0)
        if killed:
            starter.kill()
        starter.stdin.close()
    for _ in range(200):
        if not _runs(number):
            return
        time.sleep(0.02)
    pytest.fail("it still runs")


def _runs(number: int) -> bool:
    try:
        os.kill(number, 0)
    except ProcessLookupError:
        return False
    try:
        with open(f"/proc/{number}/stat", encoding="ascii") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"  # nobody waits for it in a container
    except OSError:
        return False


def test_images_that_pillow_reads_start_no_process() -> None:
    code = "import sys, json; from clipsearch.images.codecs.decoding import decode; decode(sys.stdin.buffer.read()); "
    code += "print(json.dumps([n for n in ('imagecodecs', 'tifffile') if n in sys.modules]), end=''); "
    code += "from clipsearch.images.codecs import second_decoder; print(second_decoder._process._child)"
    done = subprocess.run([sys.executable, "-c", code], input=saved(COLOUR, "JPEG"), capture_output=True, check=True)
    assert done.stdout.decode().strip() == json.dumps([]) + "None"
