"""Hits for people: a table that fits the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import BinaryIO

from rich.cells import cell_len, split_graphemes

from clipsearch.output.paths import printable, shown
from clipsearch.query import Hit

_GAP = "  "
_RIGHT = ("rank", "score", "conf", "size")
"""Columns of numbers."""
_DISPENSABLE = ("date", "size")
"""Columns that are left out, the first first, where paths would be cut otherwise."""
_LEAST_PATH = 12
"""Cells that a path keeps even in the narrowest terminal."""
_DOTS = "\N{HORIZONTAL ELLIPSIS}"


def write_table(found: Sequence[tuple[str | None, Sequence[Hit]]], out: BinaryIO, width: int | None) -> None:
    """A table of each query's hits, below the query where it is given; `width` is the terminal's, in cells.

    Where there is too little room, size and date are left out, and then paths lose their middle.
    """
    parts = []
    for query, hits in found:
        heading = [] if query is None else [printable(query.encode())]
        parts.append("\n".join(heading + (_table(hits, width) if hits else [] if query is None else ["nothing found"])))
    text = "\n\n".join(parts)
    if text:
        out.write((text + "\n").encode())


def _table(hits: Sequence[Hit], width: int | None) -> list[str]:
    columns = {
        "rank": [str(hit.rank) for hit in hits],
        "score": [f"{hit.score:.4f}" for hit in hits],
        "conf": ["" if hit.confidence is None else f"{hit.confidence:.2f}" for hit in hits],
        "path": [printable(shown(hit.path_bytes)) for hit in hits],
        "size": [f"{hit.width}x{hit.height}" if hit.width else "" for hit in hits],
        "date": [hit.date[:10] for hit in hits],
    }
    if not any(columns["conf"]):
        del columns["conf"]
    widths = {name: max(cell_len(text) for text in (name, *texts)) for name, texts in columns.items()}
    if width is not None:
        _fit(columns, widths, width)
    lines = []
    for line in zip(*([name, *texts] for name, texts in columns.items()), strict=True):
        cells = [_padded(text, widths[name], right=name in _RIGHT) for name, text in zip(columns, line, strict=True)]
        lines.append(_GAP.join(cells).rstrip())
    return lines


def _fit(columns: dict[str, list[str]], widths: dict[str, int], width: int) -> None:
    """Leave out what can be spared, and cut paths, until a line has at most `width` cells."""

    def too_much() -> int:
        return sum(widths.values()) + len(_GAP) * (len(widths) - 1) - width

    for name in _DISPENSABLE:
        if too_much() > 0:
            del columns[name], widths[name]
    if too_much() > 0:
        widths["path"] = max(_LEAST_PATH, widths["path"] - too_much())
        columns["path"] = [cut(path, widths["path"]) for path in columns["path"]]


def cut(text: str, cells: int) -> str:
    """`text` in at most so many cells of a terminal: whole characters of its beginning and, more of, its end."""
    if cell_len(text) <= cells:
        return text
    spans = split_graphemes(text)[0]  # what is seen as one character: start, end, cells
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
