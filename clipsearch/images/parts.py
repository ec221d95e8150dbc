"""Parts of a folder, so that several machines share the work: each file belongs to one of them by its path alone.

The path is relative to the root, so every machine gets the same parts, wherever the root is mounted.
"""

from __future__ import annotations

import re
from hashlib import blake2b
from typing import NamedTuple

from clipsearch.errors import InputError
from clipsearch.system.paths import same_letters

_WRITTEN = re.compile(r"([0-9]{1,9})/([0-9]{1,9})", re.ASCII)


class Part(NamedTuple):
    """One of several parts of a root."""

    number: int
    """From 1 on."""
    of: int
    """The number of parts."""

    @classmethod
    def parse(cls, text: str) -> Part:
        """Parse a part as it is written for people: 3/16.

        Raises:
            InputError: `text` is no part.
        """
        found = _WRITTEN.fullmatch(text.strip())
        part = cls(int(found[1]), int(found[2])) if found else cls(0, 0)
        if not 1 <= part.number <= part.of:
            raise InputError(f"{text!r} is no part: it is a number of 1 to N, a slash, and N, as in 3/16.")
        return part

    def __str__(self) -> str:
        """Return the part as `parse` takes it."""
        return f"{self.number}/{self.of}"

    def holds(self, path: bytes) -> bool:
        """Whether a file belongs to this part, by its path relative to the root.

        The BLAKE2b of the path, 8 bytes long and read as a big-endian number, modulo the number of parts decides.
        Paths with the same letters are in the same part, because systems differ in the Unicode form that they store.
        """
        hashed = blake2b(same_letters(path), digest_size=8).digest()
        return int.from_bytes(hashed, "big") % self.of == self.number - 1
