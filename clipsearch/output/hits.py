"""Hits in every format of a search; the layout of tables is in `table`."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import BinaryIO, NamedTuple

from clipsearch.output.paths import escaped, printable, shown
from clipsearch.output.rows import Row, write_rows
from clipsearch.search.hit import Hit

COLUMNS = ("rank", "score", "confidence", "path", "width", "height", "bytes", "date", "date_source")
"""Columns of CSV and fields of JSON. With many queries, `query` comes first. If regions took part, `box` comes after
these, and with `distinct`, `others` comes last. What hits are grouped by (`day`, `month`, `folder`) comes before
these."""
_TSV = ("rank", "score", "confidence", "path")
_NUMBERS = {"score": ".4f", "confidence": ".3f"}


class Found(NamedTuple):
    """A query and its hits."""

    query: str
    """The query as text."""
    hits: Sequence[Hit]
    groups: Mapping[str, Sequence[Hit]] | None = None
    """The same hits in the same order, by group, as `group_hits` returns them; None if they are not grouped."""


def write_hits(
    found: Sequence[Found],
    form: str,
    out: BinaryIO,
    *,
    many: bool = False,
    by: str | None = None,
    dated: bool = False,
    nul: bool = False,
    screen: int | None = None,
) -> None:
    """Write hits to `out` in a format of `rows.write_rows` or as `paths`, as docs/commands.md describes them.

    Args:
        found: Queries with their hits.
        form: The format.
        out: Where to write.
        many: Write each hit with its query.
        by: What hits are grouped by: write each one with its group, except as `paths`.
        dated: In a table that is too wide, leave out the dates last instead of first.
        nul: End paths with NUL instead of a line end, and write them byte for byte.
        screen: Width of the terminal that `out` is, in columns, which gets control characters as escapes; None if it is
            no terminal, and then paths are written byte for byte.
    """
    if form == "table":
        from clipsearch.output.table import write_table

        tables = [(result.query if many else None, result.hits, _titles(result, by)) for result in found]
        write_table(tables, out, screen, dated=dated)
    elif form == "paths":
        pairs = ((result.query if many else None, hit) for result in found for hit in result.hits)
        out.writelines(_path(query, hit, nul=nul, screen=screen is not None) for query, hit in pairs)
    else:
        are_counted = any(hit.others is not None for result in found for hit in result.hits)
        with_boxes = form != "tsv" and any(hit.among_regions for result in found for hit in result.hits)
        columns = _TSV if form == "tsv" else COLUMNS + ("box",) * with_boxes
        names = ("query",) * many + ((by,) if by else ()) + columns + ("others",) * are_counted
        rows = [_row(hit, about, names) for about, hit in _each(found, by)]
        write_rows(rows, form, out, screen=screen, numbers=_NUMBERS, columns=names)


def parts(found: Sequence[Found], by: str | None, *, many: bool) -> list[tuple[str | None, Sequence[Hit]]]:
    """Return each group of each query (or each query, if hits are not grouped) with its title.

    With `many`, the query is a part of the title. The title is None if nothing is left for it.
    """
    divided: list[tuple[str | None, Sequence[Hit]]] = []
    for result in found:
        query = result.query if many else None
        groups = result.groups or {}
        titles = [" · ".join(filter(None, [query, group_title(by, name)])) for name in groups]
        divided += zip(titles, groups.values(), strict=True) if groups else [(query, result.hits)]
    return divided


def group_title(by: str | None, name: str) -> str:
    """Return the name of a group for people; the current folder is a dot."""
    value = group_value(by, name)
    return (printable(shown(value)) or ".") if isinstance(value, bytes) else value


def group_value(by: str | None, name: str) -> str | bytes:
    """Return the name of a group as a field of a row."""
    return os.fsencode(name) if by == "folder" else name


def _titles(result: Found, by: str | None) -> list[str] | None:
    """Return the title of the group of each hit; None if they are not grouped."""
    if result.groups is None:
        return None
    return [group_title(by, name) for name, members in result.groups.items() for _ in members]


def _each(found: Sequence[Found], by: str | None) -> Iterator[tuple[Row, Hit]]:
    """Yield each hit with the fields that say where it belongs."""
    for result in found:
        if by is None or result.groups is None:
            yield from (({"query": result.query}, hit) for hit in result.hits)
            continue
        for name, members in result.groups.items():
            yield from (({"query": result.query, by: group_value(by, name)}, hit) for hit in members)


def _row(hit: Hit, about: Row, names: Sequence[str]) -> Row:
    values: Row = {**about, "box": None, "others": None, **hit.as_dict(), "path": hit.path_bytes}
    return {name: values[name] for name in names}


def _path(query: str | None, hit: Hit, *, nul: bool, screen: bool) -> bytes:
    path = shown(hit.path_bytes)
    if nul:
        return (b"" if query is None else query.encode() + b"\0") + path + b"\0"
    start = b"" if query is None else escaped(query).encode() + b"\t"
    return start + (printable(path).encode() if screen else path) + b"\n"
