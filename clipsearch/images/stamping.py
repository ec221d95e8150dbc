"""Numbers that show that an object changed, in place of those of a file system."""

from __future__ import annotations

from datetime import datetime
from email.utils import parsedate_to_datetime
from hashlib import blake2b


def modified_ns(when: datetime | str | None) -> int:
    """Return the time of the last change in ns since 1970, in whole seconds; 0 if it is unknown.

    Listings have parts of seconds, and headers of HTTP (`when` as text) have none.
    """
    if isinstance(when, str):
        try:
            when = parsedate_to_datetime(when)
        except ValueError:
            return 0
    return 0 if when is None else int(when.timestamp()) * 10**9


def number_of(etag: str | None) -> int | None:
    """Return a number of 63 bits for an ETag, which takes the place of an inode; None if there is none."""
    if not etag:
        return None
    hashed = blake2b(etag.removeprefix("W/").strip('"').encode("utf-8", "surrogateescape"), digest_size=8)
    return int.from_bytes(hashed.digest(), "big") >> 1 or 1
