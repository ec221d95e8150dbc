"""What `index` does: compare folders with the index, embed what is new, commit in checkpoints.

Knows nothing of how a model is chosen and computed: one is handed in, and is loaded when there is something to embed.
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
"""At most so much work is lost when the machine dies, and what the threads have under way."""
_MOST_SAME_CONTENT = 100
"""Files that wait for one with the same content. More are embedded again, so that neither memory nor time runs away."""


class UpdateOptions(TypedDict, total=False):
    """How a run does its work."""

    rules: Rules | None
    """Which files count. They are remembered for these paths; without them known roots keep theirs."""
    skip_damaged: bool | None
    """Whether images of which a part is missing are refused. Remembered likewise; None leaves known roots as they
    are."""
    allow_empty: bool
    """Accept a folder without any image, and forget the images that were in it; otherwise it is an error."""
    reread: bool
    """Read every file, also where nothing says that it changed."""
    max_pixels: int | None
    """Larger images are not decoded; by default what fits this machine's memory."""
    wait: float
    """For how many seconds another run may finish first."""


def update(
    folder: Path,
    paths: Sequence[Path],
    model: IndexModel,
    *,
    progress: Progress = SILENT,
    **options: Unpack[UpdateOptions],
) -> Summary:
    """Bring the index in `folder` up to date with what is under `paths`, making it if need be.

    Without `paths`, with all the folders that the index knows.

    `model` is loaded only when there is something to embed. Whatever ends the run, an error or an interruption,
    everything done so far is committed first.

    Raises:
        IndexMissingError: there is neither an index nor a path.
        ClipsearchError: a path cannot be used, the model cannot be loaded or is another than the index's, or the
            index cannot be written.
    """
    if (
        not Store.exists(folder) and not paths
    ):  # asked in any case: a folder that may not be searched has no other error
        raise missing_index(folder)
    limit = options.get("max_pixels") or default_max_pixels()
    allow_empty = options.get("allow_empty", False)
    # The lock comes before all else: whoever may not write is told at once, without a search or a model being loaded.
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
    """The writing part of one run: `merge`, `compare` and `record`, in this order."""

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
        self._committed = -math.inf  # the first file is committed at once: what cannot be written shows early
        self._same_content: dict[bytes, list[Record]] = {}
        """By digest, what is being decoded and embedded, and the files found meanwhile that have the same content."""
        self._recorded = 0
        """Files whose record this run wrote."""

    def merge(self, merged: Iterable[Merged]) -> None:
        """Call what is part of another root by its name there."""
        if self._writer.created:  # others see what is being made
            self._checkpoint("unfinished")
            self._committed = -math.inf
        for path, name in merged:
            self._writer.rename(path, name)
            self.summary.merged.append(Merged(path, name))

    def compare(self, *, allow_empty: bool) -> None:
        """Find what changed. Nothing is committed before all of it is known."""
        for place in self._places:
            self._changes.compare(place, self._writer, allow_empty=allow_empty, searching=self._progress.searching)
        self.summary.unchanged = self._changes.counts.unchanged
        self.summary.passed_over = total([self._changes.passed_over(place) for place in self._places])
        if self._changes.counts.waiting:
            self._progress.start(self._changes.counts.waiting)
            if self._writer.created:
                _ = self._loaded_model  # if there is none, nothing must have been recorded

    def record(self, *, allow_empty: bool) -> None:
        """Read, embed and record what changed, and forget what is gone."""
        try:
            self._writer.fill_in(self._changes.unnoted())
            # 1. What is new or changed.
            if self._changes.counts.waiting:
                self._embed_all()
            # 2. What is gone and was not found again elsewhere.
            self._remove(allow_empty=allow_empty)
            self._checkpoint(FINISHED)
        except BaseException as error:
            # A run that could not begin leaves no trace.
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
        """The model, loaded when the first file needs it."""
        # What was read so far needed no vector; it is taken that of the others one in as many does.
        model = self._model.load((self._changes.counts.waiting - self._recorded) // (self._recorded + 1))
        is_first = self._writer.bound_model() is None
        self._writer.set_model(model.record)
        if is_first and not self._recorded:
            self._writer.commit()  # others see what is being made
        if self._committed > 0:
            self._committed = time.monotonic()  # loading is no work that could be lost
        return model

    def _embed_all(self) -> None:
        """Read, decode and embed in threads; record here, in order."""
        with closing(self._without_vector()) as items:
            first = next(items, None)
            if first is None:
                return
            batches = embed_images(
                chain([first], items),
                self._loaded_model,
                total=self._changes.counts.waiting,
                max_pixels=self._max_pixels,
                seconds=CHECKPOINT_SECONDS / 2,  # two batches fit between checkpoints
                judge=self._judged,
            )
            with closing(batches):
                for batch in batches:
                    self._record(batch)

    def _without_vector(self) -> Generator[Item, None, None]:
        """The files whose content has no vector yet; the others are recorded on the way."""
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
        """Give a file whose content is in the index already its vector."""
        known = self._writer.same_content(record.hash or b"")
        if not known:
            return False
        touched = next((other for other in known if other.path == record.path), None)
        moved = next((other for other in known if other.path in self._changes.gone), None)
        # Files that swap their names take each other's place, and what was there is without a path for a moment.
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
        """Record the files with the same content as one that is recorded now."""
        for other in self._same_content.pop(record.hash or b"", []):
            if record.error is None:
                self._adopt(other)
            else:
                self._put_unreadable(_as_read(record, other))

    # -- records -----------------------------------------------------------------------------------------------

    def _judged(self, record: Record) -> Record:
        return _refused(record) if self._refuses(record) else record

    def _refuses(self, record: Record) -> bool:
        """Whether an image is damaged, and such images are refused where it lies."""
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
        """A file is gone since it was found."""
        # With its folder a drive may have gone: what became of it is for the next run to see.
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
        """Since the last checkpoint."""
        return time.monotonic() - self._committed

    def _checkpoint_before(self, next_step: float) -> None:
        """Make a checkpoint if the next chance for it comes too late: after a step that takes `next_step` seconds."""
        if self._recorded and self._seconds() + next_step > CHECKPOINT_SECONDS:
            self._checkpoint("unfinished")

    def _checkpoint(self, outcome: str) -> None:
        """Commit, with word of the run so far; at its end also with what could be read."""
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
    """`record` of a damaged image as that of a file that cannot be read."""
    reason = f"damaged: {missing(record.damage or 0)}"
    return record._replace(row=None, width=None, height=None, taken_at=None, error=reason)


def _as_read(known: Record, file: Record) -> Record:
    """What is known of a content, for a `file` that was read and has the same."""
    return known._replace(
        path=file.path, size=file.size, mtime_ns=file.mtime_ns, ctime_ns=file.ctime_ns, inode=file.inode
    )
