"""Image files: find them, read them, open one as a person sees it. Knows nothing of models or of the index."""

from __future__ import annotations

import hashlib
import io
import os
import stat
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TypeVar

from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from clipsearch.errors import InputError

EXTENSIONS = frozenset({".avif", ".bmp", ".gif", ".jfif", ".jpe", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})
"""Files with these endings (in any case) are taken for images when a folder is searched."""
DECODERS = ("AVIF", "BMP", "GIF", "JPEG", "PNG", "TIFF", "WEBP")
"""The only Pillow decoders that are ever tried, by content; none of them starts another program."""

_T = TypeVar("_T")
_R = TypeVar("_R")


@dataclass(frozen=True)
class ImageFile:
    """An image file as the file system describes it."""

    path: bytes
    """Absolute, as `os.fsencode` gives it: names need not be UTF-8."""
    size: int
    """Bytes."""
    mtime_ns: int


@dataclass(frozen=True)
class Picture:
    """One decoded image."""

    image: Image.Image
    """RGB and upright; the first frame of an animation, on white where it was transparent."""
    width: int
    """Pixels, upright and before any reduction."""
    height: int
    taken_at: str | None
    """ISO 8601 local time from EXIF, where the file tells."""


class UnreadableImageError(Exception):
    """A file that is no image, or a broken one. Its text is the reason, without the path."""


def absolute(root: Path) -> bytes:
    """The path of `root` from the top, without `..`, as bytes."""
    return os.fsencode(os.path.abspath(root))


def find_images(root: Path) -> Iterator[ImageFile]:
    """All image files under `root` (or `root` itself if it is a file), sorted by path within each folder.

    Hidden files and folders are left out, and so are links to folders (they could lead in circles).

    Raises:
        InputError: `root` does not exist or cannot be read.
    """
    path = absolute(root)
    try:
        status = root.stat()
    except FileNotFoundError as error:
        raise InputError(f"No such file or folder: {root}") from error
    except OSError as error:
        raise InputError(f"Cannot read {root}: {error.strerror}") from error
    if stat.S_ISDIR(status.st_mode):
        yield from _walk(_listing(path))
    else:
        yield _describe(path, status)


def _listing(folder: bytes) -> list[os.DirEntry[bytes]]:
    try:
        with os.scandir(folder) as entries:
            return sorted((entry for entry in entries if not entry.name.startswith(b".")), key=lambda e: e.name)
    except OSError as error:
        raise InputError(f"Cannot read the folder {os.fsdecode(folder)}: {error.strerror}") from error


def _walk(entries: list[os.DirEntry[bytes]]) -> Iterator[ImageFile]:
    for entry in entries:
        if entry.is_dir(follow_symlinks=False):
            yield from _walk(_listing(entry.path))
        elif os.path.splitext(os.fsdecode(entry.name))[1].lower() in EXTENSIONS:
            try:
                status = entry.stat()
            except OSError:
                continue  # a dangling link, or gone since the folder was listed
            if stat.S_ISREG(status.st_mode):
                yield _describe(entry.path, status)


def _describe(path: bytes, status: os.stat_result) -> ImageFile:
    return ImageFile(path, status.st_size, status.st_mtime_ns)


def read_file(path: bytes) -> tuple[bytes, bytes]:
    """The content of a file and its hash (BLAKE2b, 16 bytes).

    Raises:
        UnreadableImageError: the file cannot be read.
    """
    try:
        with open(path, "rb") as file:
            content = file.read()
    except OSError as error:
        raise UnreadableImageError(error.strerror or str(error)) from error
    return content, hashlib.blake2b(content, digest_size=16).digest()


def decode(content: bytes) -> Picture:
    """Decode an image file's content.

    Raises:
        UnreadableImageError: the content is no supported image, is truncated or is broken.
    """
    try:
        with Image.open(io.BytesIO(content), formats=DECODERS) as image:
            taken_at = _taken_at(image)
            upright = ImageOps.exif_transpose(image)
            rgb = _on_white(upright)
    except UnidentifiedImageError as error:
        raise UnreadableImageError("empty file" if not content else "not an image of a known format") from error
    except Image.DecompressionBombError as error:
        raise UnreadableImageError(f"too large to decode safely: {error}") from error
    # Decoders report damage in whatever way they notice it.
    except (
        OSError,
        SyntaxError,
        ValueError,
        IndexError,
        KeyError,
        TypeError,
        EOFError,
        OverflowError,
    ) as error:
        raise UnreadableImageError(f"broken image: {error}") from error
    return Picture(rgb, rgb.width, rgb.height, taken_at)


def _on_white(image: Image.Image) -> Image.Image:
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, "white")
        return Image.alpha_composite(white, rgba).convert("RGB")
    return image.convert("RGB")


def _taken_at(image: Image.Image) -> str | None:
    exif = image.getexif()
    text = exif.get_ifd(ExifTags.IFD.Exif).get(ExifTags.Base.DateTimeOriginal) or exif.get(ExifTags.Base.DateTime)
    try:
        return datetime.strptime(str(text), "%Y:%m:%d %H:%M:%S").isoformat()  # noqa: DTZ007  (EXIF has no zone)
    except ValueError:
        return None


def map_in_order(work: Callable[[_T], _R], items: Iterable[_T], workers: int, ahead: int) -> Iterator[_R]:
    """`work` over `items` in threads, results in order, never more than `ahead` of them waiting in memory."""
    with ThreadPoolExecutor(workers, thread_name_prefix="decode") as pool:
        waiting: deque[Future[_R]] = deque()
        try:
            for item in items:
                waiting.append(pool.submit(work, item))
                if len(waiting) >= ahead:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
