"""What runs on a worker: reads, decodes and embeds the files that it is given, as an update of an index does.

A worker writes nothing but a model that it lacks. Imports no Ray, which calls the methods of `Worker` in threads.
"""

from __future__ import annotations

import os
import socket
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import closing
from queue import SimpleQueue
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from clipsearch.errors import ClipsearchError, InputError
from clipsearch.images.files import ImageFile
from clipsearch.index.format import Computed, Record
from clipsearch.models.encoder_options import EncoderOptions
from clipsearch.system.members import on_disk

if TYPE_CHECKING:
    from clipsearch.index.models import LoadedModel
    from clipsearch.index.pipeline import Item
    from clipsearch.index.region_files import ImageRegions
    from clipsearch.models.disk.files import ModelFiles

_MOST_BYTES = 256 * 2**20
"""The most content of files that waits to be decoded, as in a run on one machine; or one file that is larger."""
MOST_FILES = 64
"""Largest number of files that are read together."""
_POLL_SECONDS = 1.0
"""How long `take` waits for a result before it says that there is none."""


class Task(NamedTuple):
    """What a worker has to know before it begins."""

    version: str
    """That of clipsearch on the machine that asks."""
    witness: bytes
    """The path of a file that has to be there."""
    name: str
    """The name of the model."""
    revision: str | None
    fingerprint: str
    options: EncoderOptions
    expected: int
    """Number of images that will come."""
    max_pixels: int | None
    cores: int = 1
    """Number of cores to use."""
    first_core: int = 0
    """Number of cores of this machine that other workers use."""


class Begun(NamedTuple):
    """What a worker says of itself."""

    node: str
    """The name of the machine."""
    has_model: bool = False
    """Whether the model is on its disk. If not, it has to be sent, and the worker begun again."""
    unseen: str | None = None
    """Why the witness is not there; None if it is."""
    computed: Computed | None = None
    room: int = 0
    """Number of images that the worker has to have at a time so that it never waits for more."""
    readers: str = ""
    """The versions of the packages that read images."""


class Result(NamedTuple):
    """An image that was embedded, or that could not be."""

    record: Record
    vector: npt.NDArray[np.float32] | None
    """(D,) unit vector."""
    regions: ImageRegions | None


class Amounts(NamedTuple):
    """Numbers of images since the last report."""

    found: int | None = None
    """Those to be embedded, if that has become known."""
    done: int = 0
    unreadable: int = 0
    known: int = 0
    """Those among the done that needed no model."""


class Taken(NamedTuple):
    """What a worker reports every second."""

    results: Sequence[Result]
    room: int
    """As in `Begun`."""
    amounts: Amounts = Amounts()


class Wanted(NamedTuple):
    """A file of a chunk that needs a vector."""

    number: int
    """Which of the files of the chunk."""
    only_regions: bool
    content: bytes | None = None
    """The content of a file that only the other machine could read."""
    record: Record | None = None
    """The record that goes with `content`, or that the index has already."""


class _Budget:
    """Bytes that may be in memory at a time."""

    def __init__(self, most: int) -> None:
        self._most, self._free = most, most
        self._changed = threading.Condition()

    def take(self, size: int) -> None:
        """Wait until `size` bytes are free, or nothing is taken, and take them."""
        with self._changed:
            self._changed.wait_for(lambda: self._free >= size or self._free == self._most)
            self._free -= size

    def give(self, size: int) -> None:
        """Give bytes back."""
        with self._changed:
            self._free += size
            self._changed.notify_all()


class _Job(NamedTuple):
    """An image for the thread that embeds; the two options hold for all of a stream."""

    item: Item
    regions: bool
    seconds: float


