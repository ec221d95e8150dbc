"""Whether a text is Unicode: command lines and files may hold any bytes, which Python keeps as surrogates."""

from __future__ import annotations

import re

from clipsearch.errors import InputError

NO_UTF_8 = re.compile("[\udc80-\udcff]")
"""How Python keeps bytes that are not UTF-8 (`surrogateescape`)."""


def check_utf8(text: str, what: str, *, hint: str | tuple[str, ...] = ()) -> None:
    """Raises InputError if `text`, which errors call `what`, is no Unicode: its bytes were not UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        found = NO_UTF_8.search(text)
        byte = f" (byte 0x{ord(found[0]) - 0xDC00:02x})" if found else ""
        raise InputError(f"{what} is not UTF-8{byte}: {text!r}.", hint=hint) from error
