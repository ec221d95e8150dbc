"""When pictures were taken, in all the ways in which it is written."""

from __future__ import annotations

import json
import os
import shutil
import struct
import unicodedata
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from conftest import COLOURS, Run, index, paint
from image_files import COLOUR, png, saved
from PIL import Image
from tiny import update

import clipsearch
from clipsearch.images.codecs.dates import moment, taken_by_name
from clipsearch.images.codecs.decoding import decode
from clipsearch.index.filters import local_time
from clipsearch.index.format import FOLDER
from clipsearch.index.reading import Store

ORIGINAL, DIGITIZED, CHANGED, DETAILS = 0x9003, 0x9004, 0x132, 0x8769
MEANT = "2024-05-06T07:08:09"


@pytest.mark.parametrize(
    "text",
    [
        "2024:05:06 07:08:09",
        "2024-05-06T07:08:09",
        "2024-05-06 07:08:09",
        "2024/05/06 07:08:09",
        "2024.05.06 07.08.09",
        "2024:05:06 07:08:09+09:00",
        "2024:05:06 07:08:09 +0000",
        "2024-05-06T07:08:09Z",
        "2024:05:06 07:08:09.25",
        "2024:05:06 07:08:09,250",
        "2024: 5: 6  7: 8: 9",
        "2024:5:6 7:8:9",
        "2024:05:06 07:08:09\0\0",
        " 2024:05:06 07:08:09 ",
    ],
)
def test_every_usual_form_is_read(text: str) -> None:
    assert moment(text) == MEANT


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("2024:05:06", "2024-05-06T00:00:00"),
        ("2024-05-06", "2024-05-06T00:00:00"),
        ("2024:05:06 07:08", "2024-05-06T07:08:00"),
        ("2024:05:06 24:00:00", "2024-05-07T00:00:00"),
        ("2023:12:31 24:00:00", "2024-01-01T00:00:00"),
        ("2016:12:31 23:59:60", "2017-01-01T00:00:00"),
        ("1826:01:01 00:00:00", "1826-01-01T00:00:00"),
        ("2100:12:31 23:59:59", "2100-12-31T23:59:59"),
    ],
)
def test_what_is_short_or_odd_is_meant_so(text: str, meant: str) -> None:
    assert moment(text) == meant


@pytest.mark.parametrize(
    "text",
    [
        "",
        "    :  :     :  :  ",
        "0000:00:00 00:00:00",
        "2024:13:01 00:00:00",
        "2023:02:29 00:00:00",
        "2024:05:06 24:00:01",
        "2024:05:06 07:61:00",
        "1825:12:31 23:59:59",
        "2101:01:01 00:00:00",
        "2100:12:31 24:00:00",
        "9999:12:31 23:59:60",
        "0001:01:01 00:00:00",
        "yesterday",
        "2024:05:06 07:08:09 in the morning",
        "20240506070809",
    ],
)
def test_what_is_no_date_says_nothing(text: str) -> None:
    assert moment(text) is None


def exif(**fields: str) -> Image.Exif:
    found = Image.Exif()
    tags = {"original": ORIGINAL, "digitized": DIGITIZED}
    for name, text in fields.items():
        if name == "changed":
            found[CHANGED] = text
        else:
            found.get_ifd(DETAILS)[tags[name]] = text
    return found


@pytest.mark.parametrize(
    ("fields", "meant"),
    [
        (
            {"original": "2024:05:06 07:08:09", "digitized": "2025:01:01 00:00:00", "changed": "2026:01:01 00:00:00"},
            MEANT,
        ),
        (
            {"original": "0000:00:00 00:00:00", "digitized": "2024:05:06 07:08:09", "changed": "2026:01:01 00:00:00"},
            MEANT,
        ),
        ({"original": "    :  :     :  :  ", "changed": "2024:05:06 07:08:09"}, MEANT),
        ({"changed": "2024-05-06T07:08:09+02:00"}, MEANT),
        ({"original": "0000:00:00 00:00:00"}, None),
    ],
)
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "AVIF"])
def test_the_first_valid_field_counts(kind: str, fields: dict[str, str], meant: str | None) -> None:
    assert decode(saved(COLOUR, kind, exif=exif(**fields))).taken_at == meant