class Worker:
    """A process on a machine of the cluster. Several threads call its methods."""

    def __init__(self) -> None:
        self._budget = _Budget(_MOST_BYTES)
        self._reading = threading.Semaphore(2)  # so that one chunk is read while the last files of another are
        self._read: dict[int, list[Item]] = {}
        """The files of each chunk that was read and of which it is not known which need a vector."""
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        """Images to embed; None ends a stream, so that no image waits for others to fill its batch."""
        self._results: list[Result] = []
        self._error: BaseException | None = None
        self._came = threading.Condition()
        self._task: Task
        self._model: LoadedModel

    def begin(self, task: Task) -> Begun:
        """Check that this machine can do the task, and load the model if it is there.

        Raises:
            ClipsearchError: it cannot. The message names the machine.
        """
        self._task, node = task, socket.gethostname()
        _limit_cores(task.cores, task.first_core)  # before any library counts them
        import clipsearch
        from clipsearch.distributed.model_files import find
        from clipsearch.images.codecs.optional_packages import readers

        if clipsearch.__version__ != task.version:
            raise InputError(
                f"{node} has clipsearch {clipsearch.__version__}, and this machine {task.version}. Install the same on "
                "all machines of the cluster."
            )
        try:
            os.stat(on_disk(task.witness))
        except OSError as error:
            return Begun(node, unseen=error.strerror)
        files = find(task.name, task.revision, task.fingerprint)
        if files is None:
            return Begun(node)
        try:
            self._load(files)
        except ClipsearchError as error:
            raise type(error)(f"{node}: {error}", hint=error.hints, **error.facts) from error
        threading.Thread(target=self._embed_all, name="embed", daemon=True).start()
        return Begun(node, has_model=True, computed=self._computed(), room=self.room(), readers=readers())

    def receive(self, name: str, offset: int, content: bytes) -> None:
        """Write a piece of a file of the model to this disk."""
        from clipsearch.distributed.model_files import receive

        receive(self._task.fingerprint, name, offset, content)

    def room(self) -> int:
        """Return the number of images that this worker has to have at a time so that it never waits for more.

        So many images may be decoded, in a batch, or done and waiting for those before them (see `embed_images`).
        """
        from clipsearch.index.pipeline import WORKERS

        calls, batch = self._encoder.calls, self._encoder.batch_size
        return (3 * calls + 3) * batch + 4 * WORKERS + MOST_FILES

    def read(self, chunk: int, files: Sequence[ImageFile]) -> list[tuple[Record, bool]]:
        """Read files, keep their content, and return the record of each, and whether it had vanished."""
        from clipsearch.index.pipeline import read_images

        self._budget.take(sum(file.size for file in files))
        with self._reading, closing(read_images(files, self._task.max_pixels)) as items:
            read = list(items)
        self._read[chunk] = read
        return [(item.record, item.vanished) for item in read]

    def embed(self, chunk: int, wanted: Sequence[Wanted], *, regions: bool, seconds: float) -> None:
        """Have those files of a chunk embedded that need it, and forget the others.

        Args:
            chunk: the number with which it was read.
            wanted: the files that need a vector.
            regions: whether they need vectors of their regions as well.
            seconds: the longest time that the model should take for a batch.
        """
        read = self._read.pop(chunk)
        needed = {one.number for one in wanted}
        self._budget.give(sum(item.file.size for number, item in enumerate(read) if number not in needed))
        for one in wanted:
            item = read[one.number]._replace(only_regions=one.only_regions)
            if one.record is not None:
                item = item._replace(record=one.record, content=one.content or item.content)
            self._jobs.put(_Job(item, regions, seconds))

    def flush(self) -> None:
        """Embed what there is without waiting for more."""
        self._jobs.put(None)

    def take(self) -> Taken:
        """Return what was embedded since the last call; wait a moment if nothing was.

        Raises:
            ClipsearchError: the model fails.
        """
        with self._came:
            self._came.wait_for(lambda: self._results or self._error, _POLL_SECONDS)
            if self._error is not None:
                raise self._error
            results, self._results = self._results, []
        return Taken(results, self.room())

    # -- how ---------------------------------------------------------------------------------------------------

    def _computed(self) -> Computed:
        """Describe how this worker computes."""
        from clipsearch.search.engine import how_computed

        return how_computed(self._encoder)

    def _load(self, files: ModelFiles) -> None:
        from clipsearch.index.format import ModelRecord
        from clipsearch.index.models import LoadedModel
        from clipsearch.search.lazy_model import LazyModel

        lazy = LazyModel(files, options=self._task.options, expected=self._task.expected)
        self._encoder = lazy.encoder
        self._model = LoadedModel(self._encoder, ModelRecord(*lazy.identity, self._encoder.dim))
        _ = getattr(self._encoder, "encoder_in_torch", None)  # waits for torch, whose batches `room` depends on

    def _embed_all(self) -> None:
        """Embed all that comes, one stream after the other."""
        from clipsearch.index.pipeline import embed_images

        try:
            while True:
                first = self._jobs.get()
                if first is None:
                    continue
                batches = embed_images(
                    self._stream(first),
                    self._model,
                    total=sys.maxsize,
                    max_pixels=self._task.max_pixels,
                    seconds=first.seconds,
                    regions=first.regions,
                )
                with closing(batches):
                    for batch in batches:
                        self._put([Result(item.record, item.vector, item.regions) for item in batch.items])
        except BaseException as error:  # noqa: BLE001  (`take` raises it)
            with self._came:
                self._error = error
                self._came.notify_all()

    def _stream(self, job: _Job | None) -> Iterator[Item]:
        while job is not None:
            self._budget.give(job.item.file.size)  # from here on `embed_images` limits the memory
            yield job.item
            job = self._jobs.get()

    def _put(self, results: list[Result]) -> None:
        with self._came:
            self._results += results
            self._came.notify_all()


def _limit_cores(cores: int, place: int) -> None:
    """Let this process use only some of the cores, so that workers on one machine do not take them from one another."""
    if not hasattr(os, "sched_setaffinity"):
        return
    allowed = sorted(os.sched_getaffinity(0))
    if cores < len(allowed):
        os.sched_setaffinity(0, {allowed[(place + one) % len(allowed)] for one in range(cores)})
