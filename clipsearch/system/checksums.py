"""Whether files are what they were when they were written: checksums, and a note of the files that were compared.

Reading hundreds of megabytes to compare a checksum takes longer than a query. So what was compared once counts as whole
for as long as the file system says that it is the same file, unchanged; anything else is compared again. Knows nothing
of what the files hold.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from clipsearch.system.flushing import replace_flushed

Identity = list[int]
"""Size, time of the last change of content and of anything (ns), inode, device: who writes a file changes one."""

_BLOCK = 1 << 20
"""Bytes read at a time: enough to be fast, and nothing beside what a query needs anyway."""


def checksum(path: Path) -> str:
    """BLAKE2b-128 of a file's content, in hexadecimal digits.

    Raises:
        OSError: it cannot be read.
    """
    digest = hashlib.blake2b(digest_size=16)
    block = memoryview(bytearray(_BLOCK))
    with path.open("rb", buffering=0) as file:
        while length := file.readinto(block):
            digest.update(block[:length])
    return digest.hexdigest()


def identity(path: Path) -> Identity:
    """What the file system says of a file.

    Raises:
        OSError: it is not there.
    """
    found = os.stat(path)
    return [found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino, found.st_dev]


class Compared:
    """A note of files that were found whole. Where it is damaged or cannot be written, they are compared again."""

    def __init__(self, note: Path) -> None:
        """`note` is the file; it need not be there."""
        self._note = note
        self._known = _read(note)

    def __contains__(self, path: Path) -> bool:
        """Whether this very file was found whole."""
        try:
            return self._known.get(self._key(path)) == identity(path)
        except OSError:
            return False

    def add(self, identities: Iterable[tuple[Path, Identity]]) -> None:
        """Note files with the identity that they had *before* they were read. What is gone is struck off."""
        kept = {name: known for name, known in self._known.items() if os.path.exists(self._note.parent / name)}
        self._known = kept | {self._key(path): known for path, known in identities}
        with suppress(OSError):
            replace_flushed(self._note, json.dumps(self._known, indent=0).encode())

    def forget(self) -> None:
        """Have all of them compared again."""
        self._known = {}
        with suppress(OSError):
            self._note.unlink()

    def _key(self, path: Path) -> str:
        """Files beside the note by their names, since the folder gets its own when all is written."""
        return path.name if path.parent == self._note.parent else str(path)


def _read(note: Path) -> dict[str, Identity]:
    try:
        known = json.loads(note.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return known if isinstance(known, dict) else {}
