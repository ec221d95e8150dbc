"""The pipeline of an update whose images are read and embedded by the workers of a Ray cluster.

The index is written by this process alone, as in any other update; workers get paths and send back vectors. So all that
an update does about moved, copied and changed files, checkpoints and interruptions holds here as well.
"""

from __future__ import annotations

import logging
import time
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain, islice

from clipsearch.distributed.fleet import MANY, Fleet, Member, unseen
from clipsearch.distributed.worker import MOST_FILES, Taken, Wanted
from clipsearch.errors import InputError
from clipsearch.images.files import ImageFile
from clipsearch.index import pipeline
from clipsearch.index.format import Record
from clipsearch.index.models import ImageModel
from clipsearch.index.pipeline import Batch, Item
from clipsearch.system.addresses import is_address

_log = logging.getLogger(__name__)

_CHUNKS = 16
"""Number of chunks into which the images that a worker has at a time are divided."""
_LEAST_FILES = 4
"""Number of files of a chunk at least, as far as there are any."""
_MOST_BYTES = 32 * 2**20
"""Largest size in bytes of a chunk with several files."""
_SUSPECTED, _REFUSED = 2, 3
"""Numbers of workers that died with a file before it is given to one alone, and before it is not tried again."""
_DEADLY = "the process that decoded it died, several times"
_PEEKED = 1024
"""Number of files that are looked at to find out whether there are few."""
_SECONDS = 2.5


@dataclass
class _Chunk:
    """Files that are read together."""

    files: Sequence[ImageFile]
    items: Sequence[Item] = ()
    """The items of these files if it is known that they need vectors, because the worker that had them is lost."""
    wanted: list[Wanted] = field(default_factory=list)


@dataclass
class _Load:
    """What a worker has to do."""

    chunks: dict[int, _Chunk] = field(default_factory=dict)
    """Those that it reads, or of which it is not known which files need a vector."""
    sent: dict[bytes, Item] = field(default_factory=dict)
    """Those that it embeds, by path."""
    is_flushed: bool = True
    """Whether the worker knows that no more images will come for now."""
    is_alone: bool = False
    """Whether it has one file, with which workers have died, and gets no other meanwhile."""

    @property
    def images(self) -> int:
        """Number of images."""
        return len(self.sent) + sum(len(chunk.files) for chunk in self.chunks.values())

    def want(self, number: int, place: int, item: Item) -> None:
        """Note that a file of a chunk needs a vector."""
        # The worker knows the record already if it has read the file.
        known = item.record if item.only_regions or item.content is not None else None
        self.chunks[number].wanted.append(Wanted(place, item.only_regions, item.content, known))
        self.sent[item.file.path] = item._replace(content=None)


