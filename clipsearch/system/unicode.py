"""Check that a text is valid Unicode: Python keeps other bytes of command lines and files as surrogates."""

from __future__ import annotations

import re

from clipsearch.errors import InputError

NO_UTF_8 = re.compile("[\udc80-\udcff]")
"""Surrogates by which Python keeps bytes that are not UTF-8 (`surrogateescape`)."""


def check_utf8(text: str, what: str, *, hint: str | tuple[str, ...] = ()) -> None:
    """Check that `text`, which errors call `what`, was UTF-8.

    Raises:
        InputError: it was not; `hint` is the hint of the error.
    """
    try:
        text.encode()
    except UnicodeEncodeError as error:
        found = NO_UTF_8.search(text)
        byte = f" (byte 0x{ord(found[0]) - 0xDC00:02x})" if found else ""
        raise InputError(f"{what} is not UTF-8{byte}: {text!r}.", hint=hint) from error