XMP = (
    b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    b"<rdf:Description %s>%s</rdf:Description></rdf:RDF></x:xmpmeta>"
)


@pytest.mark.parametrize(
    ("attributes", "elements"),
    [
        (b'exif:DateTimeOriginal="2024-05-06T07:08:09+09:00"', b""),
        (b'photoshop:DateCreated="2024-05-06T07:08:09"', b""),
        (b'photoshop:DateCreated="2020-01-01" exif:DateTimeOriginal="2024-05-06T07:08:09.00"', b""),
        (b"", b"<photoshop:DateCreated>2024-05-06T07:08:09Z</photoshop:DateCreated>"),
        (b"exif:DateTimeOriginal=''", b"<photoshop:DateCreated>2024-05-06T07:08:09</photoshop:DateCreated>"),
    ],
)
def test_xmp_says_it_where_exif_does_not(attributes: bytes, elements: bytes) -> None:
    xmp = XMP % (attributes, elements)
    changed = exif(changed="2026:01:01 00:00:00")
    for kind in ("JPEG", "WEBP", "AVIF"):
        assert decode(saved(COLOUR, kind, xmp=xmp, exif=changed)).taken_at == MEANT, kind
    text = (b"iTXt", b"XML:com.adobe.xmp" + bytes(5) + xmp)
    assert decode(png(COLOUR, 8, 2, [text])).taken_at == MEANT
    taken = exif(original="2021:01:01 00:00:00")
    assert decode(saved(COLOUR, "JPEG", xmp=xmp, exif=taken)).taken_at == "2021-01-01T00:00:00"


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_broken_metadata_costs_neither_the_image_nor_what_else_is_known() -> None:
    broken = b"Exif\0\0II*\0" + struct.pack("<I", 2**31)
    xmp = XMP % (b'exif:DateTimeOriginal="2024-05-06T07:08:09"', b"")
    assert decode(saved(COLOUR, "JPEG", exif=broken, xmp=xmp)).taken_at == MEANT


# -- names of files ----------------------------------------------------------------------------------------------

NAMES = """
IMG_20240506_070809.jpg PXL_20240506_070809123.jpg PXL_20240506_070809123.MP.jpg 20240506_070809.jpg
VID_20240506_070809.gif 20240506_070809(0).jpg IMG_20240506_070809_HDR.jpg IMG20240506070809.jpg
DJI_20240506070809_0001_D.JPG
WIN_20240506_07_08_09_Pro.jpg KakaoTalk_20240506_070809123.jpg 20240506T070809.jpg Screenshot_20240506-070809_Chrome.png
2024-05-06|07.08.09.jpg 2024-05-06T07:08:09.png 2024_05_06_07_08_09.png photo_2024-05-06_07-08-09.jpg
Screenshot_2024-05-06-07-08-09.png Screenshot_2024-05-06-07-08-09-123_com.app.png
Screenshot|from|2024-05-06|07-08-09.png
Screenshot|2024-05-06|at|07.08.09 Screenshot|2024-05-06|at|7.08.09~AM.png Screenshot|2024-05-06|070809.png
Bildschirmfoto|2024-05-06|um|07.08.09.png Captura|de|pantalla|2024-05-06|a|las|7.08.09.png
스크린샷|2024-05-06|오전|7.08.09.png
signal-2024-05-06-070809.jpg signal-2024-05-06-070809_002.jpg signal-2024-05-06-07-08-09-123.jpg
WhatsApp|Image|2024-05-06|at|07.08.09.jpeg WhatsApp|Image|2024-05-06|at|7.08.09|AM|(1).jpeg 0012_2024-05-06|07.08.09.jpg
"""


