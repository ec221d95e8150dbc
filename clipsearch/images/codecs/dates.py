"""When an image was taken, as cameras and programs write it into EXIF, XMP and file names.

All times are local times of the place where it was taken. Time zones are ignored, so that a photo of an evening stays
one wherever it is looked at. Opens no file.
"""

from __future__ import annotations

import contextlib
import os
import re
import unicodedata
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from PIL import Image

_EARLIEST, _LATEST = 1826, 2100
"""Years that are believed, from the first photograph to what only a camera with a wrong clock can say."""
_TIME = r"(\d{1,2})\s*[:.]\s*(\d{1,2})(?:\s*[:.]\s*(\d{1,2})(?:[.,]\d*)?)?"
_MOMENT = re.compile(
    rf"(\d{{4}})\s*[-:/.]\s*(\d{{1,2}})\s*[-:/.]\s*(\d{{1,2}})(?:[\sT]+{_TIME})?\s*(?:[zZ]|[-+][\d:]*)?"
)
_MIDNIGHT, _LEAP = 24, 60
EXIF, XMP, NAME = "exif", "xmp", "name"
"""Sources of a date."""
_MAY_BE_DATE = re.compile(rb"(?:18|19|20|21)\d\d[-_.]?[01]\d[-_.]?[0-3]\d")
_XMP = [
    re.compile(rf"{name}\s*(?:=\s*[\"']([^\"'<>]*)[\"']|>([^<>]*)<)".encode())
    for name in ("exif:DateTimeOriginal", "photoshop:DateCreated")
]

# --- dates in file names ---
_DAY = r"(?<!\d)(?<!\d[-.])(?P<year>\d{4})(?P<dash>[-_.])(?P<month>\d\d)(?P=dash)(?P<day>\d\d)(?!\d)"
_COMPACT_DAY = r"(?<!\d)(?<!\d[-.])(?P<year>\d{4})(?P<month>\d\d)(?P<day>\d\d)"
_COMPACT_TIME = r"(?P<hour>\d\d)(?P<minute>\d\d)(?P<second>\d\d)(?:\d{3})?(?!\d)"
_SPACED_TIME = (
    r"(?P<hour>\d{1,2})(?P<colon>[-._: ])(?P<minute>\d\d)(?P=colon)(?P<second>\d\d)(?!\d)"
    r"(?:\s?(?P<half>[AaPp])\.?[Mm]\b)?"
)
_HALVES = {"오전": "a", "오후": "p", "上午": "a", "下午": "p", "午前": "a", "午後": "p"}
"""Words for AM and PM that macOS writes before the time -> "a" or "p"."""
_BETWEEN = r"(?:[-_ T.]{1,3}|[ _](?:[^\W\d_]{1,4}\.?[ _]){1,2})"
"""What separates date and time: a space, or a word or two, as in "2024-05-06 at 07.08.09" or "a las 07.08.09"."""
_EARLY_HALF = rf"(?:(?P<early_half>{'|'.join(_HALVES)})\s?)?"
_NAMES = [
    re.compile(form)
    for form in (
        # Screenshot 2024-05-06 at 7.08.09 PM, Screenshot_2024-05-06-07-08-09, 2024-05-06 07.08.09
        _DAY + _BETWEEN + _EARLY_HALF + _SPACED_TIME,
        # signal-2024-05-06-070809, and Windows' Screenshot 2024-05-06 070809
        _DAY + _BETWEEN + _COMPACT_TIME,
        # IMG_20240506_070809, PXL_20240506_070809123, Screenshot_20240506-070809, 20240506T070809
        _COMPACT_DAY + "[-_ T]{1,3}" + _COMPACT_TIME,
        # WIN_20240506_07_08_09_Pro
        _COMPACT_DAY + "[-_ T]" + _SPACED_TIME,
        # IMG20240506070809, DJI_20240506070809_0001
        _COMPACT_DAY + _COMPACT_TIME,
        # a day alone: 2024-05-06, IMG-20240506-WA0001, 20240506_party
        _DAY,
        _COMPACT_DAY + r"-WA\d",
        r"(?:^|^(?:IMG|VID|PXL|PANO|Screenshot|photo|image)[-_ ]?)" + _COMPACT_DAY + r"(?![0-9A-Za-z]|[-_. ]\d{5})",
    )
]
"""Patterns of dates in the file names that phones and programs make; those with more detail come first."""


