"""A page with the images of hits in one file, for browsers; `gallery.html` beside this file is its template.

The region that a query fits best is outlined on each image, or, if asked for, shown instead of it.

Owns the content of tiles and the escaping of names in the page, and replaces only earlier pages of its own. Knows
nothing of indexes, models or the command line.
"""

from __future__ import annotations

import base64
import contextlib
import io
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import BinaryIO, NamedTuple

from clipsearch import __version__
from clipsearch.errors import UnreadableImageError
from clipsearch.output.atomic import Kind, replacing
from clipsearch.output.hits import Found, parts
from clipsearch.output.page import html, policy, with_parts
from clipsearch.output.paths import printable, typed
from clipsearch.output.thumbnails import Edges, in_words, thumbnail, thumbnail_of_region
from clipsearch.search.hit import Hit
from clipsearch.system.addresses import is_address, url_of
from clipsearch.system.cores import available
from clipsearch.system.counting import plural
from clipsearch.system.members import on_disk
from clipsearch.system.parallel import map_in_order

PAGE = Kind("page", b'<meta name="generator" content="clipsearch ')
_SIDES = ((120, 1024), (1200, 640))
"""(most images, longest side of each in pixels): pages stay below about 20 MB, and 500 images scroll smoothly."""
_LEAST_SIDE = 320
_QUALITY, _EFFORT = 75, 2
"""Quality and effort of WebP, 40 % smaller than JPEG at the same look. More effort gains 3 % in triple time."""


class Section(NamedTuple):
    """One query and its hits."""

    title: str
    """The query in words."""
    hits: Sequence[Hit]


class About(NamedTuple):
    """Words of a page."""

    one: str = "query"
    """Word for what a section belongs to."""
    more: str = "queries"
    """The plural of `one`."""
    score: str = "cosine of query and picture"
    title: str | None = None
    """What all sections belong to. By default the title of the only section, or the number of sections."""

    def counted(self, number: int) -> str:
        """Return a number of sections in words."""
        return f"{number} {self.one if number == 1 else self.more}"


OF_QUERIES = About()


def of_found(found: Sequence[Found], by: str | None) -> tuple[list[Section], About]:
    """Return the sections of a page with the hits of queries, and its words: for each query, or group of hits, one."""
    many = len(found) > 1
    sections = [Section(title or found[0].query, hits) for title, hits in parts(found, by, many=many)]
    if by is None:
        return sections, OF_QUERIES
    return sections, About(by, f"{by}s", title=OF_QUERIES.counted(len(found)) if many else found[0].query)


class _Source(NamedTuple):
    """What is embedded: an image, or a region of one."""

    path: bytes
    box: Edges | None = None
    """The region; None for the whole image."""
    size: tuple[int, int] | None = None
    """Width and height of the whole image, of which a region is taken, as far as they are known."""

    @classmethod
    def of(cls, hit: Hit, *, crop: bool) -> _Source:
        """Return what is shown of a hit: with `crop` its region, if it has one."""
        if not crop or hit.box is None:
            return cls(hit.path_bytes)
        return cls(hit.path_bytes, hit.box, (hit.width, hit.height) if hit.width and hit.height else None)


class _Embedded(NamedTuple):
    """An image encoded for the page."""

    webp: bytes
    width: int
    """Width in pixels."""
    height: int


class _Shown(NamedTuple):
    """An image that the page contains already."""

    number: int
    width: int
    height: int


def write_gallery(path: Path, sections: Sequence[Section], about: About = OF_QUERIES, *, crop: bool = False) -> None:
    """Write a page that shows `sections` to `path`, atomically; only an earlier page is replaced.

    Each image is read in a thread and embedded once. The tile of an image that cannot be read says so. With `crop`,
    hits that have a box are shown as this region alone.

    Raises:
        InputError: `path` is another kind of file or a folder, or cannot be written.
    """
    head, tail = _template(sections, about, crop=crop)
    with replacing(path, PAGE) as file:
        file.write(head)
        _write_sections(sections, file, crop=crop, alone=_is_alone(sections, about))
        file.write(tail)


# --- the page around the tiles ---


