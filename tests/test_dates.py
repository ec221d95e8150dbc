"""When pictures were taken, in all the ways in which it is written."""

from __future__ import annotations

import struct

import pytest
from image_files import COLOUR, png, saved
from PIL import Image

from clipsearch.images.dates import moment
from clipsearch.images.decoding import decode

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
def test_broken_metadata_costs_neither_the_picture_nor_what_else_is_known() -> None:
    broken = b"Exif\0\0II*\0" + struct.pack("<I", 2**31)
    xmp = XMP % (b'exif:DateTimeOriginal="2024-05-06T07:08:09"', b"")
    assert decode(saved(COLOUR, "JPEG", exif=broken, xmp=xmp)).taken_at == MEANT
