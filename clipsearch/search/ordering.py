"""The order of hits, and groups of them: by score, date or path, and by day, month or folder."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from clipsearch.errors import InputError

if TYPE_CHECKING:
    from clipsearch.search.hit import Hit


class Sort(StrEnum):
    """What hits are sorted by."""

    SCORE = "score"
    DATE = "date"
    PATH = "path"


class By(StrEnum):
    """What hits are grouped by."""

    DAY = "day"
    MONTH = "month"
    FOLDER = "folder"


class _Placed(Protocol):
    """What a group is chosen by."""

    @property
    def path_bytes(self) -> bytes: ...
    @property
    def date(self) -> str: ...


Placed = TypeVar("Placed", bound=_Placed)

_KEYS: dict[Sort, Callable[[Hit], Any]] = {
    Sort.SCORE: lambda hit: (-hit.score, hit.path_bytes),
    Sort.DATE: lambda hit: (hit.date, hit.path_bytes),
    Sort.PATH: lambda hit: hit.path_bytes,
}
_DAY, _MONTH = len("2024-05-31"), len("2024-05")


def sort_hits(hits: Iterable[Hit], by: str = Sort.DATE, *, reverse: bool = False) -> list[Hit]:
    """Sort hits; their ranks stay what they are.

    Args:
        hits: those of one query.
        by: "date" (when the image was taken, or else its file was last changed; the oldest first), "path" (by bytes)
            or "score" (the best first). Equal dates and scores are ordered by path.
        reverse: whether to return exactly the opposite order.

    Returns:
        All hits, in that order.

    Raises:
        InputError: `by` is none of these.
    """
    found = sorted(hits, key=_KEYS[_one_of(Sort, by)])
    return found[::-1] if reverse else found


def group_hits(hits: Iterable[Placed], by: str = By.DAY) -> dict[str, list[Placed]]:
    """Group hits by the day or month of their dates, or by the folder that they are in.

    Args:
        hits: in any order.
        by: "day", "month" or "folder".

    Returns:
        The hits of each group, in their order: by day as in "2024-05-31", month as in "2024-05", or absolute path of
        the folder. Groups come in the order of their first hits.

    Raises:
        InputError: `by` is none of these.
    """
    what = _one_of(By, by)
    groups: dict[str, list[Placed]] = {}
    for hit in hits:
        groups.setdefault(group_of(hit, what), []).append(hit)
    return groups


def group_of(hit: _Placed, by: By) -> str:
    """Return the group of a hit, as `group_hits` names it."""
    if by is By.FOLDER:
        return os.fsdecode(os.path.dirname(hit.path_bytes))
    return hit.date[: _DAY if by is By.DAY else _MONTH]


Choice = TypeVar("Choice", Sort, By)


def _one_of(kind: type[Choice], name: str) -> Choice:
    try:
        return kind(name)
    except ValueError as error:
        raise InputError(f"{name!r} is none of these: {', '.join(kind)}.") from error
