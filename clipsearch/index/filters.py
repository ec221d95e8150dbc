"""Which pictures a search is about: filters as people write them, checked. Touches no index."""

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
    """Of a picture as it is seen."""

    LANDSCAPE = "landscape"
    PORTRAIT = "portrait"
    SQUARE = "square"


class FilterArguments(TypedDict, total=False):
    """The filters of `Index.search`, as a program gives them; all that are given have to hold."""

    under: StrPath | Iterable[StrPath]
    """Only pictures in these folders, or these files."""
    glob: str | Iterable[str]
    """Only paths that match, with the rules of .gitignore. `!` leaves out; the last pattern that matches a path
    decides."""
    seen_from: StrPath
    """The folder that `glob` is seen from; by default the one that relative paths start at."""
    after: str | date
    """Only pictures taken then or later: a date, a moment, or a span such as "30d" back from now."""
    before: str | date
    """Only pictures taken earlier."""
    min_width: int
    """Pixels, as it is seen."""
    min_height: int
    orientation: str
    """landscape, portrait or square."""
    files: Iterable[StrPath]
    """Only these."""


@dataclass(frozen=True)
class Filters:
    """What a picture has to fulfil; the default is nothing."""

    under: tuple[bytes, ...] | None = None
    """Absolute paths, one of which it has to be, or lie in."""
    files: frozenset[bytes] | None = None
    """Absolute paths, one of which it has to be."""
    glob: tuple[str, ...] = ()
    """With the rules of .gitignore; a path that matches none counts only if all of them leave out."""
    seen_from: tuple[bytes, ...] = (b"/",)
    """The folder that `glob` is seen from, by all its names. Of paths that lie elsewhere it sees the whole."""
    after: str | None = None
    """ISO 8601 local time of the first moment that counts."""
    before: str | None = None
    """ISO 8601 local time of the first moment after those that count."""
    min_width: int = 0
    min_height: int = 0
    orientation: Orientation | None = None

    @classmethod
    def of(cls, arguments: FilterArguments) -> Filters:
        """Check what a program or a user asks for.

        Raises:
            InputError: it cannot be understood, or no picture could ever fulfil it.
        """
        glob = arguments.get("glob", ())
        wanted = arguments.get("orientation")
        filters = cls(
            under=_absolute(arguments["under"]) if "under" in arguments else None,
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
            raise InputError(f"No picture is taken after {filters.after} and before {filters.before}.")
        if filters.min_width < 0 or filters.min_height < 0:
            raise InputError("A picture's width and height are at least 1.")
        patterns(filters.glob)  # raises
        return filters


@lru_cache(maxsize=8)
def patterns(globs: tuple[str, ...], *, by_letters: bool = False) -> list[tuple[re.Pattern[str], bool]]:
    """The expressions of `Filters.glob`, and whether each takes in or leaves out; the first that matches decides.

    With `by_letters` they are for paths in the form of `paths.same_letters`.

    Raises:
        InputError: a pattern cannot be understood, or can match no path.
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
    """The local time that `text` says: an ISO 8601 date or moment, a month, a year, or a span before `now`.

    Raises:
        ValueError: it says none.
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
    """When a file was changed (ns since 1970, 64 bits), as people here read it: ISO 8601, to the second."""
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
    """The same day of an earlier month, or its last one."""
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
