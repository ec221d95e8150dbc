"""The indexes that a server offers, each opened once for all threads, with the vectors of recent queries kept."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Generator, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Generic, Self, TypeVar

import numpy as np

from clipsearch.api import open_at
from clipsearch.errors import InputError
from clipsearch.images.reading import digest
from clipsearch.index.format import DATABASE, missing_index
from clipsearch.search.encoders import Encoders
from clipsearch.search.index import Index
from clipsearch.search.kept_scores import KeptScores
from clipsearch.unit import Vectors

if TYPE_CHECKING:
    from clipsearch.images.codecs.box import Box
    from clipsearch.images.files import ImageFile
    from clipsearch.models.logits import Logits
    from clipsearch.search.confidence import NegativePrompts
    from clipsearch.search.encoders import EmbeddedImage

_VECTORS = 1024
"""Number of vectors of texts, and of pictures, that are kept: a few megabytes."""

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


class Recent(Generic[Key, Value]):
    """The most recently used values by their keys, up to a total weight. Threads may share it."""

    def __init__(self, most: int, weigh: Callable[[Value], int] = lambda _: 1) -> None:
        """Keep values as long as the sum of what `weigh` returns for them is at most `most`."""
        self._most, self._weigh = most, weigh
        self._values: OrderedDict[Key, Value] = OrderedDict()
        self._total = 0
        self._changing = threading.Lock()

    def get(self, key: Key) -> Value | None:
        """Return a value, which is now the most recently used; None if it is not there (any more)."""
        with self._changing:
            if key in self._values:
                self._values.move_to_end(key)
            return self._values.get(key)

    def put(self, key: Key, value: Value) -> None:
        """Keep a value, and forget the least recently used ones if the sum becomes too large."""
        with self._changing:
            if key in self._values:
                self._total -= self._weigh(self._values.pop(key))
            self._values[key] = value
            self._total += self._weigh(value)
            while self._total > self._most and len(self._values) > 1:
                self._total -= self._weigh(self._values.popitem(last=False)[1])


class RememberingEncoders:
    """A model that embeds each recent text and picture once: a filter or a slider asks the same query many times."""

    def __init__(self, encoders: Encoders) -> None:
        self._encoders = encoders
        self._texts: Recent[str, Vectors] = Recent(_VECTORS)
        self._pictures: Recent[tuple[bytes, Box | None], Vectors] = Recent(_VECTORS)
        self._negatives: NegativePrompts | None = None

    @property
    def name(self) -> str:
        """The name of the model."""
        return self._encoders.name

    @property
    def logits(self) -> Logits:
        """The logits of the model."""
        return self._encoders.logits

    def embed_texts(self, texts: list[str]) -> Vectors:
        """Embed Q texts as (Q, D) unit vectors; those that are known are not embedded again."""
        known = {text: self._texts.get(text) for text in texts}
        missing = [text for text, vector in known.items() if vector is None]
        if missing:
            for text, vector in zip(missing, self._encoders.embed_texts(missing), strict=True):
                known[text] = vector
                self._texts.put(text, vector)
        return np.stack([vector for text in texts if (vector := known[text]) is not None])

    def image(self, content: bytes, name: bytes, box: Box | None = None) -> Vectors:
        """Embed an image, or its part in `box`, as a (D,) unit vector."""
        key = digest(content), box
        vector = self._pictures.get(key)
        if vector is None:
            vector = self._encoders.image(content, name, box)
            self._pictures.put(key, vector)
        return vector

    def images(self, files: Sequence[ImageFile]) -> Generator[EmbeddedImage, None, None]:
        """Yield each file with its (D,) unit vector."""
        return self._encoders.images(files)

    def negatives(self) -> NegativePrompts:
        """Return the neutral prompts that texts are compared with."""
        if self._negatives is None:
            self._negatives = self._encoders.negatives()
        return self._negatives

    def neutral(self) -> Vectors:
        """Return the (V, D) vectors of texts that fit any image."""
        return self._encoders.neutral()


@dataclass(frozen=True)
class Served:
    """One index that a server offers."""

    name: str
    """What it is called in the API: the name of the folder that it lies in."""
    index: Index
    base: bytes
    """The absolute folder that it lies in, which relative folders and patterns of a request start from."""
    file: tuple[int, int] | None
    """Device and inode of its database: another one is another index in the same folder. They are not given to another
    file as long as this one is open."""
    before: int = 0
    """How many others were in this folder before, since the server started."""

    def version(self) -> int:
        """Return a number that changes with every commit; within a snapshot it is that of the snapshot.

        Raises:
            IndexMissingError: the index is gone.
        """
        return (self.before << 32) + self.index.store.version()


class Indexes:
    """The indexes of a server, by name. Use it as a context manager."""

    def __init__(self, folders: Iterable[Path], *, model: str | None = None, engine: str = "auto") -> None:
        """Open the indexes in these folders; `model` and `engine` are as for `api.open_at`.

        Raises:
            ClipsearchError: one is missing or damaged.
        """
        self._served: dict[str, Served] = {}
        self._replaced: list[Index] = []
        """Indexes that are not there any more, which requests under way may still read."""
        self._open = partial(open_at, model=model, engine=engine)
        self._changing = threading.Lock()
        try:
            for folder in dict.fromkeys(folder.absolute() for folder in folders):
                name = self._free_name(folder)
                self._served[name] = self._opened(name, folder)
        except BaseException:
            self.close()
            raise

    def _opened(self, name: str, folder: Path, before: int = 0) -> Served:
        file = _file_of(folder)  # looked at before, so that one that is replaced in between is opened again
        opened = self._open(folder)
        index = Index(opened.store, RememberingEncoders(opened.encoders), kept=KeptScores())
        return Served(name, index, bytes(folder.parent), file, before)

    def _current(self, served: Served) -> Served:
        """Return an index, opened again if another one was made in its place."""
        folder = served.index.store.folder
        found = _file_of(folder)
        if found is None:
            raise missing_index(folder)
        if found == served.file:
            return served
        with self._changing:
            known = self._served[served.name]
            if found != known.file:
                self._served[served.name] = self._opened(served.name, folder, known.before + 1)
                self._replaced.append(known.index)
            return self._served[served.name]

    def _free_name(self, folder: Path) -> str:
        name = folder.parent.name if folder.name.startswith(".") else folder.name
        name = "".join(letter if letter.isprintable() else "?" for letter in name) or "index"
        names = [name, *(f"{name}-{number}" for number in range(2, len(self._served) + 2))]
        return next(free for free in names if free not in self._served)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __iter__(self) -> Iterator[Served]:
        yield from map(self._current, list(self._served.values()))

    def close(self) -> None:
        """Close all indexes."""
        for index in (*self._replaced, *(one.index for one in self._served.values())):
            index.close()

    def named(self, name: str | None) -> Served:
        """Return the index of this name; the first one for None.

        Raises:
            InputError: there is none.
            ClipsearchError: it was deleted, or replaced by one that cannot be opened.
        """
        if name is None:
            return next(iter(self))
        if name not in self._served:
            raise InputError(f"There is no index {name!r}. There are: {', '.join(self._served)}.")
        return self._current(self._served[name])


def _file_of(folder: Path) -> tuple[int, int] | None:
    """Return device and inode of the database of an index; None if there is none."""
    try:
        status = (folder / DATABASE).stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino
