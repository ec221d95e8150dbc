"""Page that shows where in images texts fit, as maps over the images; `text_maps.html` is its template.

Owns the colours of the maps and what lies where on the page. Knows nothing of indexes, models or the command line.
"""

from __future__ import annotations

import base64
import contextlib
import io
import os
import re
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from clipsearch import __version__
from clipsearch.errors import InputError, UnreadableImageError
from clipsearch.output.atomic import Kind, check_replaceable, replacing
from clipsearch.output.matrix import name_of
from clipsearch.output.page import html, policy
from clipsearch.output.thumbnails import thumbnail
from clipsearch.search.text_maps import TextMap
from clipsearch.system.cores import available
from clipsearch.system.parallel import map_in_order
from clipsearch.tasks.similarity import Comparison

_Cosines = npt.NDArray[np.float32]
_KIND = Kind("map", b'<meta name="generator" content="clipsearch ')
_MOST = 200
"""Largest number of maps on a page."""
_SIDE = 640
"""Longest side of an image on the page in pixels."""
_RAMP = ((0x08, 0x12, 0x40), (0x1F, 0x5A, 0x8C), (0x4F, 0xA6, 0x93), (0xF9, 0xE6, 0x4C))
"""RGB colours from the lowest cosine to the highest. Each is lighter than the one before, so that people who see few
colours, or none, see the same order."""
_SHADES = 128
_SMOOTH = 128
"""Longest side of a smooth map in pixels; the browser enlarges it."""


class _Range(NamedTuple):
    """The cosines of the darkest and of the lightest colour."""

    low: float
    high: float


def check_map(path: Path, images: int, texts: int) -> None:
    """Check, before any work, that a page with maps of `images` and `texts` may be written to `path`.

    Raises:
        InputError: the extension is not .html, there would be too many maps, or `path` is another kind of file.
    """
    if path.suffix.lower() != ".html":
        raise InputError(f"A map is a page: {path} has to end with .html. Name one that does.")
    if images * texts > _MOST:
        raise InputError(
            f"{images} x {texts} maps are too many: a page has at most {_MOST}. Name fewer pictures or texts."
        )
    check_replaceable(path, _KIND)


def write_maps(path: Path, found: Comparison, files: Sequence[bytes], maps: Mapping[int, TextMap]) -> str:
    """Write a page with maps to `path`, atomically; only an earlier page is replaced.

    Args:
        path: The page to write.
        found: The comparison of N images with M texts.
        files: The N paths of the images, which are read in threads.
        maps: The maps of all texts by the index of the image. Images without any, or that cannot be read any more, are
            left out.

    Returns:
        A sentence that says what was done.

    Raises:
        InputError: as for `check_map`, or `path` cannot be written.
    """
    check_map(path, len(found.images), len(found.texts))
    content = _page(found, files, maps)
    with replacing(path, _KIND) as file:
        file.write(content)
    return f"Wrote {path}."


# --- colours ---


def shade(share: float) -> tuple[int, int, int]:
    """Return the RGB colour of a cosine at this position between the lowest (0) and the highest (1)."""
    place = share * (len(_RAMP) - 1)
    first = min(int(place), len(_RAMP) - 2)
    red, green, blue = (
        round(a + (b - a) * (place - first)) for a, b in zip(_RAMP[first], _RAMP[first + 1], strict=True)
    )
    return red, green, blue


def _range(cosines: Sequence[_Cosines]) -> _Range:
    return _Range(min(float(one.min()) for one in cosines), max(float(one.max()) for one in cosines))


