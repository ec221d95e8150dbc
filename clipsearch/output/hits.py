"""Hits in every format of a search; the layout of tables is in `table`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import BinaryIO, NamedTuple

from clipsearch.output.paths import escaped, printable, shown
from clipsearch.output.rows import Row, write_rows
from clipsearch.search.hit import Hit

COLUMNS = ("rank", "score", "confidence", "path", "width", "height", "bytes", "date", "date_source")
"""Columns of CSV and fields of JSON. With many queries, `query` comes first. If regions took part, `box` comes after
these, and with `distinct`, `others` comes last."""
_TSV = ("rank", "score", "confidence", "path")
_NUMBERS = {"score": ".4f", "confidence": ".3f"}


class Found(NamedTuple):
    """A query and its hits."""

    query: str
    """The query as text."""
    hits: Sequence[Hit]


def write_hits(
    found: Sequence[Found],
    form: str,
    out: BinaryIO,
    *,
    many: bool = False,
    nul: bool = False,
    screen: int | None = None,
) -> None:
    """Write hits to `out` in a format of `rows.write_rows` or as `paths`, as docs/commands.md describes them.

    Args:
        found: Queries with their hits.
        form: The format.
        out: Where to write.
        many: Write each hit with its query.
        nul: End paths with NUL instead of a line end, and write them byte for byte.
        screen: Width of the terminal that `out` is, in columns, which gets control characters as escapes; None if it is
            no terminal, and then paths are written byte for byte.
    """
    if form == "table":
        from clipsearch.output.table import write_table

        write_table([(result.query if many else None, result.hits) for result in found], out, screen)
    elif form == "paths":
        out.writelines(_path(query, hit, nul=nul, screen=screen is not None) for query, hit in _each(found, many=many))
    else:
        are_counted = any(hit.others is not None for result in found for hit in result.hits)
        with_boxes = form != "tsv" and any(hit.among_regions for result in found for hit in result.hits)
        columns = _TSV if form == "tsv" else COLUMNS + ("box",) * with_boxes
        names = ("query",) * many + columns + ("others",) * are_counted
        rows = [_row(query, hit, names) for query, hit in _each(found, many=many)]
        write_rows(rows, form, out, screen=screen, numbers=_NUMBERS, columns=names)


def _each(found: Sequence[Found], *, many: bool) -> Iterator[tuple[str | None, Hit]]:
    for result in found:
        for hit in result.hits:
            yield (result.query if many else None), hit


def _row(query: str | None, hit: Hit, names: Sequence[str]) -> Row:
    values: Row = {"query": query, "box": None, "others": None, **hit.as_dict(), "path": hit.path_bytes}
    return {name: values[name] for name in names}


def _path(query: str | None, hit: Hit, *, nul: bool, screen: bool) -> bytes:
    path = shown(hit.path_bytes)
    if nul:
        return (b"" if query is None else query.encode() + b"\0") + path + b"\0"
    start = b"" if query is None else escaped(query).encode() + b"\t"
    return start + (printable(path).encode() if screen else path) + b"\n"