@pytest.mark.parametrize("name", NAMES.split())
def test_names_of_phones_and_programs_say_when_it_was(name: str) -> None:
    name = name.replace("|", " ").replace("~", "\N{NARROW NO-BREAK SPACE}")  # which Macs write
    for form in ("NFC", "NFD"):
        path = os.fsencode("/2019-01-01/" + unicodedata.normalize(form, name))
        assert taken_by_name(path) == (MEANT, "name")


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("IMG-20240506-WA0001.jpg", "2024-05-06T00:00:00"),
        ("2024-05-06.jpg", "2024-05-06T00:00:00"),
        ("2024-05-06-12345.jpg", "2024-05-06T00:00:00"),
        ("20240506.jpg", "2024-05-06T00:00:00"),
        ("20240506_party_01.jpg", "2024-05-06T00:00:00"),
        ("IMG_20240506.jpg", "2024-05-06T00:00:00"),
        ("Screenshot 2024-05-06 at 12.08.09 AM.png", "2024-05-06T00:08:09"),
        ("Screenshot 2024-05-06 at 7.08.09 PM.png", "2024-05-06T19:08:09"),
        ("截屏2024-05-06 下午7.08.09.png", "2024-05-06T19:08:09"),
        ("99999999_99 IMG_20240506_070809.jpg", MEANT),
    ],
)
def test_a_day_alone_is_its_first_moment_and_halves_of_a_day_count(name: str, meant: str) -> None:
    assert taken_by_name(os.fsencode(name)) == (meant, "name")


@pytest.mark.parametrize(
    "name",
    [
        "IMG_1234.jpg",
        "120240506_070809.jpg",
        "202405061.jpg",
        "IMG_20240506070809123456.jpg",
        "IMG-20240506123-WA0001.jpg",
        "20240506-1234567.jpg",
        "stock-20240506.jpg",
        "010-2024-0506.jpg",
        "0049-2024-05-06.jpg",
        "192.168.2024.05.06.jpg",
        "FB_IMG_1714979289000.jpg",
        "IMG_20241306_070809.jpg",
        "20240230_070809.jpg",
        "2024-13-06.jpg",
        "IMG_20240506_250000.jpg",
        "2024-05-06 07.61.00.jpg",
        "Screenshot 2024-05-06 at 17.08.09 PM.png",
        "18250506_070809.jpg",
        "21010506_070809.jpg",
        "a20240506b.jpg",
    ],
)
def test_what_only_looks_like_a_date_in_a_name_is_none(name: str) -> None:
    assert taken_by_name(os.fsencode(name)) is None


def test_a_name_that_is_not_utf8_says_it_too() -> None:
    assert taken_by_name(b"caf\xe9_20240506_070809.jpg") == (MEANT, "name")


# -- in the index ------------------------------------------------------------------------------------------------


def dates(folder: Path) -> dict[str, tuple[str | None, str | None]]:
    """Date and source of every picture, by its name."""
    with closing(Store.open(folder / FOLDER)) as store:
        return {os.fsdecode(os.path.basename(one.path)): (one.taken_at, one.date_source) for one in store.records()}


def test_the_fields_come_before_the_name_and_each_says_its_source(tmp_path: Path) -> None:
    changed = exif(changed="2020:01:02 03:04:05")
    pictures: dict[str, dict[str, Any]] = {
        "20240506_070809.jpg": {},
        "20240506_070810.jpg": {"exif": exif(original="2021:01:02 03:04:05")},
        "20240506_070811.jpg": {"exif": changed},
        "20240506_070812.jpg": {
            "exif": changed,
            "xmp": XMP % (b'photoshop:DateCreated="2022-01-02T03:04:05"', b""),
        },
        "20240506_070813.jpg": {"exif": exif(original="0000:00:00 00:00:00")},
        "cat.jpg": {},
    }
    for name, more in pictures.items():
        paint(tmp_path / "p" / name, "red", **more)
    (tmp_path / "p" / "20240506_070814.jpg").write_bytes(b"no picture")
    update(tmp_path / FOLDER, tmp_path / "p")
    assert dates(tmp_path) == {
        "20240506_070809.jpg": ("2024-05-06T07:08:09", "name"),
        "20240506_070810.jpg": ("2021-01-02T03:04:05", "exif"),
        "20240506_070811.jpg": ("2020-01-02T03:04:05", "exif"),
        "20240506_070812.jpg": ("2022-01-02T03:04:05", "xmp"),
        "20240506_070813.jpg": ("2024-05-06T07:08:13", "name"),
        "20240506_070814.jpg": (None, None),
        "cat.jpg": (None, None),
    }
    with closing(Store.open(tmp_path / FOLDER)) as store:
        assert store.date_sources() == {"exif": 2, "xmp": 1, "name": 2, "file": 1}


