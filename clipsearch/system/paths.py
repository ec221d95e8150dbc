"""Absolute paths as bytes, the way records and searches carry them: names need not be UTF-8.

Also whether two paths are one place, which their texts alone do not tell: a link, or a second mount of the same
folder, gives a place another name. That is the only thing here for which the file system is asked.
"""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache

_Identity = tuple[int, int]
"""Device and inode."""


def absolute(path: str | os.PathLike[str]) -> bytes:
    """`path` from the top, without `..`, as bytes; as the disk has it where that is written in another form.

    Macs and many archives store `ü` as two characters, keyboards send one. Where nothing has the name as it was typed,
    what has the same letters is meant (see `same_letters`).
    """
    return _as_on_disk(os.fsencode(os.path.abspath(path)))


def same_letters(path: bytes) -> bytes:
    """The form in which two paths are equal if they are written with the same letters (Unicode's NFC)."""
    if path.isascii():
        return path
    return os.fsencode(unicodedata.normalize("NFC", os.fsdecode(path)))


def is_below(path: bytes, folder: bytes) -> bool:
    """Whether `path` is `folder` or lies in it by their texts (both absolute)."""
    return path == folder or path.startswith(inside(folder))


def inside(folder: bytes) -> bytes:
    """What every path in `folder` begins with."""
    return folder.rstrip(b"/") + b"/"


def same_place(one: bytes, other: bytes) -> bool:
    """Whether two absolute paths lead to the same file or folder.

    Device and inode tell where both are there; else only links in the paths are resolved.
    """
    if one == other:
        return True
    try:
        return os.path.samefile(one, other)
    except OSError:
        return os.path.realpath(one) == os.path.realpath(other)


def spellings(path: bytes, roots: Iterable[bytes]) -> list[bytes]:
    """What `path` is called by those who name everything from one of `roots` on (all absolute); `path` itself first.

    An index names its images from the roots on, as they were typed. So a place in a root comes with the root's name in
    front, however `path` gets there. `path` and what lies on the way to it need not be there any more.
    """
    found = {path: None}
    ways = dict.fromkeys((path, os.path.realpath(path)))
    above = [(identity, rest) for way in ways for identity, rest in _upwards(way)]
    for root in roots:
        if (identity := _identity(root)) is not None:
            for other, rest in above:
                if other == identity:
                    found[os.path.join(root, rest) if rest else root] = None
    return list(found)


def roots_in(folder: bytes, roots: Iterable[bytes]) -> list[bytes]:
    """Which of `roots` lie in `folder` or are it, whatever links or mounts lead there (all absolute)."""
    own = _identity(folder)

    def lies_in(root: bytes) -> bool:
        return own is not None and any(own == other for other, _ in _upwards(os.path.realpath(root)))

    return [root for root in roots if is_below(root, folder) or lies_in(root)]


def second_names(places: Sequence[bytes]) -> dict[bytes, bytes]:
    """Those of `places` that are another one, or lie in it, under a second name; and their names from there on.

    Where two are the same place, the one that comes first keeps its name; else the outermost place names all in it.
    """
    first: dict[_Identity, bytes] = {}
    for place in places:
        if (identity := _identity(place)) is not None:
            first.setdefault(identity, place)
    found = {}
    for place in places:
        name = place
        for identity, rest in _upwards(os.path.realpath(place)):
            if (other := first.get(identity)) is not None:
                name = os.path.join(other, rest) if rest else other
        if name != place:
            found[place] = name
    return found


def logical_folder(current: bytes) -> bytes | None:
    """What the shell calls the `current` folder, where the system has another name for it: `cd link` keeps `link`."""
    shell = os.fsencode(os.environ.get("PWD", ""))
    return shell if _is_other_name(shell, current) else None


def _is_other_name(path: bytes, folder: bytes) -> bool:
    return os.path.isabs(path) and path != folder and os.path.normpath(path) == path and same_place(path, folder)


def _as_on_disk(path: bytes) -> bytes:
    """`path`, or what is there under a name with the same letters; the first by bytes if there are several."""
    if path.isascii() or os.path.lexists(path):
        return path
    folder, name = os.path.split(path)
    if folder == path:
        return path
    folder = _as_on_disk(folder)
    if name.isascii() or os.path.lexists(os.path.join(folder, name)):
        return os.path.join(folder, name)
    try:
        names = _names_in(folder, os.stat(folder).st_mtime_ns)
    except OSError:
        return os.path.join(folder, name)
    return os.path.join(folder, names.get(same_letters(name), name))


@lru_cache(maxsize=16)  # a list of captions asks for many files of one folder
def _names_in(folder: bytes, _mtime_ns: int) -> dict[bytes, bytes]:
    """The names in a folder by their letters, of those that are not ASCII."""
    names = sorted((name for name in os.listdir(folder) if not name.isascii()), reverse=True)
    return {same_letters(name): name for name in names}


def _upwards(path: bytes) -> Iterator[tuple[_Identity, bytes]]:
    """`path` and the folders above it that are there, each with the way from it to `path`."""
    place, rest = path, b""
    while True:
        if (identity := _identity(place)) is not None:
            yield identity, rest
        above, name = os.path.split(place)
        if above == place:
            return
        place, rest = above, os.path.join(name, rest) if rest else name


def _identity(path: bytes) -> _Identity | None:
    """None if it is not there, or nobody may look."""
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return None
    return status.st_dev, status.st_ino
