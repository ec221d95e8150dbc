"""Images with captions, read from the files of data sets. Opens no image and knows no model.

The format of a file is recognised by its content:

- a table with a header (see `tables`): a column for the image and one for the caption, as for training with open_clip.
- Karpathy's and Fei-Fei's JSON of COCO and Flickr: `images`, each with `filename`, `sentences` and `split`.
- JSON as COCO's `captions_*.json`: `images` with `id` and `file_name`, `annotations` with `image_id` and `caption`.
- Flickr8k's token file: `image#number`, a tab, the caption.

A folder or an archive has captions beside the images (see `beside`).
"""

from __future__ import annotations

import json
import logging
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from clipsearch.datasets.beside import captions_beside, holds_images
from clipsearch.datasets.tables import (
    IMAGE_COLUMNS,
    Column,
    Text,
    check_utf8,
    decoded,
    encoding_hint,
    lines_of,
    path_in,
    read_table,
)
from clipsearch.errors import InputError
from clipsearch.images.files import ImageFile
from clipsearch.images.named_files import MISSING, named_files
from clipsearch.system.addresses import is_address
from clipsearch.system.bounded import read_list_in
from clipsearch.system.paths import absolute, inside

_log = logging.getLogger(__name__)
_COLUMNS = (
    Column("image", "paths", IMAGE_COLUMNS),
    Column("caption", "texts", ("caption", "text", "title", "comment")),
)

_NAMED = 3
"""Number of missing images that an error names."""
_TOKEN = re.compile(r"(?P<image>[^\t]+)#\d+\t(?P<caption>.*)")
_FORMATS = (
    "a table with a header, Karpathy's JSON (images with sentences), COCO's captions_*.json (images and annotations), "
    "and Flickr8k's image#number<TAB>caption"
)


class Captions(NamedTuple):
    """Images, texts, and which texts describe which images."""

    images: list[ImageFile]
    """(N) images without repetition."""
    texts: list[str]
    """(Q) texts without repetition: equal captions of several images are one text."""
    pairs: list[tuple[int, int]]
    """(P) pairs (index of the text, index of the image) without repetition. Every text and image is in a pair."""
    missing: list[bytes]
    """Absolute paths of images that do not exist and were left out."""


class _Line(NamedTuple):
    """One caption of a file."""

    image: str
    """Path of the image, as written there."""
    caption: str
    where: str
    """File and line, for errors."""


def read_captions(
    file: str | os.PathLike[str],
    *,
    images: str | os.PathLike[str] | None = None,
    split: str | None = None,
    skip_missing: bool = False,
    content: bytes | None = None,
    encoding: str | None = None,
) -> Captions:
    """Read captions in any of the formats above.

    If the encoding or separator of a file are not UTF-8 and commas, that is logged.

    Args:
        file: The file, or a folder or archive with captions beside the images.
        images: Folder at which relative image paths start; by default that of the file.
        split: Part of Karpathy's JSON to read, such as "test".
        skip_missing: Leave out images that do not exist, instead of raising an error.
        content: Content of the file, if it was read already.
        encoding: Its encoding, if neither UTF-8 nor given by a byte order mark.

    Raises:
        InputError: the file cannot be read or has no known format, has no such split, or images are missing.
    """
    path = Path(file)
    if content is None and holds_images(path):
        return _beside(path, images, split, encoding)
    text = decoded(read_list_in(path) if content is None else content, str(path), encoding)
    lines = _lines(text, str(path), split)
    folder = path.parent if images is None else Path(images)
    if not (is_address(absolute(folder)) or os.path.isdir(folder)):
        raise InputError(f"There is no folder {folder} to look for images in.")
    found = _collected(lines, folder, encoding)
    if not found.texts and not found.missing:
        raise InputError(f"There is no caption in {path}.")
    if found.missing and not (skip_missing and found.images):
        raise _not_there(found, folder)
    return found


def _lines(text: Text, name: str, split: str | None) -> Iterable[_Line]:
    start = text.text.lstrip()  # the first line decides
    is_json = start[:1] in ("{", "[")
    is_tokens = not is_json and _TOKEN.fullmatch(re.split("[\r\n]", start, maxsplit=1)[0]) is not None
    if (is_json or is_tokens) and (assumed := text.assumed(name)):
        _log.warning(assumed)
    if is_json:
        return _json_lines(text.text, name, split)
    if split is not None:
        raise InputError(f"{name} has no splits; only Karpathy's JSON does.", hint="no-split")
    if is_tokens:
        return _token_lines(text.text, name)
    return _table_lines(text, name) if start else []


def _collected(lines: Iterable[_Line], folder: Path, encoding: str | None) -> Captions:
    """Collect the captions, with each image and each text once."""
    named = [(_path(line, folder, encoding), _caption(line)) for line in lines]
    files, missing = [], []
    for file in named_files(dict.fromkeys(path for path, _ in named)):
        if file.problem is not None and file.problem.startswith(MISSING):
            missing.append(file.path)
        else:
            files.append(file)
    images = {file.path: number for number, file in enumerate(files)}
    texts: dict[str, int] = {}
    pairs: dict[tuple[int, int], None] = {}
    for path, caption in named:
        if (image := images.get(path)) is not None:
            pairs[texts.setdefault(caption, len(texts)), image] = None
    return Captions(files, list(texts), list(pairs), missing)


