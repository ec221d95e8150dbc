"""When a picture was taken, as cameras and programs really write it into EXIF and XMP.

All times are those of the clock on the wall where it was taken: what is said of a time zone is passed over, so that a
picture of the evening stays one of the evening wherever it is looked at.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from datetime import datetime, timedelta

from PIL import ExifTags, Image

_EARLIEST, _LATEST = 1826, 2100
"""Years: of the first photograph, and when the clock of a camera is certainly wrong."""
_TIME = r"(\d{1,2})\s*[:.]\s*(\d{1,2})(?:\s*[:.]\s*(\d{1,2})(?:[.,]\d*)?)?"
_MOMENT = re.compile(
    rf"(\d{{4}})\s*[-:/.]\s*(\d{{1,2}})\s*[-:/.]\s*(\d{{1,2}})(?:[\sT]+{_TIME})?\s*(?:[zZ]|[-+][\d:]*)?"
)
_MIDNIGHT, _LEAP = 24, 60
_XMP = [
    re.compile(rf"{name}\s*(?:=\s*[\"']([^\"'<>]*)[\"']|>([^<>]*)<)".encode())
    for name in ("exif:DateTimeOriginal", "photoshop:DateCreated")
]


def taken_at(exif: Image.Exif, xmp: bytes = b"") -> str | None:
    """ISO 8601 local time, to the second, from the first of a picture's fields that holds a date.

    `DateTimeOriginal` and `DateTimeDigitized` of EXIF come first, then XMP, and `DateTime`, which any program sets that
    writes the file, last. A camera whose clock was never set writes zeros or blanks: then the next one counts.
    """
    return next(filter(None, map(moment, _written(exif, xmp))), None)


def moment(text: str) -> str | None:
    """The time that a field says, as ISO 8601; None if it says none, or none that can be.

    The date's parts may be separated by colons, dashes, slashes or dots, and lack leading zeros; a date alone is its
    first moment. 24:00:00 is the next day, and a second numbered 60 belongs to the next minute.
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


def _written(exif: Image.Exif, xmp: bytes) -> Iterator[str]:
    """The fields that may say it, the best first. What is broken counts as not there."""
    with contextlib.suppress(Exception):  # Pillow lets through whatever its parser runs into
        details = exif.get_ifd(ExifTags.IFD.Exif)
        for tag in (ExifTags.Base.DateTimeOriginal, ExifTags.Base.DateTimeDigitized):
            yield str(details.get(tag, ""))
    for pattern in _XMP:
        if found := pattern.search(xmp):
            yield (found[1] or found[2] or b"").decode("ascii", "replace")
    with contextlib.suppress(Exception):
        yield str(exif.get(ExifTags.Base.DateTime, ""))
