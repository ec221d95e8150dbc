"""Captions that stand beside images in folders and archives, as WebDataset and img2dataset write them.

Beside `000001.jpg`, `000001.txt` is its caption, or else the text under "caption" in `000001.json`.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator
from pathlib import Path

from clipsearch.datasets.tables import check_utf8, decoded
from clipsearch.errors import InputError, UnreadableImageError
from clipsearch.images.files import ImageFile, Rules
from clipsearch.images.finding import find_images
from clipsearch.images.sources import source_of
from clipsearch.system.bounded import read_up_to
from clipsearch.system.counting import plural
from clipsearch.system.members import opened, within
from clipsearch.system.paths import absolute

_log = logging.getLogger(__name__)
_LONGEST = 1 << 20
"""Bytes of a file with one caption at most."""
_KEYS = ("caption", "text", "title")
"""Names under which JSON has a caption, the first one first."""


def holds_images(place: Path) -> bool:
    """Return whether `place` is a folder or an archive, or lies in one, and no file with captions."""
    path = opened(absolute(place))
    return os.path.isdir(path) or within(path) is not None


def captions_beside(place: Path, encoding: str | None = None) -> Iterator[tuple[ImageFile, str]]:
    """Yield each image in a folder or archive, and in the archives in it, that has a caption beside it.

    Images without one, and what cannot be read, are logged.

    Args:
        place: the folder or archive.
        encoding: that of text files which are neither UTF-8 nor have a byte order mark.

    Raises:
        InputError: there is no such place or no image, no image has a caption, or a file with one is broken.
    """

    def unreadable(path: bytes, reason: str) -> None:
        _log.warning("Cannot read %s: %s", os.fsdecode(path), reason)

    images = without = 0
    for file in find_images(absolute(place), Rules(archives=True), unreadable=unreadable):
        images += 1
        caption = _caption(os.path.splitext(file.path)[0], encoding)
        if caption:
            yield file, caption
        else:
            without += 1
    if images == without:
        found = f"none of {plural(images, 'image')}" if images else "no image"
        raise InputError(
            f"There is no caption in {place}: {found} has a file with its name that ends in .txt, or in .json with a "
            '"caption", beside it.'
        )
    if without:
        _log.warning("Left out: %d of %s in %s without a caption.", without, plural(images, "image"), place)


def _caption(stem: bytes, encoding: str | None) -> str:
    """Return the caption of an image, whose path is `stem` without its extension; empty if there is none."""
    if (content := _content(stem + b".txt")) is not None:
        name = os.fsdecode(stem + b".txt")
        text = decoded(content, name, encoding).text
        check_utf8(text, name)
        return " ".join(text.split())
    if (content := _content(stem + b".json")) is not None:
        return _in_json(content, os.fsdecode(stem + b".json"))
    return ""


def _in_json(content: bytes, name: str) -> str:
    try:
        values = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{name} is no JSON: {error}.") from error
    found = (values.get(key) for key in _KEYS) if isinstance(values, dict) else ()
    text = next((value for value in found if isinstance(value, str)), "")
    check_utf8(text, name)
    return " ".join(text.split())


def _content(path: bytes) -> bytes | None:
    """Read a file with a caption; None if there is none.

    Raises:
        InputError: it cannot be read, or is longer than any caption.
    """
    name = os.fsdecode(path)
    try:
        if (source := source_of(path)) is not None:
            return source.read(path, _LONGEST)[1]
        if not os.path.isfile(path):
            return None
        with open(path, "rb") as file:
            content = read_up_to(file, _LONGEST)
    except FileNotFoundError:
        return None
    except (OSError, UnreadableImageError) as error:
        raise InputError(f"Cannot read {name}: {error}") from error
    if content is None:
        raise InputError(f"{name} is longer than any caption.")
    return content