def _png(cosines: _Cosines, among: _Range) -> str:
    """Return the (H, W) cosines as an image for HTML, in the colours of a range."""
    width = among.high - among.low
    shares = (cosines - among.low) / width if width > 0 else np.full(cosines.shape, 0.5)
    levels = np.rint(np.clip(shares, 0, 1) * (_SHADES - 1)).astype(np.uint8)
    image = Image.fromarray(levels, "P")
    image.putpalette([part for step in range(_SHADES) for part in shade(step / (_SHADES - 1))])
    out = io.BytesIO()
    image.save(out, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(out.getvalue()).decode()


def _smoothed(cosines: _Cosines) -> _Cosines:
    """Enlarge (H, W) cosines; in the centre of a patch the value stays about the same."""
    times = max(1, _SMOOTH // max(cosines.shape))
    size = cosines.shape[1] * times, cosines.shape[0] * times
    return np.asarray(Image.fromarray(cosines).resize(size, Image.Resampling.BILINEAR))


# --- the page ---


def _page(found: Comparison, files: Sequence[bytes], maps: Mapping[int, TextMap]) -> bytes:
    template = resources.files("clipsearch.output").joinpath("text_maps.html").read_text("utf-8")
    gradient = ", ".join("#{:02x}{:02x}{:02x}".format(*shade(step / 8)) for step in range(9))
    template = template.replace("/* gradient */", gradient)
    places = sorted(maps)
    among = _range([maps[place].cosines for place in places]) if places else _Range(0, 0)
    many = sum(len(maps[place].cosines) for place in places) > 1
    sections = [
        _section(found, place, image, maps[place], among)
        for place, image in zip(places, _thumbnails([files[place] for place in places]), strict=True)
        if image
    ]
    values = {
        "generator": f"clipsearch {__version__}",
        "policy": policy(template),
        "title": "Where texts fit" if len(found.texts) > 1 else html(f'Where "{found.texts[0]}" fits'),
        "low": f"{among.low:.3f}",
        "high": f"{among.high:.3f}",
        "alone": "" if many else " hidden",
        "one": "" if len(found.texts) > 1 else ' class="one"',
        "sections": "".join(sections),
    }
    # In one pass, so that a text that looks like a placeholder is not replaced.
    return re.sub(r"\{\{(\w+)\}\}", lambda place: values[place[1]], template).encode("utf-8", "replace")


def _thumbnails(files: Sequence[bytes]) -> list[Image.Image | None]:
    workers = available()
    with contextlib.closing(map_in_order(_thumbnail, files, workers, 2 * workers)) as images:
        return list(images)


def _thumbnail(path: bytes) -> Image.Image | None:
    try:
        return thumbnail(path, _SIDE)
    except UnreadableImageError:
        return None


def _section(found: Comparison, place: int, image: Image.Image, made: TextMap, among: _Range) -> str:
    """Return the HTML of an image with its maps."""
    name = name_of(found.images[place])
    out = io.BytesIO()
    image.save(out, "WEBP", quality=75)
    data = base64.b64encode(out.getvalue()).decode()
    drawn = _Drawn(f"p{place}", image.width, image.height, made)
    figures = "".join(
        _figure(drawn, number, text, float(found.scores[place, number]), among)
        for number, text in enumerate(found.texts)
    )
    cut = '<p class="muted">The model sees the framed part only.</p>' if drawn.is_cut else ""
    return (
        f'<section><h2 title="{html(name)}">{html(os.path.basename(name))}</h2>{cut}\n'
        f'<svg width="0" height="0" aria-hidden="true"><defs><image id="{drawn.id}" width="{image.width}" '
        f'height="{image.height}" href="data:image/webp;base64,{data}"/></defs></svg>\n<ul>\n{figures}</ul></section>\n'
    )


class _Drawn(NamedTuple):
    """An image on the page, with its maps."""

    id: str
    width: int
    """Width in pixels."""
    height: int
    made: TextMap

    @property
    def part(self) -> tuple[float, float, float, float]:
        """Left, upper edge, width and height of the maps, in the pixels of the page's image."""
        x, y = self.width / self.made.size[0], self.height / self.made.size[1]
        left, top, right, bottom = self.made.part
        return left * x, top * y, (right - left) * x, (bottom - top) * y

    @property
    def is_cut(self) -> bool:
        """Whether more than a pixel on some side is not seen by the model."""
        left, top, width, height = self.part
        return left > 1 or top > 1 or left + width < self.width - 1 or top + height < self.height - 1


def _figure(drawn: _Drawn, number: int, text: str, score: float, among: _Range) -> str:
    """Return the HTML of one map: the image, the map in the colours of all maps and in its own, the best patch."""
    cosines = drawn.made.cosines[number]
    own, smooth = _range([cosines]), _smoothed(cosines)
    left, top, width, height = drawn.part
    where = f'x="{left:.2f}" y="{top:.2f}" width="{width:.2f}" height="{height:.2f}"'
    layers = "".join(
        f'<image class="map {kind}" {where} preserveAspectRatio="none" href="{_png(values, colours)}"/>'
        for kind, values, colours in (
            ("all smooth", smooth, among),
            ("own smooth", smooth, own),
            ("all cells", cosines, among),
            ("own cells", cosines, own),
        )
    )
    rows, columns = cosines.shape
    row, column = divmod(int(cosines.argmax()), columns)
    x, y = left + (column + 0.5) / columns * width, top + (row + 0.5) / rows * height
    frame = f'<rect class="frame" {where}/>' if drawn.is_cut else ""
    ring = f'<circle class="under" cx="{x:.2f}" cy="{y:.2f}" r="2.2%"/><circle cx="{x:.2f}" cy="{y:.2f}" r="2.2%"/>'
    label = f"{text}: fits best {x / drawn.width:.0%} from the left and {y / drawn.height:.0%} from the top"
    return (
        f'<li><svg class="picture" viewBox="0 0 {drawn.width} {drawn.height}" role="img" aria-label="{html(label)}">'
        f'<use href="#{drawn.id}"/>{layers}{frame}{ring}</svg>'
        f'<p class="text">{html(text)}</p><p class="muted">score {score:.3f} · best patch {own.high:.3f}</p></li>\n'
    )
