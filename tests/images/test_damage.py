"""Damaged pictures: what is there of them is decoded and marked; metadata never costs a picture."""

from __future__ import annotations

import contextlib
import json
import random
import struct
import zlib
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Run, index, paint
from image_files import COLOUR, png, png_chunk, saved
from PIL import Image, ImageFile

from clipsearch.errors import UnreadableImageError
from clipsearch.images.codecs.decoding import decode
from clipsearch.index.format import FOLDER
from clipsearch.index.reading import Store

PB = ("--model", "picturebook")
SIDE = 240


def photo(size: tuple[int, int] = (320, SIDE), seed: int = 0) -> Image.Image:
    """Soft shapes with a little noise: what lossy formats are made for, and every row is another."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0 : size[1], 0 : size[0]] / max(size)
    waves = [np.sin(x * a + y * b + c) for a, b, c in rng.uniform(2, 14, (3, 3))]
    levels = np.stack(waves, axis=-1) * 90 + 128 + rng.normal(0, 6, (*y.shape, 3))
    return Image.fromarray(levels.clip(0, 255).astype(np.uint8))


def seen(content: bytes) -> np.ndarray[Any, np.dtype[np.int64]]:
    return np.asarray(decode(content).image).astype(np.int64)


def cut(content: bytes, share: float) -> bytes:
    return content[: int(len(content) * share)]


# --- how much is missing ---

PHOTO = photo()
PALETTE = PHOTO.quantize(200)
KINDS: dict[str, tuple[bytes, float]] = {
    "baseline.jpg": (saved(PHOTO, "JPEG", quality=90), 0.08),
    "restarts.jpg": (saved(PHOTO, "JPEG", quality=90, restart_marker_rows=1), 0.08),
    "grey.jpg": (saved(PHOTO.convert("L"), "JPEG", quality=90), 0.05),
    "cmyk.jpg": (saved(PHOTO.convert("CMYK"), "JPEG", quality=90), 0.05),
    "rgb.png": (saved(PHOTO, "PNG"), 0.05),
    "palette.gif": (saved(PALETTE, "GIF", interlace=0), 0.05),
    "lossy.webp": (saved(PHOTO, "WEBP"), 0.2),
    "alpha.webp": (saved(PHOTO.convert("RGBA"), "WEBP"), 0.2),
    "lossless.webp": (saved(PHOTO, "WEBP", lossless=True), 0.08),
    "one.heic": (saved(PHOTO, "HEIF", quality=90), 0.2),
    "rgb.jp2": (saved(PHOTO, "JPEG2000"), 0.02),
    "tiles.j2k": (saved(PHOTO, "JPEG2000", no_jp2=True, tile_size=(64, 64)), 0.08),
    "rgb.tif": (saved(PHOTO, "TIFF"), 0.02),
    "grey-16.tif": (saved(np.asarray(PHOTO.convert("L")).astype(np.uint16) * 257, "TIFF"), 0.02),
    "real.tif": (saved(PHOTO.convert("F"), "TIFF"), 0.02),
    "upside-down.bmp": (saved(PHOTO, "BMP"), 0.02),
    "runs.tga": (saved(PALETTE, "TGA", compression="tga_rle"), 0.1),
    "rgb.ppm": (saved(PHOTO, "PPM"), 0.02),
}
"""Content, and how far the missing share of the picture may be from that of the bytes, which are not spread evenly."""


@pytest.mark.parametrize(("content", "slack"), KINDS.values(), ids=KINDS)
def test_what_is_there_of_an_image_is_seen_and_the_rest_told(content: bytes, slack: float) -> None:
    whole = seen(content)
    for share in (0.9, 0.7):
        picture = decode(cut(content, share))
        assert picture.missing == pytest.approx(1 - share, abs=slack)
        assert (picture.width, picture.height) == whole.shape[1::-1]
        same = np.abs(np.asarray(picture.image) - whole).max(axis=2) < 32
        assert same.mean() >= 1 - picture.missing - 0.02


@pytest.mark.parametrize("content", [content for content, _ in KINDS.values()], ids=KINDS)
def test_less_than_half_of_an_image_is_refused_with_how_much_is_there(content: bytes) -> None:
    with pytest.raises(UnreadableImageError, match=r"^truncated: .*; \d+% of it "):
        decode(cut(content, 0.35))


def test_an_avif_whose_end_is_missing_is_damaged_or_refused() -> None:
    content = saved(PHOTO, "AVIF")
    whole, found = seen(content), 0
    for share in (0.97, 0.9, 0.8):
        try:
            picture = decode(cut(content, share))
        except UnreadableImageError:
            continue  # a decoder of AVIF may take no end but the true one
        found += 1
        assert 0 < picture.missing <= 1 / 2
        rows = int(SIDE * (1 - picture.missing)) - 8  # filters reach a little beyond
        assert np.abs(np.asarray(picture.image)[:rows] - whole[:rows]).mean() < 2
    assert found


def test_an_end_marker_alone_is_no_damage() -> None:
    for options in ({}, {"progressive": True}, {"restart_marker_rows": 1}):
        content = saved(PHOTO, "JPEG", **options)
        for less in (content[:-2], content[:-1], content[:-2] + bytes(5000)):
            assert decode(less).missing == 0
            np.testing.assert_array_equal(seen(less), seen(content))


@pytest.mark.parametrize("padding", [b"\0", b"\xff"], ids=["zeros", "ones"])
def test_what_a_broken_download_leaves_at_the_end_is_missing(padding: bytes) -> None:
    for content in (saved(PHOTO, "JPEG", quality=90), saved(PHOTO, "PNG"), saved(PHOTO, "JPEG2000")):
        there = cut(content, 0.8)
        picture = decode(there + padding * (len(content) - len(there)))
        assert picture.missing == pytest.approx(decode(there).missing, abs=0.02)


def test_a_progressive_jpeg_lacks_detail_and_no_area() -> None:
    content = saved(PHOTO, "JPEG", quality=90, progressive=True)
    whole = seen(content)
    shares = [decode(cut(content, share)).missing for share in (0.95, 0.8, 0.65)]
    assert shares == sorted(shares)
    assert 0 < shares[0] < shares[-1] <= 1 / 2
    assert np.abs(seen(cut(content, 0.65)) - whole).mean() < 8


def test_an_interlaced_image_is_seen_between_the_lines_too() -> None:
    contents = [png(np.asarray(PHOTO), 8, 2, interlaced=True), saved(PALETTE, "GIF")]
    for content in contents:
        whole, picture = seen(content), decode(cut(content, 0.7))
        assert picture.missing == pytest.approx(0.3, abs=0.1)
        assert (np.abs(np.asarray(picture.image) - whole).max(axis=2) > 32).mean() < 0.1


def test_bits_that_break_an_image_in_the_middle_leave_what_is_before_them() -> None:
    rows = np.asarray(PHOTO)
    packed = zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))
    broken = packed[: len(packed) * 3 // 4] + bytes(range(256)) + packed[len(packed) * 3 // 4 + 256 :]
    header = struct.pack(">IIBBBBB", *PHOTO.size, 8, 2, 0, 0, 0)
    parts = ((b"IHDR", header), (b"IDAT", broken), (b"IEND", b""))
    picture = decode(b"\x89PNG\r\n\x1a\n" + b"".join(png_chunk(*part) for part in parts))
    assert 0.1 < picture.missing < 0.3
    known = int(SIDE * (1 - picture.missing)) - 8
    np.testing.assert_array_equal(np.asarray(picture.image)[:known], rows[:known])


def test_a_damaged_image_is_turned_and_cut_as_a_whole_one() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    for kind, options in (("JPEG", {"quality": 90}), ("TIFF", {}), ("PNG", {})):
        content = saved(PHOTO, kind, exif=exif, **options)
        whole, picture = decode(content), decode(cut(content, 0.9))
        assert (picture.width, picture.height) == (whole.width, whole.height) == PHOTO.size[::-1]
        assert picture.image.size == whole.image.size
        differ = np.abs(np.asarray(picture.image).astype(int) - np.asarray(whole.image)).max(axis=2) > 32
        assert not differ[:, SIDE // 5 :].any(), kind  # the lower rows of the file are on the left now


def test_what_is_missing_does_not_stand_out() -> None:
    sky = Image.fromarray(
        np.linspace((250, 220, 180), (200, 240, 255), SIDE * 300).reshape(SIDE, 300, 3).astype(np.uint8)
    )
    for kind, options in (("JPEG", {"quality": 95}), ("PNG", {}), ("BMP", {})):
        content = saved(sky, kind, **options)
        picture = decode(cut(content, 0.9))
        assert picture.missing > 0.03
        assert np.abs(np.asarray(picture.image) - seen(content)).max() < 30, kind  # grey would differ by 72 and more


def test_pillows_own_switch_stays_as_it_is() -> None:
    decode(cut(saved(PHOTO, "PNG"), 0.8))
    assert ImageFile.LOAD_TRUNCATED_IMAGES is False


# --- metadata ---


def with_chunks(*chunks: bytes, behind: Sequence[bytes] = ()) -> bytes:
    """A PNG of `COLOUR` with these chunks before and behind its pixels."""
    content = saved(COLOUR, "PNG")
    return content[:33] + b"".join(chunks) + content[33:-12] + b"".join(behind) + content[-12:]


def wrong(chunk: bytes) -> bytes:
    """With a wrong checksum."""
    return chunk[:-1] + bytes([chunk[-1] ^ 1])


def with_segments(*segments: tuple[int, bytes]) -> bytes:
    """A JPEG of `COLOUR` with these segments in front."""
    content = saved(COLOUR, "JPEG", quality=95)
    parts = [bytes([0xFF, marker]) + struct.pack(">H", len(data) + 2) + data for marker, data in segments]
    return content[:2] + b"".join(parts) + content[2:]


def webp_with(kind: bytes, data: bytes, size: int | None = None) -> bytes:
    """A WebP of `COLOUR` with a chunk behind its pixels that says it has `size` bytes."""
    content = saved(COLOUR, "WEBP", lossless=True, exif=b"Exif\0\0" + b"II*\0\x08\0\0\0\0\0\0\0\0\0")
    at = content.rindex(b"EXIF")
    body = content[8:at] + kind + struct.pack("<I", len(data) if size is None else size) + data
    return b"RIFF" + struct.pack("<I", len(body) if size is None else len(body) + size - len(data)) + body


def tiff_with(tag: int, kind: int, count: int, value: bytes) -> bytes:
    """A TIFF of `COLOUR` with this entry in place of one that says nothing about pixels."""
    content = saved(COLOUR, "TIFF", software="x")
    at = content.index(struct.pack("<HH", 305, 2))
    return content[:at] + struct.pack("<HHI4s", tag, kind, count, value) + content[at + 12 :]


PROFILE = (b"iCCP", b"x\0\0")
METADATA: dict[str, bytes] = {
    "text-with-wrong-checksum.png": with_chunks(wrong(png_chunk(b"tEXt", b"Comment\0hello"))),
    "text-of-unknown-compression.png": with_chunks(png_chunk(b"zTXt", b"Comment\0\x78" + zlib.compress(b"hello"))),
    "text-behind-the-pixels.png": with_chunks(behind=[wrong(png_chunk(b"tEXt", b"Comment\0hello"))]),
    "text-cut-off.png": with_chunks(behind=[png_chunk(b"tEXt", b"Comment\0" + bytes(100))])[:-60],
    "much-text.png": with_chunks(*[png_chunk(b"zTXt", b"x\0\0" + zlib.compress(bytes(1 << 20)))] * 70),
    "broken-profile.png": with_chunks(png_chunk(b"iCCP", b"x\0\0" + b"no profile")),
    "profile-of-unknown-compression.png": with_chunks(png_chunk(b"iCCP", b"x\0\7" + zlib.compress(b"x"))),
    "gamma-cut-off.png": with_chunks(png_chunk(b"gAMA", b"\0")),
    "resolution-cut-off.png": with_chunks(png_chunk(b"pHYs", b"\0\0")),
    "colours-cut-off.png": with_chunks(png_chunk(b"cHRM", b"\0\0\0")),
    "animation-cut-off.png": with_chunks(png_chunk(b"acTL", b"\0")),
    "time-with-wrong-checksum.png": with_chunks(wrong(png_chunk(b"tIME", bytes(7)))),
    "exif-with-wrong-checksum.png": with_chunks(wrong(png_chunk(b"eXIf", b"II*\0"))),
    "jfif-cut-off.jpg": with_segments((0xE0, b"JFIF\0")),
    "photoshop-cut-off.jpg": with_segments((0xED, b"Photoshop 3.0\x008BIM\4\4")),
    "profile-cut-off.jpg": with_segments((0xE2, b"ICC_PROFILE\0")),
    "huge-exif.jpg": with_segments(*[(0xE1, b"Exif\0\0" + bytes(65_000))] * 40),
    "broken-exif.jpg": with_segments((0xE1, b"Exif\0\0II*\0\xff\xff\xff\xff")),
    "broken-xmp.jpg": with_segments((0xE1, b"http://ns.adobe.com/xap/1.0/\0<x:xmpmeta \xff\xfe")),
    "broken-several-pictures.jpg": with_segments((0xE2, b"MPF\0II*\0\x08\0\0\0\xff\xff")),
    "adobe-cut-off.jpg": with_segments((0xEE, b"Adobe\0")),
    "comment.jpg": with_segments((0xFE, bytes(65_000))),
    "exif-cut-off.webp": webp_with(b"EXIF", b"II*\0", 4000),
    "xmp-cut-off.webp": webp_with(b"XMP ", b"<x:", 4000),
    "broken-exif.webp": webp_with(b"EXIF", b"\xff" * 50),
    "unknown-chunk.webp": webp_with(b"junk", b"\xff" * 50),
    "resolution-of-another-kind.tif": tiff_with(282, 2, 4, b"abc\0"),
    "unit-of-another-kind.tif": tiff_with(296, 2, 4, b"abc\0"),
    "exif-nowhere.tif": tiff_with(34665, 4, 1, b"\xff\xff\xff\x7f"),
    "profile-nowhere.tif": tiff_with(34675, 7, 1 << 30, b"\xff\xff\xff\x7f"),
    "xmp-of-another-kind.tif": tiff_with(700, 5, 9, b"\xff\xff\xff\x7f"),
    "loops-cut-off.gif": saved(COLOUR, "GIF").replace(b"GIF87a", b"GIF89a", 1),
}


@pytest.mark.filterwarnings("ignore")  # Pillow's, which the command line does not show
@pytest.mark.parametrize("content", METADATA.values(), ids=METADATA)
def test_metadata_never_costs_an_image(content: bytes) -> None:
    picture = decode(content)
    assert picture.missing == 0
    difference = np.abs(np.asarray(picture.image).astype(int) - COLOUR)
    assert difference[8::16, 8::16].max() < 12


def test_what_metadata_says_of_the_image_is_kept_if_it_is_sound() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    exif[0x0132] = "2024:05:06 07:08:09"
    for kind, spoil in (("PNG", _with_bad_text), ("JPEG", _with_bad_photoshop), ("TIFF", _with_bad_resolution)):
        picture = decode(spoil(saved(COLOUR, kind, exif=exif)))
        assert (picture.width, picture.height) == COLOUR.shape[:2], kind
        assert picture.taken_at == "2024-05-06T07:08:09", kind


def _with_bad_text(content: bytes) -> bytes:
    return content[:33] + wrong(png_chunk(b"tEXt", b"a\0b")) + content[33:]


def _with_bad_photoshop(content: bytes) -> bytes:
    return content[:2] + b"\xff\xed\0\x16Photoshop 3.0\x008BIM\4\4" + content[2:]


def _with_bad_resolution(content: bytes) -> bytes:
    at = content.index(struct.pack("<HH", 0x0132, 2))
    (number,) = struct.unpack_from("<H", content, 8)
    assert content[4:8] == b"\x08\0\0\0"
    assert at < 10 + 12 * number
    entry = struct.pack("<HHI4s", 282, 2, 4, b"abc\0")
    moved = content[:8] + struct.pack("<H", number + 1) + content[10 : 10 + 12 * number] + entry + bytes(4)
    # The directory is longer now and lies behind everything else.
    return content[:4] + struct.pack("<I", len(content)) + content[8:] + moved[8:]


def test_a_gif_whose_comments_are_broken_is_seen() -> None:
    content = saved(COLOUR, "GIF")
    at = 13 + 3 * (2 << (content[10] & 7))
    loops = b"\x21\xff\x0bNETSCAPE2.0\x01\x01\0"  # without how many
    assert_same = np.abs(seen(content[:at] + loops + content[at:]) - seen(content)).max()
    assert assert_same == 0


# --- hostile files ---


def test_noise_in_any_place_is_an_image_or_a_reason() -> None:
    rng = random.Random(5)
    for content, _ in KINDS.values():
        for _ in range(12):
            spoiled = bytearray(cut(content, rng.uniform(0.4, 1)))
            for _ in range(rng.randrange(6)):
                at = rng.randrange(len(spoiled))
                spoiled[at : at + 4] = rng.randbytes(4)
            with contextlib.suppress(UnreadableImageError):
                picture = decode(bytes(spoiled), max_pixels=4_000_000)
                assert 0 <= picture.missing <= 1 / 2
                assert picture.image.mode == "RGB"


# --- in the index ---


def fill(folder: Path) -> None:
    """Two whole pictures, a damaged one, and one of which too little is there."""
    paint(folder / "pictures" / "red.png", "red")
    (folder / "pictures" / "whole.jpg").write_bytes(saved(PHOTO, "JPEG"))
    (folder / "pictures" / "damaged.jpg").write_bytes(cut(saved(photo(seed=1), "JPEG", quality=90), 0.8))
    (folder / "pictures" / "little.png").write_bytes(cut(saved(photo(seed=2), "PNG"), 0.3))


def records(folder: Path) -> dict[str, tuple[bool, float | None, str | None]]:
    """Of each file: whether it is an image, its damage, its error."""
    with closing(Store.open(folder / FOLDER)) as store:
        return {Path(r.path.decode()).name: (r.row is not None, r.damage, r.error) for r in store.records()}


def test_a_damaged_image_is_indexed_named_once_and_counted(tmp_path: Path, run: Run) -> None:
    fill(tmp_path)
    first = run("index", "pictures", *PB, "--json", "--strict", cwd=tmp_path)
    assert first.returncode == 2
    summary, said = json.loads(first.stdout), first.stderr.decode()
    (damaged,) = summary["damaged"]
    assert damaged["path"] == "pictures/damaged.jpg"
    assert damaged["missing"] == pytest.approx(0.2, abs=0.1)
    (unreadable,) = summary["unreadable"]
    assert unreadable["reason"].startswith("truncated: the file ends before the picture does; ")
    assert summary["images"] == 3
    assert said.count(f"Damaged: pictures/damaged.jpg: {damaged['missing']:.0%} of it is missing\n") == 1
    assert "1 damaged" in said
    # It is in the index as the others are, and not named again.
    assert b"pictures/damaged.jpg" in run("query", "red", "-k", "9", cwd=tmp_path).stdout
    (tmp_path / "pictures" / "little.png").unlink()
    again = run("index", "--strict", "--json", cwd=tmp_path)
    assert again.returncode == 2
    assert json.loads(again.stdout)["damaged"] == [damaged]
    assert b"Damaged:" not in again.stderr
    status = json.loads(run("status", "--json", cwd=tmp_path).stdout)
    assert status["damaged"] == [damaged]
    text = run("status", cwd=tmp_path).stdout.decode()
    assert "damaged     1\n" in text
    assert "Damaged:\n  pictures/damaged.jpg: " in text
    # Mended, it is like any other.
    (tmp_path / "pictures" / "damaged.jpg").write_bytes(saved(photo(seed=1), "JPEG", quality=90))
    assert index(run, "--strict", cwd=tmp_path)["damaged"] == []


def test_damaged_images_are_refused_where_that_is_asked_for(tmp_path: Path, run: Run) -> None:
    fill(tmp_path)
    index(run, "pictures", *PB, cwd=tmp_path)
    # 1. What is in the index already goes, and a run that says nothing about it remembers.
    for options in (("--skip-damaged",), ()):
        summary = index(run, *options, cwd=tmp_path)
        reasons = {item["path"]: item["reason"] for item in summary["unreadable"]}
        assert (summary["images"], summary["damaged"]) == (2, [])
        assert reasons["pictures/damaged.jpg"].startswith("damaged: ")
        assert reasons["pictures/damaged.jpg"].endswith(" of it is missing (--skip-damaged)")
    # 2. So do copies of it, and what is new.
    (tmp_path / "pictures" / "copy.jpg").write_bytes((tmp_path / "pictures" / "damaged.jpg").read_bytes())
    (tmp_path / "pictures" / "new.jpg").write_bytes(cut(saved(photo(seed=3), "JPEG"), 0.9))
    assert index(run, cwd=tmp_path)["images"] == 2
    assert {name for name, (is_image, *_) in records(tmp_path).items() if is_image} == {"red.png", "whole.jpg"}
    # 3. And they come back.
    summary = index(run, "--no-skip-damaged", cwd=tmp_path)
    assert summary["images"] == 5
    assert [Path(item["path"]).name for item in summary["damaged"]] == ["copy.jpg", "damaged.jpg", "new.jpg"]
    assert index(run, cwd=tmp_path)["unchanged"] == 5


def test_a_damaged_image_that_is_moved_copied_or_comes_back_stays_marked(tmp_path: Path, run: Run) -> None:
    fill(tmp_path)
    index(run, "pictures", *PB, cwd=tmp_path)
    (_, share, _) = records(tmp_path)["damaged.jpg"]
    assert share
    pictures = tmp_path / "pictures"
    (pictures / "damaged.jpg").rename(pictures / "moved.jpg")
    (pictures / "copy.jpg").write_bytes((pictures / "moved.jpg").read_bytes())
    summary = index(run, cwd=tmp_path)
    assert (summary["moved"], summary["copied"], summary["embedded"]) == (1, 1, 0)
    found = records(tmp_path)
    assert found["moved.jpg"] == found["copy.jpg"] == (True, share, None)
    content = (pictures / "moved.jpg").read_bytes()
    for name in ("moved.jpg", "copy.jpg"):
        (pictures / name).unlink()
    for number in range(12):  # so that few of the rows are dead, and the matrix is not rewritten
        paint(pictures / f"{number}.png", "blue", (64 + number, 48))
    assert index(run, cwd=tmp_path)["damaged"] == []
    (pictures / "back.jpg").write_bytes(content)
    assert index(run, cwd=tmp_path)["copied"] == 1
    assert records(tmp_path)["back.jpg"] == (True, share, None)


def test_a_query_by_a_damaged_image_says_so(tmp_path: Path, run: Run) -> None:
    fill(tmp_path)
    index(run, "pictures", *PB, cwd=tmp_path)
    (tmp_path / "new.jpg").write_bytes(cut(saved(photo(seed=4), "JPEG", quality=90), 0.8))
    for picture in ("pictures/damaged.jpg", "new.jpg"):  # one that the index knows, and one that it does not
        done = run("similar", picture, "-k", "1", cwd=tmp_path)
        assert done.returncode == 0
        said = done.stderr.decode()
        assert said.count("Damaged: ") == 1
        assert f"{picture}: 2" in said  # per cent
        assert b"pictures/" in done.stdout
    done = run("score", "new.jpg", "pictures/whole.jpg", "pictures/damaged.jpg", "--text", "a", cwd=tmp_path)
    assert done.returncode == 0
    named = [line.split(": ")[1] for line in done.stderr.decode().splitlines() if line.startswith("Damaged: ")]
    assert named == ["new.jpg", "pictures/damaged.jpg"]
