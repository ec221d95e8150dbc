"""Addresses of objects in stores and on web servers, kept as paths: `s3://bucket/photos/cat.jpg`.

An address is a path as bytes that begins with a scheme of `SCHEMES`. No absolute path of the file system does, and no
relative one that is normalised, since they have no `//`. Addresses contain no credentials.
"""

from __future__ import annotations

import os
import re

from clipsearch.errors import InputError

SCHEMES = ("gs", "http", "https", "s3")
"""Schemes of the addresses that are read, sorted."""
STARTS = tuple(f"{scheme}://".encode() for scheme in SCHEMES)
LIST_MARK = b"!"
"""What follows the address of a list, in the paths of what is on it: `https://host/list.txt!/cat.jpg`."""
_LIST = b".txt"
_WRITTEN = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):(/+)(.*)", re.DOTALL)
_HOST = re.compile(r"(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?")
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]+")

_KEYS = {"gs": "gs-keys", "http": "no-password", "https": "no-password", "s3": "s3-keys"}
"""Keys of the hints on where credentials belong."""


def is_address(path: bytes) -> bool:
    """Return whether a path is an address."""
    return path.startswith(STARTS)


def is_web(address: bytes) -> bool:
    """Return whether an address is that of a web server, and not of an object store."""
    return address.startswith(b"http")


def is_list(address: bytes) -> bool:
    """Return whether an address is that of a list of addresses: a text file on a web server."""
    return is_web(address) and LIST_MARK not in address and address.lower().endswith(_LIST)


def as_address(given: str | os.PathLike[str]) -> bytes | None:
    """Return the address that a user wrote, as a path; None if it is none. Slashes at its end are left out.

    A `pathlib.Path` merges the two slashes into one, so that one is enough, unless there is such a folder.

    Raises:
        InputError: its scheme is unknown, it has no bucket or host, or it may contain credentials.
    """
    found = _WRITTEN.match(os.fspath(given))
    if found is None:
        return None
    scheme, slashes, rest = found[1].lower(), found[2], found[3]
    if slashes != "//" and (isinstance(given, str) or os.path.lexists(given)):
        return None
    if scheme not in SCHEMES:
        if os.path.lexists(given):
            return None
        raise InputError(
            f"Addresses that begin with {scheme}:// are not read; those that do begin with "
            f"{', '.join(f'{one}://' for one in SCHEMES)}.",
            hint="no-scheme",
        )
    _check(scheme, rest)
    return os.fsencode(f"{scheme}://{rest.rstrip('/')}")


def url_of(address: bytes) -> bytes:
    """Return the address under which a file is asked for: on a list, that of its line, resolved against the list."""
    place, mark, inner = address.partition(LIST_MARK + b"/") if is_web(address) else (address, b"", b"")
    if not mark or is_address(inner):
        return inner or address
    from urllib.parse import urljoin

    return os.fsencode(urljoin(os.fsdecode(place), os.fsdecode(inner)))


def _check(scheme: str, rest: str) -> None:
    """Check what follows the scheme of an address, without repeating it: it may contain a password.

    Raises:
        InputError: as for `as_address`.
    """
    place, _, inner = rest.partition("/")
    if "@" in place or (scheme in ("gs", "s3") and ":" in place):
        raise InputError(
            f"An address must contain no credentials, and this one ({scheme}://...) has some.", hint=_KEYS[scheme]
        )
    if scheme in ("gs", "s3"):
        if not _BUCKET.fullmatch(place):
            raise InputError(f"{scheme}://{place} names no bucket: an address is {scheme}://BUCKET/FOLDER.")
        return
    if not _HOST.fullmatch(place):
        raise InputError(f"{scheme}://{place} names no host: an address is {scheme}://HOST/FOLDER/list.txt.")
    if "?" in inner or "#" in inner:
        address = f"{scheme}://{place}/{re.split('[?#]', inner)[0]}"
        raise InputError(
            f"{address} is followed by ? or #: what comes there may be a key, and the index would keep it.",
            hint="no-query",
        )
