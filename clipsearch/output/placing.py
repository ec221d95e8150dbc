"""Copies of hits, or links to them, in a folder. Nothing that is there is overwritten."""

from __future__ import annotations

import filecmp
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from clipsearch.errors import InputError
from clipsearch.output.paths import printable, shown
from clipsearch.output.reports import plural


def place(paths: Sequence[bytes], folder: Path, *, link: bool) -> str:
    """Copy the files `paths`, or make symbolic links to them, into `folder`, which is made if need be.

    They keep their names. Where one is taken, by another of them or by what was there before, the next number is put
    behind it: cat.jpg, cat-2.jpg. What is there already, from an earlier call, stays as it is. Says what was done.

    Raises:
        InputError: `folder` cannot be written, or a file cannot be read; what was done so far stays.
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
    """False if it is there already."""
    for name in free_names(os.path.basename(path)):
        target = os.path.join(folder, name)
        if os.path.lexists(target):
            if is_same(path, target, link=link):
                return False
        elif _link(path, target) if link else copy_whole(path, target):
            return True
    raise AssertionError("names never end")


def free_names(name: bytes) -> Iterator[bytes]:
    """`name`, and what to call a file if that is taken, and if that is too: cat.jpg, cat-2.jpg, cat-3.jpg ..."""
    stem, ending = os.path.splitext(name)
    yield name
    number = 2
    while True:
        yield b"%s-%d%s" % (stem, number, ending)
        number += 1


def is_same(path: bytes, target: bytes, *, link: bool) -> bool:
    """Whether `target` is a copy of the file `path` already, or a link to it."""
    if link:
        return os.path.islink(target) and os.path.realpath(target) == os.path.realpath(path)
    return os.path.isfile(target) and not os.path.islink(target) and filecmp.cmp(path, target, shallow=False)


def _link(path: bytes, target: bytes) -> bool:
    """False if the name was taken meanwhile."""
    os.stat(path)  # complains if it is gone
    try:
        os.symlink(path, target)
    except FileExistsError:
        return False
    return True


def copy_whole(path: bytes, target: bytes) -> bool:
    """False if the name `target` was taken meanwhile; a copy appears under it when it is complete."""
    descriptor, part = tempfile.mkstemp(prefix=b".clipsearch-", dir=os.path.dirname(target))
    os.close(descriptor)
    try:
        shutil.copy2(path, part)
        try:
            os.link(part, target)  # unlike a renaming, it never replaces anything
        except FileExistsError:
            return False
        except OSError:  # a file system without hard links
            return _rename(part, target)
    finally:
        if os.path.lexists(part):
            os.unlink(part)
    return True


def _rename(part: bytes, target: bytes) -> bool:
    try:
        os.close(os.open(target, os.O_CREAT | os.O_EXCL | os.O_WRONLY))  # the name is ours now
    except FileExistsError:
        return False
    os.replace(part, target)
    return True