def _template(sections: Sequence[Section], about: About, *, crop: bool) -> tuple[bytes, bytes]:
    """Return the page before the sections, and after them."""
    template = with_parts(resources.files("clipsearch.output").joinpath("gallery.html").read_text("utf-8"))
    head, tail = template.split("{{sections}}")
    titles = [html(section.title) for section in sections]
    only = titles[0] if _is_alone(sections, about) else None
    title = html(about.title) if about.title is not None else only or about.counted(len(titles))
    values = {
        "generator": f"clipsearch {__version__}",
        "policy": policy(template),
        "title": f"{title} · clipsearch",
        "heading": title,
        "legend": _legend(sections, about, crop=crop),
        "boxes": "" if crop or not _any_box(sections) else ' data-boxes="shown"',
        "contents": "" if only else _contents(titles, about),
    }
    # In one pass, so that a query that looks like a placeholder is not replaced.
    return re.sub(r"\{\{(\w+)\}\}", lambda place: values[place[1]], head).encode(), tail.encode()


def _is_alone(sections: Sequence[Section], about: About) -> bool:
    """Whether the title of the page says what its only section is."""
    return len(sections) == 1 and about.title in (None, sections[0].title)


def _any_box(sections: Sequence[Section]) -> bool:
    return any(hit.box for section in sections for hit in section.hits)


def _legend(sections: Sequence[Section], about: About, *, crop: bool) -> str:
    """Return the line that explains the figures of the tiles and what is shown of the images."""
    hits = [hit for section in sections for hit in section.hits]
    legend = f"{plural(len(hits), 'hit')} · score: {about.score}"
    if any(hit.confidence is not None for hit in hits):
        legend += " · %: how sure it is that the picture shows the query"
    if _any_box(sections):
        legend += f" · {'cut to' if crop else 'frame:'} the part of the picture that fits best"
    return legend


def _contents(titles: Iterable[str], about: About) -> str:
    links = "".join(f'<li><a href="#query{number}">{title}</a></li>' for number, title in enumerate(titles, 1))
    return f'<nav aria-label="{about.more.capitalize()}"><ul>{links}</ul></nav>\n'


# --- tiles ---


def _write_sections(sections: Sequence[Section], file: BinaryIO, *, crop: bool, alone: bool) -> None:
    """Write the tiles image by image, so that only a few images are in memory at a time."""
    sources = list(dict.fromkeys(_Source.of(hit, crop=crop) for section in sections for hit in section.hits))
    side = next((side for most, side in _SIDES if len(sources) <= most), _LEAST_SIDE)
    workers = available()
    seen: dict[_Source, _Shown | str] = {}
    first = True
    with contextlib.closing(map_in_order(lambda one: _embed(one, side), sources, workers, 2 * workers)) as images:
        for number, section in enumerate(sections, 1):
            file.write(_section_head(section, number, alone=alone).encode())
            for hit in section.hits:
                source = _Source.of(hit, crop=crop)
                image = _image(hit, source, seen, images)
                file.write(_tile(hit, image, source, seen[source], first=first))
                first = False
            file.write(b"</ul>\n</section>\n" if section.hits else b"</section>\n")


def _section_head(section: Section, number: int, *, alone: bool) -> str:
    title = "" if alone else f"<h2>{html(section.title)}</h2>"
    count = "" if alone else f'<p class="muted">{plural(len(section.hits), "hit")}</p>'
    heading = f'<div class="heading">{title}{count}</div>\n' if title else ""
    body = '<ul class="grid">\n' if section.hits else "<p>Nothing found.</p>\n"
    return f'<section id="query{number}">\n{heading}{body}'


def _embed(source: _Source, side: int) -> _Embedded | str:
    """Read and encode an image or a region of one; return the reason if it cannot be read."""
    path, box, size = source
    try:
        image = thumbnail_of_region(path, box, size, side) if box else thumbnail(path, side)
    except UnreadableImageError as error:
        return str(error)
    out = io.BytesIO()
    image.save(out, "WEBP", quality=_QUALITY, method=_EFFORT)
    return _Embedded(out.getvalue(), image.width, image.height)


def _image(hit: Hit, source: _Source, seen: dict[_Source, _Shown | str], images: Iterator[_Embedded | str]) -> bytes:
    """Return the HTML of a tile's image; the script of the page copies an image that the page contains already."""
    name = html(_name(hit))
    if source in seen:
        known = seen[source]
        if isinstance(known, str):
            return _gone(known)
        size = f'width="{known.width}" height="{known.height}"'
        return f'<img data-same="p{known.number}" alt="{name}" {size}>'.encode()
    image = next(images)
    if isinstance(image, str):
        seen[source] = image
        return _gone(image)
    number = len(seen) + 1
    seen[source] = _Shown(number, image.width, image.height)
    size = f'width="{image.width}" height="{image.height}"'
    start = f'<img id="p{number}" alt="{name}" {size} decoding="async" loading="lazy" src="data:image/webp;base64,'
    return start.encode() + base64.b64encode(image.webp) + b'">'


