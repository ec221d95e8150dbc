"""Renaming of files without replacing any, and putting files aside so that they can be put back.

A file that is put aside keeps its name, in a hidden folder beside its place. So nobody opens it by accident, a killed
run leaves its name and place to be seen, and names of any length fit.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from collections.abc import Iterable, Iterator
from typing import NamedTuple

ASIDE = b".clipsearch-aside-"
"""Prefix of the name of a folder in which a file is put aside."""

_AT_CWD, _NO_REPLACE, _EXCLUSIVE = -100, 1, 4
"""AT_FDCWD and RENAME_NOREPLACE of Linux, RENAME_EXCL of macOS."""
_CANNOT = {errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP}


class NotAtOnceError(Exception):
    """The system has no single call that renames a file without replacing another."""


class Aside(NamedTuple):
    """A file that was put aside."""

    path: bytes
    """Current path of the file."""
    original: bytes
    """Path before it was put aside."""


def free_names(name: bytes) -> Iterator[bytes]:
    """Yield `name`, then numbered alternatives if it is taken: cat.jpg, cat-2.jpg, cat-3.jpg ..."""
    stem, ending = os.path.splitext(name)
    yield name
    number = 2
    while True:
        yield b"%s-%d%s" % (stem, number, ending)
        number += 1


def put_aside(path: bytes) -> Aside:
    """Move a file into a new hidden folder beside it.

    Raises:
        OSError: its folder cannot be changed, or it is gone; nothing was done.
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
    """Move a file back to its place, or to the next free name if another file is there now; return its path.

    Raises:
        OSError: the folder cannot be changed; the file is still put aside.
    """
    folder, name = os.path.split(aside.original)
    for candidate in free_names(name):
        path = os.path.join(folder, candidate)
        if rename_ours(aside.path, path):
            clear(aside)
            return path
    raise AssertionError("names never end")


def clear(aside: Aside) -> None:
    """Remove the folder in which a file was put aside."""
    with contextlib.suppress(OSError):  # another program put something there, which stays
        os.rmdir(os.path.dirname(aside.path))


def leftovers(folders: Iterable[bytes]) -> Iterator[Aside]:
    """Yield the files that are put aside in `folders`: by a run that was killed, or by one that is at work now."""
    for place in _places(folders):
        with contextlib.suppress(OSError):  # gone meanwhile
            for name in sorted(os.listdir(place)):
                yield Aside(os.path.join(place, name), os.path.join(os.path.dirname(place), name))


def restore(folders: Iterable[bytes]) -> Iterator[tuple[bytes, bytes]]:
    """Put back the files that a killed run left aside in `folders`; yield their earlier and their new paths.

    If another run is at work there, its file is gone for it, and it leaves that file alone.

    Raises:
        OSError: a folder cannot be changed.
    """
    known = list(dict.fromkeys(folders))
    for aside in list(leftovers(known)):
        with contextlib.suppress(FileNotFoundError):  # another run has put it back
            yield aside.original, put_back(aside)
    for place in _places(known):
        with contextlib.suppress(OSError):  # left by a kill between two steps; stays if it is not empty
            os.rmdir(place)


def _places(folders: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the folders in which files were put aside."""
    for folder in dict.fromkeys(folders):
        with contextlib.suppress(OSError):  # the caller's next access will report it
            names = sorted(name for name in os.listdir(folder) if name.startswith(ASIDE))
            yield from (os.path.join(folder, name) for name in names)


def rename(source: bytes, target: bytes) -> bool:
    """Rename a file within its file system; return False if the name `target` is taken.

    Unlike `os.rename`, it replaces nothing. What another program saves as `source` a moment later stays.

    Raises:
        OSError: it cannot be done (errno EXDEV: to another file system); nothing was done.
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
    """Like `rename`, for a file whose name only this process knows."""
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
        descriptor = os.open(target, os.O_CREAT | os.O_EXCL | os.O_WRONLY)  # this reserves the name
    except FileExistsError:
        return False
    ours = os.fstat(descriptor)
    os.close(descriptor)
    try:
        os.replace(source, target)
    except BaseException:
        with contextlib.suppress(OSError):
            now = os.lstat(target)
            if os.path.samestat(now, ours) and not now.st_size:  # else another program has saved something there
                os.unlink(target)
        raise
    return True


def _at_once(source: bytes, target: bytes) -> bool:
    """Rename in a single system call; return False if the name is taken.

    Raises:
        NotAtOnceError: this system or file system has no such call.
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
