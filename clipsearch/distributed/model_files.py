"""The files of a model on a worker: found on its disk, or sent to it and kept in its cache for later runs."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from clipsearch.errors import ModelError
from clipsearch.models.disk.files import ModelFiles, find_local, layout_of, model_paths, needed
from clipsearch.models.in_numpy.sealed import cache_folder
from clipsearch.models.in_torch.loading import known_fingerprint

_PIECE_BYTES = 16 * 2**20
"""Size of the pieces in which files are sent."""
_LEFTOVER_SECONDS = 24 * 3600
"""When a model that is arriving, and has got no new file for so long, is one that nobody sends any more."""


def pieces(folder: Path) -> Iterator[tuple[str, int, bytes]]:
    """Yield the files of a model in pieces: name, offset and content of each."""
    names = {path.name for path in model_paths(folder)} | needed(set(os.listdir(folder)))
    for name in sorted(names):
        with (folder / name).open("rb") as file:
            offset = 0
            while content := file.read(_PIECE_BYTES):
                yield name, offset, content
                offset += len(content)


def receive(fingerprint: str, name: str, offset: int, content: bytes) -> None:
    """Write a piece of a file of a model to this disk. `find` finds the model once all of it is there.

    Raises:
        ModelError: it cannot be written.
    """
    path = _arriving(fingerprint) / os.path.basename(name)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | getattr(os, "O_BINARY", 0))
        with open(descriptor, "wb") as file:
            file.seek(offset)
            file.write(content)
    except OSError as error:
        raise ModelError(f"The model cannot be written to {path.parent}: {error.strerror}.") from error


def find(name: str, revision: str | None, fingerprint: str) -> ModelFiles | None:
    """Return the files of the model with this fingerprint on this disk; None if it is not there. Asks no network."""
    with suppress(ModelError, OSError):  # no folder of this name here, say
        files = find_local(name, revision=revision)
        if files and known_fingerprint(files.folder) == fingerprint:
            return files
    kept, arrived = _folder() / fingerprint, _arriving(fingerprint)
    with suppress(OSError):  # another worker of this machine has put the same in its place
        if arrived.is_dir() and known_fingerprint(arrived) == fingerprint:
            arrived.rename(kept)
    with suppress(ModelError, OSError):
        if kept.is_dir() and known_fingerprint(kept) == fingerprint:
            _tidy(fingerprint)
            return ModelFiles(name, kept, revision, layout_of(kept))
    return None


def _tidy(fingerprint: str) -> None:
    """Delete what this process has received although another was first, and what dead ones left in the middle."""
    for folder in _folder().glob(f"{fingerprint}.*"):
        with suppress(OSError):
            if folder == _arriving(fingerprint) or time.time() - folder.stat().st_mtime > _LEFTOVER_SECONDS:
                shutil.rmtree(folder)


def _folder() -> Path:
    return cache_folder() / "sent-models"


def _arriving(fingerprint: str) -> Path:
    """Where this process writes a model until it is complete."""
    return _folder() / f"{fingerprint}.{os.getpid()}"