def _gone(reason: str) -> bytes:
    return f'<span class="gone"><b>No picture:</b> {html(reason)}</span>'.encode()


def _outline(hit: Hit, shown: _Shown) -> bytes:
    """Return the HTML of the outline of a hit's box, over its image: a line, and a wider one below it."""
    if hit.box is None or not hit.width or not hit.height:
        return b""
    x, y = shown.width / hit.width, shown.height / hit.height
    left, top, right, bottom = hit.box
    edges = f'x="{left * x:.2f}" y="{top * y:.2f}" width="{(right - left) * x:.2f}" height="{(bottom - top) * y:.2f}"'
    view = f'viewBox="0 0 {shown.width} {shown.height}"'
    return f'<svg class="box" {view} aria-hidden="true"><rect {edges}/><rect {edges}/></svg>'.encode()


def _tile(hit: Hit, image: bytes, source: _Source, shown: _Shown | str, *, first: bool) -> bytes:
    """Return the HTML of a hit; its attributes hold the text of the enlarged view for the script."""
    name = _name(hit)
    sure = "" if hit.confidence is None else f"{hit.confidence:.0%}"
    label = ", ".join(
        [
            f"{hit.rank}: {name}",
            f"score {hit.score:.3f}",
            *([f"{sure} sure"] if sure else []),
            *([f"box {in_words(hit.box)}"] if hit.box else []),
            *([f"no picture: {shown}"] if isinstance(shown, str) else []),
        ]
    )
    attributes = {
        "tabindex": "0" if first else "-1",
        "aria-label": label,
        "data-path": printable(hit.path_bytes),
        "data-href": _address(hit.path_bytes),
        "data-facts": _facts(hit, sure),
    }
    copied = typed(hit.path_bytes)
    if copied is not None:
        attributes["data-copy"] = copied
    if isinstance(shown, _Shown):
        width, height = hit.width, hit.height
        if source.box:
            width, height = source.box[2] - source.box[0], source.box[3] - source.box[1]
        attributes["data-width"] = str(width or shown.width)
        attributes["data-height"] = str(height or shown.height)
    figures = f"{hit.score:.3f}" + (f"<b>{sure}</b>" if sure else "")
    return b"".join(
        (
            f'<li><button class="tile" type="button" {_attributes(attributes)}><span class="frame">'.encode(),
            image,
            _outline(hit, shown) if isinstance(shown, _Shown) and not source.box else b"",
            f'</span><span class="caption"><span class="rank">{hit.rank}</span>'.encode(),
            f'<span class="name" title="{html(name)}">{html(name)}</span>'.encode(),
            f'<span class="figures">{figures}</span></span></button></li>\n'.encode(),
        )
    )


def _name(hit: Hit) -> str:
    return printable(os.path.basename(hit.path_bytes))


def _facts(hit: Hit, sure: str) -> str:
    """Return the line below the path in the enlarged view."""
    facts = [f"Rank {hit.rank}", f"score {hit.score:.3f}", *([f"{sure} sure"] if sure else [])]
    if hit.others:
        facts.append(f"and {hit.others} alike")
    if hit.width and hit.height:
        facts.append(f"{hit.width} × {hit.height} pixels")  # noqa: RUF001  (the sign for it)
    if hit.box:
        facts.append(f"box {in_words(hit.box)}")
    facts += [_human(hit.size), f"{'taken' if hit.taken_at else 'changed'} {hit.date.replace('T', ' ')}"]
    return " · ".join(facts)


def _human(size: int) -> str:
    """Return a size in bytes with a unit: 512 B, 48 kB, 3.2 MB."""
    amount, unit = float(size), "B"
    for larger in ("kB", "MB", "GB"):
        if amount < 999.5:  # noqa: PLR2004  (what rounds to 1000)
            break
        amount, unit = amount / 1000, larger
    return f"{amount:.1f} {unit}" if unit in ("MB", "GB") else f"{amount:.0f} {unit}"


def _address(path: bytes) -> str:
    """Return where a browser finds a file, or the archive that it lies in."""
    return os.fsdecode(url_of(path)) if is_address(path) else Path(os.fsdecode(on_disk(path))).as_uri()


def _attributes(values: Mapping[str, str]) -> str:
    return " ".join(f'{name}="{html(value)}"' for name, value in values.items())
