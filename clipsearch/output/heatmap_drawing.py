"""The drawing of a heatmap: texts down the side, pictures along the top, a coloured cell for each pair.

Where things go is decided once, as a list of shapes, which then become an SVG, by hand, or a PNG, by matplotlib.
"""

from __future__ import annotations

import base64
import io
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
from PIL import Image
from rich.cells import cell_len

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_RAMP = ((0xF4, 0xF7, 0xFB), (0x74, 0xAC, 0xDB), (0x12, 0x3A, 0x7C))
"""From the lowest value to the highest. Each is darker than the one before, so that greys tell the same."""
_BLACK, _DARK, _WHITE, _MUTED, _FRAME, _EMPTY = "#000000", "#1b1c1e", "#ffffff", "#63666b", "#c2410c", "#e6e6e3"
_SWITCH = 0.725
"""From here on numbers are white, before it black: so the contrast is 4.5 or more everywhere (WCAG 2.2, 1.4.3)."""

_MARGIN, _GAP = 24.0, 2.0
_LINE, _SIZE, _SMALL = 44.0, 14.0, 11.0
"""The height of a line of cells, and of letters; the small ones also stand in narrow cells."""
_LEADING = 17.0
_TEXT_WIDTH, _TEXT_LINES = 360.0, 2
_WIDTHS = ((12, 96.0), (30, 72.0))
_LEAST_WIDTH = 48.0
"""Up to so many pictures: how wide each is."""
_EM_A_CELL, _EM_A_CAPITAL = 0.56, 0.14
"""How wide a letter is, to its size, and how much wider a capital: a little more than in DejaVu Sans, a wide font."""
_DOTS = "\N{HORIZONTAL ELLIPSIS}"
_INCH = 100.0
"""Units of the drawing."""
_DOTS_AN_INCH = 200
_POINTS = 72 / _INCH
"""In which matplotlib measures letters and lines."""
_ANCHORS: dict[str, Literal["left", "center", "right"]] = {"start": "left", "middle": "center", "end": "right"}
_ILLEGAL = re.compile("[\ufffe\uffff]")
"""What no XML may hold; control characters are escapes already."""


class Cell(NamedTuple):
    """One picture and one text."""

    value: str
    share: float
    """Where its value stands between the lowest (0) and the highest (1)."""
    best: bool


@dataclass(frozen=True)
class Heatmap:
    """What is drawn: N pictures and M texts."""

    names: Sequence[str]
    """N, printable, with folders."""
    pictures: Sequence[Image.Image | None]
    """N small ones; None where there is none any more."""
    texts: Sequence[str]
    """M, printable."""
    cells: Sequence[Sequence[Cell]]
    """M lines of N."""
    legend: tuple[str, str, str]
    """What the lightest colour is, what the darkest, and what the numbers are."""


class _Box(NamedTuple):
    left: float
    top: float
    width: float
    height: float
    colour: str
    frame: bool = False


class _Words(NamedTuple):
    x: float
    y: float
    """The middle of their height."""
    text: str
    size: float
    colour: str
    anchor: str
    """start, middle or end: what of them is at `x`."""


class _Picture(NamedTuple):
    left: float
    top: float
    width: float
    height: float
    image: Image.Image
    title: str


_Shape = _Box | _Words | _Picture


def shade(share: float) -> tuple[str, str]:
    """The colour of a cell, and that of what is written in it."""
    place = share * (len(_RAMP) - 1)
    first = min(int(place), len(_RAMP) - 2)
    mixed = (round(a + (b - a) * (place - first)) for a, b in zip(_RAMP[first], _RAMP[first + 1], strict=True))
    return "#{:02x}{:02x}{:02x}".format(*mixed), _WHITE if share > _SWITCH else _BLACK


def jpeg(picture: Image.Image) -> bytes:
    """A picture for a page or an SVG."""
    out = io.BytesIO()
    picture.save(out, "JPEG", quality=85)
    return out.getvalue()


# --- where things go ---


