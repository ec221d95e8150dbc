"""One update of an index: compares, reads, embeds and records, with checkpoints."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Generator, Iterable
from contextlib import closing
from datetime import UTC, datetime
from functools import cached_property
from itertools import chain

import numpy as np

from clipsearch.images.codecs.missing_share import missing
from clipsearch.images.other_files import total
from clipsearch.index.diff import Changes
from clipsearch.index.format import FINISHED, Record
from clipsearch.index.models import IndexModel, LoadedModel
from clipsearch.index.pipeline import Batch, Item, Pipeline
from clipsearch.index.summary import Merged, Summary
from clipsearch.index.targets import Target
from clipsearch.index.writing import Writer
from clipsearch.system.addresses import is_address
from clipsearch.system.members import on_disk
from clipsearch.system.paths import is_below
from clipsearch.system.progress import Progress

CHECKPOINT_SECONDS = 5.0
"""The longest time between checkpoints. If the machine dies, this much work is lost, and the files in the threads."""
_MOST_SAME_CONTENT = 100
"""Largest number of files that wait for the vector of another one with the same content. More are embedded themselves,
which limits memory."""


class Run:
    """One update while it holds the lock. Call `merge`, `compare` and `record`, in this order."""

    def __init__(
        self,
        writer: Writer,
        changes: Changes,
        places: list[Target],
        *,
        model: IndexModel,
        max_pixels: int,
        pipeline: Pipeline,
        progress: Progress,
        keeps_dead: bool = False,
    ) -> None:
        """Prepare; with `keeps_dead`, vectors that no file has any more stay."""
        self.summary = Summary(part=writer.part())
        self._keeps_dead = keeps_dead
        self._writer = writer
        self._changes = changes
        self._places = places
        self._model = model
        self._max_pixels = max_pixels
        self._pipeline = pipeline
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
            self._changes.compare(
                place,
                self._writer,
                allow_empty=allow_empty,
                searching=self._progress.searching,
                lacks=self._writer.lacks_regions if self._writer.region_side is not None else None,
            )
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
        if not self._keeps_dead:
            self._writer.compact()
        self._writer.make_codes()
        self.summary.unreadable = [item for place in self._places for item in self._writer.unreadable(place.start)]
        self.summary.unreadable += self.summary.unreachable
        self.summary.damaged = [item for place in self._places for item in self._writer.damaged(place.start)]
        self.summary.images = self._writer.count()
        regions = self._writer.regions_record()
        self.summary.regions = regions and regions.rows

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
            batches = self._pipeline.embed_images(
                chain([first], items),
                self._loaded_model,
                total=self._changes.counts.waiting,
                max_pixels=self._max_pixels,
                seconds=CHECKPOINT_SECONDS / 2,  # so that two batches fit between checkpoints
                regions=self._writer.region_side is not None,
                judge=self._judged,
            )
            with closing(batches):
                for batch in batches:
                    self._record(batch)

    def _without_vector(self) -> Generator[Item, None, None]:
        """Yield the files whose content has no vector yet, and record the others."""
        with closing(self._pipeline.read_images(self._changes.waiting(), self._max_pixels)) as items:
            for item in items:
                self._checkpoint_before(0)
                record = item.record
                waiting = self._same_content.get(record.hash or b"")
                if item.vanished:
                    self._vanished(record.path)
                elif item.unreachable and self._has_vector(record.path):
                    self.summary.unreachable.append((record.path, f"{record.error}; the index keeps what it had of it"))
                    self._progress.advance(1, unreadable=1)
                elif record.error is not None:
                    self._put_unreadable(record)
                elif waiting is not None and len(waiting) < _MOST_SAME_CONTENT:
                    waiting.append(record)
                else:
                    known = self._adopt(record)
                    if known is None or self._writer.lacks_regions(known):
                        self._same_content.setdefault(record.hash or b"", [])
                        yield item if known is None else item._replace(record=known, only_regions=True)

    def _record(self, batch: Batch) -> None:
        embedded = [(item.record, item.vector) for item in batch.items if item.vector is not None]
        if embedded:
            records = [record for record, _ in embedded]
            regions = [item.regions for item in batch.items if item.vector is not None]
            self._writer.add(records, np.stack([vector for _, vector in embedded]), regions)
            self._note_damaged(*records)
            self.summary.embedded += len(records)
            self._done(len(records))
        for item in batch.items:
            if item.only_regions:  # if it could not be decoded this time, it still has its vector
                self._add_regions(item)
            elif item.vector is None:
                self._put_unreadable(item.record)
        for item in batch.items:
            self._record_same_content(item.record)
        self._checkpoint_before(batch.seconds)

    def _adopt(self, record: Record) -> Record | None:
        """Record a file with the vector that the index has of its content, if it has one, and return what was recorded.

        Its regions are copied from another file with the same content that has them.
        """
        known = self._writer.same_content(record.hash or b"")
        if not known:
            return None
        touched = next((other for other in known if other.path == record.path), None)
        moved = next((other for other in known if other.path in self._changes.gone), None)
        # When files swap their names, the first one recorded leaves the content of the other without a path.
        dead = next((other for other in known if not other.path), None)
        own = _as_read(touched or moved or dead or known[0], record)
        if self._refuses(own):
            own = _refused(own)
            self._put_unreadable(own)
            return own
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
            if dead:
                self._writer.put(own)
            else:
                own = self._writer.add_copy(own)
            self._note_damaged(own)
            self.summary.copied += 1
        for other in known:
            if other.row is not None:
                self._writer.copy_regions(other.row, own)
        self._done(1, known=1)
        return own

    def _add_regions(self, item: Item) -> None:
        """Record the regions of an image that had its vector before."""
        if item.regions is not None:
            self._writer.add_regions(item.record, item.regions)
            self.summary.given_regions += 1

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

    def _has_vector(self, path: bytes) -> bool:
        known = self._writer.record(path)
        return known is not None and known.row is not None

    def _done(self, files: int, unreadable: int = 0, known: int = 0) -> None:
        self._recorded += files
        self._progress.advance(files, unreadable, known)

    def _put_unreadable(self, record: Record) -> None:
        self._writer.put(record)
        self._done(1, unreadable=1)

    def _vanished(self, path: bytes) -> None:
        """Note that a file was deleted after the search found it."""
        # If its folder is gone, too, a drive may have been unplugged, which the next run finds out.
        if (known := self._writer.record(path)) and (is_address(path) or os.path.isdir(os.path.dirname(on_disk(path)))):
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
        self._changes.archives.record(self._writer, [place.start for place in self._places])

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
