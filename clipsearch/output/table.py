"""Tables that fit the width of the terminal."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from typing import BinaryIO

from rich.cells import cell_len, split_graphemes

from clipsearch.output.paths import printable, shown
from clipsearch.search.hit import Hit

_GAP = "  "
_LEAST = 12
"""Least width of a column that is shortened, in cells."""
_DOTS = "\N{HORIZONTAL ELLIPSIS}"


def write_table(
    found: Sequence[tuple[str | None, Sequence[Hit], Sequence[str] | None]],
    out: BinaryIO,
    width: int | None,
    *,
    dated: bool = False,
) -> None:
    """Write a table of the hits of each query, with the query above it if there is one.

    If hits are grouped, the title of the group of each is given with them, and is written above the first of the group.
    In a terminal of `width` cells that is too narrow, date, size and box are left out (with `dated`, the date
    last); then paths lose their middle.
    """
    parts = []
    for query, hits, titles in found:
        heading = [] if query is None else [printable(query.encode())]
        nothing = [] if query is None else ["nothing found"]
        parts.append("\n".join(heading + (_table(hits, titles, width, dated=dated) if hits else nothing)))
    text = "\n\n".join(parts)
    if text:
        out.write((text + "\n").encode())


def _table(hits: Sequence[Hit], titles: Sequence[str] | None, width: int | None, *, dated: bool) -> list[str]:
    rows = [
        {
            "rank": str(hit.rank),
            "score": f"{hit.score:.4f}",
            "conf": "" if hit.confidence is None else f"{hit.confidence:.2f}",
            "path": printable(shown(hit.path_bytes)),
            "size": f"{hit.width}x{hit.height}" if hit.width else "",
            "date": hit.date[:10],
            "box": ",".join(map(str, hit.box or ())),
            "others": f"+{hit.others}" if hit.others else "",
        }
        for hit in hits
    ]
    for name in ("conf", "box", "others"):
        if not any(row[name] for row in rows):
            for row in rows:
                del row[name]
    lines = lines_of(
        rows,
        width,
        right={"rank", "score", "conf", "size", "others"},
        cuttable={"path"},
        sparing=("size", "box", "date") if dated else ("date", "size", "box"),
    )
    return lines if titles is None else with_titles(lines, titles)


def with_titles(lines: Sequence[str], titles: Sequence[str]) -> list[str]:
    """Insert titles into the lines of a table: the title of each row, where it differs from that of the row before."""
    head, *rows = lines
    found = [head]
    before = None
    for line, title in zip(rows, titles, strict=True):
        found += [line] if title == before else [title, line]
        before = title
    return found


def lines_of(
    rows: Sequence[Mapping[str, str]],
    width: int | None,
    *,
    right: Container[str] = (),
    cuttable: Container[str] = (),
    sparing: Sequence[str] = (),
) -> list[str]:
    """Return the lines of a table with a heading.

    Args:
        rows: Printable texts by column; all rows have the same columns.
        width: Width of the terminal in cells; None does not limit it.
        right: Columns that are aligned right.
        cuttable: Columns whose long texts lose their middle if the table is too wide.
        sparing: Columns that are left out before that, in this order.
    """
    if not rows:
        return []
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    widths = {name: max(cell_len(text) for text in (name, *texts)) for name, texts in columns.items()}
    if width is not None:
        _fit(columns, widths, width, cuttable, sparing)
    lines = []
    for line in zip(*([name, *texts] for name, texts in columns.items()), strict=True):
        cells = [_padded(text, widths[name], right=name in right) for name, text in zip(columns, line, strict=True)]
        lines.append(_GAP.join(cells).rstrip())
    return lines


def _fit(
    columns: dict[str, list[str]],
    widths: dict[str, int],
    width: int,
    cuttable: Container[str],
    sparing: Sequence[str],
) -> None:
    """Leave out columns in `sparing`, and shorten those in `cuttable`, widest first, until a line has `width` cells."""

    def too_much() -> int:
        return sum(widths.values()) + len(_GAP) * (len(widths) - 1) - width

    for name in sparing:
        if too_much() > 0 and name in columns:
            del columns[name], widths[name]
    for name in sorted((name for name in columns if name in cuttable), key=lambda name: -widths[name]):
        if too_much() > 0:
            widths[name] = max(min(_LEAST, widths[name]), widths[name] - too_much())
            columns[name] = [cut(text, widths[name]) for text in columns[name]]


def cut(text: str, cells: int) -> str:
    """Shorten `text` to `cells` of a terminal, between graphemes; two thirds of what is kept is its end."""
    if cell_len(text) <= cells:
        return text
    spans = split_graphemes(text)[0]  # graphemes: (start, end, cells)
    end, kept, room = len(text), 0, (cells - 1) * 2 // 3
    for first, _, size in reversed(spans):
        if kept + size > room:
            break
        end, kept = first, kept + size
    start, room = 0, cells - 1 - kept
    for _, last, size in spans:
        if size > room:
            break
        start, room = last, room - size
    return text[:start] + _DOTS + text[end:]


def _padded(text: str, cells: int, *, right: bool) -> str:
    gap = " " * (cells - cell_len(text))
    return gap + text if right else text + gap
