"""What `index` does: scan, compare with the index, embed what is new, commit in checkpoints.

The model is handed in as a function and is loaded only when there is something to embed.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
from PIL import Image

from clipsearch.errors import InputError, UnreadableImageError
from clipsearch.images.decoding import decode
from clipsearch.images.finding import ImageFile, find_images
from clipsearch.images.reading import map_in_order, read_file
from clipsearch.paths import absolute, is_below
from clipsearch.store import ModelRecord, Record, Store, Writer

CHECKPOINT_SECONDS = 5.0
"""At most so much work is lost when the machine dies."""
_WORKERS = min(32, os.cpu_count() or 1)


class ImageEncoder(Protocol):
    """What indexing needs of a model."""

    @property
    def preprocessing(self) -> Callable[[Image.Image], npt.NDArray[np.uint8]]:
        """Makes (H, W, 3) pixels of one picture; called from several threads."""

    def encode_images(self, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """(B, D) unit vectors of (B, H, W, 3) pixels."""


class Progress(Protocol):
    """Who hears how it goes."""

    def start(self, total: int) -> None:
        """`total` files are to be read."""

    def advance(self, files: int) -> None:
        """So many more are done."""


@dataclass
class Summary:
    """What one run did, in numbers of files."""

    images: int = 0
    """In the index now, all roots together."""
    embedded: int = 0
    """Went through the model."""
    reused: int = 0
    """Kept their vector: unchanged, touched without change, or a copy of a known picture."""
    moved: int = 0
    """Known by content under another path, which is gone."""
    removed: int = 0
    """No longer there."""
    unreadable: list[tuple[bytes, str]] = field(default_factory=list)
    """Path and reason of every file under the roots that is no readable image."""


@dataclass(frozen=True)
class _Read:
    """One file that was read: its record so far, and its pixels if it has to be embedded."""

    record: Record
    pixels: npt.NDArray[np.uint8] | None = None


def scan(roots: Iterable[Path]) -> dict[bytes, ImageFile]:
    """All image files under `roots`, by absolute path.

    Raises:
        InputError: a root is missing, unreadable or holds no image.
    """
    files: dict[bytes, ImageFile] = {}
    for root in roots:
        found = {file.path: file for file in find_images(root)}
        if not found:
            raise InputError(f"No images in {root}. (Nothing was changed.)")
        files |= found
    return files


def changed_files(files: dict[bytes, ImageFile], known: dict[bytes, Record]) -> list[ImageFile]:
    """The files that must be read: new ones, and those whose size or time differs from their record."""
    return [
        file
        for path, file in files.items()
        if path not in known or (known[path].size, known[path].mtime_ns) != (file.size, file.mtime_ns)
    ]


def update(
    folder: Path,
    roots: list[Path],
    load_encoder: Callable[[], tuple[ImageEncoder, ModelRecord]],
    *,
    batch_size: int,
    progress: Progress,
) -> Summary:
    """Bring the index in `folder` up to date with `roots`, making it if need be.

    On an error or an interruption, everything done so far is committed first.

    Raises:
        ClipsearchError: a root cannot be used, the model cannot be loaded or is another than the index's, or the
            index cannot be written.
    """
    # 1. What is there. A wrong path or a missing model must not leave an empty index behind.
    files = scan(roots)
    if not Store.exists(folder):
        loaded = load_encoder()
        load_encoder = lambda: loaded  # noqa: E731
    with Store.write(folder) as writer:
        # 2. What the index knows of it.
        paths = [absolute(root) for root in roots]
        known = {record.path: record for record in writer.records()}
        gone = {path for path in known if path not in files and any(is_below(path, root) for root in paths)}
        work = changed_files(files, known)
        summary = Summary(reused=sum(known[path].row is not None for path in files.keys() - {f.path for f in work}))
        # 3. Read and embed what changed.
        try:
            if work:
                progress.start(len(work))
                job = _Update(
                    writer,
                    known,
                    gone,
                    load_encoder=load_encoder,
                    batch_size=batch_size,
                    summary=summary,
                    progress=progress,
                )
                job.run(work)
            # 4. Forget what is gone and was not found again elsewhere.
            writer.remove(gone)
            summary.removed = len(gone)
        finally:
            # A root counts once the index holds a file of it, so that a run that could not begin leaves no trace.
            held = {record.path for record in writer.records()}
            for path in paths:
                if any(is_below(file, path) for file in held):
                    writer.add_root(path)
            writer.commit()
        writer.compact()
        summary.unreadable = sorted((r.path, r.error) for r in writer.records() if r.error and r.path in files)
        summary.images = writer.contents().images
    return summary


class _Update:
    """The reading and embedding of one run."""

    def __init__(
        self,
        writer: Writer,
        known: dict[bytes, Record],
        gone: set[bytes],
        *,
        load_encoder: Callable[[], tuple[ImageEncoder, ModelRecord]],
        batch_size: int,
        summary: Summary,
        progress: Progress,
    ) -> None:
        self._writer = writer
        self._known = known
        self._gone = gone
        """Known paths that are no longer there; moved files are taken out of it."""
        self._load_encoder = load_encoder
        self._batch_size = batch_size
        self._summary = summary
        self._progress = progress
        self._committed_at = -math.inf  # the first batch is committed at once

    def run(self, work: list[ImageFile]) -> None:
        """Read, embed and record `work`. The model is loaded only if some content is new."""
        fresh = self._adopt_known(work)
        if not fresh:
            return
        encoder, model = self._load_encoder()
        self._writer.set_model(model)

        def read(file: ImageFile) -> _Read:
            return _read(file, encoder.preprocessing)

        batch: list[_Read] = []
        for item in map_in_order(read, fresh, _WORKERS, self._batch_size + 2 * _WORKERS):
            if item.pixels is None:
                self._writer.put(item.record)
                self._progress.advance(1)
                continue
            batch.append(item)
            if len(batch) == self._batch_size:
                self._embed(encoder, batch)
                batch = []
        if batch:
            self._embed(encoder, batch)

    def _embed(self, encoder: ImageEncoder, batch: list[_Read]) -> None:
        vectors = encoder.encode_images(np.stack([item.pixels for item in batch if item.pixels is not None]))
        for row, item in zip(self._writer.append(vectors), batch, strict=True):
            self._writer.put(replace(item.record, row=row))
        self._summary.embedded += len(batch)
        if time.monotonic() - self._committed_at > CHECKPOINT_SECONDS:
            self._writer.commit()
            self._committed_at = time.monotonic()
        self._progress.advance(len(batch))

    def _adopt_known(self, work: list[ImageFile]) -> list[ImageFile]:
        """Give files whose content is in the index already its vector; the rest comes back."""
        by_hash = {record.hash: record for record in self._known.values() if record.row is not None}
        if not by_hash:
            return work
        matrix, _ = self._writer.matrix()
        fresh = []
        for file, digest in zip(work, map_in_order(_hash, work, _WORKERS, 4 * _WORKERS), strict=True):
            twin = by_hash.get(digest)
            if twin is None or twin.row is None:
                fresh.append(file)
                continue
            record = replace(twin, path=file.path, size=file.size, mtime_ns=file.mtime_ns)
            before = self._known.get(file.path)
            if before is not None and before.row is not None and before.hash == digest:
                self._writer.put(replace(record, row=before.row))
                self._summary.reused += 1
            elif twin.path in self._gone:
                self._writer.move(twin.path, record)
                self._gone.discard(twin.path)
                by_hash[digest] = record
                self._summary.moved += 1
            else:
                (row,) = self._writer.append(matrix[[twin.row]].astype(np.float32))
                self._writer.put(replace(record, row=row))
                self._summary.reused += 1
            self._progress.advance(1)
        return fresh


def _hash(file: ImageFile) -> bytes | None:
    try:
        return read_file(file.path)[1]
    except UnreadableImageError:
        return None


def _read(file: ImageFile, preprocess: Callable[[Image.Image], npt.NDArray[np.uint8]]) -> _Read:
    record = Record(file.path, None, file.size, file.mtime_ns, None)
    try:
        content, digest = read_file(file.path)
        record = replace(record, hash=digest)
        picture = decode(content)
    except UnreadableImageError as error:
        return _Read(replace(record, error=str(error)))
    record = replace(record, width=picture.width, height=picture.height, taken_at=picture.taken_at)
    return _Read(record, preprocess(picture.image))
