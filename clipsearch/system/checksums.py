"""Checksums of files, and a record of the files whose checksums were compared.

Reading hundreds of megabytes to compare a checksum takes longer than a query. So a file that was compared once counts
as whole as long as its status shows no change; any other is compared again. Knows nothing of what the files contain.
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
"""Size, mtime and ctime (ns), inode, device. Whatever writes to a file changes one of them."""

_BLOCK = 1 << 20
"""Bytes read at a time: fast enough, and little beside the memory that a query needs anyway."""


def checksum(path: Path) -> str:
    """Return the BLAKE2b-128 of a file's content, in hexadecimal digits.

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
    """Return the identity of a file by its status.

    Raises:
        OSError: it does not exist.
    """
    found = os.stat(path)
    return [found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino, found.st_dev]


class Compared:
    """Record of files that were found whole. If it is damaged or cannot be written, they are compared again."""

    def __init__(self, note: Path) -> None:
        """Read the record from the file `note`, which need not exist."""
        self._note = note
        self._known = _read(note)

    def __contains__(self, path: Path) -> bool:
        """Return whether the file was found whole and has not changed since."""
        try:
            return self._known.get(self._key(path)) == identity(path)
        except OSError:
            return False

    def add(self, identities: Iterable[tuple[Path, Identity]]) -> None:
        """Record files with the identity that they had *before* they were read; drop files that no longer exist."""
        kept = {name: known for name, known in self._known.items() if os.path.exists(self._note.parent / name)}
        self._known = kept | {self._key(path): known for path, known in identities}
        with suppress(OSError):
            replace_flushed(self._note, json.dumps(self._known, indent=0).encode())

    def forget(self) -> None:
        """Delete the record, so that all files are compared again."""
        self._known = {}
        with suppress(OSError):
            self._note.unlink()

    def _key(self, path: Path) -> str:
        """Name of a file beside the record, whose folder may be renamed later; path of any other."""
        return path.name if path.parent == self._note.parent else str(path)


def _read(note: Path) -> dict[str, Identity]:
    try:
        known = json.loads(note.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return known if isinstance(known, dict) else {}
