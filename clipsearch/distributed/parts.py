"""The first index of very many images: workers make an index of each part of the folders, and these are merged.

One process that writes the index may be too slow for many workers; here each writes its own. The parts lie beside the
index until they are merged, and those that are finished are not made again.
"""

from __future__ import annotations

import logging
import os
import shutil
import socket
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clipsearch.distributed.shard_worker import Made, Shard
from clipsearch.errors import InputError
from clipsearch.exchange.merging import merge
from clipsearch.images.parts import Part
from clipsearch.index.format import ModelRecord, guarded
from clipsearch.index.locking import lock
from clipsearch.index.reading import Store
from clipsearch.system.addresses import is_address
from clipsearch.system.paths import absolute
from clipsearch.system.progress import Progress

if TYPE_CHECKING:
    from clipsearch.distributed.fleet import Fleet, Member
    from clipsearch.distributed.worker import Amounts, Taken

_log = logging.getLogger(__name__)

_PIECE_BYTES = 16 * 2**20
"""Size of the pieces in which an index is fetched from the disk of a worker."""
_MOST_TRIES = 5
"""Number of workers that may be lost with a part."""
_WITNESS = "witness"


class Shards:
    """The indexes of the parts of an index that is to be made. They lie in a folder beside it."""

    def __init__(self, index: Path, number: int) -> None:
        """Describe the `number` parts of `index`; nothing is looked at yet."""
        self.index, self.number = index, number
        self.folder = index.with_name(f"{index.name}.shards")

    def check(self) -> None:
        """Check that the parts can be made.

        Raises:
            InputError: the index exists already, or parts of another number do.
        """
        if Store.exists(self.index):
            raise InputError(
                f"The index in {self.index} exists; parts are for the first run. Without them, workers embed what has "
                "changed.",
                hint="no-parts",
            )
        for folder in self._there():
            with closing(Store.open(folder)) as store:
                part = store.part()
            if part and part.of != self.number:
                raise InputError(
                    f"{self.folder} holds {part.of} parts that are not finished, not {self.number}.",
                    hint="same-parts",
                    parts=part.of,
                    folder=self.folder,
                )

    def known(self) -> tuple[ModelRecord | None, list[Path]]:
        """Return the model and the folders of parts that were begun before."""
        model: ModelRecord | None = None
        roots: dict[bytes, None] = {}
        for folder in self._there():
            with closing(Store.open(folder)) as store:
                model = model or store.model()
                roots.update((root.path, None) for root in store.roots())
        return model, [Path(os.fsdecode(root)) for root in roots]

    def place(self, part: Part) -> Path:
        """Return the folder of the index of a part."""
        return self.folder / f"{part.number}-of-{part.of}"

    def unfinished(self) -> list[Part]:
        """Return the parts whose index is not complete."""
        return [part for part in self.all() if not self.is_finished(part)]

    def is_finished(self, part: Part) -> bool:
        """Whether the index of a part is complete and in its place."""
        folder = self.place(part)
        if not Store.exists(folder):
            return False
        with closing(Store.open(folder)) as store:
            return store.is_whole()

    def all(self) -> list[Part]:
        """Return all parts."""
        return [Part(number, self.number) for number in range(1, self.number + 1)]

    def merge(self, progress: Progress) -> None:
        """Make the index of the parts, and delete them."""
        merge([self.place(part) for part in self.all()], self.index, any_precision=True, progress=progress)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _there(self) -> Iterator[Path]:
        if self.folder.is_dir():
            yield from (one for one in sorted(self.folder.iterdir()) if Store.exists(one))