class Taken(NamedTuple):
    """When an image was taken, and where that is written."""

    at: str
    """ISO 8601 local time, to the second."""
    source: str
    """One of `EXIF`, `XMP` and `NAME`."""


def taken(exif: Image.Exif, xmp: bytes = b"") -> Taken | None:
    """Return when an image was taken, from the first metadata field that holds a date; None if none does.

    The order is EXIF's `DateTimeOriginal` and `DateTimeDigitized`, XMP, and at last EXIF's `DateTime`, which any
    program sets that writes the file. A camera whose clock was never set writes zeros or blanks, which are no date.
    """
    found = ((moment(text), source) for text, source in _written(exif, xmp))
    return next((Taken(at, source) for at, source in found if at is not None), None)


def taken_by_name(path: bytes) -> Taken | None:
    """Return when an image was taken, from a date in one of the usual forms in its file name; None if there is none.

    A day without a time means midnight. A part of a longer number, and a day or a time that does not exist, are no
    date.
    """
    name = os.path.basename(path)
    if not _MAY_BE_DATE.search(name):  # a fast answer for most names
        return None
    text = unicodedata.normalize("NFC", os.fsdecode(name))
    refused = set()
    for found in (found for form in _NAMES for found in form.finditer(text)):
        start = found.start("year")
        if start in refused:  # a day with a time that does not exist is no day alone
            continue
        if at := _of_name(found.groupdict()):
            return Taken(at, NAME)
        refused.add(start)
    return None


def _of_name(parts: dict[str, str | None]) -> str | None:
    hour = int(parts.get("hour") or 0)
    half = _HALVES.get(parts.get("early_half") or "") or (parts.get("half") or "").lower()
    if half:
        if hour not in range(1, 13):
            return None
        hour = hour % 12 + (12 if half == "p" else 0)
    day = "-".join(str(parts[part]) for part in ("year", "month", "day"))
    return moment(f"{day} {hour}:{parts.get('minute') or 0}:{parts.get('second') or 0}")


def moment(text: str) -> str | None:
    """Parse the text of a metadata field into ISO 8601 local time; None if it is no valid date.

    The parts of the date may be separated by colons, dashes, slashes or dots, and lack leading zeros. A date without a
    time means midnight, 24:00:00 is the next day, and a leap second (60) belongs to the next minute.
    """
    found = _MOMENT.fullmatch(text.replace("\0", " ").strip())
    if found is None:
        return None
    year, month, day, hour, minute, second = (int(part or 0) for part in found.groups())
    extra = timedelta()
    if second == _LEAP:
        second, extra = 0, timedelta(minutes=1)
    if (hour, minute, second) == (_MIDNIGHT, 0, 0):
        hour, extra = 0, timedelta(days=1)
    try:
        when = datetime(year, month, day, hour, minute, second) + extra  # noqa: DTZ001  (EXIF has no zone)
    except (ValueError, OverflowError):
        return None
    return when.isoformat() if _EARLIEST <= when.year <= _LATEST else None


def _written(exif: Image.Exif, xmp: bytes) -> Iterator[tuple[str, str]]:
    """Yield text and source of the fields that may hold the date, best first. A broken field counts as empty."""
    from PIL import ExifTags  # a writer of the index has no other use for Pillow

    with contextlib.suppress(Exception):  # Pillow lets through whatever its parser runs into
        details = exif.get_ifd(ExifTags.IFD.Exif)
        for tag in (ExifTags.Base.DateTimeOriginal, ExifTags.Base.DateTimeDigitized):
            yield str(details.get(tag, "")), EXIF
    for pattern in _XMP:
        if found := pattern.search(xmp):
            yield (found[1] or found[2] or b"").decode("ascii", "replace"), XMP
    with contextlib.suppress(Exception):
        yield str(exif.get(ExifTags.Base.DateTime, "")), EXIF
