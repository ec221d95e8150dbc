"""Thumbnails of hits in the terminal, side by side if it is wide. Knows nothing of how a terminal draws."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import BinaryIO, NamedTuple

from PIL import Image
from rich.cells import cell_len, chop_cells

from clipsearch.errors import UnreadableImageError
from clipsearch.output.paths import escaped, printable, shown
from clipsearch.output.table import cut
from clipsearch.output.terminal.detection import Terminal, check_terminal, examine
from clipsearch.output.terminal.drawing import Drawing, draw, side
from clipsearch.output.thumbnails import outlined, thumbnail, thumbnail_of_region
from clipsearch.search.hit import Hit

__all__ = ["check_terminal", "show_previews"]

_GAP = 2
"""Gap between neighbours, in characters."""
_LEAST = {"blocks": 37}
_LEAST_OTHERS = 25
"""Least width of a box in characters, if the terminal is as wide; half blocks are coarse and need more."""
_MOST_COLUMNS = 48
_MOST_ROWS = 16
_CAPTION = 2
"""Number of lines below an image."""
_RESCUE = "\x18\x1b\\\x1b[0m"
"""Sequence that ends any sequence that was sent in part."""


class _Tile(NamedTuple):
    """The drawing of a hit, and the text below it."""

    drawing: Drawing
    caption: list[str]


def show_previews(found: Sequence[tuple[str | None, Sequence[Hit]]], out: BinaryIO, *, crop: bool = False) -> None:
    """Draw the images of hits on the terminal `out`, each above its rank, score, confidence and path.

    The hits of each query are below the query, if it is given. The box of a hit is outlined, or with `crop` the only
    part of the image that is shown. An image that cannot be read is replaced by the reason.
    `CLIPSEARCH_PREVIEW` names the protocol; without it, the terminal is queried. The cursor is left below.

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
            _show(hits, terminal, out, crop=crop)


def _show(hits: Sequence[Hit], terminal: Terminal, out: BinaryIO, *, crop: bool) -> None:
    across, columns, rows = _layout(terminal, len(hits))
    with ThreadPoolExecutor(across) as pool:
        for start in range(0, len(hits), across):
            if start:
                out.write(b"\n")
            row = hits[start : start + across]
            tiles = pool.map(lambda hit: _tile(hit, terminal, columns, rows, crop=crop), row)
            _write(list(tiles), columns, out)


def _layout(terminal: Terminal, hits: int) -> tuple[int, int, int]:
    """Return the number of images side by side, and the columns and rows of characters for each."""
    width = terminal.columns - 1  # terminals break a line that is full
    least = _LEAST.get(terminal.protocol, _LEAST_OTHERS)
    across = max(1, min(hits, (width + _GAP) // (least + _GAP)))
    columns = max(1, min(_MOST_COLUMNS, (width + _GAP) // across - _GAP))
    # A row has to fit the screen, or a terminal would draw its images in the wrong place.
    rows = max(1, min(_MOST_ROWS, terminal.lines - _CAPTION - 2))
    if across > 1:
        cell_width, cell_height = terminal.cell
        rows = min(rows, max(1, columns * cell_width // cell_height))  # no taller than wide
    return across, columns, rows


def _tile(hit: Hit, terminal: Terminal, columns: int, rows: int, *, crop: bool) -> _Tile:
    sure = "" if hit.confidence is None else f"  {hit.confidence:.2f}"
    others = f"  +{hit.others}" if hit.others else ""
    caption = [
        cut(f"{hit.rank}  {hit.score:.4f}{sure}{others}", columns),
        cut(printable(shown(hit.path_bytes)), columns),
    ]
    try:
        image = _picture(hit, side(terminal, columns, rows), crop=crop)
    except UnreadableImageError as error:
        return _Tile(_words(f"Cannot be read: {escaped(str(error))}", columns, rows), caption)
    return _Tile(draw(image, terminal, columns, rows), caption)


def _picture(hit: Hit, longest: int, *, crop: bool) -> Image.Image:
    """Return what is shown of a hit.

    Raises:
        UnreadableImageError: it cannot be read.
    """
    size = (hit.width, hit.height) if hit.width and hit.height else None
    if crop and hit.box:
        return thumbnail_of_region(hit.path_bytes, hit.box, size, longest)
    image = thumbnail(hit.path_bytes, longest)
    return outlined(image, hit.box, size) if hit.box and size else image


def _words(text: str, columns: int, rows: int) -> Drawing:
    lines = [line for words in textwrap.wrap(text, columns) for line in chop_cells(words, columns)]
    return Drawing(columns, [line + " " * (columns - cell_len(line)) for line in lines[:rows]])


def _write(tiles: Sequence[_Tile], columns: int, out: BinaryIO) -> None:
    """Write a row of the gallery; images come last, when there is space below them and nothing scrolls any more."""
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
    """Return the lines of a tile, `columns` wide and with a gap after them; the captions of a row are level."""
    drawing = tile.drawing
    margin = " " * (columns - drawing.columns + _GAP)
    return [
        *[" " * (columns + _GAP)] * (height - len(drawing.lines)),
        *(line + margin for line in drawing.lines),
        *(line + " " * (columns - cell_len(line) + _GAP) for line in tile.caption),
    ]


def _at(down: int, right: int, overlay: str) -> str:
    """Return `overlay` at a distance from the cursor, which keeps its place."""
    moves = (f"\x1b[{down}B" if down else "") + (f"\x1b[{right}C" if right else "")
    return f"\x1b7{moves}{overlay}\x1b8"
