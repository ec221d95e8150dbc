"""A matrix of pictures and texts to look at: a page, an SVG or a PNG, with the pictures in it.

Owns what a cell says and its colour, the page (`heatmap.html` beside this file is its template), and that no file of
the user's is overwritten. `heatmap_drawing` has the drawing. Knows nothing of indexes, models or the command line.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import os
import re
from collections.abc import Callable, Sequence
from html import escape
from importlib import resources
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from clipsearch import __version__
from clipsearch.cores import available
from clipsearch.errors import InputError, UnreadableImageError
from clipsearch.images.reading import map_in_order
from clipsearch.output.heatmap_drawing import Cell, Heatmap, drawn_png, drawn_svg, jpeg, shade
from clipsearch.output.matrix import name_of
from clipsearch.output.paths import escaped
from clipsearch.output.replacing import Kind, check_replaceable, replacing
from clipsearch.output.thumbnails import thumbnail
from clipsearch.zeroshot import Comparison

_SIDE = 192
"""Pixels of a picture: twice what it is shown at, for fine screens."""
_MOST = 400
"""Pictures or texts: what a person can look through."""
_SHADES = 64
"""Of the page's cells. Its policy allows no style but that of the template, so each is a class there."""


class _Kind(NamedTuple):
    """A kind of file."""

    kind: Kind
    draw: Callable[[Heatmap], bytes]
    most: int
    """Cells: what takes seconds to draw."""


def check_heatmap(path: Path, pictures: int, texts: int) -> None:
    """Make sure that a heatmap of so many `pictures` and `texts` may be written to `path`, as far as can be told.

    Raises:
        InputError: its ending is unknown, or what draws it is not installed, or it would be too large, or there is
            something else than a heatmap of ours.
    """
    kind = _KINDS.get(path.suffix.lower())
    if kind is None:
        raise InputError(f"A heatmap is a page or a picture: {path} has to end with .html, .svg or .png.")
    if path.suffix.lower() == ".png" and find_spec("matplotlib") is None:
        raise InputError(
            "Drawing a PNG needs matplotlib: pip install 'clipsearch[plot]'. FILE.html and FILE.svg do not."
        )
    if max(pictures, texts) > _MOST or pictures * texts > kind.most:
        raise InputError(
            f"{pictures} x {texts} cells are too many: a heatmap has at most {_MOST} pictures or texts, and as "
            f"{path.suffix} {kind.most} cells. Use --format csv."
        )
    check_replaceable(path, kind.kind)


def write_heatmap(path: Path, found: Comparison, files: Sequence[bytes], *, probabilities: bool = False) -> str:
    """Draw a comparison, and write it to `path`, whole or not at all; it replaces nothing but a heatmap.

    `files` are the (N) paths of the pictures, which are read now, in threads. A picture that cannot be read any more
    is left blank. Says what was done.

    Raises:
        InputError: as for `check_heatmap`, or `path` cannot be written.
    """
    check_heatmap(path, len(found.pictures), len(found.texts))
    heatmap = Heatmap(
        names=[name_of(picture) for picture in found.pictures],
        pictures=_thumbnails(files),
        texts=[escaped(text) for text in found.texts],
        cells=_cells(found, probabilities=probabilities),
        legend=_legend(found, probabilities=probabilities),
    )
    kind = _KINDS[path.suffix.lower()]
    content = kind.draw(heatmap)
    with replacing(path, kind.kind) as file:
        file.write(content)
    return f"Wrote {path}."


# --- what it shows ---


def _cells(found: Comparison, *, probabilities: bool) -> list[list[Cell]]:
    """A line for each text, with a cell for each picture."""
    values = (found.probabilities if probabilities else found.scores).astype(np.float64)
    low, high = (0.0, 1.0) if probabilities else (float(values.min()), float(values.max()))
    shares = (values - low) / (high - low) if high > low else np.full(values.shape, 0.5)
    form = "{:.0%}" if probabilities else "{:.3f}"
    lines = zip(values.T.tolist(), shares.T.tolist(), found.ranks.T.tolist(), strict=True)
    return [
        [Cell(form.format(value), share, rank == 1) for value, share, rank in zip(*line, strict=True)] for line in lines
    ]


def _legend(found: Comparison, *, probabilities: bool) -> tuple[str, str, str]:
    """What the lightest colour is, what the darkest, and what the numbers are."""
    if probabilities:
        return "0%", "100%", "probability; framed: what fits best"
    return f"{found.scores.min():.3f}", f"{found.scores.max():.3f}", "cosine of picture and text; framed: the best"


def _thumbnails(files: Sequence[bytes]) -> list[Image.Image | None]:
    workers = available()
    with contextlib.closing(map_in_order(_thumbnail, files, workers, 2 * workers)) as pictures:
        return list(pictures)


def _thumbnail(path: bytes) -> Image.Image | None:
    """Without the profile that a picture may still have, for it is nearly sRGB, which is all that a drawing has."""
    try:
        picture = thumbnail(path, _SIDE)
    except UnreadableImageError:
        return None
    picture.info.clear()
    return picture


# --- the page ---


def _page(heatmap: Heatmap) -> bytes:
    template = resources.files("clipsearch.output").joinpath("heatmap.html").read_text("utf-8")
    # 1. The style, which the policy knows by its hash.
    shades = ((step / (_SHADES - 1), step) for step in range(_SHADES))
    colours = "\n".join(f".v{step} {{ background: {shade(s)[0]}; color: {shade(s)[1]}; }}" for s, step in shades)
    gradient = ", ".join(shade(step / 8)[0] for step in range(9))
    template = template.replace("/* shades */", colours).replace("/* gradient */", gradient)
    style = template.split("<style>")[1].split("</style>")[0]
    own = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    # 2. The rest, in one go, so that a text that looks like a place in the template stays what it is.
    low, high, what = heatmap.legend
    values = {
        "generator": f"clipsearch {__version__}",
        "policy": f"default-src 'none'; img-src data:; style-src 'sha256-{own}'; base-uri 'none'; form-action 'none'",
        "low": low,
        "high": high,
        "what": what,
        "pictures": "".join(map(_column, heatmap.names, heatmap.pictures)),
        "texts": "".join(map(_line, heatmap.texts, heatmap.cells)),
    }
    return re.sub(r"\{\{(\w+)\}\}", lambda place: values[place[1]], template).encode("utf-8", "replace")


def _column(name: str, picture: Image.Image | None) -> str:
    shown = '<span class="gone"></span>'
    if picture:
        data = base64.b64encode(jpeg(picture)).decode()
        shown = f'<img alt="" width="{picture.width}" height="{picture.height}" src="data:image/jpeg;base64,{data}">'
    title = escape(name)
    return f'<th scope="col" title="{title}">{shown}<span class="name">{escape(os.path.basename(name))}</span></th>\n'


def _line(text: str, cells: Sequence[Cell]) -> str:
    shown = "".join(
        f'<td class="v{round(cell.share * (_SHADES - 1))}{" best" if cell.best else ""}">{cell.value}</td>'
        for cell in cells
    )
    return f'<tr><th scope="row">{escape(text)}</th>{shown}</tr>\n'


# --- the file ---

_KINDS = {
    ".html": _Kind(Kind("heatmap", b'<meta name="generator" content="clipsearch '), _page, 10_000),
    ".svg": _Kind(Kind("heatmap", b"<!-- clipsearch heatmap -->"), drawn_svg, 10_000),
    ".png": _Kind(Kind("heatmap", b"clipsearch heatmap"), drawn_png, 2_500),
}