class ClusterPipeline:
    """Reads and embeds the images of one update with the workers of a cluster. It is used in place of `pipeline`."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._loads: dict[Member, _Load] = {}
        self._files: Iterator[ImageFile] = iter(())
        self._next: ImageFile | None = None
        self._unread: deque[ImageFile] = deque()
        """Files that a lost worker was to read."""
        self._again: deque[Item] = deque()
        """Files that a lost worker was to embed."""
        self._pending: dict[bytes, Item] = {}
        """Files that need a vector, by path, until one worker has sent it."""
        self._doubled: set[bytes] = set()
        """Files that a second worker embeds as well, because it has nothing else to do."""
        self._share: int | None = None
        """The most images for a worker at a time, if there are so few that one could take the work of another."""
        self._deaths: Counter[bytes] = Counter()
        """Number of lost workers that had each file."""
        self._read: deque[tuple[Member, int, list[Item]]] = deque()
        """Chunks that were read, for the caller to decide on."""
        self._current: tuple[Member, int, int] | None = None
        """The worker, the chunk, and which file of it the caller decides on; None if it is none."""
        self._done: list[Item] = []
        self._numbers = 0
        self._max_pixels: int | None = None
        self._regions, self._seconds = False, _SECONDS
        self._judge: Callable[[Record], Record] = lambda record: record
        self._last = time.monotonic()

    def read_images(self, files: Iterable[ImageFile], max_pixels: int | None = None) -> Generator[Item, None, None]:
        """Have files read, and yield each with its record, in the order in which they come."""
        self._max_pixels = max_pixels
        # 1. Start no more workers than there are files.
        first = list(islice(waiting := iter(files), _PEEKED))
        if not first:
            return
        if any(is_address(file.path) for file in first):
            raise InputError("What lies at addresses is embedded on one machine only.", hint="no-ray")
        expected = MANY if len(first) == _PEEKED else len(first)
        witness = next((file.path for file in first if file.problem is None), first[0].path)
        workers = self._fleet.begin(
            witness, len(first), expected, max_pixels=max_pixels, took=self._took, lost=self._lost
        )
        if expected < MANY:
            self._share = -(-expected // workers)
        self._files = chain(first, waiting)
        self._next = next(self._files, None)
        # 2. Yield what is read, and then have that embedded which the caller wants.
        while self._read or self._is_unread():
            if not self._read:
                self._step()
                continue
            member, number, items = self._read.popleft()
            for place, item in enumerate(items):
                self._current = member, number, place
                yield item
            self._current = None
            self._decided(member, number)

    def embed_images(
        self,
        items: Iterable[Item],
        model: ImageModel,  # noqa: ARG002  (the workers have their own)
        *,
        total: int,  # noqa: ARG002
        max_pixels: int | None = None,  # noqa: ARG002  (that of `read_images`)
        seconds: float = _SECONDS,
        regions: bool = False,
        judge: Callable[[Record], Record] = lambda record: record,
    ) -> Generator[Batch, None, None]:
        """Have items embedded, and yield them in the order in which they come. Arguments as for `pipeline`."""
        self._regions, self._seconds, self._judge = regions, seconds, judge
        for item in items:
            self._want(item)
            yield from self._batch()
        while self._pending:
            self._step()
            yield from self._batch()

    def _want(self, item: Item) -> None:
        """Note that the file that the caller decides on needs a vector."""
        if self._current is None:
            raise ValueError(f"nobody was asked about {item.file.path!r}")
        member, number, place = self._current
        load = self._loads.get(member)
        self._pending[item.file.path] = item._replace(content=None)
        if load is None:  # the worker that has read it is lost
            self._again.append(self._pending[item.file.path])
        else:
            load.want(number, place, item)

    def _batch(self) -> Iterator[Batch]:
        if self._done:
            now = time.monotonic()
            passed, self._last = min(now - self._last, self._seconds), now
            done, self._done = self._done, []
            yield Batch(done, len(done), passed)

    # -- work for the workers ----------------------------------------------------------------------------------

    def _is_unread(self) -> bool:
        """Whether the caller has to decide on further files."""
        return (
            bool(self._unread)
            or self._next is not None
            or any(not chunk.items for load in self._loads.values() for chunk in load.chunks.values())
        )

    def _step(self) -> None:
        """Give the workers what they have room for, and wait for what they do next."""
        for member in self._fleet.ready():
            load = self._loads.setdefault(member, _Load())
            while chunk := self._chunk_for(member, load):
                self._give(member, load, chunk)
            # Not before: an ended stream begins again with batches of one image.
            has_share = self._share is not None and load.images >= self._share
            is_last = (self._next is None and not self._unread) or has_share or self._again
            if is_last and not load.chunks and not load.is_flushed:
                load.is_flushed = True
                member.call("flush")
        self._fleet.wait()

    def _chunk_for(self, member: Member, load: _Load) -> _Chunk | None:
        """Return the next files for a worker; None if there are none, or it has enough."""
        load.is_alone = load.is_alone and load.images > 0
        if load.is_alone:
            return None
        most = max(_LEAST_FILES, min(MOST_FILES, member.room // _CHUNKS))
        if load.images + most > member.room:
            return None
        if self._share:
            most = min(most, self._share - load.images)
        if most <= 0:
            return None
        while self._again and self._again[0].file.path not in self._pending:
            self._again.popleft()
        if self._again:
            return self._chunk_again(load, most)
        if self._next is None and not self._unread:
            return self._chunk_of_another(load, most)
        return self._chunk_unread(most)

    def _chunk_unread(self, most: int) -> _Chunk:
        files: list[ImageFile] = []
        size = 0
        while len(files) < most and (file := self._unread[0] if self._unread else self._next):
            if files and size + file.size > _MOST_BYTES:
                break
            files.append(file)
            size += file.size
            if self._unread:
                self._unread.popleft()
            else:
                self._next = next(self._files, None)
        return _Chunk(files)

    def _chunk_again(self, load: _Load, most: int) -> _Chunk | None:
        """Return files that need another worker. One of which several workers may have died is given to one alone."""
        some = [item for item in islice(self._again, most) if self._deaths[item.file.path] < _SUSPECTED]
        if not some and not load.images:
            some, load.is_alone = [self._again[0]], True
        for item in some:
            self._again.remove(item)
        return _Chunk([item.file for item in some], some) if some else None

    def _chunk_of_another(self, load: _Load, most: int) -> _Chunk | None:
        """Return images that another worker has and will not come to soon; the result that comes first counts.

        So the end of a run does not wait for one slow machine.
        """
        if load.images > most // 2:
            return None
        longest = max(self._loads.values(), key=lambda other: len(other.sent))
        waiting = [item for path, item in reversed(longest.sent.items()) if path not in self._doubled]
        some = waiting[: min(most, (len(longest.sent) + 1) // 2)] if longest is not load else []
        self._doubled.update(item.file.path for item in some)
        return _Chunk([item.file for item in some], some) if some else None

    def _give(self, member: Member, load: _Load, chunk: _Chunk) -> None:
        self._numbers += 1
        number = self._numbers
        load.chunks[number] = chunk
        member.call("read", number, chunk.files, then=lambda read: self._were_read(member, number, read))

    def _were_read(self, member: Member, number: int, read: Sequence[tuple[Record, bool]]) -> None:
        load = self._loads[member]
        chunk = load.chunks[number]
        found = [self._seen_here(file, *one) for file, one in zip(chunk.files, read, strict=True)]
        unread = [record.error for record, _ in read if record.hash is None]
        if len(unread) == len(read) and (here := [item for item in found if item.content is not None]):
            raise unseen(member.node, here[0].file.path, unread[0] or "")
        if not chunk.items:
            self._read.append((member, number, found))
            return
        for place, (before, item) in enumerate(zip(chunk.items, found, strict=True)):
            path = item.file.path
            if path not in self._pending:  # another worker was first
                continue
            if item.record.error is not None:
                self._done.append(item._replace(only_regions=before.only_regions))
                del self._pending[path]
                continue
            now = before._replace(content=item.content) if before.record.hash == item.record.hash else item
            self._pending[path] = now._replace(content=None)
            load.want(number, place, now)
        self._decided(member, number)

    def _seen_here(self, file: ImageFile, record: Record, vanished: bool) -> Item:  # noqa: FBT001
        """Return an item with the times that this machine sees. What the worker cannot read is read here."""
        if record.hash is None and file.problem is None:
            return pipeline.read(file, self._max_pixels)
        if (record.size, record.mtime_ns) == (file.size, file.mtime_ns):
            record = record._replace(ctime_ns=file.ctime_ns, inode=file.inode)
        return Item(file, record, vanished=vanished)

    def _decided(self, member: Member, number: int) -> None:
        """Have those files of a chunk embedded that the caller wants."""
        load = self._loads.get(member)
        if load is None or member.is_lost:
            return
        chunk = load.chunks.pop(number)

        def given(_: object) -> None:  # only now, because calls may overtake one another
            load.is_flushed = load.is_flushed and not chunk.wanted

        member.call("embed", number, chunk.wanted, regions=self._regions, seconds=self._seconds, then=given)

    # -- results -----------------------------------------------------------------------------------------------

    def _took(self, member: Member, taken: Taken) -> None:
        if not taken.results:
            return
        load = self._loads[member]
        for result in taken.results:
            load.sent.pop(result.record.path, None)
            item = self._pending.pop(result.record.path, None)
            if item is None:  # another worker was first
                continue
            self._deaths.pop(item.file.path, None)
            if item.only_regions:
                self._done.append(item._replace(regions=result.regions))
                continue
            seen = item.record
            record = self._judge(result.record._replace(ctime_ns=seen.ctime_ns, inode=seen.inode))
            if record.error is None:
                self._done.append(item._replace(record=record, vector=result.vector, regions=result.regions))
            else:
                self._done.append(item._replace(record=record))

    def _lost(self, member: Member) -> None:
        """Give to others what a worker had that is no more."""
        load = self._loads.pop(member, _Load())
        read = {number for lost, number, _ in self._read if lost is member}
        for number, chunk in load.chunks.items():
            if chunk.items:
                self._again += chunk.items
            elif number not in read and (self._current is None or self._current[:2] != (member, number)):
                self._unread += chunk.files
        for path, item in load.sent.items():
            if path not in self._pending or any(path in other.sent for other in self._loads.values()):
                continue
            self._deaths[path] += 1
            if self._deaths[path] < _REFUSED:
                self._again.append(item)
            else:
                del self._pending[path]
                # Without a hash, so that the next run tries again.
                self._done.append(item._replace(record=item.record._replace(hash=None, error=_DEADLY)))
        count = load.images
        if count:
            _log.warning("A worker on %s is gone. Others do the %d pictures that it had.", member.node, count)
