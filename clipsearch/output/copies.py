"""Copies of hits or of their regions, or links to them, in a folder, without overwriting any file.

`system.copying` writes them.
"""

from __future__ import annotations

import errno
import filecmp
import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from clipsearch.errors import FileStaysError, InputError, UnreadableImageError
from clipsearch.images.codecs.decoding import decode
from clipsearch.images.codecs.raw import is_camera_raw
from clipsearch.images.codecs.recognising import format_of
from clipsearch.images.reading import Content, read_file
from clipsearch.output.paths import printable, shown
from clipsearch.output.thumbnails import Edges, cut
from clipsearch.system.addresses import is_address
from clipsearch.system.copying import copy, write_new
from clipsearch.system.counting import plural
from clipsearch.system.members import elsewhere, on_disk
from clipsearch.system.naming import free_names

_LOSSY = (None, "AVIF", "HEIF", "JPEG", "JPEG2000", "WEBP")
"""Formats whose regions become JPEGs; None is any that only the second decoder reads, such as JPEG XL."""
_QUALITY = 95


class Region(NamedTuple):
    """A region of an image, of which a file is to be made."""

    path: bytes
    box: Edges


def place(images: Sequence[bytes | Region], folder: Path, *, link: bool) -> str:
    """Copy files, or make symbolic links to them, into `folder`, which is created if necessary.

    Files keep their names; if a name is taken, it gets a number: cat.jpg, cat-2.jpg. Members of archives are written as
    files, and cannot be linked to. Of regions, new files are made:
    cat-crop.jpg, cat-crop-2.jpg. Copies and links of an earlier call are recognised and left alone. Returns a sentence
    that says what was done.

    Raises:
        InputError: `folder` cannot be written, or a file cannot be read; what was done before stays.
    """
    target = os.fsencode(os.path.abspath(folder))
    if link:
        _check_links(images)
    done = 0
    unique = list(dict.fromkeys(images))
    try:
        os.makedirs(target, exist_ok=True)
        for image in unique:
            done += _cut(image, target) if isinstance(image, Region) else _placed(image, target, link=link)
    except OSError as error:
        where = os.fsdecode(error.filename) if isinstance(error.filename, bytes) else error.filename or folder
        raise InputError(
            f"Cannot {'link' if link else 'copy'} to {folder}: {where}: {error.strerror}. "
            f"{done} of {plural(len(unique), 'image')} done."
        ) from error
    there = len(unique) - done
    return (
        f"{'Linked' if link else 'Copied'} {plural(done, 'image')} to {printable(shown(target)) or '.'}"
        f"{f'; {there} were there already' if there else ''}."
    )


def _placed(path: bytes, folder: bytes, *, link: bool) -> bool:
    """Copy or link one file; return False if the folder has the copy or link already."""
    for name in free_names(os.path.basename(path)):
        target = os.path.join(folder, name)
        if os.path.lexists(target):
            if is_same(path, target, link=link):
                return False
        elif _link(path, target) if link else _copied(path, target):
            return True
    raise AssertionError("names never end")


def _cut(region: Region, folder: bytes) -> bool:
    """Make a file of a region; return False if the folder has it already.

    Raises:
        OSError: the image cannot be read, or the file cannot be written.
    """
    name = os.path.basename(region.path)
    try:
        content = read_file(region.path).data
        image = cut(decode(content, name), region.box)
    except UnreadableImageError as error:
        raise OSError(errno.EIO, str(error), region.path) from error
    file = io.BytesIO()
    if format_of(content) in _LOSSY or is_camera_raw(content, name):
        ending = b".jpg"
        image.save(file, "JPEG", quality=_QUALITY, subsampling=0)
    else:
        ending = b".png"
        image.save(file, "PNG")
    for free in free_names(os.path.splitext(name)[0] + b"-crop" + ending):
        target = os.path.join(folder, free)
        if os.path.lexists(target):
            if os.path.isfile(target) and not os.path.islink(target) and _content(target) == file.getvalue():
                return False
        elif write_new(file.getvalue(), target, like=_like(region.path)):
            return True
    raise AssertionError("names never end")


def _content(path: bytes) -> bytes:
    with open(path, "rb") as file:
        return file.read()


def is_same(path: bytes, target: bytes, *, link: bool) -> bool:
    """Return whether `target` is a copy of the file or member `path` already, or a link to it."""
    if link:
        return os.path.islink(target) and os.path.realpath(target) == os.path.realpath(path)
    if not os.path.isfile(target) or os.path.islink(target):
        return False
    if elsewhere(path):
        return _member(path).data == _content(target)
    return filecmp.cmp(path, target, shallow=False)


def _link(path: bytes, target: bytes) -> bool:
    """Make a symbolic link; return False if the name was taken meanwhile."""
    os.stat(path)  # raises if it is gone
    try:
        os.symlink(path, target)
    except FileExistsError:
        return False
    return True


def _check_links(images: Sequence[bytes | Region]) -> None:
    """Check that no image lies in an archive or at an address, where no link can lead.

    Raises:
        InputError: one does.
    """
    for image in images:
        path = image.path if isinstance(image, Region) else image
        if where := elsewhere(path):
            raise InputError(f"{printable(shown(path))} lies {where}, and no link can lead there.", hint="copy-instead")


def copy_image(path: bytes, target: bytes) -> bool:
    """Copy a file, or write what lies elsewhere (see `elsewhere`) as one; return False if the name `target` is taken.

    Raises:
        FileStaysError: another program keeps changing the file.
        OSError: it cannot be read, or the copy cannot be written.
    """
    if not elsewhere(path):
        return copy(path, target)
    member = _member(path)
    return write_new(member.data, target, like=_like(path), mtime_ns=member.mtime_ns)


def _like(path: bytes) -> bytes | None:
    """Return the file whose permissions a copy gets; None if there is none."""
    return None if is_address(path) else on_disk(path)


def _member(path: bytes) -> Content:
    """Read a member of an archive, or what lies at an address.

    Raises:
        OSError: it cannot be read.
    """
    try:
        return read_file(path)
    except UnreadableImageError as error:
        raise OSError(errno.EIO, str(error), path) from error


def _copied(path: bytes, target: bytes) -> bool:
    """Copy a file or member; return False if the name was taken meanwhile."""
    try:
        return copy_image(path, target)
    except FileStaysError as error:
        raise OSError(errno.EBUSY, str(error), path) from error
