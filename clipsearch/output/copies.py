"""Copies of hits, or links to them, in a folder, without overwriting any file; `system.copying` does the copying."""

from __future__ import annotations

import errno
import filecmp
import os
from collections.abc import Sequence
from pathlib import Path

from clipsearch.errors import FileStaysError, InputError
from clipsearch.output.paths import printable, shown
from clipsearch.system.copying import copy
from clipsearch.system.counting import plural
from clipsearch.system.naming import free_names


def place(paths: Sequence[bytes], folder: Path, *, link: bool) -> str:
    """Copy the files `paths`, or make symbolic links to them, into `folder`, which is created if necessary.

    Files keep their names; if a name is taken, it gets a number: cat.jpg, cat-2.jpg. Copies and links of an earlier
    call are recognised and left alone. Returns a sentence that says what was done.

    Raises:
        InputError: `folder` cannot be written, or a file cannot be read; what was done before stays.
    """
    target = os.fsencode(os.path.abspath(folder))
    done = 0
    unique = list(dict.fromkeys(paths))
    try:
        os.makedirs(target, exist_ok=True)
        for path in unique:
            done += _placed(path, target, link=link)
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
        elif _link(path, target) if link else _copy(path, target):
            return True
    raise AssertionError("names never end")


def is_same(path: bytes, target: bytes, *, link: bool) -> bool:
    """Return whether `target` is a copy of the file `path` already, or a link to it."""
    if link:
        return os.path.islink(target) and os.path.realpath(target) == os.path.realpath(path)
    return os.path.isfile(target) and not os.path.islink(target) and filecmp.cmp(path, target, shallow=False)


def _link(path: bytes, target: bytes) -> bool:
    """Make a symbolic link; return False if the name was taken meanwhile."""
    os.stat(path)  # raises if it is gone
    try:
        os.symlink(path, target)
    except FileExistsError:
        return False
    return True


def _copy(path: bytes, target: bytes) -> bool:
    """Copy a file; return False if the name was taken meanwhile."""
    try:
        return copy(path, target)
    except FileStaysError as error:
        raise OSError(errno.EBUSY, str(error), path) from error
