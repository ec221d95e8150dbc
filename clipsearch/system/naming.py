"""Names of files: given only where they are free, and taken away so that whatever happens the file keeps one.

A file that is put aside lies under its own name in a hidden folder beside the place where it was. So nobody opens it
by accident, a run that is killed leaves something that tells what it was called and where, and any name fits, however
long it is.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from collections.abc import Iterable, Iterator
from typing import NamedTuple

ASIDE = b".clipsearch-aside-"
"""What the name of a folder begins with in which a file was put aside."""

_AT_CWD, _NO_REPLACE, _EXCLUSIVE = -100, 1, 4
"""AT_FDCWD and RENAME_NOREPLACE of Linux, RENAME_EXCL of macOS."""
_CANNOT = {errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP}


class NotAtOnceError(Exception):
    """A file cannot get another name without replacing what has it in one step of this system, but in several."""


class Aside(NamedTuple):
    """A file that was put aside."""

    path: bytes
    """Where it is now."""
    original: bytes
    """Where it was."""


def free_names(name: bytes) -> Iterator[bytes]:
    """`name`, and what to call a file if that is taken, and if that is too: cat.jpg, cat-2.jpg, cat-3.jpg ..."""
    stem, ending = os.path.splitext(name)
    yield name
    number = 2
    while True:
        yield b"%s-%d%s" % (stem, number, ending)
        number += 1


def put_aside(path: bytes) -> Aside:
    """Take a file's name away; nobody else has any business with the one that it gets.

    Raises:
        OSError: its folder cannot be changed, or it is gone; then nothing was done.
    """
    parent, name = os.path.split(path)
    folder = os.path.join(parent, ASIDE + os.urandom(4).hex().encode("ascii"))
    os.mkdir(folder, 0o700)
    aside = Aside(os.path.join(folder, name), path)
    try:
        os.rename(path, aside.path)
    except BaseException:
        os.rmdir(folder)
        raise
    return aside


def put_back(aside: Aside) -> bytes:
    """Give a file its name back, or the next that is free, should another have it now; its path.

    Raises:
        OSError: the folder cannot be changed; then it lies where it lay.
    """
    folder, name = os.path.split(aside.original)
    for candidate in free_names(name):
        path = os.path.join(folder, candidate)
        if rename_ours(aside.path, path):
            clear(aside)
            return path
    raise AssertionError("names never end")


def clear(aside: Aside) -> None:
    """Remove the folder in which a file was put aside and is no longer."""
    with contextlib.suppress(OSError):  # somebody else put something there, which stays
        os.rmdir(os.path.dirname(aside.path))


def leftovers(folders: Iterable[bytes]) -> Iterator[Aside]:
    """What lies put aside in `folders`, since a run was killed there; or because one is at work right now."""
    for place in _places(folders):
        with contextlib.suppress(OSError):  # gone meanwhile
            for name in sorted(os.listdir(place)):
                yield Aside(os.path.join(place, name), os.path.join(os.path.dirname(place), name))


def restore(folders: Iterable[bytes]) -> Iterator[tuple[bytes, bytes]]:
    """Put back what a run that was killed left aside in `folders`; what it was called, and what it is called now.

    Should another run be at work there, it meets a file that is gone for it, and leaves it alone.

    Raises:
        OSError: a folder cannot be changed.
    """
    known = list(dict.fromkeys(folders))
    for aside in list(leftovers(known)):
        with contextlib.suppress(FileNotFoundError):  # it was another run's, which goes on
            yield aside.original, put_back(aside)
    for place in _places(known):
        with contextlib.suppress(OSError):  # of a kill between two steps; not if something is in it
            os.rmdir(place)


def _places(folders: Iterable[bytes]) -> Iterator[bytes]:
    """The folders in which files were put aside."""
    for folder in dict.fromkeys(folders):
        with contextlib.suppress(OSError):  # what is to be done there will say so
            names = sorted(name for name in os.listdir(folder) if name.startswith(ASIDE))
            yield from (os.path.join(folder, name) for name in names)


def rename(source: bytes, target: bytes) -> bool:
    """Give a file another name within its file system; False if something has that name already.

    Unlike `os.rename` it replaces nothing, and it takes whatever has the name `source` at one moment: what another
    program saves under it a little later stays.

    Raises:
        OSError: it cannot be done (errno EXDEV: that is another file system); then nothing was done.
    """
    try:
        return _at_once(source, target)
    except NotAtOnceError:
        aside = put_aside(source)
    try:
        if rename_ours(aside.path, target):
            clear(aside)
            return True
    except BaseException:
        put_back(aside)
        raise
    put_back(aside)
    return False


def rename_ours(source: bytes, target: bytes) -> bool:
    """The same for a file whose name is known to this process alone."""
    try:
        return _at_once(source, target)
    except NotAtOnceError:
        pass
    try:
        os.link(source, target)
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno in (errno.EXDEV, errno.ENOENT):
            raise
        return _reserve_and_replace(source, target)  # a file system without hard links
    os.unlink(source)
    return True


def _reserve_and_replace(source: bytes, target: bytes) -> bool:
    try:
        descriptor = os.open(target, os.O_CREAT | os.O_EXCL | os.O_WRONLY)  # the name is ours now
    except FileExistsError:
        return False
    ours = os.fstat(descriptor)
    os.close(descriptor)
    try:
        os.replace(source, target)
    except BaseException:
        with contextlib.suppress(OSError):
            now = os.lstat(target)
            if os.path.samestat(now, ours) and not now.st_size:  # else somebody has saved something there
                os.unlink(target)
        raise
    return True


def _at_once(source: bytes, target: bytes) -> bool:
    """In one step of the system; False if the name is taken.

    Raises:
        NotAtOnceError: this system, or this file system, has no such step.
    """
    if sys.platform == "win32":
        try:
            os.rename(source, target)  # which replaces nothing on Windows
        except FileExistsError:
            return False
        return True
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    if sys.platform == "linux" and hasattr(libc, "renameat2"):
        done = libc.renameat2(_AT_CWD, source, _AT_CWD, target, _NO_REPLACE)
    elif sys.platform == "darwin" and hasattr(libc, "renamex_np"):
        done = libc.renamex_np(source, target, _EXCLUSIVE)
    else:
        raise NotAtOnceError
    number = ctypes.get_errno()
    if done == 0:
        return True
    if number == errno.EEXIST:
        return False
    if number in _CANNOT:
        raise NotAtOnceError
    raise OSError(number, os.strerror(number), source, None, target)
