"""What `index` does: compare folders with the index, embed what is new, commit in checkpoints.

The model is handed in as a function and is loaded only when there is something to embed.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property, partial
from itertools import chain
from pathlib import Path
from typing import NamedTuple

from clipsearch.errors import UnreadableImageError
from clipsearch.images.extras import readers
from clipsearch.images.finding import ImageFile, Rules
from clipsearch.images.kinds import total
from clipsearch.images.limits import default_max_pixels
from clipsearch.images.reading import Content, VanishedError
from clipsearch.images.shares import missing
from clipsearch.index.diff import Changes, Target, names_of, options_of, targets
from clipsearch.index.format import Computed, ModelRecord, Record
from clipsearch.index.missing import Kept
from clipsearch.index.pipeline import Decoded, Embedded, ImageEncoder, decode_for, embed, read, unread
from clipsearch.index.writing import Writer
from clipsearch.system import cores
from clipsearch.system.parallel import map_in_order
from clipsearch.system.paths import absolute, is_below
from clipsearch.system.progress import SILENT, Progress

CHECKPOINT_SECONDS = 5.0
"""At most so much work is lost when the machine dies, and what the threads have under way."""
_MOST_TWINS = 100
"""Files that wait for one with the same content. More are embedded again, so that neither memory nor time runs away."""
_WORKERS = min(32, cores.available())
"""Threads that read files, and as many that decode."""


class Merged(NamedTuple):
    """A path that is, or lies in, another root under a second name."""

    path: bytes
    """Absolute, as it was given, or was known as a root of its own."""
    name: bytes
    """What it is called from the root on, and is searched as."""


@dataclass
class Summary:
    """What one run did, in numbers of files."""

    images: int = 0
    """In the index now, all roots together."""
    embedded: int = 0
    """Went through the model."""
    unchanged: int = 0
    """Are as the index knows them."""
    touched: int = 0
    """Were read, since their time or place on the disk is another, and have the same content as before."""
    copied: int = 0
    """Are new under their path, with a content that the index has a vector of: a copy, or a picture that came back."""
    moved: int = 0
    """Known by content under another path, which is gone."""
    removed: int = 0
    """No longer there, or left out now."""
    left_out: int = 0
    """Of those that were removed: are there."""
    passed_over: dict[str, int] = field(default_factory=dict)
    """Files, and folders of systems and programs, that were left out as no pictures, by kind (see `images.kinds`)."""
    kept: list[Kept] = field(default_factory=list)
    """Folders whose images were not found and stay all the same, since a drive may not be mounted."""
    merged: list[Merged] = field(default_factory=list)
    """Places that are part of a root under a second name."""
    unreadable: list[tuple[bytes, str]] = field(default_factory=list)
    """Path and reason of every file under the roots that is no readable image, and of every folder that cannot be
    listed."""

    damaged: list[tuple[bytes, float]] = field(default_factory=list)
    """Path of every image under the roots of which a part is missing, and the share of it, 0 to 0.5."""
    newly_damaged: list[tuple[bytes, float]] = field(default_factory=list)
    """Those of them that are new in the index under their path, or have another content than before."""

    @property
    def reused(self) -> int:
        """Have a vector of before, and kept their path or are new under it."""
        return self.unchanged + self.touched + self.copied


def update(
    folder: Path,
    paths: list[Path],
    load_encoder: Callable[[], tuple[ImageEncoder, ModelRecord]],
    *,
    progress: Progress = SILENT,
    computed: Callable[[], Computed | None] = lambda: None,
    rules: Rules | None = None,
    allow_empty: bool = False,
    reread: bool = False,
    wait: float = 0,
    max_pixels: int | None = None,
    skip_damaged: bool | None = None,
) -> Summary:
    """Bring the index in `folder` up to date with what is under `paths`, making it if need be.

    `computed` says how the model computes, once it was loaded, for the index to remember.

    `rules` say which files count, and are remembered for these paths; without them known roots keep theirs. With
    `reread` every file is read, also where nothing says that it changed. `wait` is for how many seconds another run may
    finish first. Larger images than `max_pixels` are not decoded. `skip_damaged` says whether images of which a part is
    missing are refused, and is remembered for these paths; None leaves known roots as they are.

    Whatever ends it, an error or an interruption, everything done so far is committed first.

    Raises:
        ClipsearchError: a path cannot be used, the model cannot be loaded or is another than the index's, or the
            index cannot be written.
    """
    starts = [absolute(path) for path in paths]
    limit = max_pixels or default_max_pixels()
    can_read = f"{readers()}, {limit} pixels"
    # The lock comes before all else: who may not write hears it at once, and need not search or load a model.
    with closing(Changes()) as changes, Writer.locked(folder, wait=wait) as writer:
        roots = writer.roots()
        names = names_of(starts, roots)
        known = [root for root in roots if root.path not in names]
        found = [names.get(start, start) for start in starts]
        places = targets(found, known, rules, can_read, reread=reread, skip_damaged=skip_damaged)
        merged = [
            Merged(path, name)
            for path, name in names.items()
            if path in starts or any(is_below(name, place.start) for place in places)
        ]
        run = _Run(
            writer,
            changes,
            places,
            merged,
            load_encoder=load_encoder,
            max_pixels=limit,
            progress=progress,
            computed=computed,
        )
        run.go(can_read, allow_empty=allow_empty)
        return run.summary


class _Run:
    """The writing part of one run."""

    def __init__(
        self,
        writer: Writer,
        changes: Changes,
        places: list[Target],
        merged: list[Merged],
        *,
        load_encoder: Callable[[], tuple[ImageEncoder, ModelRecord]],
        max_pixels: int,
        progress: Progress,
        computed: Callable[[], Computed | None],
    ) -> None:
        self.summary = Summary(merged=merged)
        self._writer = writer
        self._changes = changes
        self._places = places
        self._load_encoder = load_encoder
        self._model_name = ""  # until it is loaded
        self._batch_size = 1  # until one shows how long the model takes
        self._max_pixels = max_pixels
        self._progress = progress
        self._computed = computed
        self._computed_before = (writer.last_run() or {}).get("computed")
        self._started = time.monotonic()
        self._committed = -math.inf  # the first file is committed at once: what cannot be written shows early
        self._twins: dict[bytes, list[tuple[ImageFile, Content]]] = {}
        """By digest, what is being decoded and embedded, and the files found meanwhile that have the same content."""
        self._recorded = 0
        """Files whose record this run wrote."""

    def go(self, can_read: str, *, allow_empty: bool) -> None:
        """Search, read, embed and record what changed, and forget what is gone."""
        if self._writer.created:  # others see what is being made
            self._checkpoint("unfinished")
            self._committed = -math.inf
        # 1. What changed. Nothing is committed before all of it is known.
        for path, name in self.summary.merged:
            self._writer.rename(path, name)
        for place in self._places:
            self._changes.compare(place, self._writer, allow_empty=allow_empty, searching=self._progress.searching)
        self.summary.unchanged = self._changes.counts.unchanged
        self.summary.passed_over = total([self._changes.passed_over(place) for place in self._places])
        if self._changes.counts.waiting:
            self._progress.start(self._changes.counts.waiting)
            if self._writer.created:
                _ = self._encoder  # if there is none, nothing must have been recorded
        try:
            self._writer.fill_in(self._changes.unnoted())
            # 2. What is new or changed.
            if self._changes.counts.waiting:
                self._embed_all()
            # 3. What is gone and was not found again elsewhere.
            self._remove(allow_empty=allow_empty)
            self._checkpoint("finished", can_read)
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
    def _encoder(self) -> ImageEncoder:
        """The model, loaded when the first file needs it."""
        encoder, model = self._load_encoder()
        is_first = self._writer.bound_model() is None
        self._writer.set_model(model)
        if is_first and not self._recorded:
            self._writer.commit()  # others see what is being made
        self._model_name = model.name
        if self._committed > 0:
            self._committed = time.monotonic()  # loading is no work that could be lost
        return encoder

    def _embed_all(self) -> None:
        """Read, decode and embed at the same time, each in threads of its own; record here, in order."""
        with ExitStack() as ended:
            # 1. Content without a vector. The first one has the model loaded.
            unknown = ended.enter_context(closing(self._unknown()))
            first = next(unknown, None)
            if first is None:
                return
            # 2. Pixels, far enough ahead for the model never to wait for them.
            calls = self._encoder.calls
            ahead = (calls + 1) * self._encoder.batch_size + _WORKERS
            decoded = ended.enter_context(
                closing(map_in_order(self._decode, chain([first], unknown), _WORKERS, ahead, lambda item: item[1].size))
            )
            # 3. Vectors.
            batches = self._batches(decoded)
            work = partial(embed, self._encoder, self._model_name)
            embedded = map_in_order(work, batches, calls, 2 * calls, promptly=True)
            for batch in ended.enter_context(closing(embedded)):
                self._record(batch)

    def _decode(self, item: tuple[ImageFile, Content]) -> Decoded:
        decoded = decode_for(self._encoder, *item, self._max_pixels)
        return Decoded(_refused(decoded.record)) if self._refuses(decoded.record) else decoded

    def _batches(self, decoded: Iterable[Decoded]) -> Iterator[list[Decoded]]:
        batch: list[Decoded] = []
        for item in decoded:
            if item.pixels is None:
                self._put_unreadable(item.record)
                self._settle_twins(item.record)
            else:
                batch.append(item)
            if len(batch) >= self._batch_size or (batch and self._seconds() > CHECKPOINT_SECONDS):
                yield batch
                batch = []
        if batch:
            yield batch

    def _record(self, batch: Embedded) -> None:
        """Record a batch, and decide on the size of those to come."""
        if batch.records:
            self._writer.add(batch.records, batch.vectors)
            self._note_damaged(*batch.records)
            self.summary.embedded += len(batch.records)
            self._done(len(batch.records))
        for record in batch.failed:
            self._put_unreadable(record)
        for record in (*batch.records, *batch.failed):
            self._settle_twins(record)
        self._checkpoint_before(batch.seconds)
        # A slow model gets smaller batches, so that two of them fit between checkpoints; few pictures are shared out.
        pictures = len(batch.records) + len(batch.failed)
        fitting = int(pictures * CHECKPOINT_SECONDS / 2 / max(batch.seconds, 1e-9))
        share = -(-self._changes.counts.waiting // self._encoder.calls)
        self._batch_size = max(1, min(self._encoder.batch_size, fitting, share))

    def _unknown(self) -> Generator[tuple[ImageFile, Content], None, None]:
        """The files whose content has no vector yet; the others are recorded on the way."""
        read_one, waiting = partial(read, max_pixels=self._max_pixels), self._changes.waiting()
        for file, content in map_in_order(read_one, waiting, _WORKERS, 4 * _WORKERS, lambda file: file.size):
            self._checkpoint_before(0)
            if isinstance(content, VanishedError):
                self._vanished(file.path)
            elif isinstance(content, UnreadableImageError):
                self._put_unreadable(unread(file, str(content)))
            elif content.digest in self._twins and len(self._twins[content.digest]) < _MOST_TWINS:
                self._twins[content.digest].append((file, content._replace(data=b"")))
            elif not self._adopt(file, content):
                _ = self._encoder  # loaded here, not by one of the threads that decode
                self._twins.setdefault(content.digest, [])
                yield file, content

    def _adopt(self, file: ImageFile, content: Content) -> bool:
        """Give a file whose content is in the index already its vector."""
        twins = self._writer.same_content(content.digest)
        if not twins:
            return False
        touched = next((twin for twin in twins if twin.path == file.path), None)
        moved = next((twin for twin in twins if twin.path in self._changes.gone), None)
        # Files that swap their names take each other's place, and what was there is without a path for a moment.
        dead = next((twin for twin in twins if not twin.path), None)
        like = touched or moved or dead or twins[0]
        record = _as_read(like, file.path, content)
        if self._refuses(record):
            self._put_unreadable(_refused(record))
            return True
        if touched:
            if record != touched:
                self._writer.put(record)
            self.summary.unchanged += record == touched
            self.summary.touched += record != touched
        elif moved:
            self._writer.move(moved.path, record)
            self._changes.gone.discard(moved.path)
            self.summary.moved += 1
        else:
            (self._writer.put if dead else self._writer.add_copy)(record)
            self._note_damaged(record)
            self.summary.copied += 1
        self._done(1, known=1)
        return True

    def _settle_twins(self, record: Record) -> None:
        """Record the files with the same content as one that is recorded now."""
        for file, content in self._twins.pop(record.hash or b"", []):
            if record.error is None:
                self._adopt(file, content)
            else:
                self._put_unreadable(_as_read(record, file.path, content))

    # -- records -----------------------------------------------------------------------------------------------

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
            (self._changes.moot if known.row is None else self._changes.gone).add(path)
        self._progress.advance(1)

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
        self._writer.remove(chain(self._changes.gone, self._changes.moot))
        for path, reason in self._changes.unreadable_folders.items():
            self._writer.put(Record(path, None, 0, 0, None, error=reason))

    # -- checkpoints -------------------------------------------------------------------------------------------

    def _seconds(self) -> float:
        """Since the last checkpoint."""
        return time.monotonic() - self._committed

    def _checkpoint_before(self, next_step: float) -> None:
        """Make a checkpoint if the next chance for it comes too late: after a step that takes so many seconds."""
        if self._recorded and self._seconds() + next_step > CHECKPOINT_SECONDS:
            self._checkpoint("unfinished")

    def _checkpoint(self, outcome: str, can_read: str | None = None) -> None:
        """Commit, with word of the run so far; at its end also with what could be read."""
        computed = self._computed() if self.summary.embedded else None
        known = {root.path: root.options for root in self._writer.roots()}
        for place in self._places:
            if place.start == place.root:
                before = known.get(place.root, {}).get("readers")
                options = options_of(
                    place.rules,
                    can_read or before,
                    self._changes.passed_over(place),
                    skip_damaged=place.skip_damaged,
                )
                self._writer.set_root(place.root, options)
        self._writer.set_last_run(
            {
                "ended_at": datetime.now(UTC).isoformat(timespec="seconds"),
                "outcome": outcome,
                "seconds": round(time.monotonic() - self._started, 3),
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


def _as_read(record: Record, path: bytes, content: Content) -> Record:
    """`record`, of a file with the same content, for the file that was read."""
    return record._replace(
        path=path, size=content.size, mtime_ns=content.mtime_ns, ctime_ns=content.ctime_ns, inode=content.inode
    )
