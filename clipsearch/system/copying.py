"""Copying and moving of a user's files: the copy is complete and on the disk before the original is removed.

Nothing is ever replaced. Knows nothing of where files are copied to, and why.
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
"""Prefix of the name of a copy until it is complete."""
_TRIES = 3
"""Attempts to copy a file that another program changes meanwhile."""


class _Part(NamedTuple):
    """A complete copy on the disk, under a temporary name."""

    path: bytes
    source: Seen
    """The original, as it was copied."""
    itself: Seen
    """The copy."""


def copy(source: bytes, target: bytes) -> bool:
    """Copy a file with its times and permissions; return False if the name `target` is taken.

    The copy gets its name when it is complete, on the disk, and equal to the source, which is read again.

    Raises:
        FileStaysError: another program keeps changing the source.
        OSError: it cannot be read, or the copy cannot be written.
    """
    part = _copied(source, os.path.dirname(target))
    return _give_name(part.path, target)


def write_new(content: bytes, target: bytes, like: bytes | None, mtime_ns: int | None = None) -> bool:
    """Write a new file with the times and permissions of the file `like`; return False if the name `target` is taken.

    Without `like`, it has the permissions of any new file. It gets its name when it is complete and on the disk. With
    `mtime_ns`, it gets this as time of the last change.

    Raises:
        OSError: it cannot be written, or `like` is gone.
    """
    descriptor, path = tempfile.mkstemp(prefix=PART, dir=os.path.dirname(target))
    try:
        with open(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            sync(file.fileno())
        if like is None:
            mask = os.umask(0o077)  # which cannot be read without setting it
            os.umask(mask)
            os.chmod(path, 0o666 & ~mask)
        else:
            shutil.copystat(like, path)
        if mtime_ns is not None:
            os.utime(path, ns=(mtime_ns, mtime_ns))
    except BaseException:
        os.unlink(path)
        raise
    return _give_name(path, target)


def move(source: bytes, target: bytes) -> bool:
    """Move a file that is no symbolic link; return False if the name `target` is taken.

    To another file system it is copied like in `copy`, and the original is removed only if it equals the copy.

    Raises:
        FileStaysError: another program changes the file, which stays where it was; there is no copy.
        OSError: it cannot be read or removed, or the copy cannot be written.
    """
    try:
        return rename(source, target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
    for tries_left in reversed(range(_TRIES)):
        part = _copied(source, os.path.dirname(target))
        with shielded():
            if not _give_name(part.path, target):
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
    """Move a symbolic link and have it lead to `leads_to`; return False if the name `target` is taken.

    Raises:
        FileStaysError: another program changed the link, which stays where it was.
        OSError: it cannot be removed, or the new link cannot be made.
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
    """Change where a symbolic link leads to.

    Raises:
        OSError: it is no link, or its folder cannot be changed; the link is unchanged.
    """
    with shielded():
        aside = put_aside(path)
        try:
            os.readlink(aside.path)  # raises if it is no link any more
            os.symlink(leads_to, path)
        except BaseException:
            put_back(aside)
            raise
        os.unlink(aside.path)
        clear(aside)


# -- steps --------------------------------------------------------------------------------------------------------


def _copied(source: bytes, folder: bytes) -> _Part:
    """Copy a file into `folder` under a temporary name, and compare the copy with the source afterwards."""
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
        if hasattr(os, "posix_fadvise"):  # so that comparing reads the copy from the disk
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _give_name(part: bytes, target: bytes) -> bool:
    """Rename a complete file to `target`; if that is taken, remove the file and return False."""
    try:
        done = rename_ours(part, target)
    except BaseException:
        os.unlink(part)
        raise
    if done:
        sync_folder(os.path.dirname(target))
    else:
        os.unlink(part)
    return done


def _is_another(path: bytes, seen: Seen) -> bool:
    """Return whether a file has changed since it was seen, so that a second try is worth it."""
    try:
        status = os.stat(path)
    except OSError:
        return False
    return (status.st_ino, status.st_size, status.st_mtime_ns) != (seen.inode, seen.size, seen.mtime_ns)
