"""Updates an index: compares it with folders, embeds new images, and commits in checkpoints.

The module knows nothing of how a model is chosen and computes: one is passed in, and is loaded when it is needed.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Generator, Iterable, Sequence
from contextlib import closing
from datetime import UTC, datetime
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import TypedDict, Unpack

import numpy as np

from clipsearch.errors import InputError
from clipsearch.images.finding import Rules
from clipsearch.images.limits import default_max_pixels
from clipsearch.images.missing_share import missing
from clipsearch.images.optional_packages import readers
from clipsearch.images.other_files import total
from clipsearch.index.diff import Changes, Target, names_of, targets
from clipsearch.index.format import FINISHED, Record
from clipsearch.index.pipeline import Batch, IndexModel, Item, LoadedModel, embed_images, read_images
from clipsearch.index.reading import Store, missing_index
from clipsearch.index.summary import Merged, Summary
from clipsearch.index.writing import Writer
from clipsearch.system.paths import absolute, is_below
from clipsearch.system.progress import SILENT, Progress

CHECKPOINT_SECONDS = 5.0
"""The longest time between checkpoints. If the machine dies, this much work is lost, and the files in the threads."""
_MOST_SAME_CONTENT = 100
"""Largest number of files that wait for the vector of another one with the same content. More are embedded themselves,
which limits memory."""


class UpdateOptions(TypedDict, total=False):
    """The options of an update."""

    rules: Rules | None
    """Which files to take. The index stores the rules for the paths; None leaves known roots as they are."""
    skip_damaged: bool | None
    """Whether to refuse damaged images. The index stores this for the paths; None leaves known roots as they are."""
    allow_empty: bool
    """Whether a folder may be without images; its records are then deleted. Otherwise it is an error."""
    reread: bool
    """Whether to read every file, changed or not."""
    max_pixels: int | None
    """Images with more pixels are not decoded; by default the number that fits this machine's memory."""
    wait: float
    """For how many seconds to wait for another writer."""


def update(
    folder: Path,
    paths: Sequence[Path],
    model: IndexModel,
    *,
    progress: Progress = SILENT,
    **options: Unpack[UpdateOptions],
) -> Summary:
    """Update the index in `folder`, or create it. An error or an interruption commits everything done so far first.

    Args:
        folder: that of the index.
        paths: the folders and files to search; without any, all roots of the index.
        model: is loaded only when there is something to embed.
        progress: is updated with the numbers of files found and done.
        options: see `UpdateOptions`.

    Raises:
        IndexMissingError: there is neither an index nor a path.
        ClipsearchError: a path cannot be searched, the model cannot be loaded or is not that of the index, or the index
            cannot be written.
    """
    # Checked first in any case, because only `exists` raises the error for a folder without permission.
    if not Store.exists(folder) and not paths:
        raise missing_index(folder)
    limit = options.get("max_pixels") or default_max_pixels()
    allow_empty = options.get("allow_empty", False)
    # The lock is taken first, so that an index that cannot be written is reported before a search or a model load.
    with closing(Changes()) as changes, Writer.locked(folder, wait=options.get("wait", 0)) as writer:
        roots = writer.roots()
        paths = paths or [Path(os.fsdecode(root.path)) for root in roots]
        if not paths:
            raise InputError(f"The index in {folder} knows no folder to refresh.", hint="name-folder")
        model.choose(writer, writer.model(), paths)
        starts = [absolute(path) for path in paths]
        names = names_of(starts, roots)
        places = targets(
            [names.get(start, start) for start in starts],
            [root for root in roots if root.path not in names],
            options.get("rules"),
            f"{readers()}, {limit} pixels",
            reread=options.get("reread", False),
            skip_damaged=options.get("skip_damaged"),
        )
        run = _Run(writer, changes, places, model=model, max_pixels=limit, progress=progress)
        run.merge(
            Merged(path, name)
            for path, name in names.items()
            if path in starts or any(is_below(name, place.start) for place in places)
        )
        run.compare(allow_empty=allow_empty)
        run.record(allow_empty=allow_empty)
        return run.summary


