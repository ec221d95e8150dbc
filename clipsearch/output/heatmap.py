"""Heatmap of images against texts, as an HTML page with the images embedded; `heatmap.html` is its template.

Owns the text and colour of the cells. Knows nothing of indexes, models or the command line.
"""

from __future__ import annotations

import base64
import contextlib
import io
import os
import re
from collections.abc import Sequence
from html import escape
from importlib import resources
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from clipsearch import __version__
from clipsearch.errors import InputError, UnreadableImageError
from clipsearch.output.atomic import Kind, check_replaceable, replacing
from clipsearch.output.matrix import name_of
from clipsearch.output.page import policy
from clipsearch.output.paths import escaped
from clipsearch.output.thumbnails import thumbnail
from clipsearch.system.cores import available
from clipsearch.system.parallel import map_in_order
from clipsearch.tasks.similarity import Comparison

_KIND = Kind("heatmap", b'<meta name="generator" content="clipsearch ')
_SIDE = 192
"""Pixels of the longest side of an image: twice its size on the page, for high-resolution screens."""
_MOST, _MOST_CELLS = 400, 10_000
"""Largest number of images or texts, and of cells, that a person can look through."""
_RAMP = ((0xF4, 0xF7, 0xFB), (0x74, 0xAC, 0xDB), (0x12, 0x3A, 0x7C))


"""RGB colours from the lowest value to the highest. Each is darker than the one before, also in grey."""
_BLACK, _WHITE = "#000000", "#ffffff"
_SWITCH = 0.725
"""Share from which numbers are white instead of black, so that the contrast is 4.5 or more (WCAG 2.2, 1.4.3)."""
_SHADES = 64
"""Number of cell colours. The page's policy allows no inline style, so each colour is a class of the template."""


class Cell(NamedTuple):
    """Cell of one image and one text."""

    value: str
    """The value as text."""
    share: float
    """Position of the value between the lowest (0) and the highest (1)."""
    best: bool
    """Whether it is the best value."""


def check_heatmap(path: Path, images: int, texts: int) -> None:
    """Check, before any work, that a heatmap with this number of `images` and `texts` may be written to `path`.

    Raises:
        InputError: the extension is not .html, the heatmap would be too large, or `path` is another kind of file.
    """
    if path.suffix.lower() != ".html":
        raise InputError(
            f"A heatmap is a page: {path} has to end with .html. For a picture or a PDF, print the page from a browser."
        )
    if max(images, texts) > _MOST or images * texts > _MOST_CELLS:
        raise InputError(
            f"{images} x {texts} cells are too many: a heatmap has at most {_MOST} pictures or texts, and "
            f"{_MOST_CELLS} cells.",
            hint="as-csv",
        )
    check_replaceable(path, _KIND)


def write_heatmap(path: Path, found: Comparison, files: Sequence[bytes], *, probabilities: bool = False) -> str:
    """Write the heatmap of a comparison to `path`, atomically; only an earlier heatmap is replaced.

    Args:
        path: The page to write.
        found: The comparison of N images with texts.
        files: The N paths of the images, which are read in threads. An image that cannot be read is left blank.
        probabilities: Show probabilities instead of cosines.

    Returns:
        A sentence that says what was done.

    Raises:
        InputError: as for `check_heatmap`, or `path` cannot be written.
    """
    check_heatmap(path, len(found.images), len(found.texts))
    content = _page(found, _thumbnails(files), probabilities=probabilities)
    with replacing(path, _KIND) as file:
        file.write(content)
    return f"Wrote {path}."


# --- what it shows ---


def _cells(found: Comparison, *, probabilities: bool) -> list[list[Cell]]:
    """Return a row for each text, with a cell for each image."""
    values = (found.probabilities if probabilities else found.scores).astype(np.float64)
    low, high = (0.0, 1.0) if probabilities else (float(values.min()), float(values.max()))
    shares = (values - low) / (high - low) if high > low else np.full(values.shape, 0.5)
    form = "{:.0%}" if probabilities else "{:.3f}"
    lines = zip(values.T.tolist(), shares.T.tolist(), found.ranks.T.tolist(), strict=True)
    return [
        [Cell(form.format(value), share, rank == 1) for value, share, rank in zip(*line, strict=True)] for line in lines
    ]