def _laid_out(heatmap: Heatmap) -> tuple[float, float, list[_Shape]]:
    """Width, height, and what is drawn, the first at the bottom."""
    width = next((width for most, width in _WIDTHS if len(heatmap.names) <= most), _LEAST_WIDTH)
    labels = [_wrapped(text) for text in heatmap.texts]
    size = _SMALL if width == _LEAST_WIDTH else _SIZE
    left = _MARGIN + max(_length(line, _SIZE) for lines in labels for line in lines) + 12
    top = _MARGIN + width + _LEADING + 4
    shapes: list[_Shape] = []
    # 1. Pictures along the top.
    for i, (name, picture) in enumerate(zip(heatmap.names, heatmap.pictures, strict=True)):
        shapes += _heading(left + i * (width + _GAP), width, name, picture)
    # 2. A line for each text.
    for j, (lines, cells) in enumerate(zip(labels, heatmap.cells, strict=True)):
        y = top + j * (_LINE + _GAP)
        middle = y + _LINE / 2 - (len(lines) - 1) * _LEADING / 2
        shapes += (_Words(left - 10, middle + n * _LEADING, s, _SIZE, _DARK, "end") for n, s in enumerate(lines))
        for i, cell in enumerate(cells):
            x = left + i * (width + _GAP)
            colour, ink = shade(cell.share)
            shapes.append(_Box(x, y, width, _LINE, colour, cell.best))
            shapes.append(_Words(x + width / 2, y + _LINE / 2, cell.value, size, ink, "middle"))
    # 3. What the colours mean.
    bottom = top + len(labels) * (_LINE + _GAP) + 16
    legend = list(_legend(heatmap.legend, bottom))
    shapes += legend
    right = max(left + len(heatmap.names) * (width + _GAP), *map(_right, legend)) + _MARGIN
    return right, bottom + 12 + _MARGIN, shapes


def _heading(x: float, width: float, name: str, picture: Image.Image | None) -> Iterator[_Shape]:
    """A picture, as large as its square allows, and the name of its file."""
    if picture:
        scale = min(width / picture.width, width / picture.height)
        w, h = picture.width * scale, picture.height * scale
        yield _Picture(x + (width - w) / 2, _MARGIN + width - h, w, h, picture, name)
    else:
        yield _Box(x, _MARGIN, width, width, _EMPTY)
    short = _cut(os.path.basename(name), _SMALL, width)
    yield _Words(x + width / 2, _MARGIN + width + _LEADING / 2 + 1, short, _SMALL, _MUTED, "middle")


def _legend(legend: tuple[str, str, str], top: float) -> Iterator[_Shape]:
    low, high, what = legend
    y, x = top + 6, _MARGIN
    yield _Words(x, y, low, _SMALL, _MUTED, "start")
    x += _length(low, _SMALL) + 8
    steps = 40
    for step in range(steps):
        yield _Box(x + step * 4, top, 4.2, 12, shade(step / (steps - 1))[0])  # no gaps between them
    x += steps * 4 + 8
    yield _Words(x, y, high, _SMALL, _MUTED, "start")
    yield _Words(x + _length(high, _SMALL) + 12, y, what, _SMALL, _MUTED, "start")


def _right(shape: _Shape) -> float:
    if isinstance(shape, _Words):
        return shape.x + _length(shape.text, shape.size)
    return shape.left + shape.width


def _length(text: str, size: float) -> float:
    """How wide `text` is, roughly: which font a viewer has is not known."""
    return size * (cell_len(text) * _EM_A_CELL + sum(map(str.isupper, text)) * _EM_A_CAPITAL)


def _cut(text: str, size: float, width: float) -> str:
    """The beginning of `text`, as much as fits."""
    if _length(text, size) <= width:
        return text
    while text and _length(text + _DOTS, size) > width:
        text = text[:-1]
    return text + _DOTS


