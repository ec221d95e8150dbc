"""Thumbnails on the disk, by the content of their pictures, up to a limit of bytes.

Files are named by a hash, so that nothing that a client sends becomes a path. Whatever the disk refuses is not an
error: the thumbnail is made again.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

_AFTER = 0.8
"""When more than the limit is used, the files that were not used for longest are deleted, down to this share of it."""
_DAY = 86_400
"""Seconds after which the time of a file's last use is written again."""


class ThumbnailCache:
    """A folder of thumbnails. Threads and processes may share it."""

    def __init__(self, folder: Path, most_bytes: int) -> None:
        """Use `folder`, which is made when it is first needed, for up to `most_bytes`; 0 for none at all."""
        self._folder, self._most = folder, most_bytes
        self._used: int | None = None
        """Bytes of all files; None until they were counted."""
        self._changing = threading.Lock()

    def get(self, content: bytes, side: int) -> bytes | None:
        """Return the thumbnail of a picture, given the hash of its content, with this longest side; None if none is."""
        path = self._path(content, side)
        with contextlib.suppress(OSError):
            found = path.read_bytes()
            if path.stat().st_mtime < time.time() - _DAY:
                os.utime(path)
            return found or None
        return None

    def put(self, content: bytes, side: int, thumbnail: bytes) -> None:
        """Keep a thumbnail; those that were not used for longest may be deleted."""
        if len(thumbnail) > self._most:
            return
        path = self._path(content, side)
        with contextlib.suppress(OSError):
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)  # others may not see what is in pictures
            path.parent.mkdir(exist_ok=True)
            new = path.with_name(f"{path.name}.{os.getpid()}.{threading.get_ident()}.new")
            new.write_bytes(thumbnail)
            os.replace(new, path)
            with self._changing:
                self._used = self._counted() if self._used is None else self._used + len(thumbnail)
                if self._used > self._most:
                    self._shrink()

    def _path(self, content: bytes, side: int) -> Path:
        name = content.hex()
        return self._folder / name[:2] / f"{name[2:]}-{side}.webp"

    def _files(self) -> Iterator[tuple[float, int, str]]:
        """Yield when each file was last used, its bytes, and its path."""
        for part in self._folder.iterdir():
            with contextlib.suppress(OSError), os.scandir(part) as files:
                for file in files:
                    status = file.stat(follow_symlinks=False)
                    yield status.st_mtime, status.st_size, file.path

    def _counted(self) -> int:
        return sum(size for _, size, _ in self._files())

    def _shrink(self) -> None:
        """Delete the files that were not used for longest."""
        files = sorted(self._files())
        self._used = sum(size for _, size, _ in files)
        for _, size, path in files:
            if self._used <= self._most * _AFTER:
                break
            with contextlib.suppress(OSError):
                os.remove(path)
                self._used -= size