class _Run:
    """One update while it holds the lock. Call `merge`, `compare` and `record`, in this order."""

    def __init__(
        self,
        writer: Writer,
        changes: Changes,
        places: list[Target],
        *,
        model: IndexModel,
        max_pixels: int,
        progress: Progress,
    ) -> None:
        self.summary = Summary()
        self._writer = writer
        self._changes = changes
        self._places = places
        self._model = model
        self._max_pixels = max_pixels
        self._progress = progress
        self._computed_before = (writer.last_run() or {}).get("computed")
        self._started = time.monotonic()
        self._committed = -math.inf  # the first file is committed at once, so that errors in writing show early
        self._same_content: dict[bytes, list[Record]] = {}
        """For each content that is being decoded or embedded, other files found meanwhile that have the same
        content."""
        self._recorded = 0
        """Number of files that this run has recorded."""

    def merge(self, merged: Iterable[Merged]) -> None:
        """Rename records of paths that lie in another root under a second name."""
        if self._writer.created:  # so that other processes see the new index
            self._checkpoint("unfinished")
            self._committed = -math.inf
        for path, name in merged:
            self._writer.rename(path, name)
            self.summary.merged.append(Merged(path, name))

    def compare(self, *, allow_empty: bool) -> None:
        """Find all changes, before any of them is committed."""
        for place in self._places:
            self._changes.compare(place, self._writer, allow_empty=allow_empty, searching=self._progress.searching)
        self.summary.unchanged = self._changes.counts.unchanged
        self.summary.passed_over = total([self._changes.passed_over(place) for place in self._places])
        if self._changes.counts.waiting:
            self._progress.start(self._changes.counts.waiting)
            if self._writer.created:
                _ = self._loaded_model  # if it cannot be loaded, nothing must have been recorded

    def record(self, *, allow_empty: bool) -> None:
        """Read, embed and record what has changed, and delete the records of what is gone."""
        try:
            self._writer.fill_in(self._changes.unnoted())
            # 1. Record new and changed files.
            if self._changes.counts.waiting:
                self._embed_all()
            # 2. Delete the records of files that are gone and were not found elsewhere.
            self._remove(allow_empty=allow_empty)
            self._checkpoint(FINISHED)
        except BaseException as error:
            # A run that recorded nothing commits nothing.
            if self._writer.sound and self._recorded:
                interrupted = isinstance(error, KeyboardInterrupt)
                self._checkpoint("interrupted" if interrupted else f"failed: {error}".splitlines()[0])
            raise
        self._writer.compact()
        self.summary.unreadable = [item for place in self._places for item in self._writer.unreadable(place.start)]
        self.summary.damaged = [item for place in self._places for item in self._writer.damaged(place.start)]
        self.summary.images = self._writer.count()

    # -- embedding ---------------------------------------------------------------------------------------------

    @cached_property
    def _loaded_model(self) -> LoadedModel:
        """The model, which is loaded for the first file that needs it."""
        # Files read so far needed no vector. The estimate assumes that the rest need them just as rarely.
        model = self._model.load((self._changes.counts.waiting - self._recorded) // (self._recorded + 1))
        is_first = self._writer.bound_model() is None
        self._writer.set_model(model.record)
        if is_first and not self._recorded:
            self._writer.commit()  # so that other processes see the model
        if self._committed > 0:
            self._committed = time.monotonic()  # loading the model is no work that a crash could lose
        return model

    def _embed_all(self) -> None:
        """Read, decode and embed in threads, and record the results in this one, in order."""
        with closing(self._without_vector()) as items:
            first = next(items, None)
            if first is None:
                return
            batches = embed_images(
                chain([first], items),
                self._loaded_model,
                total=self._changes.counts.waiting,
                max_pixels=self._max_pixels,
                seconds=CHECKPOINT_SECONDS / 2,  # so that two batches fit between checkpoints
                judge=self._judged,
            )
            with closing(batches):
                for batch in batches:
                    self._record(batch)

    def _without_vector(self) -> Generator[Item, None, None]:
        """Yield the files whose content has no vector yet, and record the others."""
        with closing(read_images(self._changes.waiting(), self._max_pixels)) as items:
            for item in items:
                self._checkpoint_before(0)
                record = item.record
                waiting = self._same_content.get(record.hash or b"")
                if item.vanished:
                    self._vanished(record.path)
                elif record.error is not None:
                    self._put_unreadable(record)
                elif waiting is not None and len(waiting) < _MOST_SAME_CONTENT:
                    waiting.append(record)
                elif not self._adopt(record):
                    self._same_content.setdefault(record.hash or b"", [])
                    yield item

    def _record(self, batch: Batch) -> None:
        embedded = [(item.record, item.vector) for item in batch.items if item.vector is not None]
        if embedded:
            records = [record for record, _ in embedded]
            self._writer.add(records, np.stack([vector for _, vector in embedded]))
            self._note_damaged(*records)
            self.summary.embedded += len(records)
            self._done(len(records))
        for item in batch.items:
            if item.vector is None:
                self._put_unreadable(item.record)
        for item in batch.items:
            self._record_same_content(item.record)
        self._checkpoint_before(batch.seconds)

    def _adopt(self, record: Record) -> bool:
        """Record a file with the vector that the index has of its content, and return whether there is one."""
        known = self._writer.same_content(record.hash or b"")
        if not known:
            return False
        touched = next((other for other in known if other.path == record.path), None)
        moved = next((other for other in known if other.path in self._changes.gone), None)
        # When files swap their names, the first one recorded leaves the content of the other without a path.
        dead = next((other for other in known if not other.path), None)
        own = _as_read(touched or moved or dead or known[0], record)
        if self._refuses(own):
            self._put_unreadable(_refused(own))
            return True
        if touched:
            if own != touched:
                self._writer.put(own)
            self.summary.unchanged += own == touched
            self.summary.touched += own != touched
        elif moved:
            self._writer.move(moved.path, own)
            self._changes.gone.discard(moved.path)
            self.summary.moved += 1
        else:
            (self._writer.put if dead else self._writer.add_copy)(own)
            self._note_damaged(own)
            self.summary.copied += 1
        self._done(1, known=1)
        return True

    def _record_same_content(self, record: Record) -> None:
        """Record the files that waited because they have the same content as `record`."""
        for other in self._same_content.pop(record.hash or b"", []):
            if record.error is None:
                self._adopt(other)
            else:
                self._put_unreadable(_as_read(record, other))

    # -- records -----------------------------------------------------------------------------------------------

    def _judged(self, record: Record) -> Record:
        return _refused(record) if self._refuses(record) else record

    def _refuses(self, record: Record) -> bool:
        """Whether an image is damaged and its root refuses damaged images."""
        return record.damage is not None and any(
            place.skip_damaged for place in self._places if is_below(record.path, place.start)
        )

    def _note_damaged(self, *records: Record) -> None:
        self.summary.newly_damaged += [(record.path, record.damage) for record in records if record.damage is not None]

    def _done(self, files: int, unreadable: int = 0, known: int = 0) -> None:
        self._recorded += files
        self._progress.advance(files, unreadable, known)

    def _put_unreadable(self, record: Record) -> None:
        self._writer.put(record)
        self._done(1, unreadable=1)

    def _vanished(self, path: bytes) -> None:
        """Note that a file was deleted after the search found it."""
        # If its folder is gone, too, a drive may have been unplugged, which the next run finds out.
        if (known := self._writer.record(path)) and os.path.isdir(os.path.dirname(path)):
            (self._changes.gone_unreadable if known.row is None else self._changes.gone).add(path)
        self._progress.advance(1, known=1)

    def _remove(self, *, allow_empty: bool) -> None:
        for place in self._places:
            self._changes.confirm(place)
        for place in self._places:
            kept = [] if allow_empty else self._changes.keep(place)
            self.summary.kept += kept
            folders = self._changes.remembered(place, kept)
            if folders != self._writer.folders(place.start):
                self._writer.set_folders(place.start, folders)
        self.summary.removed = self._changes.gone.count()
        self.summary.left_out = self._changes.gone.count_left_out()
        self._writer.remove(chain(self._changes.gone, self._changes.gone_unreadable))
        for path, reason in self._changes.unreadable_folders.items():
            self._writer.put(Record(path, None, 0, 0, None, error=reason))

    # -- checkpoints -------------------------------------------------------------------------------------------

    def _seconds(self) -> float:
        """Return the seconds since the last checkpoint."""
        return time.monotonic() - self._committed

    def _checkpoint_before(self, next_step: float) -> None:
        """Make a checkpoint if one after a further step of `next_step` seconds would be too late."""
        if self._recorded and self._seconds() + next_step > CHECKPOINT_SECONDS:
            self._checkpoint("unfinished")

    def _checkpoint(self, outcome: str) -> None:
        """Commit, with the record of the run so far and, at its end, the formats that could be read."""
        computed = self._model.computed() if self.summary.embedded else None
        self.summary.seconds = round(time.monotonic() - self._started, 3)
        known = {root.path: root.options for root in self._writer.roots()}
        for place in self._places:
            if place.start == place.root:
                readers_before = known.get(place.root, {}).get("readers")
                options = place.options(
                    place.readers if outcome == FINISHED else readers_before, self._changes.passed_over(place)
                )
                self._writer.set_root(place.root, options)
        self._writer.set_last_run(
            {
                "ended_at": datetime.now(UTC).isoformat(timespec="seconds"),
                "outcome": outcome,
                "seconds": self.summary.seconds,
                "embedded": self.summary.embedded,
                "reused": self.summary.reused,
                "moved": self.summary.moved,
                "removed": self.summary.removed,
                "computed": computed._asdict() if computed else self._computed_before,
            }
        )
        self._writer.commit()
        self._committed = time.monotonic()


def _refused(record: Record) -> Record:
    """Turn the record of a damaged image into that of an unreadable file."""
    reason = f"damaged: {missing(record.damage or 0)}"
    return record._replace(row=None, width=None, height=None, taken_at=None, error=reason)


def _as_read(known: Record, file: Record) -> Record:
    """Return the record of a content with path, size and times of another file that has the same content."""
    return known._replace(
        path=file.path, size=file.size, mtime_ns=file.mtime_ns, ctime_ns=file.ctime_ns, inode=file.inode
    )
