"""Hits for programs, in every format that searching offers; `table` has the one for people."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Sequence
from typing import BinaryIO, NamedTuple

from clipsearch.output.paths import escaped, json_escape, json_fields, printable, shown
from clipsearch.query import Hit

FORMATS = ("table", "tsv", "csv", "json", "jsonl", "paths")
COLUMNS = ("rank", "score", "confidence", "path", "width", "height", "bytes", "date")
"""Of CSV, and the fields of JSON; with many queries, `query` comes before them."""


class Found(NamedTuple):
    """What one query found."""

    query: str
    """In words."""
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
    """Write hits to `out` in one of `FORMATS`, as docs/commands.md describes them.

    With `many`, each hit comes with its query. With `nul`, paths end with NUL instead of a line end. `screen` is the
    width of the terminal that `out` is, in columns, or None: then names go out as they are, byte for byte. A terminal
    gets control characters as escapes, unless they are asked for with `nul`.
    """
    if form == "table":
        from clipsearch.output.table import write_table

        write_table([(result.query if many else None, result.hits) for result in found], out, screen)
    elif form == "json":
        rows = [_fields(query, hit) for query, hit in _each(found, many=many)]
        out.write(_json(rows, indent=2))
    elif form == "jsonl":
        out.writelines(_json(_fields(query, hit)) for query, hit in _each(found, many=many))
    elif form == "csv":
        _csv(found, out, many=many, screen=screen is not None)
    elif form == "tsv":
        for query, hit in _each(found, many=many):
            sure = "" if hit.confidence is None else f"{hit.confidence:.3f}"
            start = "" if query is None else f"{escaped(query)}\t"
            line = f"{start}{hit.rank}\t{hit.score:.4f}\t{sure}\t".encode() + _path(hit, screen=screen is not None)
            out.write(line + b"\n")
    elif form == "paths":
        for query, hit in _each(found, many=many):
            if nul:
                out.write(b"" if query is None else query.encode() + b"\0")
                out.write(shown(hit.path_bytes) + b"\0")
            else:
                out.write(b"" if query is None else escaped(query).encode() + b"\t")
                out.write(_path(hit, screen=screen is not None) + b"\n")
    else:
        raise ValueError(f"unknown format {form!r}")


def _each(found: Sequence[Found], *, many: bool) -> Iterator[tuple[str | None, Hit]]:
    for result in found:
        for hit in result.hits:
            yield (result.query if many else None), hit


def _path(hit: Hit, *, screen: bool) -> bytes:
    path = shown(hit.path_bytes)
    return printable(path).encode() if screen else path


def _fields(query: str | None, hit: Hit) -> dict[str, object]:
    carried: dict[str, object] = {} if query is None else {"query": query}
    return {
        **carried,
        "rank": hit.rank,
        "score": round(hit.score, 6),
        "confidence": None if hit.confidence is None else round(hit.confidence, 6),
        **json_fields(shown(hit.path_bytes)),
        "width": hit.width,
        "height": hit.height,
        "bytes": hit.size,
        "date": hit.date,
    }


def _json(value: object, indent: int | None = None) -> bytes:
    # What a terminal would obey can only stand within strings, where it may be written as an escape.
    lines = json.dumps(value, indent=indent, ensure_ascii=False).split("\n")
    return "".join(f"{escaped(line, json_escape)}\n" for line in lines).encode()


def _csv(found: Sequence[Found], out: BinaryIO, *, many: bool, screen: bool) -> None:
    """RFC 4180: a header, commas, quotes where needed, lines end with CR LF."""
    import csv

    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow((*(["query"] if many else []), *COLUMNS))
    for query, hit in _each(found, many=many):
        fields = _fields(query, hit)
        path = _path(hit, screen=screen).decode("utf-8", "surrogateescape")
        fields |= {"score": f"{hit.score:.6f}", "path": path}
        if query is not None and screen:
            fields["query"] = escaped(query)
        writer.writerow([fields[name] for name in (*(["query"] if many else []), *COLUMNS)])
        out.write(text.getvalue().encode("utf-8", "surrogateescape"))
        text.seek(text.truncate(0))
    out.write(text.getvalue().encode())