def _legend(found: Comparison, *, probabilities: bool) -> tuple[str, str, str]:
    """Return the texts for the lightest and the darkest colour, and for the meaning of the numbers."""
    if probabilities:
        return "0%", "100%", "probability; framed: what fits best"
    return f"{found.scores.min():.3f}", f"{found.scores.max():.3f}", "cosine of picture and text; framed: the best"


def shade(share: float) -> tuple[str, str]:
    """Return the colour of a cell, and of the text in it."""
    place = share * (len(_RAMP) - 1)
    first = min(int(place), len(_RAMP) - 2)
    mixed = (round(a + (b - a) * (place - first)) for a, b in zip(_RAMP[first], _RAMP[first + 1], strict=True))
    return "#{:02x}{:02x}{:02x}".format(*mixed), _WHITE if share > _SWITCH else _BLACK


def _thumbnails(files: Sequence[bytes]) -> list[Image.Image | None]:
    workers = available()
    with contextlib.closing(map_in_order(_thumbnail, files, workers, 2 * workers)) as images:
        return list(images)


def _thumbnail(path: bytes) -> Image.Image | None:
    """Read an image without its colour profile (which is nearly sRGB); None if it cannot be read."""
    try:
        image = thumbnail(path, _SIDE)
    except UnreadableImageError:
        return None
    image.info.clear()
    return image


# --- the page ---


def _page(found: Comparison, images: Sequence[Image.Image | None], *, probabilities: bool) -> bytes:
    template = resources.files("clipsearch.output").joinpath("heatmap.html").read_text("utf-8")
    # 1. The style, which the policy allows by its hash.
    shades = ((step / (_SHADES - 1), step) for step in range(_SHADES))
    colours = "\n".join(f".v{step} {{ background: {shade(s)[0]}; color: {shade(s)[1]}; }}" for s, step in shades)
    gradient = ", ".join(shade(step / 8)[0] for step in range(9))
    template = template.replace("/* shades */", colours).replace("/* gradient */", gradient)
    # 2. The rest, in one pass, so that a text that looks like a placeholder is not replaced.
    low, high, what = _legend(found, probabilities=probabilities)
    names = [name_of(image) for image in found.images]
    texts = [escaped(text) for text in found.texts]
    values = {
        "generator": f"clipsearch {__version__}",
        "policy": policy(template),
        "low": low,
        "high": high,
        "what": what,
        "images": "".join(map(_column, names, images)),
        "texts": "".join(map(_line, texts, _cells(found, probabilities=probabilities))),
    }
    return re.sub(r"\{\{(\w+)\}\}", lambda place: values[place[1]], template).encode("utf-8", "replace")


def _column(name: str, image: Image.Image | None) -> str:
    shown = '<span class="gone"></span>'
    if image:
        data = base64.b64encode(_jpeg(image)).decode()
        shown = f'<img alt="" width="{image.width}" height="{image.height}" src="data:image/jpeg;base64,{data}">'
    title = escape(name)
    return f'<th scope="col" title="{title}">{shown}<span class="name">{escape(os.path.basename(name))}</span></th>\n'


def _jpeg(image: Image.Image) -> bytes:
    out = io.BytesIO()
    image.save(out, "JPEG", quality=85)
    return out.getvalue()


def _line(text: str, cells: Sequence[Cell]) -> str:
    shown = "".join(
        f'<td class="v{round(cell.share * (_SHADES - 1))}{" best" if cell.best else ""}">{cell.value}</td>'
        for cell in cells
    )
    return f'<tr><th scope="row">{escape(text)}</th>{shown}</tr>\n'
