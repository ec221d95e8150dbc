"""Hits of a search, page by page: a few are found at once, and more only when somebody scrolls there.

Without anything to look for, all pictures that fulfil the filters are answered, by their dates.
"""

from __future__ import annotations

import os
import shlex
from itertools import chain
from typing import NamedTuple

from clipsearch.errors import InputError
from clipsearch.images.codecs.box import Box
from clipsearch.index.browsing import rows_by_date, rows_by_path
from clipsearch.index.filters import Filters
from clipsearch.index.reading import Store
from clipsearch.index.selection import filters_of
from clipsearch.output.paths import json_fields, typed
from clipsearch.output.rows import rounded
from clipsearch.search.hit import Hit
from clipsearch.search.ordering import Sort, sort_hits
from clipsearch.search.query_terms import ContentTerm, ImageTerm, Term, TextTerm
from clipsearch.server.asking import Question
from clipsearch.server.indexes import Recent, Served

_STEPS = (120, 3000, 30_000)
"""How many hits are found at first (as many as the page asks for), then, and then, as somebody scrolls."""
_KEPT_HITS, _KEPT_ROWS = 200_000, 1_000_000
"""Number of hits that are kept for further pages, of all recent searches together; each takes about 0.5 kB. And number
of rows, of all pictures in recent orders."""
_NO_SCORE = float("nan")
"""What becomes null in JSON."""


class Found(NamedTuple):
    """The hits of a search that were found so far."""

    hits: list[Hit]
    complete: bool
    """Whether there are no more."""


class Page(NamedTuple):
    """A part of the hits of a search."""

    hits: list[Hit]
    total: int | None
    """How many hits the search has; None if it is not known yet, because only the best were looked for."""


class Answers:
    """Searches an index, and keeps the hits of recent searches. Threads may share it."""

    def __init__(self) -> None:
        self._recent: Recent[object, Found] = Recent(_KEPT_HITS, lambda found: len(found.hits) + 1)
        self._orders: Recent[object, list[int]] = Recent(_KEPT_ROWS, lambda rows: len(rows) + 1)

    def page(self, served: Served, question: Question) -> Page:
        """Return the part of the hits that is asked for.

        Raises:
            ClipsearchError: as for `Index.search`.
        """
        if not question.terms:
            return self._browsed(served, question)
        # The hits of another commit are others. If one comes between this line and the search, they are only kept under
        # the wrong number, which no later request asks for.
        key = served.name, served.version(), question.key
        end = question.offset + question.k
        found = self._recent.get(key)
        if found is None or (not found.complete and end > len(found.hits)):
            found = _found(served, question, end)
            self._recent.put(key, found)
        return Page(found.hits[question.offset : end], len(found.hits) if found.complete else None)

    def _browsed(self, served: Served, question: Question) -> Page:
        """Return a part of all pictures that fulfil the filters, with a rank, but without a score."""
        if question.limits:
            raise InputError(f"{next(iter(question.limits))}: there is nothing to look for, and so nothing to compare.")
        store = served.index.store
        filters = filters_of(question.filters, store)
        with store.snapshot():
            key = served.name, served.version(), question.key
            rows = self._orders.get(key)
            if rows is None:
                rows = _in_order(store, filters, question)
                self._orders.put(key, rows)
            some = store.images(rows[question.offset : question.offset + question.k])
        hits = [Hit.of(record, rank, _NO_SCORE) for rank, record in enumerate(some, question.offset + 1)]
        return Page(hits, len(rows))


def _in_order(store: Store, filters: Filters, question: Question) -> list[int]:
    if question.sort is Sort.PATH:
        return rows_by_path(store, filters, question.most, reverse=question.reverse)
    return rows_by_date(store, filters, question.most, newest_first=not question.reverse)


def _found(served: Served, question: Question, end: int) -> Found:
    steps = () if question.sort is not Sort.SCORE or question.reverse else _STEPS
    number = next((step for step in steps if end <= step < question.most), question.most)
    (hits,) = served.index.search_many([list(question.terms)], number, **question.limits, **question.filters)
    complete = len(hits) < number or number == question.most
    if question.sort is not Sort.SCORE or question.reverse:
        newest_first = question.sort is Sort.DATE
        hits = sort_hits(hits, question.sort, reverse=question.reverse != newest_first)
    return Found(hits, complete)


def record(hit: Hit) -> dict[str, object]:
    """Return a hit for JSON: the fields of `Hit.as_dict`, its `row`, and the `id` of its content."""
    fields: dict[str, object] = {}
    for name, value in hit.as_dict().items():
        if name == "path":
            fields |= json_fields(hit.path_bytes)
        else:
            fields[name] = rounded(value)
    return fields | {"row": hit.row, "id": hit.content.hex() if hit.content else None}


def arguments(served: Served, question: Question) -> str | None:
    """Return what to type after the name of the command for the same hits; None if a picture of it was only sent.

    The number of hits is left out. There is no command for nothing to look for, either.
    """
    boxes = any(isinstance(term, ImageTerm) and term.box for term in question.terms)
    words = [_typed_term(served, term, boxes=boxes) for term in question.terms]
    if None in words or not words:
        return None
    limits = [
        [_option(name)] if value is True else [_option(name), f"{value:g}"] for name, value in question.limits.items()
    ]
    filters = [
        [_option(name), _quoted(str(one))]
        for name, value in question.filters.items()
        for one in (value if isinstance(value, list) else [value])
        if name != "seen_from"
    ]
    order = [] if question.sort is Sort.SCORE else ["--sort", question.sort.value]
    if question.reverse != (question.sort is Sort.DATE):
        order.append("--reverse")
    where = ["--index", _quoted(os.fsdecode(served.index.store.folder.absolute()))]
    return " ".join([*filter(None, words), *chain(*limits, *filters), *order, *where])


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _typed_term(served: Served, term: Term, *, boxes: bool) -> str | None:
    """Return a term as it is typed, with `boxes` each picture with one; None if that is not possible."""
    weight = "" if abs(term.weight) == 1 else f"{abs(term.weight):g}:"
    if isinstance(term, TextTerm):
        return f"{'--not ' if term.weight < 0 else ''}{_quoted(f'{weight}{term.text}')}"
    path = _path_of(served, term)
    weight = f"-{weight or '1:'}" if term.weight < 0 else weight
    return f"--image {weight}{path}{_box(term) if boxes else ''}" if path else None


def _path_of(served: Served, term: ContentTerm | ImageTerm) -> str | None:
    """Return the path of a picture, quoted for a shell; None if it was only sent, or is gone."""
    if isinstance(term, ContentTerm):
        known = served.index.store.rows_with(term.content)
        return _quoted(os.fsdecode(known[0][0])) if known else None
    return _quoted(term.image) if isinstance(term.image, str) else None


def _box(term: ContentTerm | ImageTerm) -> str:
    box = term.box if isinstance(term, ImageTerm) else None
    return f" --box {_quoted(str(box or Box(0, 0, 100, 100, percent=True)))}"


def _quoted(text: str) -> str:
    """Quote a word for a shell, also one whose bytes are not UTF-8."""
    return typed(os.fsencode(text)) or shlex.quote(text)
