"""The options for the order of hits."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from clipsearch.cli.talk import say
from clipsearch.search.ordering import By, Sort
from clipsearch.system.counting import plural

if TYPE_CHECKING:
    from clipsearch.output.hits import Found

ReverseOption = Annotated[bool, typer.Option("--reverse", help="Show them in the opposite order.")]
ByOption = Annotated[
    By | None,
    typer.Option(
        "--by",
        help="Group the images, in the order of the first of each group. Days and months imply --sort date.",
        show_default=False,
    ),
]


@dataclass(frozen=True)
class OrderOptions:
    """The options for the order of hits, which are sorted after all others have been left out."""

    sort: Annotated[
        Sort | None,
        typer.Option(
            "--sort",
            help="The order in which the images are shown: score (the default) is the best first, date the oldest "
            "first, and path by the bytes of paths.",
            show_default=False,
        ),
    ] = None
    reverse: ReverseOption = False
    by: ByOption = None

    @property
    def by_date(self) -> bool:
        """Whether hits are sorted by their dates."""
        return self._wanted is Sort.DATE

    @property
    def _wanted(self) -> Sort:
        return self.sort or (Sort.DATE if self.by in (By.DAY, By.MONTH) else Sort.SCORE)

    def applied(self, found: Sequence[Found], k: int, cut_offs: Sequence[float | None], advice: str) -> list[Found]:
        """Sort and group the hits of each query, and say what was sorted.

        Args:
            found: The queries with their hits, the best first.
            k: The largest number of hits of a query.
            cut_offs: The values of all options that leave out hits which fit too little.
            advice: Such an option, to name if there is none.
        """
        if self == OrderOptions():
            return list(found)
        from clipsearch.search.ordering import group_hits, sort_hits

        if any(result.hits for result in found) and (self.by or self._wanted is not Sort.SCORE):
            self._say_what(found, k, advice, is_cut=any(value is not None for value in cut_offs))
        ordered = [result._replace(hits=sort_hits(result.hits, self._wanted, reverse=self.reverse)) for result in found]
        if self.by is None:
            return ordered
        grouped = []
        for result in ordered:
            groups = group_hits(result.hits, self.by)
            hits = [hit for members in groups.values() for hit in members]
            grouped.append(result._replace(hits=hits, groups=groups))
        return grouped

    def _say_what(self, found: Sequence[Found], k: int, advice: str, *, is_cut: bool) -> None:
        done = "Sorted" if self._wanted is not Sort.SCORE else "Grouped"
        most = max(len(result.hits) for result in found)
        if not is_cut:
            every = "" if k == sys.maxsize else " -k all"
            which = f"all {most}, however little they fit" if k == sys.maxsize else f"the {most} best"
            say(f"{done}: {which}. To take all that fit well: {advice}{every}")
        elif most == k:
            say(f"{done}: the {plural(most, 'best image')} of those that fit. To take all of them: -k all")
