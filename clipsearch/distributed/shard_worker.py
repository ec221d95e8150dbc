"""What a worker does that makes the index of a part of the folders, on a disk that all machines see or on its own."""

from __future__ import annotations

import os
import shutil
import socket
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from clipsearch.distributed.worker import Amounts, Taken, Worker
from clipsearch.errors import ClipsearchError
from clipsearch.system.progress import Progress

if TYPE_CHECKING:
    from clipsearch.index.format import Computed

_WAIT_SECONDS = 120.0
"""How long to wait for the lock of an index. A server of files notices the end of a machine only after a while."""


class Shard(NamedTuple):
    """An index to make."""

    part: str
    """The part of the folders, as in "3/16"."""
    folder: Path
    """Where the index is to be, if this machine sees that."""
    witness: tuple[Path, bytes]
    """A file there, and its content."""
    key: str
    """The name of the folder in this machine's cache where the index is made otherwise."""
    paths: Sequence[Path]
    """The folders."""
    options: dict[str, Any]
    """As in `UpdateOptions`."""


class Made(NamedTuple):
    """An index that was made."""

    embedded: int
    copied: int
    amounts: Amounts
    """What was done since the last report."""
    files: Sequence[tuple[str, int]] = ()
    """Name and size in bytes of its files, which have to be fetched; empty if it is where it is to be."""


class ShardWorker(Worker):
    """A worker that makes indexes."""

    def __init__(self) -> None:
        super().__init__()
        self._progress = _Counting()

    def make(self, shard: Shard) -> Made:
        """Make or refresh the index of a part.

        Raises:
            ClipsearchError: it cannot be made. The message names this machine.
        """
        from clipsearch.index.format import ARRAYS, DATABASE
        from clipsearch.index.models import LoadedModel
        from clipsearch.index.updating import update

        used = self._computed

        class Model(LoadedModel):
            """The model, which notes in the index how it computes."""

            def computed(self) -> Computed | None:
                return used()

        folder = shard.folder if _sees(shard) else _own(shard)
        try:
            summary = update(
                folder,
                shard.paths,
                Model(*self._model),
                progress=self._progress,
                part=shard.part,
                wait=_WAIT_SECONDS,
                **shard.options,
            )
        except ClipsearchError as error:
            raise type(error)(f"{socket.gethostname()}: {error}", hint=error.hints, **error.facts) from error
        made = Made(summary.embedded, summary.copied, self._progress.take())
        if folder == shard.folder:
            return made
        names = [DATABASE, *(kind.name for kind in ARRAYS)]
        there = [folder / name for name in names if (folder / name).exists()]
        return made._replace(files=[(path.name, path.stat().st_size) for path in there])

    def piece(self, shard: Shard, name: str, offset: int, size: int) -> bytes:
        """Return a piece of a file of an index that was made on this machine's own disk."""
        with (_own(shard) / os.path.basename(name)).open("rb") as file:
            file.seek(offset)
            return file.read(size)

    def drop(self, shard: Shard) -> None:
        """Delete an index that was fetched."""
        shutil.rmtree(_own(shard), ignore_errors=True)

    def take(self) -> Taken:
        """Return how far the work is, as `Worker.take` does."""
        return super().take()._replace(amounts=self._progress.take())


class _Counting(Progress):
    """Counts what was done since it was last asked."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._amounts = Amounts()

    def take(self) -> Amounts:
        """Return what was done since the last call."""
        with self._lock:
            amounts, self._amounts = self._amounts, Amounts()
        return amounts

    def start(self, total: int) -> None:
        """Count the images that are to be embedded."""
        with self._lock:
            self._amounts = self._amounts._replace(found=total)

    def advance(self, files: int, unreadable: int = 0, known: int = 0) -> None:
        """Count images."""
        with self._lock:
            found, *done = self._amounts
            self._amounts = Amounts(found, done[0] + files, done[1] + unreadable, done[2] + known)


def _sees(shard: Shard) -> bool:
    """Whether this machine sees the folder of the machine that asked, and not one of its own that has the same path."""
    path, content = shard.witness
    try:
        return path.read_bytes() == content
    except OSError:
        return False


def _own(shard: Shard) -> Path:
    from clipsearch.models.in_numpy.sealed import cache_folder

    return cache_folder() / "shards" / shard.key / shard.part.replace("/", "-of-")
