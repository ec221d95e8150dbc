"""Filters of a search: what users and programs write, parsed and checked. Knows nothing of an index."""

from __future__ import annotations

import calendar
import os
import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from enum import StrEnum
from functools import lru_cache
from typing import TypedDict

from clipsearch.errors import InputError
from clipsearch.system.members import opened
from clipsearch.system.paths import absolute

StrPath = str | os.PathLike[str]

_SPAN = re.compile(r"(\d+)\s*(min|h|d|w|mo|y)")
_MONTHS = {"mo": 1, "y": 12}
_UNITS = {"min": timedelta(minutes=1), "h": timedelta(hours=1), "d": timedelta(days=1), "w": timedelta(weeks=1)}
_SHORT = re.compile(r"(\d{4})(?:-(\d\d))?")
_DATE_HELP = (
    "Write a date (2024-05-31, 2024-05, 2024, 2024-05-31T18:30) or a span back from now (30d, 12h, 2w, 6mo, 1y)."
)


class Orientation(StrEnum):
    """The orientation of an image after the rotation that its file asks for."""

    LANDSCAPE = "landscape"
    PORTRAIT = "portrait"
    SQUARE = "square"


class FilterArguments(TypedDict, total=False):
    """The filters of `Index.search`. An image has to fulfil all that are given."""

    under: StrPath | Iterable[StrPath]
    """Only images in these folders, or these files."""
    glob: str | Iterable[str]
    """Only paths that match these patterns, with the rules of .gitignore. A pattern that begins with `!` excludes, and
    the last pattern that matches a path decides."""
    seen_from: StrPath
    """The folder that `glob` is relative to; by default the current folder."""
    after: str | date
    """Only images taken at this time or later: a date, a date and time, or a time span before now such as "30d"."""
    before: str | date
    """Only images taken before this time; as for `after`."""
    min_width: int
    """The least width in pixels, after the rotation that the file asks for."""
    min_height: int
    """The least height in pixels, after the rotation that the file asks for."""
    orientation: str
    """landscape, portrait or square."""
    files: Iterable[StrPath]
    """Only these files."""


@dataclass(frozen=True)
class Filters:
    """The conditions that an image has to fulfil, checked; by default there is none."""

    under: tuple[bytes, ...] | None = None
    """Absolute paths of folders or files, in one of which the image has to be."""
    files: frozenset[bytes] | None = None
    """Absolute paths, one of which the image has to have."""
    glob: tuple[str, ...] = ()
    """Patterns of .gitignore. A path that matches none is included only if all patterns exclude."""
    seen_from: tuple[bytes, ...] = (b"/",)
    """All names of the folder that `glob` is relative to. Paths outside it are matched as absolute paths."""
    after: str | None = None
    """ISO 8601 local time of the first moment that is included."""
    before: str | None = None
    """ISO 8601 local time of the first moment that is not included any more."""
    min_width: int = 0
    min_height: int = 0
    orientation: Orientation | None = None

    @classmethod
    def of(cls, arguments: FilterArguments) -> Filters:
        """Parse and check arguments.

        Raises:
            InputError: an argument is invalid, or no image can fulfil it.
        """
        glob = arguments.get("glob", ())
        wanted = arguments.get("orientation")
        filters = cls(
            under=tuple(map(opened, _absolute(arguments["under"]))) if "under" in arguments else None,
            files=frozenset(_absolute(arguments["files"])) if "files" in arguments else None,
            glob=(glob,) if isinstance(glob, str) else tuple(glob),
            seen_from=(absolute(arguments.get("seen_from", os.curdir)),) if glob else (b"/",),
            after=_moment(arguments["after"], "after") if "after" in arguments else None,
            before=_moment(arguments["before"], "before") if "before" in arguments else None,
            min_width=arguments.get("min_width", 0),
            min_height=arguments.get("min_height", 0),
            orientation=_orientation(wanted) if wanted else None,
        )
        if filters.after and filters.before and filters.after >= filters.before:
            raise InputError(f"No image is taken after {filters.after} and before {filters.before}.")
        if filters.min_width < 0 or filters.min_height < 0:
            raise InputError("The width and height of an image are at least 1.")
        patterns(filters.glob)  # raises an error if one is invalid
        return filters