class PartsRun:
    """One run in which workers make the parts that are missing."""

    def __init__(self, shards: Shards, fleet: Fleet, paths: Sequence[Path], progress: Progress) -> None:
        self.embedded = self.copied = 0
        """Numbers of images in the parts that this run has finished, as in a `Summary`."""
        self._shards, self._fleet, self._progress = shards, fleet, progress
        places = [absolute(path) for path in paths]
        if any(map(is_address, places)):
            raise InputError("What lies at addresses is embedded on one machine only.", hint="no-ray")
        self._paths = [Path(os.fsdecode(place)) for place in places]
        self._waiting = deque(shards.unfinished())
        self._at: dict[Member, Part] = {}
        self._tries: Counter[Part] = Counter()
        self._found: dict[Part, int] = {}
        """Number of images that are still to be done in each part that was begun."""

    def run(self, options: Mapping[str, Any]) -> None:
        """Have the parts made. `options` are those of the update.

        Raises:
            ClipsearchError: a part cannot be made. What is finished stays.
        """
        if not self._waiting:
            return
        with lock(self._shards.folder, options.get("wait", 0)):
            content = os.urandom(16)
            witness = self._shards.folder / _WITNESS
            with guarded(self._shards.folder):
                witness.write_bytes(content)
            # The index gets its codes when it is whole.
            kept = {name: value for name, value in options.items() if name not in ("part", "wait", "codes")}
            key = blake2b(f"{socket.gethostname()}\0{self._shards.folder}".encode(), digest_size=8).hexdigest()
            self._fleet.begin(
                os.fsencode(self._paths[0]),
                len(self._waiting),
                took=self._took,
                lost=self._lost,
                max_pixels=options.get("max_pixels"),
            )
            while self._waiting or self._at:
                for member in self._fleet.ready():
                    if self._waiting and member not in self._at:
                        part = self._at[member] = self._waiting.popleft()
                        place = self._shards.place(part)
                        shard = Shard(str(part), place, (witness, content), key, self._paths, kept)
                        self._make(member, shard)
                self._fleet.wait()
            witness.unlink(missing_ok=True)

    def _make(self, member: Member, shard: Shard) -> None:
        _log.info("part %s: on %s", shard.part, member.node)
        member.call("make", shard, then=lambda made: self._made(member, shard, made))

    def _made(self, member: Member, shard: Shard, made: Made) -> None:
        self._count(self._at[member], made.amounts)
        if made.files:
            _Fetching(member, shard, made.files, lambda: self._finished(member, made)).go_on()
        else:
            self._finished(member, made)

    def _finished(self, member: Member, made: Made) -> None:
        part = self._at.pop(member)
        self._found[part] = 0
        self.embedded += made.embedded
        self.copied += made.copied
        _log.info("part %s: finished, %d waiting", part, len(self._waiting))

    def _took(self, member: Member, taken: Taken) -> None:
        self._count(self._at.get(member), taken.amounts)

    def _count(self, part: Part | None, amounts: Amounts) -> None:
        """Report what was done of a part; None for one that is finished already."""
        found, *done = amounts
        if part is not None and found is not None:
            if not self._found:
                self._progress.start(found * self._shards.number)
            self._found[part] = found
        if part is not None and part in self._found:
            self._found[part] = max(0, self._found[part] - done[0])
        if any(done):
            self._progress.advance(*done)
        if begun := self._found.values():
            self._progress.expect(sum(begun) + round(sum(begun) / len(begun) * len(self._waiting)))

    def _lost(self, member: Member) -> None:
        part = self._at.pop(member, None)
        if part is None or self._shards.is_finished(part):
            return
        self._tries[part] += 1
        if self._tries[part] == _MOST_TRIES:
            raise InputError(
                f"{_MOST_TRIES} workers died with part {part}. Without parts, the picture that ends them is found and "
                "left out.",
                hint="no-parts",
            )
        _log.warning("A worker on %s is gone. Part %s goes on elsewhere.", member.node, part)
        self._waiting.appendleft(part)


class _Fetching:
    """The files of an index that lies on the disk of a worker, fetched one piece after the other."""

    def __init__(self, member: Member, shard: Shard, files: Sequence[tuple[str, int]], done: Any) -> None:  # noqa: ANN401
        self._member, self._shard, self._done = member, shard, done
        self._arriving = shard.folder.with_name(f"{shard.folder.name}.arriving")
        shutil.rmtree(self._arriving, ignore_errors=True)
        with guarded(self._arriving):
            self._arriving.mkdir(parents=True)
        self._pieces = deque(
            (name, offset, min(_PIECE_BYTES, size - offset))
            for name, size in files
            for offset in range(0, size, _PIECE_BYTES)
        )

    def go_on(self) -> None:
        """Ask for the next piece, or put the index in its place."""
        if not self._pieces:
            shutil.rmtree(self._shard.folder, ignore_errors=True)
            with guarded(self._shard.folder):
                self._arriving.rename(self._shard.folder)
            self._member.call("drop", self._shard, then=lambda _: self._done())
            return
        name, offset, size = self._pieces.popleft()
        self._member.call("piece", self._shard, name, offset, size, then=lambda content: self._came(name, content))

    def _came(self, name: str, content: bytes) -> None:
        with guarded(self._arriving), (self._arriving / os.path.basename(name)).open("ab") as file:
            file.write(content)
        self.go_on()
