"""Absolute paths as bytes, since names need not be UTF-8, and whether two paths lead to the same place.

A symbolic link or a second mount gives a place another path, so the file system is asked for that.
"""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache

from clipsearch.system.addresses import as_address, is_address

_Identity = tuple[int, int]
"""Device and inode."""


def absolute(path: str | os.PathLike[str]) -> bytes:
    """Return the absolute path as bytes, without `..`, in the Unicode form in which the disk has it.

    macOS and many archives store `ü` as two characters, keyboards send one. If no file has the name as typed, the one
    that is equal in normal form is meant (see `same_letters`). An address is returned as it is.

    Raises:
        InputError: as for `addresses.as_address`.
    """
    if ":/" in os.fspath(path) and (address := as_address(path)) is not None:
        return address
    return _as_on_disk(os.fsencode(os.path.abspath(path)))


def from_folder(folder: bytes, name: str) -> bytes:
    """Return the absolute path of what is called `name` in a `folder`, without a look at the disk; an address as it is.

    Raises:
        InputError: as for `addresses.as_address`.
    """
    if ":/" in name and (address := as_address(name)) is not None:
        return address
    return os.path.normpath(os.path.join(folder, os.fsencode(name)))


def same_letters(path: bytes) -> bytes:
    """Return a path in Unicode's NFC, in which paths with the same letters are equal."""
    if path.isascii():
        return path
    return os.fsencode(unicodedata.normalize("NFC", os.fsdecode(path)))


def is_below(path: bytes, folder: bytes) -> bool:
    """Return whether `path` is `folder` or lies in it, by the paths alone (both absolute)."""
    return path == folder or path.startswith(inside(folder))


def inside(folder: bytes) -> bytes:
    """Return the prefix of all paths in `folder`."""
    return folder.rstrip(b"/") + b"/"


def same_place(one: bytes, other: bytes) -> bool:
    """Return whether two absolute paths lead to the same file or folder.

    Device and inode are compared if both exist; else symbolic links are resolved.
    """
    if one == other:
        return True
    if is_address(one) or is_address(other):
        return False
    try:
        return os.path.samefile(one, other)
    except OSError:
        return os.path.realpath(one) == os.path.realpath(other)


def spellings(path: bytes, roots: Iterable[bytes]) -> list[bytes]:
    """Return all paths by which an index may know `path`, itself first.

    An index stores paths below its `roots` as they were typed. So for each root that contains the place, however `path`
    leads there, the path from that root is returned. `path` need not exist any more. All paths are absolute.
    """
    if is_address(path):
        return [path]
    found = {path: None}
    ways = dict.fromkeys((path, os.path.realpath(path)))
    above = [(identity, rest) for way in ways for identity, rest in _upwards(way)]
    for root in roots:
        if not is_address(root) and (identity := _identity(root)) is not None:
            for other, rest in above:
                if other == identity:
                    found[os.path.join(root, rest) if rest else root] = None
    return list(found)


def roots_in(folder: bytes, roots: Iterable[bytes]) -> list[bytes]:
    """Return the `roots` that are `folder` or lie in it, through any links or mounts (all absolute)."""
    own = None if is_address(folder) else _identity(folder)

    def lies_in(root: bytes) -> bool:
        return (
            own is not None
            and not is_address(root)
            and any(own == other for other, _ in _upwards(os.path.realpath(root)))
        )

    return [root for root in roots if is_below(root, folder) or lies_in(root)]


def second_names(places: Sequence[bytes]) -> dict[bytes, bytes]:
    """Map each of `places` that is another one, or lies in it, under a second path, to its path from that one.

    Of two equal places the first keeps its path; of nested ones, the outermost gives the path.
    """
    places = [place for place in places if not is_address(place)]
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
    """Return the shell's path of the `current` folder if it differs: after `cd link` it contains `link`. Else None."""
    shell = os.fsencode(os.environ.get("PWD", ""))
    return shell if _is_other_name(shell, current) else None


def _is_other_name(path: bytes, folder: bytes) -> bool:
    return os.path.isabs(path) and path != folder and os.path.normpath(path) == path and same_place(path, folder)


def _as_on_disk(path: bytes) -> bytes:
    """Return `path`, or the existing path with the same letters; the first by bytes if there are several."""
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
    """Names in a folder that are not ASCII, by their NFC form."""
    names = sorted((name for name in os.listdir(folder) if not name.isascii()), reverse=True)
    return {same_letters(name): name for name in names}


def _upwards(path: bytes) -> Iterator[tuple[_Identity, bytes]]:
    """Yield the identity of `path` and of each folder above it that exists, with the path from it to `path`."""
    place, rest = path, b""
    while True:
        if (identity := _identity(place)) is not None:
            yield identity, rest
        above, name = os.path.split(place)
        if above == place:
            return
        place, rest = above, os.path.join(name, rest) if rest else name


def _identity(path: bytes) -> _Identity | None:
    """Device and inode; None if it does not exist or cannot be examined."""
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return None
    return status.st_dev, status.st_ino