def _beside(place: Path, images: object, split: str | None, encoding: str | None) -> Captions:
    """Read the captions beside images in a folder or archive."""
    if images is not None:
        raise InputError(f"{place} holds the images itself.", hint="no-images")
    if split is not None:
        raise InputError(f"{place} has no splits; only Karpathy's JSON does.", hint="no-split")
    found = list(captions_beside(place, encoding))
    texts = {caption: number for number, caption in enumerate(dict.fromkeys(caption for _, caption in found))}
    pairs = [(texts[caption], number) for number, (_, caption) in enumerate(found)]
    return Captions([file for file, _ in found], list(texts), pairs, [])


def _path(line: _Line, folder: Path, encoding: str | None) -> bytes:
    if not line.image.strip():
        raise InputError(f"{line.where}: the image has no name.")
    try:
        return path_in(folder, line.image, encoding)
    except ValueError as error:
        raise InputError(f"{line.where}: {line.image!r} cannot be the name of a file.") from error


def _caption(line: _Line) -> str:
    caption = line.caption.strip()
    if not caption:
        raise InputError(f"{line.where}: the caption is empty.")
    check_utf8(caption, f"{line.where}: the caption")
    return caption


def _not_there(found: Captions, folder: Path) -> InputError:
    total = len(found.images) + len(found.missing)
    place = absolute(folder)
    inner = [os.fsdecode(_from(place, path)) for path in found.missing]
    shown = os.fsdecode(place) if is_address(place) else folder
    named = ", ".join(inner[:_NAMED]) + (", ..." if len(inner) > _NAMED else "")
    way = "images-or-skip" if found.images else "images"
    return InputError(
        f"{len(inner)} of {total} images are not in {shown}: {named}.", hint=(way, *encoding_hint(found.missing))
    )


def _from(folder: bytes, path: bytes) -> bytes:
    """Return a path as seen from a folder; of an address, what follows that of the folder."""
    if is_address(path) or is_address(folder):
        return path.removeprefix(inside(folder))
    return os.path.relpath(path, folder)


# -- formats -----------------------------------------------------------------------------------------------------


def _table_lines(text: Text, name: str) -> Iterator[_Line]:
    table = read_table(text, name, _COLUMNS)
    if table.assumed:
        _log.warning(table.assumed)
    for row in table.rows:
        image, caption = row.values
        yield _Line(image, caption, row.where)


def _token_lines(text: str, name: str) -> Iterator[_Line]:
    for number, line in enumerate(lines_of(text), 1):
        if not line.strip():
            continue
        match = _TOKEN.fullmatch(line)
        if match is None:
            raise InputError(f"{name}, line {number}: not image#number, a tab and a caption, as the first line is.")
        yield _Line(match["image"], match["caption"], f"{name}, line {number}")


def _json_lines(text: str, name: str, split: str | None) -> Iterable[_Line]:
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{name} is no JSON: {error}.") from error
    images = data.get("images") if isinstance(data, dict) else None
    if not isinstance(images, list):
        raise InputError(f"{name} holds no captions in a known format. Known are {_FORMATS}.")
    if "annotations" in data:
        if split is not None:
            raise InputError(f"{name} has no splits; only Karpathy's JSON does.", hint="no-split")
        return _coco_lines(images, data["annotations"], name)
    return _karpathy_lines(images, name, split)


def _karpathy_lines(images: list[Any], name: str, split: str | None) -> Iterator[_Line]:
    splits = set()
    for number, image in enumerate(images):
        where = f"{name}, images[{number}]"
        part = _field(image, "split", str, where) if split is not None else None
        splits.add(part)
        if part != split:
            continue
        path = _field(image, "filename", str, where)
        if "filepath" in image:  # COCO's has folders, Flickr's have none
            path = os.path.join(_field(image, "filepath", str, where), path)
        for sentence in _field(image, "sentences", list, where):
            yield _Line(path, _field(sentence, "raw", str, f"{where}.sentences"), where)
    if split is not None and split not in splits:
        raise InputError(f"{name} has no split {split!r}, but {', '.join(sorted(map(repr, splits))) or 'none'}.")


def _coco_lines(images: list[Any], annotations: object, name: str) -> Iterator[_Line]:
    if not isinstance(annotations, list):
        raise InputError(f"{name}: annotations is no array.")
    files = {}
    for number, image in enumerate(images):
        where = f"{name}, images[{number}]"
        files[_field(image, "id", (int, str), where)] = _field(image, "file_name", str, where)
    for number, annotation in enumerate(annotations):
        where = f"{name}, annotations[{number}]"
        key = _field(annotation, "image_id", (int, str), where)
        if key not in files:
            raise InputError(f"{where}: there is no image with id {key!r}.")
        yield _Line(files[key], _field(annotation, "caption", str, where), where)


def _field(item: object, name: str, kind: type | tuple[type, ...], where: str) -> Any:  # noqa: ANN401  (JSON's)
    """Return `item[name]` after checking its type."""
    if not isinstance(item, Mapping):
        raise InputError(f"{where} is no object.")
    if not isinstance(item.get(name), kind):
        found = "missing" if name not in item else f"{str(item[name])[:40]!r}"
        raise InputError(f"{where}: {name} is {found}. Known formats are {_FORMATS}.")
    return item[name]
