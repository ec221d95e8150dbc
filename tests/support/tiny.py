"""A small encoder that means something: equal pictures get equal vectors, different ones different ones.

It lets tests index pictures within milliseconds. Run as a program, it is `clipsearch index` without a model library:
`python tiny.py FOLDER PATH... [--regions|--no-regions]` updates the index in FOLDER, with a checkpoint after every
file.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any, Unpack
from unittest.mock import patch

import numpy as np
import numpy.typing as npt
from PIL import Image

from clipsearch.errors import ClipsearchError
from clipsearch.images.codecs.decoding import decode
from clipsearch.images.files import ImageFile
from clipsearch.images.regions import layout
from clipsearch.index import run, updating
from clipsearch.index.format import UPGRADES, ModelRecord
from clipsearch.index.models import LoadedModel
from clipsearch.index.summary import Summary
from clipsearch.index.writing import Writer
from clipsearch.models.logits import Logits
from clipsearch.search.confidence import NegativePrompts
from clipsearch.search.encoders import EmbeddedImage
from clipsearch.system.progress import Progress

Edges = tuple[int, int, int, int]
Pixels = npt.NDArray[np.uint8] | Sequence[npt.NDArray[np.uint8]]

_SIDE = 4
MODEL = ModelRecord("tiny", None, "7" * 32, _SIDE * _SIDE * 3)
_ADDED = re.findall(r"ALTER TABLE (\w+) ADD COLUMN (\w+)", UPGRADES[2])
WITHOUT_FORMAT_3 = ";".join(
    [
        *(f"ALTER TABLE {table} DROP COLUMN {column}" for table, column in _ADDED),
        "DROP TABLE folders",
        "UPDATE meta SET value = '2' WHERE key = 'format'",
    ]
)
"""SQL that makes an index what format 2 had."""


class TinyPreprocessing:
    """The picture reduced to 4 x 4 pixels."""

    enough = None
    side = _SIDE

    def __call__(self, image: Image.Image, box: object = None) -> npt.NDArray[np.uint8]:
        """(4, 4, 3) pixels; nothing was decoded smaller, so `box` is the whole picture."""
        assert box in (None, (0, 0, *image.size))
        return np.asarray(image.resize((_SIDE, _SIDE), Image.Resampling.BOX))


class TinyEncoder:
    """The reduced picture less its mean."""

    preprocessing = TinyPreprocessing()
    calls = 2

    def __init__(self, batch_size: int = 8) -> None:
        self.batch_size = batch_size
        self.embedded = 0
        """Pictures so far."""

    is_loading = False

    def divide_cores(self) -> None:
        """Its work needs none."""

    def encode_images(self, pixels: Pixels) -> npt.NDArray[np.float32]:
        """(B, 48) unit vectors."""
        self.embedded += len(pixels)
        # Never zero, whatever the picture.
        vectors = np.stack(list(pixels)).reshape(len(pixels), -1).astype(np.float32) - 127.5
        return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True))


class NoEncoders:
    """A model that is asked for nothing; what a test asks it for, it overrides."""

    name = "none"
    logits = Logits(1.0)

    def embed_texts(self, texts: list[str]) -> npt.NDArray[np.float32]:
        raise AssertionError(texts)

    def image(self, content: bytes, name: bytes, box: object = None) -> npt.NDArray[np.float32]:
        raise AssertionError((name, box, content[:8]))

    def images(self, files: Sequence[ImageFile]) -> Generator[EmbeddedImage, None, None]:
        raise AssertionError(files)

    def negatives(self) -> NegativePrompts:
        raise AssertionError

    def neutral(self) -> npt.NDArray[np.float32]:
        raise AssertionError


class FixedEncoders(NoEncoders):
    """What answers every text with one vector, (1, D), and takes nothing for neutral."""

    def __init__(self, vector: npt.NDArray[np.float32]) -> None:
        self._vector = vector

    def embed_texts(self, texts: list[str]) -> npt.NDArray[np.float32]:
        return np.repeat(self._vector, len(texts), axis=0)

    def negatives(self) -> NegativePrompts:
        return NegativePrompts(np.zeros_like(self._vector), 1, Logits(1.0))

    def neutral(self) -> npt.NDArray[np.float32]:
        return np.zeros_like(self._vector)


class Watcher(Progress):
    """Progress that is remembered."""

    def __init__(self) -> None:
        self.total = 0
        self.done = 0
        self.unreadable = 0
        self.known = 0

    def start(self, total: int) -> None:
        self.total = total

    def advance(self, files: int, unreadable: int = 0, known: int = 0) -> None:
        self.done += files
        self.unreadable += unreadable
        self.known += known


def update(
    folder: Path,
    *paths: Path,
    encoder: TinyEncoder | None = None,
    progress: Progress | None = None,
    **options: Unpack[updating.UpdateOptions],
) -> Summary:
    """Index `paths` into `folder` with the small encoder."""
    return updating.update(
        folder,
        list(paths),
        LoadedModel(encoder or TinyEncoder(), MODEL),
        progress=progress or Watcher(),
        **options,
    )


def expected(path: bytes) -> npt.NDArray[np.float16]:
    """The vector that the index must hold for a picture."""
    with open(path, "rb") as file:
        pixels = TinyEncoder.preprocessing(decode(file.read()).image)
    return np.asarray(TinyEncoder().encode_images(pixels[np.newaxis])[0].astype(np.float16))


def expected_regions(path: bytes) -> dict[Edges, npt.NDArray[np.float16]]:
    """The vector that an index with regions must hold for each region of a picture, in their order."""
    with open(path, "rb") as file:
        decoded = decode(file.read())
    boxes = layout(decoded.width, decoded.height, _SIDE)
    return {
        box.in_pixels(decoded.width, decoded.height): np.asarray(
            TinyEncoder().encode_images(TinyEncoder.preprocessing(decoded.part(box))[np.newaxis])[0].astype(np.float16)
        )
        for box in boxes
    }


def _set_last_run(writer: Writer, about: dict[str, Any]) -> None:
    """Record a run as if it had taken no time, so that two that do the same leave the same bytes."""
    _SET_LAST_RUN(writer, about | {"ended_at": "2026-01-01T00:00:00+00:00", "seconds": 0.0})


_SET_LAST_RUN = Writer.set_last_run


def main() -> int:
    """Index, as the command line does it."""
    run.CHECKPOINT_SECONDS = float(os.environ.get("TINY_CHECKPOINT_SECONDS", "0"))
    regions = {"--regions": True, "--no-regions": False}.get(sys.argv[-1])
    folder, *paths = map(Path, sys.argv[1:] if regions is None else sys.argv[1:-1])
    try:
        with patch.object(Writer, "set_last_run", _set_last_run):
            summary = update(folder, *paths, encoder=TinyEncoder(batch_size=2), regions=regions)
    except ClipsearchError as error:
        print(error, file=sys.stderr)  # noqa: T201
        return 2
    print(summary)  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main())
