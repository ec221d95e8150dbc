"""Reading with a size limit, since a device or pipe that a user names may never end."""

from __future__ import annotations

import io
import os
from typing import BinaryIO

from clipsearch.errors import InputError

_BLOCK = 1 << 20
_LONGEST = 1 << 30
"""Bytes of a list of texts or names: some ten million of them."""


def read_up_to(stream: BinaryIO, limit: int) -> bytes | None:
    """Read `stream` to its end; return None as soon as it exceeds `limit` bytes."""
    content = io.BytesIO()
    while block := stream.read(_BLOCK):
        if content.tell() + len(block) > limit:
            return None
        content.write(block)
    return content.getvalue()


def read_list(stream: BinaryIO, name: str | os.PathLike[str]) -> bytes:
    """Read a list of texts or file names from a stream that errors call `name`.

    Raises:
        InputError: it is longer than any such list.
    """
    content = read_up_to(stream, _LONGEST)
    if content is None:
        raise InputError(f"{os.fspath(name)} is longer than {_LONGEST >> 30} GiB: that is no list of texts or names.")
    return content


def read_list_in(path: str | os.PathLike[str]) -> bytes:
    """Read a list of texts or file names from a file.

    Raises:
        InputError: it cannot be read, or is too long.
    """
    try:
        with open(path, "rb") as file:
            return read_list(file, path)
    except OSError as error:
        raise InputError(f"Cannot read {os.fspath(path)}: {error.strerror}") from error