def test_a_name_s_date_goes_with_the_name_and_a_field_s_with_the_content(tmp_path: Path) -> None:
    """Through copies, renaming, swapped names, and a picture that comes back from a dead row."""
    folder, taken = tmp_path / "p", exif(original="2021:01:02 03:04:05")
    paint(folder / "20240506_070809.png", "red")
    paint(folder / "taken.jpg", "blue", exif=taken)
    paint(folder / "20240101_000000.png", "green")
    paint(folder / "plain.png", "orange")
    for i in range(10):  # so that dead rows stay
        paint(folder / f"{i}.png", "gray", (20 + i, 20))

    def step() -> dict[str, tuple[str | None, str | None]]:
        summary = update(tmp_path / FOLDER, folder)
        assert summary.embedded == 0
        return dates(tmp_path)

    update(tmp_path / FOLDER, folder)
    # 1. Copies, and a new name.
    shutil.copy(folder / "20240506_070809.png", folder / "20200202_020202.png")
    shutil.copy(folder / "20240506_070809.png", folder / "copy.png")
    shutil.copy(folder / "taken.jpg", folder / "20220202_020202.jpg")
    os.rename(folder / "taken.jpg", folder / "20230303_030303.jpg")
    found = step()
    assert found["20200202_020202.png"] == ("2020-02-02T02:02:02", "name")
    assert found["copy.png"] == (None, None)
    assert found["20220202_020202.jpg"] == found["20230303_030303.jpg"] == ("2021-01-02T03:04:05", "exif")
    # 2. A dated name becomes a plain one, another date, and the names of two are swapped.
    os.rename(folder / "20240506_070809.png", folder / "renamed.png")
    os.rename(folder / "20240101_000000.png", folder / "x")
    os.rename(folder / "plain.png", folder / "20240101_000000.png")
    os.rename(folder / "x", folder / "plain.png")
    found = step()
    assert found["renamed.png"] == found["plain.png"] == (None, None)
    assert found["20240101_000000.png"] == ("2024-01-01T00:00:00", "name")
    # 3. Gone, and back under a name with another date.
    content = (folder / "20230303_030303.jpg").read_bytes()
    os.unlink(folder / "20230303_030303.jpg")
    os.unlink(folder / "20220202_020202.jpg")
    step()
    (folder / "20190909_090909.jpg").write_bytes(content)
    assert step()["20190909_090909.jpg"] == ("2021-01-02T03:04:05", "exif")


def test_hits_status_and_filters_agree_on_dates_of_names(tmp_path: Path, run: Run) -> None:
    for i, name in enumerate(("IMG_20240506_070809.png", "IMG-20240507-WA0001.png", "b.png")):
        os.utime(paint(tmp_path / "p" / name, COLOURS[i]), (1_500_000_000, 1_500_000_000))
    paint(tmp_path / "p" / "a.jpg", "red", exif=exif(original="2023:01:02 03:04:05"))
    index(run, "p", "--model", "picturebook", cwd=tmp_path)
    with clipsearch.open_index(tmp_path) as opened:
        every = opened.search("red", None)
        assert {hit.path.name: (hit.date, hit.date_source) for hit in every} == {
            "a.jpg": ("2023-01-02T03:04:05", "exif"),
            "IMG_20240506_070809.png": (MEANT, "name"),
            "IMG-20240507-WA0001.png": ("2024-05-07T00:00:00", "name"),
            "b.png": (local_time(1_500_000_000 * 10**9), "file"),
        }
        for bound in {hit.date for hit in every}:
            later = {hit.path for hit in opened.search("red", None, after=bound)}
            assert later == {hit.path for hit in every if hit.date >= bound}, bound
    (hit,) = json.loads(
        run("query", "red", "--after", "2024-05-06", "--before", "2024-05-07", "--json", cwd=tmp_path).stdout
    )
    assert (hit["date"], hit["date_source"]) == (MEANT, "name")
    status = json.loads(run("status", "--json", cwd=tmp_path).stdout)
    assert status["date_sources"] == {"exif": 1, "xmp": 0, "name": 2, "file": 1}
    said = run("status", cwd=tmp_path).stdout.decode()
    assert "dates       1 from EXIF, 2 from the file's name, 1 from the file's time\n" in said
