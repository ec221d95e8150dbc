"""Hits as thumbnails in the terminal, side by side where it is wide. Knows nothing of how a terminal draws."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import BinaryIO, NamedTuple

from rich.cells import cell_len, chop_cells

from clipsearch.errors import UnreadableImageError
from clipsearch.output.paths import escaped, printable, shown
from clipsearch.output.table import cut
from clipsearch.output.terminal.detection import Terminal, check_terminal, examine
from clipsearch.output.terminal.drawing import Drawing, draw, side
from clipsearch.output.thumbnails import thumbnail
from clipsearch.search.hit import Hit

__all__ = ["check_terminal", "show_previews"]

_GAP = 2
"""Between neighbours, in characters."""
_LEAST = {"blocks": 37}
_LEAST_OTHERS = 25
"""Boxes are at least so wide, in characters, if the terminal is; half blocks are coarse and need more."""
_MOST_COLUMNS = 48
_MOST_ROWS = 16
_CAPTION = 2
"""Lines below a picture."""
_RESCUE = "\x18\x1b\\\x1b[0m"
"""Ends whatever a terminal thinks it is in the middle of."""


class _Tile(NamedTuple):
    """A hit, drawn."""

    drawing: Drawing
    caption: list[str]


def show_previews(found: Sequence[tuple[str | None, Sequence[Hit]]], out: BinaryIO) -> None:
    """Draw the pictures of hits on the terminal `out`, each above its rank, score, confidence and path.

    The hits of each query stand below the query, where it is given. In place of a picture that cannot be read any more
    stands why. `CLIPSEARCH_PREVIEW` says which protocol to use; without it the terminal is asked. The cursor is left
    below.

    Raises:
        InputError: `out` is no terminal or has no colours, or `CLIPSEARCH_PREVIEW` is unknown.
    """
    if not any(hits for _, hits in found):
        check_terminal(out)
        return
    terminal = examine(out)
    for i, (query, hits) in enumerate(found):
        if query is not None:
            gap = "\n" if i else ""
            out.write(f"{gap}{escaped(query)}\n".encode())
        if hits:
            _show(hits, terminal, out)


def _show(hits: Sequence[Hit], terminal: Terminal, out: BinaryIO) -> None:
    across, columns, rows = _layout(terminal, len(hits))
    with ThreadPoolExecutor(across) as pool:
        for start in range(0, len(hits), across):
            if start:
                out.write(b"\n")
            row = hits[start : start + across]
            _write(list(pool.map(lambda hit: _tile(hit, terminal, columns, rows), row)), columns, out)


def _layout(terminal: Terminal, hits: int) -> tuple[int, int, int]:
    """How many stand side by side, and the columns and rows of characters that each picture may have."""
    width = terminal.columns - 1  # a line that is full would end with a line break of the terminal's own
    least = _LEAST.get(terminal.protocol, _LEAST_OTHERS)
    across = max(1, min(hits, (width + _GAP) // (least + _GAP)))
    columns = max(1, min(_MOST_COLUMNS, (width + _GAP) // across - _GAP))
    # All of a row is on the screen at once, or a terminal would draw its pictures in the wrong place.
    rows = max(1, min(_MOST_ROWS, terminal.lines - _CAPTION - 2))
    if across > 1:
        cell_width, cell_height = terminal.cell
        rows = min(rows, max(1, columns * cell_width // cell_height))  # no taller than wide
    return across, columns, rows


def _tile(hit: Hit, terminal: Terminal, columns: int, rows: int) -> _Tile:
    sure = "" if hit.confidence is None else f"  {hit.confidence:.2f}"
    others = f"  +{hit.others}" if hit.others else ""
    caption = [
        cut(f"{hit.rank}  {hit.score:.4f}{sure}{others}", columns),
        cut(printable(shown(hit.path_bytes)), columns),
    ]
    try:
        image = thumbnail(hit.path_bytes, side(terminal, columns, rows))
    except UnreadableImageError as error:
        return _Tile(_words(f"Cannot be read: {escaped(str(error))}", columns, rows), caption)
    return _Tile(draw(image, terminal, columns, rows), caption)


def _words(text: str, columns: int, rows: int) -> Drawing:
    lines = [line for words in textwrap.wrap(text, columns) for line in chop_cells(words, columns)]
    return Drawing(columns, [line + " " * (columns - cell_len(line)) for line in lines[:rows]])


def _write(tiles: Sequence[_Tile], columns: int, out: BinaryIO) -> None:
    """One row of the gallery, and pictures last: then there is room below them, and nothing scrolls under them."""
    height = max(len(tile.drawing.lines) for tile in tiles)
    lines = ["".join(line) for line in zip(*(_column(tile, height, columns) for tile in tiles), strict=True)]
    overlays = [
        _at(height - len(tile.drawing.lines), i * (columns + _GAP), tile.drawing.overlay)
        for i, tile in enumerate(tiles)
        if tile.drawing.overlay
    ]
    text = "".join(f"{line.rstrip()}\n" for line in lines)
    if overlays:
        text += f"\x1b[{len(lines)}A" + "".join(overlays) + f"\x1b[{len(lines)}B"
    try:
        out.write(text.encode())
        out.flush()
    except KeyboardInterrupt:
        out.write(_RESCUE.encode() + b"\n" * len(lines) * bool(overlays))
        out.flush()
        raise


def _column(tile: _Tile, height: int, columns: int) -> list[str]:
    """The lines of one tile, each `columns` wide and with a gap after it; captions are level with each other."""
    drawing = tile.drawing
    margin = " " * (columns - drawing.columns + _GAP)
    return [
        *[" " * (columns + _GAP)] * (height - len(drawing.lines)),
        *(line + margin for line in drawing.lines),
        *(line + " " * (columns - cell_len(line) + _GAP) for line in tile.caption),
    ]


def _at(down: int, right: int, overlay: str) -> str:
    """`overlay` so far from where the cursor is, which stays there."""
    moves = (f"\x1b[{down}B" if down else "") + (f"\x1b[{right}C" if right else "")
    return f"\x1b7{moves}{overlay}\x1b8"