def _wrapped(text: str) -> list[str]:
    """`text` in a few lines."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and _length(longer, _SIZE) > _TEXT_WIDTH:
            lines.append(word)
        else:
            lines[-1] = longer
    if len(lines) > _TEXT_LINES:
        lines[_TEXT_LINES - 1 :] = [" ".join(lines[_TEXT_LINES - 1 :])]
    return [_cut(line, _SIZE, _TEXT_WIDTH) for line in lines]


# --- SVG ---


def drawn_svg(heatmap: Heatmap) -> bytes:
    """An SVG that needs nothing else."""
    width, height, shapes = _laid_out(heatmap)
    body = "\n".join(map(_svg, shapes))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}" '
        f'height="{height:.0f}" font-family="system-ui, sans-serif">\n<!-- clipsearch heatmap -->\n'
        f'<rect width="100%" height="100%" fill="{_WHITE}"/>\n{body}\n</svg>\n'
    ).encode("utf-8", "replace")


def _svg(shape: _Shape) -> str:
    if isinstance(shape, _Words):
        return (
            f'<text x="{shape.x:.1f}" y="{shape.y:.1f}" font-size="{shape.size:g}" fill="{shape.colour}" '
            f'text-anchor="{shape.anchor}" dominant-baseline="central">{_xml(shape.text)}</text>'
        )
    place = f'x="{shape.left:.1f}" y="{shape.top:.1f}" width="{shape.width:.1f}" height="{shape.height:.1f}"'
    if isinstance(shape, _Picture):
        data = base64.b64encode(jpeg(shape.image)).decode()
        return f'<image {place} href="data:image/jpeg;base64,{data}"><title>{_xml(shape.title)}</title></image>'
    box = f'<rect {place} fill="{shape.colour}"/>'
    if not shape.frame:
        return box
    inner = f'x="{shape.left + 1.5:.1f}" y="{shape.top + 1.5:.1f}" width="{shape.width - 3:.1f}"'
    return f'{box}<rect {inner} height="{shape.height - 3:.1f}" fill="none" stroke="{_FRAME}" stroke-width="3"/>'


def _xml(text: str) -> str:
    return escape(_ILLEGAL.sub("\ufffd", text))


# --- PNG ---


def drawn_png(heatmap: Heatmap) -> bytes:
    """A PNG. Letters are those of DejaVu Sans, which comes with matplotlib; what it lacks becomes boxes."""
    import warnings

    from matplotlib.figure import Figure

    width, height, shapes = _laid_out(heatmap)
    figure = Figure(figsize=(width / _INCH, height / _INCH), dpi=_DOTS_AN_INCH)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    for order, shape in enumerate(shapes):
        _put(shape, axes, order)
    axes.set(xlim=(0, width), ylim=(height, 0))
    out = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing", category=UserWarning)
        figure.savefig(out, format="png", metadata={"Software": "clipsearch heatmap"})
    return out.getvalue()


def _put(shape: _Shape, axes: Axes, order: int) -> None:
    """Put one shape above those of a lower `order`."""
    from matplotlib.patches import Rectangle

    if isinstance(shape, _Words):
        axes.text(
            shape.x,
            shape.y,
            shape.text,
            fontsize=shape.size * _POINTS,
            color=shape.colour,
            horizontalalignment=_ANCHORS[shape.anchor],
            verticalalignment="center_baseline",
            zorder=order,
            parse_math=False,  # a dollar sign is one, and begins no formula
        )
    elif isinstance(shape, _Picture):
        sides = (shape.left, shape.left + shape.width, shape.top + shape.height, shape.top)
        axes.imshow(np.asarray(shape.image), extent=sides, aspect="auto", zorder=order)
    else:
        corner = (shape.left, shape.top)
        axes.add_patch(Rectangle(corner, shape.width, shape.height, facecolor=shape.colour, linewidth=0, zorder=order))
        if shape.frame:
            inner = (shape.left + 1.5, shape.top + 1.5)
            size = (shape.width - 3, shape.height - 3)
            line = 3 * _POINTS
            axes.add_patch(Rectangle(inner, *size, fill=False, edgecolor=_FRAME, linewidth=line, zorder=order))
