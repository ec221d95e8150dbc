"""The parameters of a request, parsed and checked: what is looked for, where, and which part of it is wanted."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, TypeVar

from clipsearch.errors import InputError
from clipsearch.images.codecs.box import Box, parse_box
from clipsearch.index.filters import FilterArguments
from clipsearch.search.ordering import Sort
from clipsearch.search.query_terms import ContentTerm, ImageTerm, Term, negated, parse_text
from clipsearch.server.indexes import Served
from clipsearch.server.uploads import Uploads
from clipsearch.system.paths import from_folder, is_below

MOST_HITS = 100_000
"""The largest number of hits that a query has."""
_PAGE, _LARGEST_PAGE = 60, 1000
"""Number of hits of an answer by default, and the largest one."""
_LONGEST, _MOST_VALUES = 1000, 32
"""Characters of the longest value, and number of values of a parameter that may be repeated."""
_LONGEST_GLOB = 200
_LIKE = re.compile(r"(?:([+-]?(?:\d+\.?\d*|\.\d+)):)?([0-9a-f]{32})(?:@(.+))?")

PARAMETERS = {
    "q": "What the picture should show, with an optional weight: 0.5:snow. May be repeated.",
    "not": "What it should not show. May be repeated.",
    "like": "The id of a picture that it should be like, with an optional weight and an optional box: "
    "2:ID@0%,0%,50%,50%. May be repeated.",
    "unlike": "The id of a picture that it should not be like; as `like`. May be repeated.",
    "k": f"The number of hits in this answer, up to {_LARGEST_PAGE}.",
    "offset": "How many hits to leave out before them.",
    "most": f"How many of the best there may be in all, up to {MOST_HITS}.",
    "sort": "score (the default, the best first), date (the newest first; the default without anything to look for) "
    "or path.",
    "reverse": "1 for the opposite order.",
    "min_score": "The least cosine of a hit, from -1 to 1.",
    "min_confidence": "The least confidence of a hit, from 0 to 1; for queries in words.",
    "distinct": "The cosine from which on pictures are alike; 1 joins those with the same content.",
    "whole": "1 to compare whole pictures only, in an index with regions.",
    "approximate": "1 to compare by codes first, in an index that has them.",
    "under": "Only pictures in this folder of the index. May be repeated.",
    "glob": "Only paths that match, with the rules of .gitignore; !GLOB excludes. May be repeated.",
    "after": "Only pictures taken on this date or later: 2024-05-31, 2024-05, 2024, or back from now: 30d, 2w, 1y.",
    "before": "Only pictures taken before this date.",
    "min_width": "Only pictures of at least this width in pixels, upright.",
    "min_height": "Only pictures of at least this height in pixels, upright.",
    "orientation": "landscape, portrait or square.",
    "index": "The name of the index to search; by default the first.",
}
"""The parameters of a search, and what they mean."""
SEVERAL = ("q", "not", "like", "unlike", "under", "glob")
"""Those that may be repeated."""

Number = TypeVar("Number", int, float)


class Parameters(Protocol):
    """The parameters of a request, each with one or several values."""

    def multi_items(self) -> list[tuple[str, str]]:
        """Return all names and values, in their order."""


@dataclass(frozen=True)
class Question:
    """A search, and the part of its hits that is wanted."""

    terms: tuple[Term, ...]
    limits: Mapping[str, Any]
    """`min_score`, `min_confidence`, `distinct`, `whole` and `approximate` of `Index.search`, those that were given."""
    filters: FilterArguments
    sort: Sort = Sort.SCORE
    reverse: bool = False
    most: int = MOST_HITS
    k: int = _PAGE
    offset: int = 0
    key: tuple[tuple[str, str], ...] = field(default=(), compare=False)
    """The parameters that decide on the hits, for a cache."""

    def with_picture(self, content: bytes, term: ContentTerm | ImageTerm) -> Question:
        """Return the question with one more term, a picture with this hash of its content, before the others."""
        box = term.box if isinstance(term, ImageTerm) else None
        return replace(self, terms=(term, *self.terms), key=(*self.key, ("picture", f"{content.hex()}@{box}")))


def parse(parameters: Parameters, served: Served, uploads: Uploads, also: Sequence[str] = ()) -> Question:
    """Parse the parameters of a search in one index; `also` are names of parameters that belong to others.

    Raises:
        InputError: a parameter is unknown or invalid.
    """
    given = _checked(parameters, also)
    one = {name: values[-1] for name, values in given.items()}
    terms: list[Term] = [parse_text(text) for text in given.get("q", ())]
    terms += [parse_like(value, served, uploads) for value in given.get("like", ())]
    terms += [negated(parse_text(text)) for text in given.get("not", ())]
    terms += [negated(parse_like(value, served, uploads)) for value in given.get("unlike", ())]
    limits: dict[str, Any] = {
        name: _number(name, one[name], float) for name in ("min_score", "min_confidence", "distinct") if name in one
    }
    limits |= {name: True for name in ("whole", "approximate") if _is_true(name, one)}
    sort = one.get("sort", Sort.SCORE)
    if sort not in tuple(Sort):
        raise InputError(f"sort: {sort!r} is none of these: {', '.join(Sort)}.")
    return Question(
        terms=tuple(terms),
        limits=limits,
        filters=_filters(given, one, served),
        sort=Sort(sort),
        reverse=_is_true("reverse", one),
        most=_whole("most", one, MOST_HITS, 1, MOST_HITS),
        k=_whole("k", one, _PAGE, 1, _LARGEST_PAGE),
        offset=_whole("offset", one, 0, 0, MOST_HITS),
        key=tuple(sorted((n, v) for n, vs in given.items() if n not in ("k", "offset", *also) for v in vs)),
    )


def parse_like(value: str, served: Served, uploads: Uploads) -> ContentTerm | ImageTerm:
    """Parse a picture term, `[WEIGHT:]ID[@BOX]`.

    Raises:
        InputError: it is something else, or the picture is neither in the index nor was sent.
    """
    found = _LIKE.fullmatch(value)
    if not found:
        raise InputError("A picture is named by its id, which is in each hit: 32 digits and letters from a to f.")
    weight, content = float(found[1] or 1), bytes.fromhex(found[2])
    box = parse_box(found[3]) if found[3] else None
    return picture_term(content, served, uploads, weight=weight, box=box)


def picture_term(
    content: bytes, served: Served, uploads: Uploads, *, weight: float = 1.0, box: Box | None = None
) -> ContentTerm | ImageTerm:
    """Return the term for a picture of the index, or for one that was sent, given the hash of its content.

    Raises:
        InputError: there is no such picture.
    """
    known = served.index.store.rows_with(content)
    if known and box is None:
        return ContentTerm(content, weight)
    if upload := uploads.get(content):
        return ImageTerm(upload.content, weight, box)
    if not known:
        raise InputError("The picture is neither in the index, nor was it sent lately. Send it again.")
    return ImageTerm(os.fsdecode(known[0][0]), weight, box)


def _checked(parameters: Parameters, also: Sequence[str]) -> dict[str, list[str]]:
    """Return the values of each parameter; those that are empty count as not given."""
    found: dict[str, list[str]] = {}
    for name, value in parameters.multi_items():
        if name not in PARAMETERS and name not in also:
            raise InputError(f"There is no parameter {name[:40]!r}. There are: {', '.join([*PARAMETERS, *also])}.")
        if len(value) > _LONGEST or "\0" in value:
            raise InputError(f"{name}: longer than {_LONGEST} characters, or with a null character in it.")
        if value.strip():
            found.setdefault(name, []).append(value)
    for name, values in found.items():
        if len(values) > (_MOST_VALUES if name in SEVERAL else 1):
            raise InputError(f"{name}: given too often.")
    return found


def _filters(given: Mapping[str, list[str]], one: Mapping[str, str], served: Served) -> FilterArguments:
    filters: FilterArguments = {}
    if "under" in given:
        filters["under"] = [_folder(name, served) for name in given["under"]]
    if "glob" in given:
        if any(len(glob) > _LONGEST_GLOB for glob in given["glob"]):
            raise InputError(f"glob: longer than {_LONGEST_GLOB} characters.")
        filters["glob"] = given["glob"]
        filters["seen_from"] = os.fsdecode(served.base)
    if "after" in one:
        filters["after"] = one["after"]
    if "before" in one:
        filters["before"] = one["before"]
    if "min_width" in one:
        filters["min_width"] = _whole("min_width", one, 0, 1, 10**9)
    if "min_height" in one:
        filters["min_height"] = _whole("min_height", one, 0, 1, 10**9)
    if "orientation" in one:
        filters["orientation"] = one["orientation"]
    return filters


def _folder(name: str, served: Served) -> str:
    """Return a folder, absolute or from that of the index on, that lies in what was indexed or around it."""
    path = from_folder(served.base, name)
    roots = [root.path for root in served.index.store.roots()]
    if not any(is_below(path, root) or is_below(root, path) for root in roots):
        raise InputError(f"under: {name!r} is not in the index.")  # and whether it exists is not said
    return os.fsdecode(path)


def _number(name: str, text: str, kind: Callable[[str], Number]) -> Number:
    try:
        return kind(text)
    except ValueError as error:
        raise InputError(f"{name}: {text[:40]!r} is no number.") from error


def _whole(name: str, one: Mapping[str, str], otherwise: int, least: int, most: int) -> int:
    if name not in one:
        return otherwise
    number = _number(name, one[name][:20], int)
    if not least <= number <= most:
        raise InputError(f"{name}: from {least} to {most}, not {number}.")
    return number


def _is_true(name: str, one: Mapping[str, str]) -> bool:
    text = one.get(name, "0").lower()
    if text not in ("0", "1", "false", "true"):
        raise InputError(f"{name}: 0 or 1, not {text[:40]!r}.")
    return text in ("1", "true")