@lru_cache(maxsize=8)
def patterns(globs: tuple[str, ...], *, by_letters: bool = False) -> list[tuple[re.Pattern[str], bool]]:
    """Compile the patterns of `Filters.glob`.

    Args:
        globs: the patterns as they were written.
        by_letters: whether the expressions are for paths in the form of `paths.same_letters`.

    Returns:
        Regular expressions, and whether each includes or excludes; the first one that matches a path decides.

    Raises:
        InputError: a pattern is invalid, or matches no path.
    """
    if not globs:
        return []
    from pathspec import GitIgnoreSpec

    found: list[tuple[re.Pattern[str], bool]] = []
    for glob in globs:
        try:
            line = unicodedata.normalize("NFC", glob) if by_letters else glob
            meant = GitIgnoreSpec.from_lines([line]).patterns
        except ValueError as error:
            raise InputError(f"glob: {glob!r} cannot be understood: {error}") from error
        rules = [(one.regex, one.include) for one in meant if one.regex is not None and one.include is not None]
        if not rules:
            raise InputError(f"glob: {glob!r} matches nothing. Begin with a backslash if a name begins with #.")
        found += rules
    return found[::-1]


def moment(text: str, now: datetime) -> datetime:
    """Parse an ISO 8601 date or date and time, a month, a year, or a time span before `now`, as local time.

    Raises:
        ValueError: `text` is none of these.
    """
    text = text.strip()
    if span := _SPAN.fullmatch(text):
        number, unit = int(span[1]), span[2]
        return _months_before(now, number * _MONTHS[unit]) if unit in _MONTHS else now - number * _UNITS[unit]
    if short := _SHORT.fullmatch(text):
        return datetime(int(short[1]), int(short[2] or 1), 1)  # noqa: DTZ001  (local time, as EXIF has it)
    found = datetime.fromisoformat(text.replace("z", "Z"))
    return found.astimezone().replace(tzinfo=None) if found.tzinfo else found


def local_time(mtime_ns: int) -> str:
    """Convert the time of a file's last change (ns since 1970, 64 bits) to ISO 8601 local time, to the second."""
    return datetime.fromtimestamp(mtime_ns // 10**9).isoformat()  # noqa: DTZ006  (local, as EXIF has it)


def _moment(given: str | date, name: str) -> str:
    if isinstance(given, datetime):
        local = given.astimezone().replace(tzinfo=None) if given.tzinfo else given
    elif isinstance(given, date):
        local = datetime(given.year, given.month, given.day)  # noqa: DTZ001
    else:
        try:
            local = moment(given, datetime.now())  # noqa: DTZ005
        except (ValueError, OverflowError) as error:
            raise InputError(f"{name}: {given!r} is no date. {_DATE_HELP}") from error
    return local.isoformat(timespec="seconds")


def _months_before(now: datetime, months: int) -> datetime:
    """Return the same day in an earlier month, or the last day of that month if it is shorter."""
    year, month = divmod(now.year * 12 + now.month - 1 - months, 12)
    if year < 1:
        raise ValueError("before the first year")
    return now.replace(year=year, month=month + 1, day=min(now.day, calendar.monthrange(year, month + 1)[1]))


def _orientation(wanted: str) -> Orientation:
    try:
        return Orientation(wanted)
    except ValueError as error:
        raise InputError(f"{wanted!r} is no orientation. There are: {', '.join(Orientation)}.") from error


def _absolute(given: StrPath | Iterable[StrPath]) -> tuple[bytes, ...]:
    paths = [given] if isinstance(given, str | os.PathLike) else given
    return tuple(absolute(path) for path in paths)
