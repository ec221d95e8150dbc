"""Copies of a user's files, and moving files: what arrives is whole and on the disk before anything else goes.

Nothing is ever replaced. Knows nothing of where files are copied to and why.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import tempfile
from typing import NamedTuple

from clipsearch.errors import FileStaysError
from clipsearch.system.flushing import sync, sync_folder
from clipsearch.system.interrupts import shielded
from clipsearch.system.naming import clear, put_aside, put_back, rename, rename_ours
from clipsearch.system.removal import Keeper, Seen, look, remove, remove_link, take_back

PART = b".clipsearch-part-"
"""What the name of a copy begins with until it is complete."""
_TRIES = 3
"""So often a file is copied that another program changes meanwhile."""


class _Part(NamedTuple):
    """A copy that is complete, and on the disk, under a name of its own."""

    path: bytes
    source: Seen
    """What was copied."""
    itself: Seen


def copy(source: bytes, target: bytes) -> bool:
    """Copy a file with its times and permissions; False if the name `target` is taken.

    A copy appears under its name when it is complete, on the disk, and equal to the source, which is read again.

    Raises:
        FileStaysError: the source is changed by another program all the time.
        OSError: it cannot be read, or the copy cannot be written.
    """
    part = _copied(source, os.path.dirname(target))
    return _give_name(part, target)


def move(source: bytes, target: bytes) -> bool:
    """Move a file that is no link; False if the name `target` is taken.

    To another file system it is copied, as `copy` does, and leaves its place only if it still is what was copied.

    Raises:
        FileStaysError: another program changes it. It is where it was, and nowhere else.
        OSError: it cannot be read, or cannot leave its folder, or the copy cannot be written.
    """
    try:
        return rename(source, target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
    for tries_left in reversed(range(_TRIES)):
        part = _copied(source, os.path.dirname(target))
        with shielded():
            if not _give_name(part, target):
                return False
            keeper = Keeper(target, part.source.digest, made_by_us=True)
            try:
                remove(source, part.source, keeper, trash=False)
            except FileStaysError:
                take_back(target, part.itself)
                if not tries_left or not _is_another(source, part.source):
                    raise
            else:
                return True
    raise AssertionError("the last try returns or raises")


def move_link(source: bytes, target: bytes, leads_to: bytes) -> bool:
    """Move a symbolic link, which is to lead to `leads_to` from its new place; False if the name is taken.

    Raises:
        FileStaysError: another program changed the link. It is where it was.
        OSError: it cannot leave its folder, or the other cannot be written.
    """
    before = os.readlink(source)
    with shielded():
        try:
            os.symlink(leads_to, target)
        except FileExistsError:
            return False
        try:
            remove_link(source, before)
        except BaseException:
            with contextlib.suppress(FileStaysError):
                remove_link(target, leads_to)
            raise
    return True


def relink(path: bytes, leads_to: bytes) -> None:
    """Have a symbolic link lead to another place.

    Raises:
        OSError: it is no link, or its folder cannot be changed. It is as it was.
    """
    with shielded():
        aside = put_aside(path)
        try:
            os.readlink(aside.path)  # complains if it is no link any more
            os.symlink(leads_to, path)
        except BaseException:
            put_back(aside)
            raise
        os.unlink(aside.path)
        clear(aside)


# -- how ----------------------------------------------------------------------------------------------------------


def _copied(source: bytes, folder: bytes) -> _Part:
    """A copy in `folder`, compared with what the source is after it was made."""
    descriptor, path = tempfile.mkstemp(prefix=PART, dir=folder)
    os.close(descriptor)
    try:
        for _ in range(_TRIES):
            shutil.copyfile(source, path)
            _flush(path)
            shutil.copystat(source, path)
            itself = look(path)
            with contextlib.suppress(FileStaysError):  # it changed while it was read, or is gone: then copying fails
                if (now := look(source)).digest == itself.digest:
                    return _Part(path, now, itself)
    except BaseException:
        os.unlink(path)
        raise
    os.unlink(path)
    raise FileStaysError("another program is changing it")


def _flush(path: bytes) -> None:
    with open(path, "rb+") as file:
        sync(file.fileno())
        if hasattr(os, "posix_fadvise"):  # what is read of it from now on comes from the disk
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _give_name(part: _Part, target: bytes) -> bool:
    """False if it is taken; then nothing is left of the copy."""
    try:
        done = rename_ours(part.path, target)
    except BaseException:
        os.unlink(part.path)
        raise
    if done:
        sync_folder(os.path.dirname(target))
    else:
        os.unlink(part.path)
    return done


def _is_another(path: bytes, seen: Seen) -> bool:
    """Whether a file is no longer what was seen, so that it is worth a second try."""
    try:
        status = os.stat(path)
    except OSError:
        return False
    return (status.st_ino, status.st_size, status.st_mtime_ns) != (seen.inode, seen.size, seen.mtime_ns)
