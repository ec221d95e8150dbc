"""Decoded images in a file, each content once: they are decoded once, however often a training looks at them.

The file grows with each image, and a run that was stopped goes on with what is there. It is mapped into memory, so
the system decides how much of it stays there.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, BinaryIO, NamedTuple

import numpy as np
import numpy.typing as npt

from clipsearch.index.pipeline import Item, decode_images, read_images
from clipsearch.system.flushing import replace_flushed, sync
from clipsearch.system.progress import Progress
from clipsearch.tasks.tuning.captioned import unreadable

if TYPE_CHECKING:
    from clipsearch.images.files import ImageFile
    from clipsearch.models.preprocessing import Preprocessing

_PIXELS, _KNOWN = "pictures.bin", "pictures.json"
"""The file with the pixels, and that with the hash of each image, in the same order."""


class Pixels(NamedTuple):
    """Images that are read from a file when they are asked for."""

    file: npt.NDArray[np.uint8]
    """(R, H, W, 3) uint8, mapped."""
    rows: npt.NDArray[np.int64]
    """(N,) row of each image."""

    def of(self, images: npt.NDArray[np.int64] | slice) -> npt.NDArray[np.uint8]:
        """Return the (B, H, W, 3) pixels of some images."""
        return np.asarray(self.file[self.rows[images]])


class Pictures:
    """The pixels of images, by the hash of their content."""

    def __init__(self, folder: Path, preprocessing: Preprocessing, size: tuple[int, int], *, seconds: float) -> None:
        """Take what an existing folder has, or begin anew.

        Args:
            folder: where the files are.
            preprocessing: makes the pixels.
            size: their height and width.
            seconds: for how long decoded images may be lost if the process is killed.
        """
        self.damaged: list[tuple[bytes, float]] = []
        """Path of each damaged image that was decoded, and the share of it that is missing."""
        self._folder, self._preprocessing, self._seconds = folder, preprocessing, seconds
        self._shape = (*size, 3)
        self._made = json.loads(json.dumps(preprocessing.to_json()))
        self._rows: dict[bytes, int] = {}
        if (folder / _KNOWN).exists():
            known = json.loads((folder / _KNOWN).read_text("utf-8"))
            if known["preprocessing"] == self._made:
                self._rows = {bytes.fromhex(digest): row for row, digest in enumerate(known["digests"])}

    def add(self, files: Sequence[ImageFile], progress: Progress) -> list[bytes]:
        """Read images, decode those that are not there yet, and return the hash of the content of each.

        Raises:
            InputError: an image cannot be read.
            OSError: the file cannot be written.
        """
        digests, saved = [], monotonic()
        progress.start(len(files))
        with (
            (self._folder / _PIXELS).open("r+b" if self._rows else "wb") as out,
            closing(read_images(files)) as contents,
            closing(decode_images(map(self._unless_known, contents), self._preprocessing)) as items,
        ):
            out.seek(len(self._rows) * int(np.prod(self._shape)))
            try:
                for item in items:
                    if item.record.error is not None or item.record.hash is None:
                        raise unreadable(item.file.path, item.record.error)
                    digests.append(item.record.hash)
                    if item.record.damage:
                        self.damaged.append((item.file.path, item.record.damage))
                    progress.advance(1, known=int(item.pixels is None))
                    if item.pixels is not None and item.record.hash not in self._rows:
                        out.write(item.pixels.tobytes())
                        self._rows[item.record.hash] = len(self._rows)
                    if monotonic() - saved >= self._seconds:
                        self._save(out)
                        saved = monotonic()
            finally:
                self._save(out)
        return digests

    def pixels(self, digests: Sequence[bytes]) -> Pixels:
        """Return images by the hashes of their contents."""
        file = np.memmap(self._folder / _PIXELS, np.uint8, "r", shape=(len(self._rows), *self._shape))
        return Pixels(file, np.array([self._rows[digest] for digest in digests], np.int64))

    def _unless_known(self, item: Item) -> Item:
        return item._replace(content=None) if item.record.hash in self._rows else item

    def _save(self, out: BinaryIO) -> None:
        out.flush()
        sync(out.fileno())
        known = {"preprocessing": self._made, "digests": [digest.hex() for digest in self._rows]}
        replace_flushed(self._folder / _KNOWN, json.dumps(known).encode())
